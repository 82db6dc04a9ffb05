//! Keys on leases: while a lease is renewed in time its key must be there, and when nobody renews it the key must go.
//! Invariant: "in time" counts from before a renewal that succeeded was sent, so that the store had no right to end it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvstore_client::{KvClient, PutOptions};
use service::tasks::Tasks;

use super::book::Book;
use super::random::Random;

const HOLDERS: u64 = 3;
const TTL: Duration = Duration::from_secs(2);
const RENEW_EVERY: Duration = Duration::from_millis(300);
const RENEWALS_MAX: u64 = 10;

pub(super) fn start(client: &KvClient, tasks: &Tasks, book: &Arc<Book>, seed: u64) {
    for number in 0..HOLDERS {
        let holder = Holder {
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
        let Ok(lease) = self.client.lease_grant(TTL).await else {
            self.book.count("leases that failed");
            return tokio::time::sleep(RENEW_EVERY).await;
        };
        // Whatever becomes of the put, the key must be gone in the end.
        self.book.pages().to_go.push(key.to_owned());
        let options = PutOptions {
            lease: Some(lease.id),
            ..PutOptions::default()
        };
        if self.client.put_with(key, "held", options).await.is_err() {
            return self.book.count("leases that failed");
        }
        self.book.count("leases");
        for _ in 0..renewals {
            tokio::time::sleep(RENEW_EVERY).await;
            let asked = Instant::now();
            if self.client.lease_keepalive(lease.id).await.is_ok() {
                self.book.success();
                self.book.count("renewals");
                sent = asked;
            }
            let seen = self.client.get(key).await;
            // Only what was read while the lease surely lived says anything.
            if sent.elapsed() < TTL && matches!(seen, Ok(None)) {
                self.book.violation(format!(
                    "{key} is gone {:?} after its lease of {TTL:?} was renewed",
                    sent.elapsed()
                ));
            }
            if sent.elapsed() >= TTL {
                return;
            }
        }
    }
}
