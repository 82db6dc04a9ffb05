//! Who is calling, and what they may do; and which request a repetition repeats.
//! Invariant: a credential that is given is checked, also where none is needed; nothing tells a wrong one from another.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use service::problem::{self, Problem, Result};
use service::{bearer, idempotency};

use super::state::App;
use crate::ledger::Once;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    Merchant,
    Operator,
    /// Without a credential, on a demo system, from this network.
    Browser(IpAddr),
}

impl Caller {
    pub(super) fn has_credential(self) -> bool {
        !matches!(self, Self::Browser(_))
    }

    /// Whose idempotency keys are meant.
    pub(super) fn owner(self) -> String {
        match self {
            Self::Merchant => "merchant".to_owned(),
            Self::Operator => "operator".to_owned(),
            // Strangers must not stand in each other's way by a key such as `1`.
            Self::Browser(network) => format!("browser {network}"),
        }
    }
}

impl App {
    fn known(&self, token: &[u8]) -> Option<Caller> {
        let token = std::str::from_utf8(token).ok()?;
        // Both are compared, whichever matches, so that the time tells nothing.
        let (merchant, operator) = (
            self.merchant_token.matches(token),
            self.operator_token.matches(token),
        );
        match (merchant, operator) {
            (true, _) => Some(Caller::Merchant),
            (_, true) => Some(Caller::Operator),
            _ => None,
        }
    }

    /// The merchant or the operator.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller> {
        let token = bearer::token(headers)?;
        self.known(token)
            .ok_or_else(|| bearer::unauthorized("This token is not known here."))
    }

    pub(super) fn merchant(&self, headers: &HeaderMap) -> Result<Caller> {
        self.only(
            headers,
            Caller::Merchant,
            "Only the merchant's token may do this.",
        )
    }

    pub(super) fn operator(&self, headers: &HeaderMap) -> Result<Caller> {
        self.only(
            headers,
            Caller::Operator,
            "Only the operator's token may do this.",
        )
    }

    fn only(&self, headers: &HeaderMap, wanted: Caller, detail: &str) -> Result<Caller> {
        let caller = self.caller(headers)?;
        if caller == wanted {
            return Ok(caller);
        }
        Err(Problem::new(problem::FORBIDDEN, detail))
    }

    /// Anybody on a demo system, unless they are too fast; else the merchant or the operator.
    pub(super) fn anybody(&self, parts: &Parts) -> Result<Caller> {
        if self.config.demo && !parts.headers.contains_key(header::AUTHORIZATION) {
            return self.throttle.admit(parts).map(Caller::Browser);
        }
        self.caller(&parts.headers)
    }

    /// For pages: browsers ask for name and password by themselves, and the password is the operator's token.
    pub(super) fn operator_of_page(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let (scheme, credential) = given
            .and_then(|given| given.split_at_checked(6))
            .unwrap_or_default();
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return self.operator(headers).is_ok();
        }
        let Ok(pair) = STANDARD.decode(credential.trim_ascii()) else {
            return false;
        };
        let colon = pair.iter().position(|byte| *byte == b':');
        let password = colon.map_or(&[][..], |colon| &pair[colon + 1..]);
        self.known(password) == Some(Caller::Operator)
    }

    /// The request as one that happens once, if it carries an idempotency key.
    pub(super) fn once(
        &self,
        caller: Caller,
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        body: &[u8],
    ) -> Result<Option<Once>> {
        let Some(key) = idempotency::key(headers)? else {
            return Ok(None);
        };
        let path = uri.path().as_bytes();
        Ok(Some(Once {
            hash: self
                .vault
                .fingerprint("answer", &[caller.owner().as_bytes(), key]),
            fingerprint: self
                .vault
                .fingerprint("request", &[method.as_str().as_bytes(), path, body]),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_belong_to_whoever_sent_them() {
        let browser = |network: [u8; 4]| Caller::Browser(network.into());
        let callers = [
            Caller::Merchant,
            Caller::Operator,
            browser([192, 0, 2, 1]),
            browser([192, 0, 2, 2]),
        ];
        let mut owners: Vec<String> = callers.map(Caller::owner).into();
        owners.sort_unstable();
        owners.dedup();
        assert_eq!(owners.len(), callers.len(), "{owners:?}");
    }
}
