//! Keys on leases: while a lease is renewed in time its key must be there, and when nobody renews it the key must go.
//! Invariant: "in time" counts from before a renewal that succeeded was sent, so that the store had no right to end it,
//! nor to know nothing of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvstore_client::{Error, KvClient, PutOptions};
use service::tasks::Tasks;

use super::book::Book;
use super::random::Random;
use super::sent::Fate;
use super::served::SERVED;

const HOLDERS: u64 = 3;
const TTL: Duration = Duration::from_secs(2);
const RENEW_EVERY: Duration = Duration::from_millis(300);
const RENEWALS_MAX: u64 = 10;

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
            let key = format!("chaos/lease/{}/{round:05}", self.number);
            let renewals = 1 + random.below(RENEWALS_MAX);
            tokio::select! {
                () = self.hold(&key, renewals) => {}
                () = self.tasks.stopping() => return,
            }
        }
    }

    async fn hold(&self, key: &str, renewals: u64) {
        let mut sent = Instant::now();
        let lease = match self.client.lease_grant(TTL).await {
            Ok(lease) => lease,
            Err(error) => {
                self.failed(&error, None);
                return tokio::time::sleep(RENEW_EVERY).await;
            }
        };
        // Whatever becomes of the put, the key must be gone in the end.
        self.book.pages().to_go.push(key.to_owned());
        let options = PutOptions {
            lease: Some(lease.id),
            ..PutOptions::default()
        };
        if let Err(error) = self.client.put_with(key, "held", options).await {
            return self.failed(&error, Some(sent.elapsed()));
        }
        self.book.count("leases");
        for _ in 0..renewals {
            tokio::time::sleep(RENEW_EVERY).await;
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
            match self.client.get(key).await {
                // Only what was read while the lease surely lived says anything.
                Ok(None) if sent.elapsed() < TTL => self.book.violation(format!(
                    "{key} is gone {:?} after its lease of {TTL:?} was renewed",
                    sent.elapsed()
                )),
                Ok(_) => {}
                Err(error) => self.failed(&error, None),
            }
            if sent.elapsed() >= TTL {
                return;
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
    use kvstore_client::Trouble;
    use kvstore_client::wire::problem::Problem;

    use super::*;

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
