//! Keys on leases: while a lease is renewed in time its key must be there, and when nobody renews it the key must go, but
//! not before its time is over.
//! Invariant: "in time" counts from before a renewal that succeeded was sent, so that the store had no right to end it,
//! nor to know nothing of it. Nobody else ends these leases, or deletes their keys.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvstore_client::{Error, KvClient, PutOptions};
use service::tasks::Tasks;

use super::book::Book;
use super::random::Random;
use super::sent::Fate;
use super::served::SERVED;
use crate::arena::wait_for;

const PREFIX: &str = "chaos/lease/";
const HOLDERS: u64 = 3;
const TTL: Duration = Duration::from_secs(2);
const RENEW_EVERY: Duration = Duration::from_millis(300);
const RENEWALS_MAX: u64 = 10;
/// How often a key is looked at whose lease nobody renews any more.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Who was there this long after the last renewal has been watched to the end, but for what a busy machine may miss.
const LATE: Duration = Duration::from_millis(1600);
/// Leases run out in full after the last change of leader; on a busy machine the next leader takes its time.
pub(super) const GONE: Duration = Duration::from_secs(20);

/// By which those are counted whose keys were there for as long as they had to.
pub(super) const WATCHED: &str = "leases watched to their end";

pub(super) fn start(client: &KvClient, tasks: &Tasks, book: &Arc<Book>, seed: u64) {
    for number in 0..HOLDERS {
        let name = format!("lease holder {number}");
        book.expects(&name, SERVED);
        let holder = Holder {
            name,
            number,
            client: client.clone(),
            tasks: tasks.clone(),
            book: Arc::clone(book),
        };
        let random = Random::from(seed ^ (number + 200) << 32);
        tasks.spawn("chaos lease", holder.run(random));
    }
}

/// Waits until none of these keys is there, whose leases nobody renews.
pub(super) async fn run_out(
    client: &KvClient,
    book: &Book,
    keys: &BTreeSet<String>,
    (after, deadline): (&str, Duration),
) {
    if keys.is_empty() {
        return;
    }
    let mut left = Err("nobody has told which keys there are".to_owned());
    let gone = wait_for("keys whose leases ran out to go", deadline, async || {
        let there = client.scan(PREFIX).await;
        left = match there {
            Ok(there) => {
                let there = there.kvs.into_iter().map(|kv| kv.key);
                Ok(there.filter(|key| keys.contains(key)).collect::<Vec<_>>())
            }
            Err(error) => Err(format!("{error:?}")),
        };
        matches!(&left, Ok(left) if left.is_empty()).then_some(())
    });
    if gone.await.is_err() {
        book.violation(format!(
            "{} s after {after} a key has outlived its lease, which nobody renews any more: {left:?}",
            deadline.as_secs()
        ));
    }
}

struct Holder {
    name: String,
    number: u64,
    client: KvClient,
    tasks: Tasks,
    book: Arc<Book>,
}

impl Holder {
    async fn run(self, mut random: Random) {
        for round in 0_u32.. {
            if self.tasks.is_stopping() {
                return;
            }
            let key = format!("{PREFIX}{}/{round:05}", self.number);
            let renewals = 1 + random.below(RENEWALS_MAX);
            let renewed = self.hold(&key, renewals).await;
            self.book.given_up(&key);
            // Not in each round: meanwhile nothing is renewed. But always the last one, when nothing is broken any more,
            // so that the shortest run has watched some.
            if let Some(renewed) = renewed.filter(|_| round.is_multiple_of(2) || self.tasks.is_stopping()) {
                self.watch_to_the_end(&key, renewed).await;
            }
        }
    }

