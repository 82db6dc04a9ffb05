//! Who is calling, and what they may do.
//! Invariant: a bearer token that is given is checked, also where none is needed; a change that comes with a cookie
//! must come from a page of this shop, as far as a browser says where it comes from. What belongs to a user is only
//! for that user and the admin, unless everybody is trusted.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use service::problem::{self, Problem, Result};
use service::{bearer, browser};

use super::state::App;
use crate::domain::{NameFault, UserId};
use crate::store::SessionRecord;

const COOKIE: &str = "ps";
/// A browser takes it only over TLS, for this very host and all of its paths.
const SECURE_COOKIE: &str = "__Host-ps";

#[derive(Clone, Debug)]
pub(super) enum Caller {
    Nobody,
    User(SessionRecord),
    /// The operator of the whole system.
    Operator,
}

impl Caller {
    /// Whose idempotency keys are meant; `None` for a stranger.
    pub(super) fn owner(&self) -> Option<String> {
        match self {
            Self::Nobody => None,
            Self::User(session) => Some(format!("user {}", session.user)),
            Self::Operator => Some("operator".to_owned()),
        }
    }

    pub(super) fn user(&self) -> Option<UserId> {
        match self {
            Self::User(session) => UserId::stored(&session.user).ok(),
            Self::Nobody | Self::Operator => None,
        }
    }

    fn is_admin(&self) -> bool {
        match self {
            Self::Nobody => false,
            Self::User(session) => session.admin,
            Self::Operator => true,
        }
    }
}

/// The owner of a stranger's keys, for strangers must not stand in each other's way by a key such as `1`. What is for a
/// user whom they name is one request, wherever it comes from: a second gateway may send it again. The others call from
/// somewhere, though behind a gateway that is the same for all.
pub(super) fn stranger(network: IpAddr, named: Option<&str>) -> String {
    match named {
        Some(user) => format!("stranger for {user}"),
        None => format!("browser {network}"),
    }
}

/// The one cookie that is believed. Where it must come over TLS, anybody in between could plant the other one.
fn cookie_name(secure: bool) -> &'static str {
    if secure { SECURE_COOKIE } else { COOKIE }
}

/// The session token of a request, and whether it came by itself, as cookies do.
pub(super) fn session_token(headers: &HeaderMap, secure: bool) -> Option<(&[u8], bool)> {
    if headers.contains_key(header::AUTHORIZATION) {
        return bearer::token(headers).ok().map(|token| (token, false));
    }
    let cookies = headers.get_all(header::COOKIE).iter();
    let mut pairs = cookies.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let token = pairs.find_map(|pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&pair[..at], &pair[at + 1..]);
        (name == cookie_name(secure).as_bytes()).then_some(value)
    });
    token.map(|token| (token, true))
}

/// Programs say nothing about where they come from; browsers always do when something is changed.
pub(super) fn check_origin(headers: &HeaderMap) -> Result<()> {
    let told = [HeaderName::from_static("sec-fetch-site"), header::ORIGIN];
    if told.iter().any(|name| headers.contains_key(name)) {
        browser::check_own_origin(headers)
    } else {
        Ok(())
    }
}

impl App {
    pub(super) async fn caller(&self, method: &Method, headers: &HeaderMap) -> Result<Caller> {
        if headers.contains_key(header::AUTHORIZATION) {
            let token = bearer::token(headers)?;
            let text = std::str::from_utf8(token).unwrap_or_default();
            if self.operator_token.matches(text) {
                return Ok(Caller::Operator);
            }
            let session = self.shop()?.session(token).await?;
            return session
                .map(Caller::User)
                .ok_or_else(|| bearer::unauthorized("This token is not known here, or its time is over."));
        }
        let Some((token, _)) = session_token(headers, self.config.secure_cookies) else {
            return Ok(Caller::Nobody);
        };
        let Some(session) = self.shop()?.session(token).await? else {
            return Ok(Caller::Nobody);
        };
        if !method.is_safe() {
            check_origin(headers)?;
        }
        Ok(Caller::User(session))
    }

    fn is_open(&self) -> bool {
        self.config.auth == service::config::ShopAuth::Open
    }

