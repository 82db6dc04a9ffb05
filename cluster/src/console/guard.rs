//! Who may look at the console, and who may press its buttons.
//! Invariant: on loopback only requests that name this machine by its local names are answered; anywhere else
//! only those with the root token; changes come only from the page itself, wherever it listens.
//! It must not know the routes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use service::browser;
use service::problem::{self, Problem, Result};
use service::secrets::Secret;

use super::Console;

pub(super) struct Guard {
    loopback: bool,
    root: Secret,
}

impl Guard {
    pub(super) fn new(loopback: bool, root: Secret) -> Self {
        Self { loopback, root }
    }

    fn check(&self, request: &Request) -> Result<()> {
        let headers = request.headers();
        if self.loopback {
            browser::check_local_host(headers)?;
        } else {
            self.check_token(headers)?;
        }
        if request.method().is_safe() {
            return Ok(());
        }
        browser::check_own_origin(headers)
    }

    /// As a bearer token, or as the password that a browser asks for.
    fn check_token(&self, headers: &HeaderMap) -> Result<()> {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|given| given.to_str().ok());
        let token = given.and_then(|given| match given.split_once(' ')? {
            ("Bearer", token) => Some(token.to_owned()),
            ("Basic", pair) => {
                let pair = String::from_utf8(BASE64.decode(pair).ok()?).ok()?;
                pair.split_once(':').map(|(_, password)| password.to_owned())
            }
            _ => None,
        });
        if token.is_some_and(|token| self.root.matches(&token)) {
            return Ok(());
        }
        let detail = "This console can be reached from other machines, so it asks for the root token as the password: `menagerie token` prints it.";
        Err(Problem::new(problem::UNAUTHORIZED, detail).header(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"menagerie\", charset=\"UTF-8\""),
        ))
    }
}

pub(super) async fn check(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    let mut response = match console.guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    browser::protect(response.headers_mut());
    response
}
