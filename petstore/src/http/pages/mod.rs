//! The shop's web pages: laid out here, complete without scripts, and kept live by one small module.
//! Invariant: templates escape everything; changes are forms that come from our own pages; what a page cannot do is
//! said on a page. They ask the same use cases as the other routes, and know no more than those. A browser sends forms
//! without an `Idempotency-Key`; whoever else sends one with a key has it done once, as on those routes.

mod account;
mod admin;
#[cfg(test)]
mod bent;
mod cart;
mod goods;
mod orders;

use askama::Template;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use kvstore_client::Freshness;
use payment_client::Currency;
use payment_client::Money;
use service::browser;
use service::idempotency::REPLAYED;
use service::problem::{self, Problem};
use service::query::Query;

use super::caller::{Caller, check_origin};
use super::state::{App, Read};
use super::{Result, Shared};
use crate::domain::UserId;
use crate::shop::{Good, Shop, views};

const STYLE: &str = include_str!("../../../templates/shop.css");
const SCRIPT: &str = include_str!("../../../templates/shop.js");
/// Who shops where nobody need sign in.
const GUEST: &str = "guest";

pub(super) fn routes() -> Vec<(&'static str, MethodRouter<Shared>)> {
    vec![
        ("/", get(goods::catalogue)),
        ("/shop/product/{id}", get(goods::product)),
        ("/shop/cart", get(cart::show).post(cart::change)),
        ("/shop/checkout", get(cart::checkout).post(cart::pay)),
        ("/shop/orders", get(orders::list)),
        ("/shop/orders/{order}", get(orders::show)),
        ("/shop/orders/{order}/cancel", post(orders::cancel)),
        ("/shop/sign-in", get(account::sign_in_form).post(account::sign_in)),
        ("/shop/sign-up", get(account::sign_up_form).post(account::sign_up)),
        ("/shop/sign-out", post(account::sign_out)),
        ("/shop/admin", get(admin::show).post(admin::change)),
        ("/shop.css", get(async || asset("text/css; charset=utf-8", STYLE))),
        (
            "/shop.js",
            get(async || asset("text/javascript; charset=utf-8", SCRIPT)),
        ),
    ]
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    let mut response = ([(header::CONTENT_TYPE, content_type)], text).into_response();
    let cached = HeaderValue::from_static("max-age=60");
    response.headers_mut().insert(header::CACHE_CONTROL, cached);
    browser::protect(response.headers_mut());
    response
}

/// What every page shows around its own.
pub(super) struct Frame {
    username: Option<String>,
    is_admin: bool,
    cart_count: i64,
    served_by: String,
    leader: Option<String>,
    /// Where the page follows what changes from the state it was laid out in.
    events: String,
}

/// A visitor of a page: who, and what the page around may show.
pub(super) struct Visit {
    pub(super) caller: Caller,
    /// `None` where one has to sign in first.
    pub(super) user: Option<UserId>,
    pub(super) frame: Frame,
}

impl App {
    async fn visit(&self, shop: &Shop, method: &Method, headers: &HeaderMap) -> Result<Visit> {
        let caller = self.caller(method, headers).await?;
        let user = match caller.user() {
            None if shop.is_open() => UserId::parse(GUEST).ok(),
            user => user,
        };
        // Read first, so that nothing that comes after what is shown is missed.
        let revision = shop.catalogue.shelf(Freshness::Linearizable).await?.revision;
        let cart = match &user {
            Some(user) => shop.found_cart(user).await?.record,
            None => crate::store::CartRecord::default(),
        };
        let mut events = format!("/events?since={revision}");
        let username = match &caller {
            Caller::User(session) => Some(session.username.clone()),
            Caller::Operator => Some("operator".to_owned()),
            Caller::Nobody => {
                if let Some(user) = &user {
                    events = format!("{events}&userId={user}");
                }
                None
            }
        };
        let frame = Frame {
            username,
            is_admin: self.must_be_admin(&caller).is_ok(),
            cart_count: cart.items.iter().map(|(_, quantity)| quantity).sum(),
            served_by: self.name.clone(),
            leader: shop.leader().await,
            events,
        };
        Ok(Visit { caller, user, frame })
    }

    /// A form that was sent, by a page of ours and nobody else's.
    async fn form(&self, request: Request) -> Result<Read> {
        let read = self.read(request).await?;
        check_origin(&read.parts.headers)?;
        let kind = read.parts.headers.get(header::CONTENT_TYPE);
        let kind = kind.map_or(&b""[..], HeaderValue::as_bytes);
        if kind.starts_with(b"application/x-www-form-urlencoded") && std::str::from_utf8(&read.body).is_ok() {
            return Ok(read);
        }
        Err(Problem::new(
            problem::UNSUPPORTED_MEDIA_TYPE,
            "This is for the forms of the shop's pages.",
        ))
    }
}

/// The fields of a form.
struct Form<'r>(Query<'r>);

impl<'r> Form<'r> {
    fn of(read: &'r Read) -> Self {
        Self(Query::of_form(
            std::str::from_utf8(&read.body).unwrap_or_default(),
        ))
    }

    /// Empty where it is missing, as browsers send empty fields.
    fn text(&self, name: &str) -> Result<String> {
        Ok(self.0.text(name)?.unwrap_or_default().into_owned())
    }