    /// Who keeps the shelves.
    pub(super) fn must_be_admin(&self, caller: &Caller) -> Result<()> {
        if self.is_open() || caller.is_admin() {
            return Ok(());
        }
        Err(refusal(caller, "Only the admin may do this."))
    }

    /// The user of a path, if this caller may act for them.
    pub(super) fn user_of_path(&self, caller: &Caller, user: &str) -> Result<UserId> {
        self.user(caller, user, UserId::stored)
    }

    /// As `user_of_path`, where the name may be written down that was never written before.
    pub(super) fn new_user_of_path(&self, caller: &Caller, user: &str) -> Result<UserId> {
        self.user(caller, user, UserId::parse)
    }

    fn user(
        &self,
        caller: &Caller,
        user: &str,
        read: fn(&str) -> std::result::Result<UserId, NameFault>,
    ) -> Result<UserId> {
        // What the shop itself calls somebody is no card number, whatever digits chance has put into it.
        if let Some(own) = caller.user().filter(|own| own.as_str() == user) {
            return Ok(own);
        }
        if !self.is_open() && !caller.is_admin() {
            return Err(refusal(caller, "This belongs to another user."));
        }
        read(user).map_err(|fault| {
            Problem::new(problem::INVALID_REQUEST, format!("The user in the path {fault}."))
                .fault("user", fault.to_string())
        })
    }
}

/// Who looks after the process itself: that everybody is trusted with the goods says nothing about it.
pub(super) fn must_look_after(caller: &Caller) -> Result<()> {
    if caller.is_admin() {
        return Ok(());
    }
    Err(refusal(caller, "This is for the admin and the operator."))
}

fn refusal(caller: &Caller, detail: &str) -> Problem {
    match caller {
        Caller::Nobody => bearer::unauthorized("Sign in with POST /login, and send the token it answers."),
        Caller::User(_) | Caller::Operator => Problem::new(problem::FORBIDDEN, detail),
    }
}

/// The cookie that carries a session, or ends it.
pub(super) fn cookie(token: &str, seconds: u64, secure: bool) -> HeaderValue {
    let (name, more) = (cookie_name(secure), if secure { "; Secure" } else { "" });
    let text = format!("{name}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{more}");
    let mut value = HeaderValue::try_from(text).expect("tokens are visible ASCII without semicolons");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_in_either_place() {
        let over = |secure, name: HeaderName, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            session_token(&headers, secure).map(|(token, by_itself)| (token.to_vec(), by_itself))
        };
        let with = |name, value| over(false, name, value);
        assert_eq!(
            with(header::AUTHORIZATION, "Bearer abc"),
            Some((b"abc".to_vec(), false))
        );
        assert_eq!(
            with(header::COOKIE, "a=1; ps=abc; b=2"),
            Some((b"abc".to_vec(), true))
        );
        assert_eq!(with(header::COOKIE, "xps=abc; ps"), None);
        // Only the cookie of the setting counts.
        let both = "ps=planted; __Host-ps=abc";
        assert_eq!(over(true, header::COOKIE, both), Some((b"abc".to_vec(), true)));
        assert_eq!(over(true, header::COOKIE, "ps=planted"), None);
        assert_eq!(with(header::COOKIE, "__Host-ps=abc"), None);
    }

    #[test]
    fn keys_belong_to_whoever_sent_them() {
        let session = SessionRecord {
            user: "7".to_owned(),
            username: "ada".to_owned(),
            admin: false,
            expires_ms: 1,
            account: 1,
        };
        let [here, there] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        let mut owners = vec![
            stranger(here, None),
            stranger(here, Some("7")),
            stranger(here, Some("8")),
            stranger(there, None),
        ];
        owners.extend(Caller::User(session).owner());
        owners.extend(Caller::Operator.owner());
        let count = owners.len();
        owners.sort_unstable();
        owners.dedup();
        assert_eq!((owners.len(), count), (6, 6), "{owners:?}");
        assert_eq!(stranger(here, Some("7")), stranger(there, Some("7")));
        assert_eq!(Caller::Nobody.owner(), None);
    }

    #[test]
    fn cookies_are_for_the_server_alone() {
        let plain = cookie("ps_x", 60, false);
        assert_eq!(plain, "ps=ps_x; Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
        let secure = cookie("ps_x", 60, true);
        assert_eq!(
            secure,
            "__Host-ps=ps_x; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
        );
    }
}
