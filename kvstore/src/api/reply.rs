//! Replies, refusals and errors of the store, put into HTTP. The one place that chooses status and code.
//!
//! Invariant: a write that surely had no effect and one whose outcome is unknown never get the same code.

use std::io::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use kvstore_client::wire::{headers, level::Consistency};
use serde::Serialize;
use service::planted::{Bug, is_planted};
use service::problem::{self, Problem, Result};

use super::Api;
use super::auth::Caller;
use crate::command::{Action, Answer, Command, MirrorsWere, Once, Refusal, Reply};
use crate::machine::access;
use crate::store::{Level, MemberError, ReadError, ReadPoint, WriteError};

pub(super) const REVISION: HeaderName = HeaderName::from_static(headers::REVISION);
const CONSISTENCY: HeaderName = HeaderName::from_static(headers::CONSISTENCY);
const LEADER: HeaderName = HeaderName::from_static(headers::LEADER);
const MIRROR: HeaderName = HeaderName::from_static(headers::MIRROR);
pub(super) const REPLAYED: HeaderName = HeaderName::from_static(headers::IDEMPOTENT_REPLAYED);

/// Headers of an answer, with those that every answer gets later. Without room for them they would all move once.
pub(super) const HEADERS: usize = 12;
/// Two quotes and the digits of the largest revision.
const ETAG_BYTES_MAX: usize = 22;
/// When a new leader or room in a queue may be there.
const RETRY_MS: u64 = 50;
const MIRROR_RETRY_MS: u64 = 1000;

impl Api {
    /// Proposes on behalf of the caller; a refusal by the state it met is an error here.
    pub(super) async fn write(&self, caller: &Caller, action: Action, once: Option<Once>) -> Result<Reply> {
        let command = self.command(caller, action, once)?;
        self.decided(self.store.write(command).await)
    }

    pub(super) fn command(&self, caller: &Caller, action: Action, once: Option<Once>) -> Result<Command> {
        if is_planted(Bug::RulesAtTheEdge)
            && let Some(refusal) = access::refuse(&*caller.present(self)?, &action)
        {
            return Err(refusal_problem(&refusal));
        }
        let actor = caller.actor();
        Ok(Command { actor, action, once })
    }

    pub(super) fn decided(&self, written: std::result::Result<Reply, WriteError>) -> Result<Reply> {
        let reply = written.map_err(write_problem)?;
        let Answer::Refused(refusal) = &reply.answer else {
            return Ok(reply);
        };
        Err(self.refused(&reply, refusal))
    }

    /// What the state said to a write, with what every answer to a write says.
    pub(super) fn refused(&self, reply: &Reply, refusal: &Refusal) -> Problem {
        let mut refused = refusal_problem(refusal);
        let mut stamped = HeaderMap::new();
        self.stamp_write(reply, &mut stamped);
        for (name, value) in stamped {
            refused = refused.header(name.expect("each header stands there once"), value);
        }
        refused
    }

    /// What every answer to a write says.
    pub(super) fn stamp_write(&self, reply: &Reply, headers: &mut HeaderMap) {
        headers.insert(REVISION, HeaderValue::from(reply.revision));
        let leader = self.store.leader_client_address();
        if let Some(leader) = leader.and_then(|leader| HeaderValue::try_from(leader).ok()) {
            headers.insert(LEADER, leader);
        }
        let mirrors = match reply.mirrors {
            MirrorsWere::None => None,
            MirrorsWere::Ok => Some("ok"),
            MirrorsWere::Degraded => Some("degraded"),
        };
        if let Some(mirrors) = mirrors {
            headers.insert(MIRROR, HeaderValue::from_static(mirrors));
        }
        if reply.replayed {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
    }

    pub(super) fn written(&self, status: StatusCode, reply: &Reply, body: &impl Serialize) -> Response {
        self.written_text(status, reply, text(body))
    }

    pub(super) fn written_text(&self, status: StatusCode, reply: &Reply, text: Vec<u8>) -> Response {
        let mut response = json_text(status, text);
        self.stamp_write(reply, response.headers_mut());
        response
    }

    /// Waits until what was read may be shown.
    pub(super) async fn may_show(&self, point: &ReadPoint, revision: u64) -> Result<()> {
        self.store.may_show(point, revision).await.map_err(read_problem)
    }

    pub(super) async fn read_point(&self, level: Consistency) -> Result<ReadPoint> {
        let level = match level {
            Consistency::Linearizable => Level::Linearizable,
            Consistency::Local => Level::Local,
            Consistency::Bounded { age_ms_max } => Level::Bounded(Duration::from_millis(age_ms_max)),
            Consistency::AtLeast(revision) => Level::AtLeast(revision),
        };
        self.store.read_point(level).await.map_err(read_problem)
    }

    /// The level of a read that tells what this node sees by itself, also without a leader. Nothing makes that linearizable;
    /// but how far the node is, and how lately it heard of a majority, can be waited for.
    pub(super) async fn own_level(&self, asked: Consistency) -> Result<Consistency> {
        match asked {
            Consistency::Linearizable | Consistency::Local => Ok(Consistency::Local),
            Consistency::Bounded { .. } | Consistency::AtLeast(_) => {
                self.read_point(asked).await?;
                Ok(asked)
            }
        }
    }
}

/// What every answer to a read says.
pub(super) fn stamp_read(revision: u64, level: Consistency, headers: &mut HeaderMap) {
    headers.insert(REVISION, HeaderValue::from(revision));
    headers.insert(CONSISTENCY, consistency(level));
}

/// The same for a read that found nothing.
pub(super) fn stamp_absent(problem: Problem, revision: u64, level: Consistency) -> Problem {
    problem
        .header(REVISION, HeaderValue::from(revision))
        .header(CONSISTENCY, consistency(level))
}

fn consistency(level: Consistency) -> HeaderValue {
    match level {
        Consistency::Linearizable => HeaderValue::from_static("linearizable"),
        Consistency::Local => HeaderValue::from_static("local"),
        other => HeaderValue::try_from(other.to_string()).expect("a level is visible ASCII"),
    }
}

pub(super) fn found(revision: u64, level: Consistency, body: &impl Serialize) -> Response {
    let mut response = json(StatusCode::OK, body);
    stamp_read(revision, level, response.headers_mut());
    response
}

pub(super) fn text(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("wire types have text keys, so they always encode")
}

pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    json_text(status, text(body))
}