    fn whole(&self, name: &str, default: i64) -> Result<i64> {
        let text = self.text(name)?;
        if text.is_empty() {
            return Ok(default);
        }
        text.parse().map_err(|_unreadable| {
            Problem::new(
                problem::INVALID_REQUEST,
                format!("`{name}` must be a whole number."),
            )
        })
    }
}

/// Goods as pages show them.
struct Card {
    id: String,
    name: String,
    species: String,
    category: String,
    description: String,
    image: String,
    price: String,
    price_literal: String,
    stock: i64,
    stock_text: String,
    tag: u64,
}

impl Card {
    fn of(good: &Good, currency: Currency) -> Self {
        let product = &good.product;
        Self {
            id: good.id.clone(),
            name: product.name.clone(),
            species: product.species.clone(),
            category: product.category.clone(),
            description: product.description.clone(),
            image: views::image(product),
            price: money(product.price_minor, currency),
            price_literal: Money::new(product.price_minor, currency).to_string(),
            stock: good.stock,
            stock_text: stock_text(good.stock),
            tag: good.tag(),
        }
    }
}

fn stock_text(stock: i64) -> String {
    if stock > 0 {
        format!("{stock} left")
    } else {
        "sold out".to_owned()
    }
}

fn money(minor: i64, currency: Currency) -> String {
    format!("{} {currency}", Money::new(minor, currency))
}

/// The page with the headers that pages owe to browsers, and those of what was refused, if anything was.
fn render(refused: Option<&Problem>, page: &impl Template) -> Response {
    let html = match page.render() {
        Ok(html) => html,
        Err(error) => return Problem::internal("lay out a page", error).into_response(),
    };
    let status = refused.map_or(StatusCode::OK, Problem::status);
    let mut response = (status, Html(html)).into_response();
    let headers = response.headers_mut();
    headers.extend(refused.map(Problem::head).unwrap_or_default());
    browser::protect(headers);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// After a form: to a page that can be loaded again.
fn see(place: &str) -> Response {
    let location = HeaderValue::try_from(place).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

/// The same after a form that may have come before, with the same key.
fn see_again(place: &str, replayed: bool) -> Response {
    again(see(place), replayed)
}

fn again(mut response: Response, replayed: bool) -> Response {
    if replayed {
        let headers = response.headers_mut();
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// To signing in, and from there back to where one wanted to go.
fn sign_in_first(next: &str) -> Response {
    let next = crate::domain::segment(next);
    see(&format!("/shop/sign-in?next={next}"))
}

/// Only places of this shop, so that nobody is led away after signing in.
fn own_place(next: &str) -> &str {
    // Browsers take a backslash for a slash, and leave out tabs and ends of lines before they look.
    let bent = |character: char| character == '\\' || character.is_control();
    let own = next.starts_with('/') && !next.starts_with("//") && !next.contains(bent);
    if own { next } else { "/" }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    title: &'static str,
    detail: String,
}

/// A refusal, as a page.
struct Failed(Problem);

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let page = ErrorPage {
            title: self.0.kind.title,
            detail: self.0.detail.clone(),
        };
        render(Some(&self.0), &page)
    }
}

type Page = std::result::Result<Response, Failed>;

/// Each fault as a sentence.
fn told(problem: &Problem) -> Vec<String> {
    let faults = problem.errors.iter();
    faults
        .map(|fault| format!("{} {}", fault.pointer.trim_start_matches('/'), fault.detail))
        .collect()
}

/// A moment as people read it.
fn minute(ms: u64) -> String {
    let time = views::time(ms);
    time.chars().take(16).collect::<String>().replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_in_its_head_what_a_problem_says() {
        let told = |problem: Problem| {
            let (bare, page) = (problem.clone().into_response(), Failed(problem).into_response());
            assert_eq!(page.status(), bare.status());
            [header::RETRY_AFTER, header::WWW_AUTHENTICATE, header::ETAG].map(|name| {
                let value = page.headers().get(&name);
                assert_eq!(value, bare.headers().get(&name), "{name}");
                value.map_or("", |value| value.to_str().unwrap()).to_owned()
            })
        };
        let throttled = Problem::new(problem::TOO_MANY_REQUESTS, "Later.").retry_after_ms(2500);
        assert_eq!(told(throttled), ["3", "", ""]);
        assert_eq!(told(Problem::new(problem::NOT_READY, "Soon.")), ["1", "", ""]);
        let unknown = Problem::new(problem::INVALID_CREDENTIALS, "Who?");
        assert_eq!(told(unknown), ["", "Bearer", ""]);
        let changed = Problem::new(problem::PRECONDITION_FAILED, "Look again.");
        let changed = changed.header(header::ETAG, views::tag(7));
        assert_eq!(told(changed), ["", "", "\"7\""]);
    }

    #[test]
    fn nobody_is_led_away() {
        for own in ["/", "/shop/cart", "/shop/orders/1?x=//y"] {
            assert_eq!(own_place(own), own);
        }
        for foreign in [
            "",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "shop",
            "/\n/x",
            "/\t/evil.example",
            "/\r/evil.example",
            "/shop\u{1}",
            "/\u{85}/evil.example",
        ] {
            assert_eq!(own_place(foreign), "/");
        }
    }

    #[test]
    fn the_script_needs_no_exception_from_the_policy() {
        for (name, text) in [("shop.js", SCRIPT), ("shop.css", STYLE)] {
            for word in ["innerHTML", "eval(", "document.write", "http://", "https://"] {
                assert!(!text.contains(word), "{name} has {word}");
            }
        }
    }
}
