//! What a call can end with. A write whose fate is open is `Unknown`, never a failure.
//! Every variant keeps what caused it; a caller branches on the variant, or on `code()`.

use crate::wire::Revision;
use crate::wire::problem::Problem;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It may have happened, may happen yet, or may never. Repeating it is safe only with the same key.
    #[error("the outcome of this write is unknown")]
    Unknown {
        /// The key the write carried; `None` for the few writes that take none.
        idempotency_key: Option<String>,
        source: Trouble,
    },
    /// It surely did not happen: the deadline passed before any node could take it.
    #[error("the store could not serve this in time")]
    Unavailable { source: Trouble },
    /// A precondition did not hold, so nothing was written.
    #[error("the key is not as the precondition wants it")]
    Conflict {
        /// The key's present revision; `None` when the key does not exist.
        revision: Option<Revision>,
        source: Box<Problem>,
    },
    /// The revision asked for is no longer kept.
    #[error("that revision is compacted")]
    Compacted { source: Box<Problem> },
    #[error("the token is missing or not known to the store")]
    Unauthorized(#[source] Box<Problem>),
    #[error("the token may not do this")]
    Forbidden(#[source] Box<Problem>),
    /// Any other answer that says no.
    #[error("the store refused")]
    Problem(#[source] Box<Problem>),
    /// Others kept changing the key in between.
    #[error("gave up changing {key:?} after {attempts} attempts, each overtaken by another writer")]
    Contended { key: String, attempts: u32 },
    /// The answer is not what the contract promises.
    #[error("the node's answer breaks the contract: {detail}")]
    Protocol {
        detail: &'static str,
        source: Option<serde_json::Error>,
    },
    /// The caller handed over something that no request can be made of.
    #[error("{detail}")]
    Invalid { detail: String },
}

/// Why an attempt did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("the connection failed")]
    Connection(#[from] reqwest::Error),
    #[error("no answer within the time limit")]
    Timeout,
    #[error("the answer is larger than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    #[error(transparent)]
    Problem(#[from] Box<Problem>),
}

impl Trouble {
    /// The problem's code, or a word of the same kind.
    pub fn code(&self) -> &str {
        match self {
            Self::Connection(_) => "connection",
            Self::Timeout => "timeout",
            Self::TooLarge { .. } => "too-large",
            Self::Problem(problem) => &problem.code,
        }
    }
}

impl Error {
    /// A stable word to branch on: the problem's code where the store answered with one.
    pub fn code(&self) -> &str {
        match self {
            Self::Unknown { .. } => "outcome-unknown",
            Self::Unavailable { source } => source.code(),
            Self::Conflict { source, .. } | Self::Compacted { source } => &source.code,
            Self::Unauthorized(problem) | Self::Forbidden(problem) | Self::Problem(problem) => &problem.code,
            Self::Contended { .. } => "contended",
            Self::Protocol { .. } => "protocol",
            Self::Invalid { .. } => "invalid-request",
        }
    }

    /// The problem document, if the store sent one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Unknown { source, .. } | Self::Unavailable { source } => match source {
                Trouble::Problem(problem) => Some(problem),
                _ => None,
            },
            Self::Conflict { source, .. } | Self::Compacted { source } => Some(source),
            Self::Unauthorized(problem) | Self::Forbidden(problem) | Self::Problem(problem) => Some(problem),
            Self::Contended { .. } | Self::Protocol { .. } | Self::Invalid { .. } => None,
        }
    }

    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    pub fn is_compacted(&self) -> bool {
        matches!(self, Self::Compacted { .. })
    }

    /// The answer did not have the shape that was expected of it.
    pub(crate) fn json(error: serde_json::Error) -> Self {
        Self::Protocol {
            detail: "a body of another shape",
            source: Some(error),
        }
    }
}

/// A problem document is an error in its own right, so that it can be the source of one.
impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = if self.detail.is_empty() {
            &self.title
        } else {
            &self.detail
        };
        write!(formatter, "{} ({} {})", said, self.status, self.code)?;
        for fault in &self.errors {
            write!(formatter, "; {}: {}", fault.pointer, fault.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
