//! Keeping the shelves by forms.

use askama::Template;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use kvstore_client::Freshness;
use payment_client::{Currency, Money};
use service::config::ShopConfig;
use service::problem::{self, Problem};
use service::query::Query;
use service::time::now_ms;

use super::{Card, Form, Frame, Page, Shared, minute, render, see_again, sign_in_first, told};
use crate::domain::{Product, Texts, check_text};
use crate::http::Result;
use crate::http::caller::Caller;
use crate::shop::{Change, DeadLetter, NewProduct, Shop, StockChange};
use crate::store::{Once, Reply};

/// The texts of a product; only the first can be edited later.
pub(super) const NAMES: [(&str, Texts); 4] = [
    ("name", Texts::Name),
    ("species", Texts::Species),
    ("category", Texts::Category),
    ("description", Texts::Description),
];

/// So many products are on a page, each with forms of its own.
const ROWS: usize = 50;

/// Which page of the shelves: the first is 1. What is on it is as it is now, since it is to be edited.
#[derive(Clone, Copy)]
struct Part(usize);

impl Part {
    fn of(uri: &Uri) -> Result<Self> {
        let number = Query::of(uri).number("page")?.unwrap_or(1).max(1);
        Ok(Self(usize::try_from(number).unwrap_or(usize::MAX)))
    }

    fn address(self) -> String {
        match self.0 {
            1 => "/shop/admin".to_owned(),
            number => format!("/shop/admin?page={number}"),
        }
    }
}

#[derive(Template)]
#[template(path = "admin.html")]
struct Shelves {
    frame: Frame,
    /// Where this page is.
    here: String,
    before: Option<String>,
    next: Option<String>,
    /// On all pages.
    count: usize,
    error: Option<String>,
    faults: Vec<String>,
    cards: Vec<Card>,
    dead: Vec<DeadView>,
}

/// A letter of the checkout that nobody could do anything with.
struct DeadView {
    id: String,
    what: String,
    error: String,
    at: String,
}

impl From<DeadLetter> for DeadView {
    fn from(letter: DeadLetter) -> Self {
        Self {
            id: letter.id,
            what: match letter.to {
                Some(to) => format!("To the {to} {}", letter.home),
                None => "It cannot be read".to_owned(),
            },
            error: letter.error,
            at: minute(letter.at_ms),
        }
    }
}

async fn page(shop: &Shop, frame: Frame, part: Part, refused: Option<&Problem>) -> Result<Response> {
    let shelf = shop.catalogue.shelf(Freshness::Linearizable).await?;
    let count = shelf.goods.len();
    let last = count.div_ceil(ROWS).max(1);
    // The last of a page may have been taken off just now.
    let part = Part(part.0.min(last));
    let page = Shelves {
        frame,
        here: part.address(),
        before: (part.0 > 1).then(|| Part(part.0 - 1).address()),
        next: (part.0 < last).then(|| Part(part.0 + 1).address()),
        count,
        error: refused.map(|refused| refused.detail.clone()),
        faults: refused.map(told).unwrap_or_default(),
        cards: shelf
            .goods
            .iter()
            .skip((part.0 - 1) * ROWS)
            .take(ROWS)
            .map(|good| Card::of(good, shop.currency))
            .collect(),
        dead: shop
            .dead_letters()
            .await?
            .into_iter()
            .map(DeadView::from)
            .collect(),
    };
    Ok(render(refused, &page))
}

/// `GET /shop/admin`
pub(super) async fn show(State(app): State<Shared>, uri: Uri, headers: HeaderMap) -> Page {
    let shop = app.shop()?;
    let visit = app.visit(shop, &Method::GET, &headers).await?;
    if matches!(visit.caller, Caller::Nobody) && !shop.is_open() {
        return Ok(sign_in_first("/shop/admin"));
    }
    app.must_be_admin(&visit.caller)?;
    Ok(page(shop, visit.frame, Part::of(&uri)?, None).await?)
}

