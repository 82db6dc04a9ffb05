//! The cart, and paying for it.
//! Invariant: the page of the checkout carries the key of its order, so that pressing twice, going back, or repeating
//! at another instance makes one order; and the sum that was seen, so that no other one is charged. Whoever sends an
//! `Idempotency-Key` goes by that.

use askama::Template;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use kvstore_client::Freshness;
use payment_client::{Currency, Money};
use service::problem::{self, Problem};
use zeroize::Zeroizing;

use super::{
    Form, Frame, Page, Read, Shared, Visit, again, money, render, see_again, sign_in_first, stock_text,
};
use crate::domain::UserId;
use crate::http::Result;
use crate::shop::{Card, CartChange, Ended, QUANTITY_MAX, Shop, Wanted, Wish};
use crate::store::Once;

#[derive(Template)]
#[template(path = "cart.html")]
struct Cart {
    frame: Frame,
    error: Option<String>,
    /// What is gone from the shelves and must be taken out of the cart.
    gone: Vec<String>,
    paying: bool,
    is_open: bool,
    lines: Vec<LineView>,
    total: String,
    total_literal: String,
    key: String,
}

struct LineView {
    id: String,
    is_gone: bool,
    name: String,
    price: String,
    quantity: i64,
    subtotal: String,
    stock_text: String,
}

impl LineView {
    fn gone(id: &str, name: String, quantity: i64) -> Self {
        Self {
            id: id.to_owned(),
            is_gone: true,
            name,
            price: "–".to_owned(),
            quantity,
            subtotal: "–".to_owned(),
            stock_text: "no longer here".to_owned(),
        }
    }
}

async fn page(
    shop: &Shop,
    frame: Frame,
    user: &UserId,
    paying: Option<String>,
    refused: Option<&Problem>,
) -> Result<Response> {
    let (cart, shelf) = tokio::join!(
        shop.found_cart(user),
        shop.catalogue.shelf(Freshness::Linearizable)
    );
    let (cart, shelf) = (cart?.record, shelf?);
    let (mut lines, mut gone) = (Vec::new(), Vec::new());
    let mut total_minor = 0_i64;
    for (id, quantity) in &cart.items {
        let Some(good) = shelf.get(id) else {
            gone.push(cart.name(id));
            lines.push(LineView::gone(id, cart.name(id), *quantity));
            continue;
        };
        let each = good.product.price_minor;
        let subtotal = each.saturating_mul(*quantity);
        total_minor = total_minor.saturating_add(subtotal);
        lines.push(LineView {
            id: id.clone(),
            is_gone: false,
            name: good.product.name.clone(),
            price: money(each, shop.currency),
            quantity: *quantity,
            subtotal: money(subtotal, shop.currency),
            stock_text: stock_text(good.stock),
        });
    }
    let page = Cart {
        frame,
        error: refused.map(error_of),
        gone,
        paying: paying.is_some(),
        is_open: shop.is_open(),
        lines,
        total: money(total_minor, shop.currency),
        total_literal: Money::new(total_minor, shop.currency).to_string(),
        key: paying.unwrap_or_default(),
    };
    Ok(render(refused, &page))
}

/// The problem in a sentence, with what there is too little of.
fn error_of(problem: &Problem) -> String {
    let mut text = problem.detail.clone();
    let lines = problem.extra.get("lines").and_then(serde_json::Value::as_array);
    for line in lines.into_iter().flatten() {
        if let (Some(name), Some(available)) = (line["name"].as_str(), line["available"].as_i64()) {
            text = format!("{text} {name}: {}.", stock_text(available));
        }
    }
    for fault in &problem.errors {
        text = format!("{text} It {}.", fault.detail);
    }
    if let Some(code) = problem
        .extra
        .get("decline_code")
        .and_then(serde_json::Value::as_str)
    {
        text = format!("{text} ({code})");
    }
    text
}

/// Who shops, or the way to signing in.
fn shopper(visit: &Visit, next: &str) -> std::result::Result<UserId, Box<Response>> {
    visit.user.clone().ok_or_else(|| Box::new(sign_in_first(next)))
}

/// `GET /shop/cart`
pub(super) async fn show(State(app): State<Shared>, headers: HeaderMap) -> Page {
    let shop = app.shop()?;
    let visit = app.visit(shop, &Method::GET, &headers).await?;
    match shopper(&visit, "/shop/cart") {
        Ok(user) => Ok(page(shop, visit.frame, &user, None, None).await?),
        Err(sign_in) => Ok(*sign_in),
    }
}

/// What a form asks for.
pub(super) fn change_of(action: &str, product: String, quantity: i64) -> Result<CartChange> {
    let least = i64::from(action == "add");
    if !(least..=QUANTITY_MAX).contains(&quantity) {
        let detail = format!("A quantity is a whole number from {least} to {QUANTITY_MAX}.");
        return Err(Problem::new(problem::INVALID_REQUEST, detail));
    }
    Ok(match action {
        "add" => CartChange::Add { product, quantity },
        "remove" => CartChange::Remove { product },
        _ => CartChange::Set { product, quantity },
    })
}

