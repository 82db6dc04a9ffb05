//! What one answer says about the request: done, refused for good, not taken, or open.
//! Invariant: a word that this client does not know never counts as "did not happen".
//! It must not know about other attempts.

use crate::attempt::Answer;
use crate::error::{Error, Trouble};
use crate::wire::headers;
use crate::wire::problem::Problem;
use reqwest::StatusCode;
use reqwest::header::{ETAG, HeaderMap};

pub(crate) enum Verdict {
    Done(Answer),
    /// Decided by the store, the same for every attempt of this request.
    Refused(Error),
    /// Refused at the door of this node, before the store could look whether it has been done already.
    TurnedAway(Box<Problem>),
    /// Surely not done by this attempt: the node has no room on its disk. Another may have.
    NoRoom(Box<Problem>),
    /// Surely not done by this attempt; another one may succeed.
    NotTaken(Trouble),
    /// May have been done, or may yet be; another attempt may find out.
    Open(Trouble),
    /// The node is at fault. Another attempt would only find the same fault.
    Broken(Box<Problem>),
}

pub(crate) fn of(answer: Answer, absent_is_fine: bool) -> Verdict {
    let status = answer.status;
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        return Verdict::Done(answer);
    }
    let problem = problem_of(status, &answer.body);
    if absent_is_fine && status == StatusCode::NOT_FOUND && problem.code == "key-not-found" {
        return Verdict::Done(answer);
    }
    match (status.as_u16(), problem.code.as_str()) {
        // Only these are found when a write meets the state, where one that was done before is known again.
        (409 | 410 | 412, _)
        | (
            404,
            "key-not-found" | "lease-not-found" | "member-not-found" | "mirror-not-found" | "token-not-found",
        )
        | (422, "idempotency-key-reused" | "future-revision") => {
            Verdict::Refused(error_of(problem, Some(&answer.headers)))
        }
        (507, _) => Verdict::NoRoom(problem),
        // Of a body that did not arrive whole nothing is read.
        (400, "body-timeout" | "malformed-body")
        | (429, _)
        | (
            503,
            "no-leader" | "overloaded" | "not-ready" | "shutting-down" | "stale" | "behind"
            | "too-many-watchers" | "mirror-lost",
        ) => Verdict::NotTaken(Trouble::Problem(problem)),
        (500, _) => Verdict::Broken(problem),
        // Whatever else is wrong with a request, the edge finds before anything is decided, by the limits of this node.
        // An operator's call about another member: asking again would not bring that member back.
        (300..=499, _) | (503, "member-unreachable") => Verdict::TurnedAway(problem),
        _ => Verdict::Open(Trouble::Problem(problem)),
    }
}

/// The error for a problem that is final.
pub(crate) fn error_of(problem: Box<Problem>, headers: Option<&HeaderMap>) -> Error {
    match problem.status {
        401 => Error::Unauthorized(problem),
        403 => Error::Forbidden(problem),
        410 => Error::Compacted { source: problem },
        412 => Error::Conflict {
            revision: headers
                .and_then(|headers| headers.get(ETAG)?.to_str().ok())
                .and_then(headers::revision_of_etag)
                .or_else(|| problem.number("revision"))
                .filter(|revision| *revision > 0),
            source: problem,
        },
        _ => Error::Problem(problem),
    }
}

/// The body as a problem document; an answer that is none still has its status.
pub(crate) fn problem_of(status: StatusCode, body: &[u8]) -> Box<Problem> {
    let mut problem = serde_json::from_slice::<Problem>(body).unwrap_or_default();
    problem.status = status.as_u16();
    if problem.title.is_empty() {
        status
            .canonical_reason()
            .unwrap_or("unknown status")
            .clone_into(&mut problem.title);
    }
    Box::new(problem)
}