    /// Answers when the last renewal was sent, where the lease has time left.
    async fn hold(&self, key: &str, renewals: u64) -> Option<Instant> {
        let mut sent = Instant::now();
        let lease = match self.client.lease_grant(TTL).await {
            Ok(lease) => lease,
            Err(error) => {
                self.failed(&error, None);
                self.pause().await;
                return None;
            }
        };
        self.book.must_go(key);
        let options = PutOptions {
            lease: Some(lease.id),
            ..PutOptions::default()
        };
        if let Err(error) = self.client.put_with(key, "held", options).await {
            self.failed(&error, Some(sent.elapsed()));
            return None;
        }
        self.book.count("leases");
        for _ in 0..renewals {
            self.pause().await;
            if self.tasks.is_stopping() {
                break;
            }
            let asked = Instant::now();
            match self.client.lease_keepalive(lease.id).await {
                Ok(_) => {
                    self.book.success();
                    self.book.served(&self.name);
                    self.book.count("renewals");
                    sent = asked;
                }
                Err(error) => self.failed(&error, Some(sent.elapsed())),
            }
            self.look(key, sent).await;
            if sent.elapsed() >= TTL {
                return None;
            }
        }
        Some(sent)
    }

    async fn pause(&self) {
        tokio::select! {
            () = tokio::time::sleep(RENEW_EVERY) => {}
            () = self.tasks.stopping() => {}
        }
    }