/// `POST /shop/cart`
pub(super) async fn change(State(app): State<Shared>, request: Request) -> Page {
    let (shop, read) = (app.shop()?, app.form(request).await?);
    let visit = app.visit(shop, &Method::POST, &read.parts.headers).await?;
    let user = match shopper(&visit, "/") {
        Ok(user) => user,
        Err(sign_in) => return Ok(*sign_in),
    };
    let form = Form::of(&read);
    let (action, product) = (form.text("action")?, form.text("product")?);
    let change = match change_of(&action, product, form.whole("quantity", 1)?) {
        Ok(change) => change,
        Err(refused) => return Ok(page(shop, visit.frame, &user, None, Some(&refused)).await?),
    };
    let once = read.once(shop, &visit.caller, Some(user.as_str()))?;
    match shop.change_cart(&user, &change, once.as_ref()).await {
        Ok(reply) => Ok(see_again("/shop/cart", reply.replayed)),
        Err(refused) if refused.kind.status < 500 => {
            Ok(page(shop, visit.frame, &user, None, Some(&refused)).await?)
        }
        Err(problem) => Err(problem.into()),
    }
}

/// `GET /shop/checkout`
pub(super) async fn checkout(State(app): State<Shared>, headers: HeaderMap) -> Page {
    let shop = app.shop()?;
    let visit = app.visit(shop, &Method::GET, &headers).await?;
    match shopper(&visit, "/shop/checkout") {
        Ok(user) => Ok(page(shop, visit.frame, &user, Some(new_key()), None).await?),
        Err(sign_in) => Ok(*sign_in),
    }
}

fn new_key() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes to give");
    crate::domain::hex(&bytes)
}

/// The form of the checkout.
pub(super) struct Paying {
    key: String,
    number: Zeroizing<String>,
    /// The sum that was seen, if it can be read.
    total_minor: Option<i64>,
}

pub(super) fn read_paying(form: &Form<'_>, currency: Currency) -> Result<Paying> {
    let key = form.text("key")?;
    if key.is_empty() {
        // The gateway repeats this form at another instance when one dies, and does so because of its key.
        let detail = "The form of the checkout carries the key of its order.";
        return Err(Problem::new(problem::INVALID_REQUEST, detail));
    }
    let number = Zeroizing::new(form.text("cardNumber")?);
    let total = Money::of_literal(&form.text("expectedTotal")?, currency);
    Ok(Paying {
        key,
        number,
        total_minor: total.ok().map(|total| total.minor),
    })
}

/// A key that was sent with the form, as on other routes: the page's is a part of the body then, so that another page
/// under the same key is another request. Without one it is the page's.
fn once_of(shop: &Shop, visit: &Visit, user: &UserId, read: &Read, key: &str) -> Result<Once> {
    if let Some(once) = read.once(shop, &visit.caller, Some(user.as_str()))? {
        return Ok(once);
    }
    // The key is one of ours and random, so strangers need not be told apart; and another gateway may send it again.
    let owner = visit.caller.owner().unwrap_or_else(|| "nobody".to_owned());
    let owner = format!("page {owner}");
    let parts: [&[u8]; 2] = [user.as_str().as_bytes(), &read.body];
    Ok(Once::new(&shop.secret, &owner, key.as_bytes(), &parts))
}

/// `POST /shop/checkout`
pub(super) async fn pay(State(app): State<Shared>, request: Request) -> Page {
    let (shop, read) = (app.shop()?, app.form(request).await?);
    let visit = app.visit(shop, &Method::POST, &read.parts.headers).await?;
    let user = match shopper(&visit, "/shop/checkout") {
        Ok(user) => user,
        Err(sign_in) => return Ok(*sign_in),
    };
    let Paying {
        key,
        number,
        total_minor,
    } = read_paying(&Form::of(&read), shop.currency)?;
    let once = Some(once_of(shop, &visit, &user, &read, &key)?);
    let wish = Wish {
        user: user.clone(),
        wanted: Wanted::Cart,
        card: Some(Card::Number(number)),
        total_minor,
        once,
    };
    match shop.order(wish, true).await {
        Ok(checkout) if Ended::of(checkout.found.record.status) == Ended::Declined => {
            let code = checkout.found.record.decline.unwrap_or_default();
            let declined = Problem::new(
                problem::CARD_DECLINED,
                "The card was declined and nothing was charged. Try another one.",
            );
            let declined = declined.extra("decline_code", code);
            // Another try is another order, with a key of its own.
            let page = page(shop, visit.frame, &user, Some(new_key()), Some(&declined)).await?;
            Ok(again(page, checkout.replayed))
        }
        Ok(checkout) => {
            let place = format!("/shop/orders/{}", checkout.found.id);
            Ok(see_again(&place, checkout.replayed))
        }
        Err(refused) if refused.kind.status < 500 => {
            Ok(page(shop, visit.frame, &user, Some(new_key()), Some(&refused)).await?)
        }
        Err(problem) => Err(problem.into()),
    }
}
