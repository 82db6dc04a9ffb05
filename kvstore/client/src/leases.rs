//! Leases: granting, looking, revoking, and a handle that keeps one alive, and a key on it.
//! Invariant: a handle says "lost" no later than the store may let the lease run out, because it counts
//! from before the renewal was sent; so whoever heeds it stops before another can take over. While the machine
//! sleeps nobody can heed it: then it says so as soon as it is looked at, and to who waits a moment after waking.

use crate::call::{self, Request};
use crate::client::KvClient;
use crate::error::{Error, Result};
use crate::keys::PutOptions;
use crate::wire::lease::{Lease, LeaseRequest, LeaseStatus};
use crate::wire::{LeaseId, Revision};
use bytes::Bytes;
use reqwest::Method;
use service::time::Since;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// So that who could not put its key may soon try again.
const TAKE_BACK_MAX: Duration = Duration::from_millis(500);
/// A timer stands still while the machine sleeps, so whoever waits looks at the time this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl KvClient {
    /// A lease of 500 ms to 24 h.
    pub async fn lease_grant(&self, ttl: Duration) -> Result<Lease> {
        self.grant(ttl, None).await
    }

    /// A lease that keeps the history from `revision` on while it lives, for walks over pages that are under way.
    pub async fn lease_pin(&self, ttl: Duration, revision: Revision) -> Result<Lease> {
        self.grant(ttl, Some(revision)).await
    }

    async fn grant(&self, ttl: Duration, pin: Option<Revision>) -> Result<Lease> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let request = Request::write(Method::POST, "/v1/leases", self.keyed());
        self.call_json(request.json(&LeaseRequest { ttl_ms, pin })?).await
    }

    /// Gives the lease its full time again. It draws no idempotency key: twice is as good as once.
    pub async fn lease_keepalive(&self, id: LeaseId) -> Result<Lease> {
        let target = format!("/v1/leases/{id}/keepalive");
        self.call_json(Request::write(Method::POST, target, self.repeatable()))
            .await
    }

    /// `None` when there is no such lease, or no longer.
    pub async fn lease_get(&self, id: LeaseId) -> Result<Option<LeaseStatus>> {
        let request = Request::read(format!("/v1/leases/{id}"), self.prefer_for_reads());
        match self.call_json(request).await {
            Err(error) if is_gone(&error) => Ok(None),
            other => other.map(Some),
        }
    }

    pub async fn lease_list(&self) -> Result<Vec<LeaseStatus>> {
        self.call_json(Request::read("/v1/leases", self.prefer_for_reads()))
            .await
    }

    /// Ends the lease and deletes its keys. False when it was gone already.
    pub async fn lease_revoke(&self, id: LeaseId) -> Result<bool> {
        let request = Request::write(Method::DELETE, format!("/v1/leases/{id}"), self.keyed());
        match self.call(request).await {
            Ok(_) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts the key under a lease of its own that is kept alive: it is there until the handle goes. `Conflict` when
    /// another put came between, which may be an earlier one of ours that was done late: then it is to be tried again.
    pub async fn put_kept(&self, key: &str, value: Bytes, ttl: Duration) -> Result<LeaseHandle> {
        let client = self.with_own_keys();
        // Put without looking, one that is done late would take the key from the lease that it hangs on by then to its
        // own, and with that the key would go while its keeper sees nothing amiss.
        let present = client.get(key).await?;
        let lease = client.lease_keep(ttl).await?;
        let options = PutOptions {
            lease: Some(lease.id()),
            if_absent: present.is_none(),
            if_match: present.map(|kv| kv.mod_revision),
        };
        let Err(error) = client.put_with(key, value, options).await else {
            return Ok(lease);
        };
        // What became of the put may be unknown, but without the lease it leaves nothing. It runs out should this fail.
        let _gone = timeout(TAKE_BACK_MAX, lease.release()).await;
        Err(error)
    }

    /// Grants a lease and keeps it alive on a task of this client's set until the handle goes.
    pub async fn lease_keep(&self, ttl: Duration) -> Result<LeaseHandle> {
        let asked_for = Term::begin(ttl);
        let client = self.with_own_keys();
        let lease = client.lease_grant(ttl).await?;
        let granted = Term {
            ttl: Duration::from_millis(lease.ttl_ms),
            ..asked_for
        };
        let (told, term) = watch::channel(Some(granted));
        let stop = CancellationToken::new();
        let keeper = Keeper {
            client: client.clone(),
            id: lease.id,
            term: granted,
            told,
        };
        let (tasks, stopped) = (self.tasks().clone(), stop.clone());
        self.tasks().spawn("lease keep-alive", async move {
            tokio::select! {
                () = keeper.run() => {}
                () = stopped.cancelled() => {}
                () = tasks.stopping() => {}
            }
        });
        Ok(LeaseHandle {
            id: lease.id,
            client,
            term,
            stop: stop.drop_guard(),
        })
    }
}

pub(crate) fn is_gone(error: &Error) -> bool {
    error.code() == "lease-not-found"
}

/// For how long the store surely keeps a lease, counted from before it was asked to, by two clocks: that of the timers
/// stands still while this machine sleeps, and the store's does not.
#[derive(Clone, Copy, Debug)]
struct Term {
    ttl: Duration,
    began: Instant,
    since: Since,
}

impl Term {
    fn begin(ttl: Duration) -> Self {
        Self {
            ttl,
            began: Instant::now(),
            since: Since::now(),
        }
    }

    fn left(&self) -> Duration {
        self.ttl
            .saturating_sub(self.began.elapsed().max(self.since.elapsed()))
    }

    fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Returns once no more than this is left. Cancel-safe.
    async fn until_left(&self, most: Duration) {
        loop {
            let wait = self.left().saturating_sub(most);
            if wait.is_zero() {
                return;
            }
            sleep(wait.min(LOOK_EVERY)).await;
        }
    }

    async fn over(&self) {
        self.until_left(Duration::ZERO).await;
    }
}

/// A lease that is kept alive. Dropped without `release`, it is no longer renewed and runs out by itself.
#[derive(Debug)]
pub struct LeaseHandle {
    id: LeaseId,
    client: KvClient,
    /// `None` once it is lost. Nobody need have looked for the time to be over.
    term: watch::Receiver<Option<Term>>,
    stop: DropGuard,
}

impl LeaseHandle {
    pub fn id(&self) -> LeaseId {
        self.id
    }

    pub fn is_lost(&self) -> bool {
        let over = self.term.borrow().is_none_or(|term| term.is_over());
        // The keeper's end, for whatever reason, means that nobody renews the lease.
        over || self.term.has_changed().is_err()
    }

    /// Waits until the lease is lost, or nobody renews it any longer. Cancel-safe.
    pub async fn lost(&self) {
        let mut terms = self.term.clone();
        loop {
            let term = *terms.borrow_and_update();
            let Some(term) = term else { break };
            // Who asks after a sleep of the machine is told at once, and not only when the keeper has looked.
            let renewed = tokio::select! {
                () = term.over() => false,
                // The keeper's end closes the channel, which is the same news.
                changed = terms.changed() => changed.is_ok(),
            };
            if !renewed {
                break;
            }
        }
        tracing::debug!(lease.id = self.id, "lease is lost");
    }

    /// Ends the lease now and deletes its keys. False when it was gone already.
    pub async fn release(self) -> Result<bool> {
        drop(self.stop);
        self.client.lease_revoke(self.id).await
    }
}

struct Keeper {
    client: KvClient,
    id: LeaseId,
    /// When this is over the store may end the lease.
    term: Term,
    told: watch::Sender<Option<Term>>,
}

impl Keeper {
    /// Renews until the lease is lost.
    async fn run(mut self) {
        let ttl = self.term.ttl;
        let early = ttl.saturating_sub(ttl / 3);
        let mut renew_at = early;
        loop {
            self.term.until_left(renew_at).await;
            let next = Term::begin(ttl);
            let left = self.term.left();
            if left.is_zero() {
                break;
            }
            let client = self.client.with_deadline(left);
            let answer = tokio::select! {
                answer = client.lease_keepalive(self.id) => Some(answer),
                () = self.term.over() => None,
            };
            match answer {
                Some(Ok(_)) => {
                    self.term = next;
                    self.told.send_replace(Some(next));
                    renew_at = early;
                }
                Some(Err(error)) if !is_gone(&error) => {
                    tracing::debug!(lease.id = self.id, %error, "lease not renewed yet");
                    renew_at = self.term.left().saturating_sub(call::jitter(RETRY_PAUSE));
                }
                Some(Err(_)) | None => break,
            }
        }
        tracing::warn!(lease.id = self.id, "lease ran out although it was to be kept");
        self.told.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use super::{Keeper, LeaseHandle, Term};
    use crate::client::KvClient;
    use service::time::Since;
    use tokio::sync::watch;
    use tokio::time::{Duration, timeout};
    use tokio_util::sync::CancellationToken;

    /// Shorter than this machine has run, or it could not have slept for so long.
    const TTL: Duration = Duration::from_secs(30);
    const SOON: Duration = Duration::from_secs(5);

    /// The machine slept for all of it; the clock of the timers has not noticed.
    fn slept_through() -> Term {
        let term = Term::begin(TTL);
        assert!(!term.is_over());
        Term {
            since: Since::now().earlier(TTL),
            ..term
        }
    }

    fn client() -> KvClient {
        KvClient::builder(["127.0.0.1:9"]).build().unwrap()
    }

    #[tokio::test]
    async fn a_lease_is_lost_to_its_holder_when_the_machine_slept_for_longer() {
        let (_keeper_stands_still, term) = watch::channel(Some(slept_through()));
        let lease = LeaseHandle {
            id: 7,
            client: client(),
            term,
            stop: CancellationToken::new().drop_guard(),
        };
        assert!(lease.is_lost());
        timeout(SOON, lease.lost()).await.expect("the loss is never told");
    }

    #[tokio::test]
    async fn a_keeper_whose_machine_slept_for_longer_renews_no_more() {
        let (told, term) = watch::channel(Some(Term::begin(TTL)));
        let keeper = Keeper {
            client: client(),
            id: 7,
            term: slept_through(),
            told,
        };
        timeout(SOON, keeper.run()).await.expect("the keeper goes on");
        assert!(term.borrow().is_none());
    }
}
