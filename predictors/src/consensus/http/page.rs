//! The page on which one tries a flower and watches the stakes.
//! Invariant: it holds no secret; rounds are played only on a demo system, for this page or the oracle, one at a time,
//! and count as whoever asked for them, since anybody may say that they are this page.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use service::browser;
use service::fields::Fields;
use service::problem::{self, Problem, Result};

use super::Shared;
use super::predict::stranger;
use crate::consensus::once::Once;
use crate::consensus::play::Player;
use crate::consensus::room::Opener;

const SCRIPT: &str = include_str!("../../../templates/page.js");
const STYLE: &str = include_str!("../../../templates/page.css");
const ICON: &str = include_str!("../../../templates/icon.svg");

/// Of one request.
const ROUNDS_MAX: u64 = 100;

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    sliders: Vec<Slider<'a>>,
    demo: bool,
}

struct Slider<'a> {
    name: &'a str,
    title: &'a str,
    value: &'a str,
    max: &'a str,
}

/// What people call the features of the irises, where they begin and how far they go.
const IRISES: [(&str, &str, &str, &str); 4] = [
    ("sl", "Sepal length, cm", "5.8", "8.5"),
    ("sw", "Sepal width, cm", "3.0", "5"),
    ("pl", "Petal length, cm", "4.3", "7.5"),
    ("pw", "Petal width, cm", "1.3", "3"),
];

fn guarded(mut response: Response) -> Response {
    browser::protect(response.headers_mut());
    response
}

/// `GET /`
pub(super) async fn page(State(app): State<Shared>) -> Result<Response> {
    let sliders = app.shape.features.iter().map(|name| {
        let known = IRISES.iter().find(|(short, ..)| short == name);
        let (title, value, max) = known.map_or((name.as_str(), "1", "10"), |(_, title, value, max)| {
            (title, value, max)
        });
        Slider {
            name,
            title,
            value,
            max,
        }
    });
    let page = Page {
        sliders: sliders.collect(),
        demo: app.bank.config.demo,
    };
    let html = page
        .render()
        .map_err(|error| Problem::internal("lay out a page", error))?;
    let mut response = Html(html).into_response();
    let no_store = header::HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    Ok(guarded(response))
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    guarded((StatusCode::OK, headers, text).into_response())
}

/// `GET /page.js`
pub(super) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

/// `GET /page.css`
pub(super) async fn style() -> Response {
    asset("text/css; charset=utf-8", STYLE)
}

/// `GET /icon.svg`
pub(super) async fn icon() -> Response {
    asset("image/svg+xml", ICON)
}

/// `POST /play {rounds}`: rounds of known flowers.
pub(super) async fn play(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    if !app.bank.config.demo {
        let detail = "Rounds are played on a demo system only.";
        return Err(Problem::new(problem::FORBIDDEN, detail));
    }
    let (opener, owner) = if parts.headers.contains_key(header::AUTHORIZATION) {
        app.oracle(&parts.headers)?;
        (Opener::Known, "oracle".to_owned())
    } else {
        browser::check_own_origin(&parts.headers)?;
        stranger(&app, &parts)
    };
    let body = app.body(body).await?;
    let mut fields = Fields::read(&parts.headers, &body)?;
    let rounds: Option<u64> = fields.optional("rounds", "a number from 1 to 100");
    let rounds = rounds.unwrap_or(1);
    if !(1..=ROUNDS_MAX).contains(&rounds) {
        fields.fault("rounds", "must be a number from 1 to 100");
    }
    fields.finish()?;
    let asked = (&parts.method, &parts.uri, &parts.headers);
    let once = Once::of(&app.secrets, &owner, asked, &body)?;
    let Ok(alone) = Arc::clone(&app.playing).try_acquire_owned() else {
        let detail = "Rounds are being played already.";
        return Err(Problem::new(problem::OVERLOADED, detail));
    };
    let playing = Arc::clone(&app);
    // Whoever goes away in between does not leave a round open, nor lets another play beside it.
    let played = app.work.spawn("play", async move {
        let _alone = alone;
        let player = Player {
            bank: &playing.bank,
            asker: &playing.asker,
            settler: &playing.settler,
            shape: &playing.shape,
            secrets: &playing.secrets,
            opener: &opener,
            once: once.as_ref(),
        };
        player.play(rounds, &playing.work).await
    });
    let played = played.await;
    let played = played.map_err(|error| Problem::internal("play rounds", error))?;
    Ok(played?.into_answer())
}