/// `POST /shop/admin`
pub(super) async fn change(State(app): State<Shared>, request: Request) -> Page {
    let (shop, read) = (app.shop()?, app.form(request).await?);
    let visit = app.visit(shop, &Method::POST, &read.parts.headers).await?;
    app.must_be_admin(&visit.caller)?;
    let part = Part::of(&read.parts.uri)?;
    let (form, once) = (Form::of(&read), read.once(shop, &visit.caller, None)?);
    let once = once.as_ref();
    let done = match form.text("action")?.as_str() {
        "create" => create(shop, &form, once).await,
        "change" => edit(shop, &form, once).await,
        "delete" => shop.remove(&form.text("id")?, None, once).await,
        "send-again" => shop.send_again(&form.text("id")?, once).await,
        _ => Err(Problem::new(
            problem::INVALID_REQUEST,
            "The form asks for nothing that is known.",
        )),
    };
    match done {
        Ok(reply) => Ok(see_again(&part.address(), reply.replayed)),
        Err(refused) if refused.kind.status < 500 => Ok(page(shop, visit.frame, part, Some(&refused)).await?),
        Err(problem) => Err(problem.into()),
    }
}

/// The fields of a product, with every fault at once.
pub(super) fn read_change(
    (config, currency): (&ShopConfig, Currency),
    form: &Form<'_>,
    names: &[(&str, Texts)],
) -> Result<Change> {
    let mut refused = Problem::new(
        problem::INVALID_REQUEST,
        "Something is not as it must be; nothing was changed.",
    );
    let mut change = Change::default();
    for (name, kind) in names {
        match check_text(&form.text(name)?, *kind) {
            Ok(text) => {
                let field = match kind {
                    Texts::Name => &mut change.name,
                    Texts::Species => &mut change.species,
                    Texts::Category => &mut change.category,
                    Texts::Description => &mut change.description,
                };
                *field = Some(text);
            }
            Err(fault) => refused = refused.fault(*name, fault.to_string()),
        }
    }
    match Money::of_literal(&form.text("price")?, currency) {
        Ok(price) if (1..=bound(config.price_minor_max)).contains(&price.minor) => {
            change.price_minor = Some(price.minor);
        }
        Ok(_) => refused = refused.fault("price", "is too little or too much"),
        Err(fault) => refused = refused.fault("price", fault.to_string()),
    }
    match form.whole("stock", 0) {
        Ok(stock) if (0..=bound(config.stock_max)).contains(&stock) => {
            change.stock = Some(StockChange::To(stock));
        }
        _ => refused = refused.fault("stock", "must be a whole number, and not too large"),
    }
    if refused.errors.is_empty() {
        Ok(change)
    } else {
        Err(refused)
    }
}

fn bound(max: u64) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

async fn create(shop: &Shop, form: &Form<'_>, once: Option<&Once>) -> Result<Reply> {
    let change = read_change((&shop.config, shop.currency), form, &NAMES)?;
    let new = NewProduct {
        product: Product {
            name: change.name.unwrap_or_default(),
            species: change.species.unwrap_or_default(),
            category: change.category.unwrap_or_default(),
            description: change.description.unwrap_or_default(),
            price_minor: change.price_minor.unwrap_or_default(),
            created_ms: now_ms(),
        },
        stock: change.stock.map_or(0, |stock| stock.after(0)),
    };
    shop.create(&new, false, once).await
}

/// Only if nobody sold or edited it since the page was laid out: the form sets the stock it shows.
async fn edit(shop: &Shop, form: &Form<'_>, once: Option<&Once>) -> Result<Reply> {
    let change = read_change((&shop.config, shop.currency), form, &NAMES[..1])?;
    let tag = format!("\"{}\"", form.text("tag")?);
    let done = shop.change(&form.text("id")?, &change, Some(&tag), once).await;
    done.map_err(|refused| {
        if refused.kind == problem::PRECONDITION_FAILED {
            let detail = "It was sold or edited since you saw it; here is how it is now.";
            Problem::new(problem::PRECONDITION_FAILED, detail)
        } else {
            refused
        }
    })
}
