//! Who is calling, and what they may do.
//! Invariant: nothing tells a wrong credential from another.

use axum::http::{HeaderMap, header};
use service::bearer;
use service::problem::{self, Problem, Result};

use super::state::App;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    Operator,
    Oracle,
}

impl Caller {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Oracle => "oracle",
        }
    }
}

impl App {
    fn caller(&self, headers: &HeaderMap) -> Result<Caller> {
        let given = std::str::from_utf8(bearer::token(headers)?).unwrap_or_default();
        // Both are compared, whichever matches, so that the time tells nothing.
        let (operator, oracle) = (self.operator.matches(given), self.oracle.matches(given));
        match (operator, oracle) {
            (true, _) => Ok(Caller::Operator),
            (_, true) => Ok(Caller::Oracle),
            _ => Err(bearer::unauthorized("This token is not known here.")),
        }
    }

    pub(super) fn operator(&self, headers: &HeaderMap) -> Result<()> {
        if self.caller(headers)? == Caller::Operator {
            return Ok(());
        }
        Err(Problem::new(
            problem::FORBIDDEN,
            "Only the operator's token may do this.",
        ))
    }

    pub(super) fn oracle(&self, headers: &HeaderMap) -> Result<()> {
        if self.caller(headers)? == Caller::Oracle {
            return Ok(());
        }
        Err(Problem::new(
            problem::FORBIDDEN,
            "Only the oracle's token may report outcomes.",
        ))
    }

    /// `None` for whoever shows no token; one that is not known here is refused all the same.
    pub(super) fn known(&self, headers: &HeaderMap) -> Result<Option<Caller>> {
        if headers.contains_key(header::AUTHORIZATION) {
            return self.caller(headers).map(Some);
        }
        Ok(None)
    }

    /// Either of them.
    pub(super) fn somebody(&self, headers: &HeaderMap) -> Result<()> {
        self.caller(headers).map(drop)
    }
}