pub(super) fn json_text(status: StatusCode, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// As [`headers::etag`], without a text in between.
pub(super) fn etag(revision: u64) -> HeaderValue {
    let mut bytes = [0_u8; ETAG_BYTES_MAX];
    let mut free = bytes.as_mut_slice();
    write!(free, "\"{revision}\"").expect("there is room for every revision");
    let length = ETAG_BYTES_MAX - free.len();
    HeaderValue::from_bytes(&bytes[..length]).expect("digits in quotes are a header value")
}

pub(super) fn outcome_unknown() -> Problem {
    write_problem(WriteError::OutcomeUnknown)
}

fn write_problem(error: WriteError) -> Problem {
    match error {
        WriteError::NoLeader => {
            Problem::new(problem::NO_LEADER, "The cluster has no leader at the moment; nothing was written.")
                .retry_after_ms(RETRY_MS)
        }
        WriteError::Overloaded => {
            Problem::new(problem::OVERLOADED, "More writes are waiting than may; this one was not done.")
                .retry_after_ms(RETRY_MS)
        }
        WriteError::OutcomeUnknown => Problem::new(
            problem::OUTCOME_UNKNOWN,
            "The write may or may not have been done. Repeat it with the same Idempotency-Key, or read the key.",
        )
        .retry_after_ms(RETRY_MS),
        WriteError::DiskFull => Problem::new(problem::DISK_FULL, "The disk is almost full; nothing was written."),
        WriteError::MirrorLost => Problem::new(
            problem::MIRROR_LOST,
            "A mirror is gone without which nothing is written; this write was not done.",
        )
        .retry_after_ms(MIRROR_RETRY_MS),
        WriteError::Stopping => Problem::new(problem::SHUTTING_DOWN, "This node is about to end."),
        WriteError::TooLarge => Problem::new(
            problem::TOO_LARGE,
            "The write is larger than what nodes send each other; nothing was written. Split it.",
        ),
    }
}

pub(super) fn read_problem(error: ReadError) -> Problem {
    match error {
        ReadError::NoLeader => Problem::new(
            problem::NO_LEADER,
            "The cluster has no leader at the moment. A read with ?consistency=local needs none.",
        )
        .retry_after_ms(RETRY_MS),
        ReadError::Stale => Problem::new(
            problem::STALE,
            "This node has not heard of a confirmed majority as recently as `bounded` asks.",
        ),
        ReadError::Behind { present } => Problem::new(
            problem::BEHIND,
            "This node did not reach the revision that `at_least` asks for in time.",
        )
        .extra("revision", present),
        ReadError::Compacted { compacted } => compacted_problem(compacted),
        ReadError::NeverHere { first } => {
            let detail = format!(
                "This cluster began from a backup and goes on at revision {first}; what was written between is not in \
                 it. Read the present and go on from there."
            );
            Problem::new(problem::COMPACTED, detail).extra("compacted_revision", first)
        }
        ReadError::FutureRevision { present } => future_problem(present),
        ReadError::MirrorLost => Problem::new(
            problem::MIRROR_LOST,
            "What was read is not on a mirror that must have it first. A read with ?consistency=local shows it.",
        )
        .retry_after_ms(MIRROR_RETRY_MS),
        ReadError::Stopping => Problem::new(problem::SHUTTING_DOWN, "This node is about to end."),
    }
}

pub(super) fn compacted_problem(compacted: u64) -> Problem {
    let detail =
        format!("The history before revision {compacted} is gone. Read the present and go on from there.");
    Problem::new(problem::COMPACTED, detail).extra("compacted_revision", compacted)
}

pub(super) fn future_problem(present: u64) -> Problem {
    let detail = format!("No write has made this revision yet; the present one is {present}.");
    Problem::new(problem::FUTURE_REVISION, detail).extra("revision", present)
}

fn refusal_problem(refusal: &Refusal) -> Problem {
    match refusal {
        Refusal::Unauthorized => Problem::new(problem::UNAUTHORIZED, "This token was removed or replaced."),
        Refusal::Forbidden { key } => {
            let key = String::from_utf8_lossy(key);
            let detail =
                format!("The rules of this token do not let it do this to `{key}`; nothing was written.");
            Problem::new(problem::FORBIDDEN, detail)
        }
        Refusal::RootOnly => Problem::new(problem::FORBIDDEN, "Only the token `root` may do this."),
        Refusal::Precondition { modified } => precondition_problem(*modified),
        Refusal::LeaseNotFound { id } => Problem::new(
            problem::LEASE_NOT_FOUND,
            format!("There is no lease {id}; nothing was written."),
        ),
        Refusal::NotYourLease { id } => Problem::new(
            problem::FORBIDDEN,
            format!("The lease {id} belongs to another token."),
        ),
        Refusal::KeyReused => Problem::new(
            problem::IDEMPOTENCY_KEY_REUSED,
            "This Idempotency-Key belongs to another request; make a new one for this one.",
        ),
        Refusal::AnswersFull => Problem::new(
            problem::OVERLOADED,
            "No further answer can be kept for a key of this token until older ones have ended; nothing was written. \
             A shorter `Idempotency-Ttl` has them end sooner.",
        ),
        Refusal::AnswerTooLarge => Problem::new(
            problem::INVALID_REQUEST,
            "The rows that this transaction reads are more than 4 MiB; nothing was written. Give its gets a limit.",
        ),
        Refusal::FutureRevision { present } => future_problem(*present),
        Refusal::AlreadyCompacted { revision } => compacted_problem(*revision),
        Refusal::TokenNotFound => Problem::new(problem::TOKEN_NOT_FOUND, "There is no token of this name."),
        Refusal::LastRoot => Problem::new(
            problem::CONFLICT,
            "Without this token nobody could ever change a token again.",
        ),
        Refusal::DiskMismatch => Problem::new(
            problem::NODE_ID_REUSED,
            "This id stands for another disk; choose one never used before.",
        ),
        Refusal::MirrorNotFound => {
            Problem::new(problem::MIRROR_NOT_FOUND, "No mirror of this name is announced.")
        }
        Refusal::TooManyMirrors => Problem::new(
            problem::INVALID_REQUEST,
            "The store has as many mirrors as it takes; remove one first.",
        ),
    }
}

fn precondition_problem(modified: u64) -> Problem {
    let problem = if modified == 0 {
        Problem::new(
            problem::PRECONDITION_FAILED,
            "The key does not exist; nothing was written.",
        )
    } else {
        let detail = format!("The key was last written at revision {modified}; nothing was written.");
        Problem::new(problem::PRECONDITION_FAILED, detail).header(header::ETAG, etag(modified))
    };
    problem.extra("revision", modified)
}

pub(super) fn member_problem(error: MemberError) -> Problem {
    match error {
        MemberError::NoLeader => write_problem(WriteError::NoLeader),
        MemberError::NotFound => Problem::new(
            problem::MEMBER_NOT_FOUND,
            "The cluster has no member with this id.",
        ),
        MemberError::Exists => Problem::new(
            problem::MEMBER_EXISTS,
            "The cluster has a member with this id or address already.",
        ),
        MemberError::LastVoter => Problem::new(
            problem::LAST_VOTER,
            "This is the last voter; promote another member first.",
        ),
        MemberError::NotCaughtUp { lag } => Problem::new(
            problem::MEMBER_NOT_CAUGHT_UP,
            format!(
                "The member that is to vote or lead is {lag} entries behind; ask again when it has caught up."
            ),
        )
        .extra("lag", lag),
        MemberError::InProgress => Problem::new(
            problem::MEMBERSHIP_CHANGE_IN_PROGRESS,
            "Another change of members is under way; nothing was changed by this one.",
        ),
        MemberError::Unreachable => Problem::new(
            problem::MEMBER_UNREACHABLE,
            "A member that the change needs does not answer; nothing was changed.",
        ),
        MemberError::DiskReused => Problem::new(
            problem::NODE_ID_REUSED,
            "This id stands for another disk; choose one never used before.",
        ),
        MemberError::Unknown => Problem::new(
            problem::OUTCOME_UNKNOWN,
            "The change may or may not have been done; look at GET /v1/cluster.",
        ),
        MemberError::Key(refusal) => refusal_problem(&refusal),
        MemberError::Write(error) => write_problem(error),
        MemberError::Read(error) => read_problem(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_that_clients_make() {
        for revision in [0, 9, 10, 1_764_410_847_123_000, u64::MAX] {
            assert_eq!(etag(revision), headers::etag(revision), "{revision}");
        }
    }

    #[test]
    fn a_write_that_no_node_can_send_is_the_callers_to_split() {
        assert_eq!(write_problem(WriteError::TooLarge).kind, problem::TOO_LARGE);
    }
}
