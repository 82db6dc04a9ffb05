//! Signing up, in and out.
//! Invariant: which of name and password was wrong is not told; the token is told once, to whoever signed in.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use service::fields::Fields;
use service::problem::{self, Problem};
use zeroize::Zeroizing;

use super::caller::{Caller, check_origin, cookie, session_token};
use super::reading::json;
use super::{Result, Shared};
use crate::domain::Username;
use crate::shop::{NewUser, views};

const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=256;

fn password(fields: &mut Fields) -> Zeroizing<String> {
    Zeroizing::new(fields.text("password").unwrap_or_default())
}

/// A name and a password that an account can have, or what is wrong with them.
pub(super) fn checked_new_user(shown: &str, password: Zeroizing<String>) -> Result<NewUser> {
    let mut refused = Problem::new(
        problem::INVALID_REQUEST,
        "An account cannot have this name or this password.",
    );
    let name = Username::parse(shown);
    if let Err(fault) = &name {
        refused = refused.fault("/username", fault.to_string());
    }
    if !PASSWORD_BYTES.contains(&password.len()) {
        refused = refused.fault("/password", "must be 8 to 256 bytes long");
    }
    match name {
        Ok(name) if refused.errors.is_empty() => Ok(NewUser {
            name,
            shown: shown.to_owned(),
            password,
        }),
        _ => Err(refused),
    }
}

/// `POST /users`
pub(super) async fn sign_up(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (shop, read) = (app.shop()?, app.read(request).await?);
    let caller = app.caller(&read.parts.method, &read.parts.headers).await?;
    let mut fields = read.fields()?;
    let shown = fields.text("username");
    let password = password(&mut fields);
    let typed = fields.has("password");
    if let (Some(shown), true) = (&shown, typed)
        && let Err(faults) = checked_new_user(shown, password.clone())
    {
        for fault in faults.errors {
            fields.fault(fault.pointer.trim_start_matches('/'), fault.detail);
        }
    }
    fields.finish()?;
    let new = checked_new_user(&shown.unwrap_or_default(), password)?;
    let once = read.once(shop, &caller, Some(new.name.as_str()))?;
    Ok(shop.sign_up(new, once.as_ref()).await?.into_answer())
}

/// `POST /login`
pub(super) async fn sign_in(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (shop, read) = (app.shop()?, app.read(request).await?);
    check_origin(&read.parts.headers)?;
    let mut fields = read.fields()?;
    let username = fields.text("username");
    let password = password(&mut fields);
    fields.finish()?;
    let name = username.as_deref().and_then(|name| Username::typed(name).ok());
    let account = shop.check_password(name, password).await?;
    let session = shop.begin_session(account).await?;
    let body = json!({
        "token": session.token,
        "user_id": session.record.user,
        "username": session.record.username,
        "admin": session.record.admin,
        "expires": views::time(session.record.expires_ms),
    });
    let mut response = json(StatusCode::OK, &body);
    let cookie = cookie(&session.token, app.config.session_s, app.config.secure_cookies);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// `POST /logout`: this session, or with `{"everywhere": true}` all of this user.
pub(super) async fn sign_out(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (shop, read) = (app.shop()?, app.read(request).await?);
    let mut fields = read.fields()?;
    let everywhere: Option<bool> = fields.optional("everywhere", "true or false");
    fields.finish()?;
    let caller = app.caller(&read.parts.method, &read.parts.headers).await?;
    let token = session_token(&read.parts.headers, app.config.secure_cookies);
    if let (Caller::User(session), Some((token, _))) = (&caller, token) {
        if everywhere == Some(true) {
            shop.end_all_sessions(&session.user).await?;
        }
        shop.end_session(token).await?;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let cookie = cookie("", 0, app.config.secure_cookies);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// `GET /me`
pub(super) async fn me(State(app): State<Shared>, headers: HeaderMap) -> Result<Response> {
    match app.caller(&axum::http::Method::GET, &headers).await? {
        Caller::User(session) => {
            let body = json!({
                "user_id": session.user,
                "username": session.username,
                "admin": session.admin,
                "expires": views::time(session.expires_ms),
            });
            Ok(json(StatusCode::OK, &body))
        }
        Caller::Operator => Ok(json(
            StatusCode::OK,
            &json!({"user_id": null, "username": "operator", "admin": true}),
        )),
        Caller::Nobody => Err(service::bearer::unauthorized("Nobody is signed in.")),
    }
}