    /// Nobody renews it any more, and until its time is over it must be there all the same.
    async fn watch_to_the_end(&self, key: &str, sent: Instant) {
        let mut seen = Duration::ZERO;
        while sent.elapsed() < TTL {
            let age = sent.elapsed();
            match self.look(key, sent).await {
                Some(true) => seen = age,
                Some(false) => return,
                None => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        if seen >= LATE {
            self.book.count(WATCHED);
        }
    }

    /// Whether the key is there, if somebody says so. Absent, it has gone too early where that was read while the lease
    /// surely lived.
    async fn look(&self, key: &str, sent: Instant) -> Option<bool> {
        match self.client.get(key).await {
            Ok(found) => {
                let age = sent.elapsed();
                if found.is_none() && age < TTL {
                    self.book.violation(format!(
                        "{key} is gone {age:?} after its lease of {TTL:?} was renewed"
                    ));
                }
                Some(found.is_some())
            }
            Err(error) => {
                self.failed(&error, None);
                None
            }
        }
    }

    /// `age` is how long ago the lease was asked for or renewed, where the store may have ended one.
    fn failed(&self, error: &Error, age: Option<Duration>) {
        self.book.count("leases that failed");
        if !may_be_told(error, age) {
            let when = age.map_or_else(String::new, |age| format!(" {age:?} after it was renewed"));
            self.book.violation(format!(
                "no fault may have a lease of {TTL:?} answered like this{when}: {error:?}"
            ));
        }
    }
}

/// Whether a fault, or the end of a lease whose time is over by its holder's clock, may lead to that.
fn may_be_told(error: &Error, age: Option<Duration>) -> bool {
    let is_over = age.is_some_and(|age| age >= TTL);
    Fate::told_by(error).is_some() || (is_over && error.code() == "lease-not-found")
}

#[cfg(test)]
mod tests {
    use axum::extract::{Path, State};
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use axum::routing::get;
    use axum::{Json, Router};
    use kvstore_client::Trouble;
    use kvstore_client::wire::problem::Problem;
    use service::serve::{Limits, serve};
    use tokio::net::TcpListener;

    use super::*;

    const HELD: &str = "chaos/lease/0/00001";
    const GIVEN_UP: &str = "chaos/lease/0/00000";

    /// A client of a node that has these two keys and no other.
    async fn client(tasks: &Tasks) -> KvClient {
        let kvs = [GIVEN_UP, HELD].map(|key| serde_json::json!({"key": key, "value": "held"}));
        let page = serde_json::json!({"revision": 9, "kvs": kvs, "count": 2, "more": false});
        let keys = get(async |State(page): State<serde_json::Value>| Json(page));
        let app = Router::new().route("/v1/kv", keys).with_state(page);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tasks.spawn("node", serve(listener, app, Limits::default(), tasks.clone()));
        KvClient::builder([address]).build().unwrap()
    }

    #[tokio::test]
    async fn a_key_that_outlives_its_lease_is_named_with_the_fault_that_it_outlived() {
        let (tasks, book) = (Tasks::new(), Book::new());
        let client = client(&tasks).await;
        book.must_go(GIVEN_UP);
        book.given_up(GIVEN_UP);
        book.must_go(HELD);
        let fault = book.now();
        let keys = book.given_up_by(fault);
        let after = ("the fault kill-leader", Duration::ZERO);
        run_out(&client, &book, &keys, after).await;
        let told = book.pages().violations.join("\n");
        assert!(told.contains("after the fault kill-leader"), "{told}");
        assert!(told.contains(GIVEN_UP) && !told.contains(HELD), "{told}");
        tasks.stop();
    }

    #[tokio::test]
    async fn keys_that_are_held_may_stay_and_others_are_gone() {
        let (tasks, book) = (Tasks::new(), Book::new());
        let client = client(&tasks).await;
        book.must_go(HELD);
        book.must_go("chaos/lease/1/00000");
        book.given_up("chaos/lease/1/00000");
        let keys = book.given_up_by(book.now());
        assert_eq!(keys.len(), 1);
        run_out(&client, &book, &keys, ("the fault kill-leader", GONE)).await;
        // Who gives one up while a fault lasts may have renewed it a moment before.
        assert!(book.given_up_by(0).is_empty());
        assert!(book.pages().violations.is_empty());
        // In the end all must go, those too that were held until then.
        assert_eq!(book.given_up_by(u64::MAX).len(), 2);
        tasks.stop();
    }

    /// What is found when the end of the lease of this key is watched, whose last renewal was sent so long ago; and how
    /// many leases have been watched to their end.
    async fn watched(key: &str, age: Duration) -> (Vec<String>, usize) {
        let (tasks, book) = (Tasks::new(), Arc::new(Book::new()));
        let held = get(async |Path(key): Path<String>| {
            if key == HELD {
                return ([("etag", "\"7\""), ("x-kv-revision", "7")], "held").into_response();
            }
            let absent = Json(serde_json::json!({"code": "key-not-found"}));
            (StatusCode::NOT_FOUND, [("x-kv-revision", "7")], absent).into_response()
        });
        let app = Router::new().route("/v1/kv/{*key}", held);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tasks.spawn("node", serve(listener, app, Limits::default(), tasks.clone()));
        let holder = Holder {
            name: "lease holder 0".to_owned(),
            number: 0,
            client: KvClient::builder([address]).build().unwrap(),
            tasks: tasks.clone(),
            book: Arc::clone(&book),
        };
        let sent = Instant::now().checked_sub(age).unwrap();
        holder.watch_to_the_end(key, sent).await;
        tasks.stop();
        let pages = book.pages();
        (pages.violations.clone(), pages.counts.len())
    }

    #[tokio::test]
    async fn a_key_that_goes_before_the_time_of_its_lease_is_over_is_named() {
        let (told, watched_to_the_end) = watched(GIVEN_UP, TTL / 2).await;
        assert!(told.len() == 1 && told[0].contains(GIVEN_UP), "{told:?}");
        assert!(told[0].contains("after its lease of 2s was renewed"), "{told:?}");
        assert_eq!(watched_to_the_end, 0);
        // When it is over, it may be gone.
        assert_eq!(watched(GIVEN_UP, TTL).await, (Vec::new(), 0));
    }

    #[tokio::test]
    async fn a_key_that_was_there_to_the_end_is_counted() {
        assert_eq!(watched(HELD, LATE).await, (Vec::new(), 1));
    }

    fn problem(code: &str) -> Box<Problem> {
        let code = code.to_owned();
        Box::new(Problem {
            code,
            ..Problem::default()
        })
    }

    #[test]
    fn a_lease_is_gone_only_when_its_time_is_over() {
        let gone = Error::Problem(problem("lease-not-found"));
        assert!(may_be_told(&gone, Some(TTL)));
        assert!(!may_be_told(
            &gone,
            Some(TTL.saturating_sub(Duration::from_millis(1)))
        ));
        assert!(!may_be_told(&gone, None), "none was asked for");
    }

    #[test]
    fn only_what_faults_lead_to_may_be_told() {
        let source = Trouble::Timeout;
        let unavailable = Error::Unavailable { source };
        assert!(may_be_told(&unavailable, None) && may_be_told(&unavailable, Some(TTL)));
        assert!(may_be_told(&Error::Problem(problem("disk-full")), None));
        let protocol = Error::Protocol {
            detail: "a body of another shape",
            source: None,
        };
        for never in [Error::Forbidden(problem("forbidden")), protocol] {
            assert!(!may_be_told(&never, Some(2 * TTL)), "{never:?}");
        }
    }
}
