//! Signing in, up and out by forms.

use askama::Template;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::response::Response;
use service::problem::Problem;
use service::query::Query;
use zeroize::Zeroizing;

use super::{Form, Frame, Page, Shared, own_place, render, see, told};
use crate::domain::Username;
use crate::http::Result;
use crate::http::caller::{cookie, session_token};
use crate::http::state::{App, Read};
use crate::http::users::checked_new_user;
use crate::shop::Shop;

#[derive(Template)]
#[template(path = "sign.html")]
struct Sign {
    frame: Frame,
    up: bool,
    username: String,
    next: String,
    /// Where the page is to be had once more.
    again: String,
    error: Option<String>,
    faults: Vec<String>,
}

fn place(up: bool, next: &str) -> String {
    let name = if up { "sign-up" } else { "sign-in" };
    format!("/shop/{name}?next={}", crate::domain::segment(next))
}

async fn form(app: &Shared, uri: &Uri, headers: &HeaderMap, up: bool) -> Page {
    let visit = app.visit(app.shop()?, &Method::GET, headers).await?;
    let next = Query::of(uri).text("next")?.unwrap_or_default();
    let next = own_place(&next);
    let page = Sign {
        frame: visit.frame,
        up,
        username: String::new(),
        next: next.to_owned(),
        again: place(up, next),
        error: None,
        faults: Vec::new(),
    };
    Ok(render(None, &page))
}

/// `GET /shop/sign-in`
pub(super) async fn sign_in_form(State(app): State<Shared>, uri: Uri, headers: HeaderMap) -> Page {
    form(&app, &uri, &headers, false).await
}

/// `GET /shop/sign-up`
pub(super) async fn sign_up_form(State(app): State<Shared>, uri: Uri, headers: HeaderMap) -> Page {
    form(&app, &uri, &headers, true).await
}

/// `POST /shop/sign-in`
pub(super) async fn sign_in(State(app): State<Shared>, request: Request) -> Page {
    signed(&app, request, false).await
}

/// `POST /shop/sign-up`: who has signed up is signed in.
pub(super) async fn sign_up(State(app): State<Shared>, request: Request) -> Page {
    signed(&app, request, true).await
}

async fn signed(app: &Shared, request: Request, up: bool) -> Page {
    let (shop, read) = (app.shop()?, app.form(request).await?);
    let form = Form::of(&read);
    let (username, next) = (form.text("username")?, form.text("next")?);
    let password = Zeroizing::new(form.text("password")?);
    match begin(app, shop, &read, (up, &username), password).await {
        Ok(cookie) => {
            let mut response = see(own_place(&next));
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            Ok(response)
        }
        Err(refused) if refused.kind.status < 500 => {
            Ok(refusal(app, shop, &read, (up, username, next), &refused).await?)
        }
        Err(problem) => Err(problem.into()),
    }
}

async fn begin(
    app: &App,
    shop: &Shop,
    read: &Read,
    (up, username): (bool, &str),
    password: Zeroizing<String>,
) -> Result<axum::http::HeaderValue> {
    if up {
        let new = checked_new_user(username, password.clone())?;
        let caller = app.caller(&Method::POST, &read.parts.headers).await?;
        let once = read.once(shop, &caller, Some(new.name.as_str()))?;
        shop.sign_up(new, once.as_ref()).await?;
    }
    let account = shop
        .check_password(Username::typed(username).ok(), password)
        .await?;
    let session = shop.begin_session(account).await?;
    Ok(cookie(
        &session.token,
        app.config.session_s,
        app.config.secure_cookies,
    ))
}

async fn refusal(
    app: &App,
    shop: &Shop,
    read: &Read,
    (up, username, next): (bool, String, String),
    refused: &Problem,
) -> Result<Response> {
    let visit = app.visit(shop, &Method::GET, &read.parts.headers).await?;
    let next = own_place(&next);
    let page = Sign {
        frame: visit.frame,
        up,
        username,
        next: next.to_owned(),
        again: place(up, next),
        error: Some(refused.detail.clone()),
        faults: told(refused),
    };
    Ok(render(Some(refused), &page))
}

/// `POST /shop/sign-out`
pub(super) async fn sign_out(State(app): State<Shared>, request: Request) -> Page {
    let (shop, read) = (app.shop()?, app.form(request).await?);
    if let Some((token, _)) = session_token(&read.parts.headers, app.config.secure_cookies) {
        shop.end_session(token).await?;
    }
    let mut response = see("/");
    let gone = cookie("", 0, app.config.secure_cookies);
    response.headers_mut().insert(header::SET_COOKIE, gone);
    Ok(response)
}
