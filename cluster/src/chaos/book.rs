//! What the clients were told, in one place, with one clock.
//! Invariant: an operation is written down once it has ended or is given up, with the moment it began; a violation
//! that a client sees at once is written down at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvstore_client::wire::problem::Problem;
use kvstore_client::{Error, Trouble};

use super::added::Added;
use super::floor::Floors;
use super::linear::Operation;
use super::order::{Acknowledged, Look, Told};
use super::sent::{Fate, Sent};
use super::shown::Shown;

/// The status of an answer that says that something is wrong inside of who gives it.
const INTERNAL: u16 = 500;
/// So many violations are told; more of them say nothing new.
const VIOLATIONS_MAX: usize = 20;

pub(super) struct Book {
    began: Instant,
    pages: Mutex<Pages>,
}

struct Served {
    /// What it may take until they are.
    within: Duration,
    /// When they got something done last, in nanoseconds; 0 is never.
    last: u64,
}

#[derive(Default)]
pub(super) struct Pages {
    pub(super) histories: BTreeMap<String, Vec<Operation>>,
    pub(super) acknowledged: Vec<Acknowledged>,
    /// Revisions that answers named which wrote nothing.
    pub(super) told: Vec<Told>,
    /// How far history was given up.
    pub(super) floors: Floors,
    /// What was read of many keys at one revision.
    pub(super) shown: Vec<Shown>,
    /// Values that must not be seen twice, and what their clients were told.
    pub(super) sent: Sent,
    /// Amounts that must not be added twice, and the same.
    pub(super) added: Added,
    /// Reads of levels that promise less than the newest.
    pub(super) looks: Vec<Look>,
    /// When something succeeded, in milliseconds from the begin.
    pub(super) successes: Vec<u64>,
    /// Those who must be served again after each fault.
    served: BTreeMap<String, Served>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) violations: Vec<String>,
    /// By who was told so, the ids of the requests that were answered only with that something is wrong inside. Whether
    /// that has an excuse is judged by `lives`.
    pub(super) internal: BTreeMap<String, Vec<String>>,
    /// Keys on leases, which must go, and since when nobody renews them.
    must_go: BTreeMap<String, u64>,
}

impl Book {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            pages: Mutex::default(),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Nanoseconds, from 1 on: 0 is the time before all operations.
    pub(super) fn now(&self) -> u64 {
        1 + u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX - 1)
    }

    pub(super) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, what: &'static str) {
        self.count_all(what, 1);
    }

    pub(super) fn count_all(&self, what: &'static str, many: u64) {
        *self.pages().counts.entry(what).or_default() += many;
    }

    pub(super) fn success(&self) {
        let at = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.pages().successes.push(at);
    }

    /// Somebody who must be served again within this time after each fault.
    pub(super) fn expects(&self, who: &str, within: Duration) {
        let served = Served { within, last: 0 };
        self.pages().served.insert(who.to_owned(), served);
    }

    /// What they asked for was done just now, or decided not to be.
    pub(super) fn served(&self, who: &str) {
        let now = self.now();
        if let Some(served) = self.pages().served.get_mut(who) {
            served.last = now;
        }
    }

    /// Who is waiting since then, and how long they may.
    pub(super) fn not_served_since(&self, moment: u64) -> Vec<(String, Duration)> {
        let pages = self.pages();
        let waiting = pages.served.iter().filter(|(_, served)| served.last <= moment);
        waiting
            .map(|(who, served)| (who.clone(), served.within))
            .collect()
    }

    /// A key on a lease: whatever becomes of it, it must be gone in the end.
    pub(super) fn must_go(&self, key: &str) {
        self.pages().must_go.insert(key.to_owned(), u64::MAX);
    }

    /// From now on nobody renews the lease of this key.
    pub(super) fn given_up(&self, key: &str) {
        let now = self.now();
        if let Some(since) = self.pages().must_go.get_mut(key) {
            *since = now;
        }
    }

    /// The keys whose leases nobody renews since then, or an earlier moment.
    pub(super) fn given_up_by(&self, moment: u64) -> BTreeSet<String> {
        let pages = self.pages();
        let given_up = pages.must_go.iter().filter(|(_, since)| **since <= moment);
        given_up.map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn record(&self, key: &str, operation: Operation) {
        let mut pages = self.pages();
        pages.histories.entry(key.to_owned()).or_default().push(operation);
    }

    /// What became of a value that must not be seen twice; it is noted as open before it is sent.
    pub(super) fn sent(&self, key: &str, value: &str, fate: Fate) {
        self.pages().sent.note(key, value, fate);
    }

    /// What became of an amount that must not be added twice; it is noted as open before it is sent.
    pub(super) fn added(&self, key: &str, by: i64, fate: Fate) {
        self.pages().added.note(key, by, fate);
    }

    /// A write that began at `start` and was acknowledged just now.
    pub(super) fn acknowledged(&self, start: u64, revision: u64, key: &str, value: Option<String>) {
        let end = self.now();
        self.pages().acknowledged.push(Acknowledged {
            revision,
            key: key.to_owned(),
            value,
            start,
            end,
        });
    }

    /// What wrote nothing, began at `start` and was answered just now, has named this revision.
    pub(super) fn told(&self, what: &'static str, start: u64, revision: u64) {
        let end = self.now();
        self.pages().told.push(Told {
            what,
            revision,
            start,
            end,
        });
    }

    /// The key of the write that was acknowledged last, and its revision.
    pub(super) fn newest(&self) -> Option<(String, u64)> {
        let pages = self.pages();
        let newest = pages.acknowledged.last()?;
        Some((newest.key.clone(), newest.revision))
    }

    /// Somebody was told that something is wrong inside of whom they asked, which is known there by this id.
    pub(super) fn internal(&self, who: &str, request: &str) {
        let mut pages = self.pages();
        let requests = pages.internal.entry(who.to_owned()).or_default();
        requests.push(request.to_owned());
    }

    /// What a write that failed has come to; an error that no fault may cause is a violation.
    pub(super) fn failed(&self, error: &Error, what: &'static str) -> Fate {
        self.count(what);
        if let Some(problem) = internal(error) {
            self.internal(what, &problem.request_id);
            return Fate::Open;
        }
        Fate::told_by(error).unwrap_or_else(|| {
            self.violation(format!("no fault may be answered like this: {error:?}"));
            Fate::Open
        })
    }

    pub(super) fn violation(&self, what: String) {
        let mut pages = self.pages();
        if pages.violations.len() < VIOLATIONS_MAX {
            pages.violations.push(what);
        }
    }
}

fn internal(error: &Error) -> Option<&Problem> {
    let (Error::Problem(problem)
    | Error::Unknown {
        source: Trouble::Problem(problem),
        ..
    }) = error
    else {
        return None;
    };
    (problem.status == INTERNAL).then_some(problem.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_something_is_wrong_inside_is_open_and_noted() {
        let problem = Problem {
            code: "internal".to_owned(),
            status: INTERNAL,
            request_id: "a-1".to_owned(),
            ..Problem::default()
        };
        let unknown = Error::Unknown {
            idempotency_key: None,
            source: Trouble::Problem(Box::new(problem.clone())),
        };
        let book = Book::new();
        for error in [Error::Problem(Box::new(problem)), unknown] {
            assert_eq!(book.failed(&error, "reads that failed"), Fate::Open);
        }
        let pages = book.pages();
        assert_eq!(pages.internal["reads that failed"], ["a-1", "a-1"]);
        assert_eq!(pages.violations, [""; 0]);
    }
}
