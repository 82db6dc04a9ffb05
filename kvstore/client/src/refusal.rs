//! What a trouble with the store means for the callers of a service that keeps its state there.
//! Invariant: it is never a fault of theirs, never more than they may know, and 503 rather than 500: they may ask again.
//! It must not know which service asks.

use service::problem::{self, Problem};

use crate::error::Error;

/// The problem that a service answers with when the store gave this error.
pub fn problem_of(error: Error) -> Problem {
    match error {
        Error::Unknown { .. } => Problem::new(
            problem::OUTCOME_UNKNOWN,
            "The store could not say whether this was done. Repeated with the same Idempotency-Key it is done once at \
             most; without one, look first whether it was.",
        ),
        Error::Problem(refused) if refused.code == "disk-full" => Problem::new(
            problem::OVERLOADED,
            "The store has no room for writes at the moment. Nothing was done.",
        ),
        Error::Unavailable { source } => {
            tracing::warn!(error = %source, "the store cannot be reached");
            Problem::new(
                problem::NOT_READY,
                "The store cannot be reached at the moment. Nothing was done.",
            )
        }
        Error::Compacted { .. } => Problem::new(
            problem::COMPACTED,
            "The store no longer keeps that revision. Ask without one, or for a newer one.",
        ),
        Error::Problem(refused) if refused.code == "future-revision" => {
            Problem::new(problem::FUTURE_REVISION, "No write has made that revision yet.")
        }
        Error::Problem(refused) if refused.status == 400 && refused.code == "malformed-parameter" => {
            Problem::new(
                problem::MALFORMED_PARAMETER,
                "The cursor is not one that this service gave out.",
            )
        }
        Error::Unauthorized(_) | Error::Forbidden(_) => {
            tracing::error!(error = %error, "the store does not let this service in: its token was changed");
            Problem::new(
                problem::NOT_READY,
                "This service may not use its store at the moment. Nothing was done.",
            )
        }
        error => {
            // Trouble below a service is 503, never 500: the caller may ask again.
            tracing::error!(
                %error,
                source = std::error::Error::source(&error).map(ToString::to_string),
                "the store gave an answer that does not fit"
            );
            Problem::new(
                problem::NOT_READY,
                "The store gave an answer that this service cannot use. Nothing more is known.",
            )
        }
    }
}
