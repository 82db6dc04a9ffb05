//! What a call can end with. Every variant keeps what caused it; a caller branches on the variant or on `code()`.
//! Invariant: `Unknown` is no failure. The call may have been carried out; repeated, it tells.

use kvstore_client::Trouble;
use kvstore_client::wire::problem::Problem;

use crate::wire::DeclineCode;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Final for this payment id: another try needs another id.
    #[error("the card was declined: {}", code.word())]
    Declined { code: DeclineCode, source: Box<Problem> },
    /// The payment is not in the state that this call needs: canceled, captured, expired.
    #[error("the payment is in another state")]
    Conflict(#[source] Box<Problem>),
    /// Any other answer that says no. Nothing was done.
    #[error("the payment service refused")]
    Problem(#[source] Box<Problem>),
    /// No instance gave an answer in time.
    #[error("the outcome is unknown: repeat the call with the same id")]
    Unknown { source: Trouble },
    #[error("the answer breaks the contract")]
    Protocol(#[source] serde_json::Error),
    /// The caller handed over something that no request can be made of.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// A stable word to branch on: the problem's code where the service answered with one.
    pub fn code(&self) -> &str {
        match self {
            Self::Declined { source, .. } | Self::Conflict(source) | Self::Problem(source) => &source.code,
            Self::Unknown { source } => source.code(),
            Self::Protocol(_) => "protocol",
            Self::Invalid(_) => "invalid-request",
        }
    }

    /// The error that an answer of the service stands for.
    pub(crate) fn of(problem: Box<Problem>) -> Self {
        let decline = problem.extra.get("decline_code").cloned();
        let decline = decline.and_then(|code| serde_json::from_value(code).ok());
        match (problem.status, decline) {
            (402, Some(code)) => Self::Declined {
                code,
                source: problem,
            },
            (409, _) => Self::Conflict(problem),
            _ => Self::Problem(problem),
        }
    }
}
