//! Leases: granting, looking, revoking, and a handle that keeps one alive.
//! Invariant: a handle says "lost" no later than the store may let the lease run out, because it counts
//! from before the renewal was sent; so whoever heeds it stops before another can take over.

use crate::call::{self, Request};
use crate::client::KvClient;
use crate::error::{Error, Result};
use crate::wire::lease::{Lease, LeaseRequest, LeaseStatus};
use crate::wire::{LeaseId, Revision};
use reqwest::Method;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

const RETRY_PAUSE: Duration = Duration::from_millis(50);

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

    /// Grants a lease and keeps it alive on a task of this client's set until the handle goes.
    pub async fn lease_keep(&self, ttl: Duration) -> Result<LeaseHandle> {
        let sent = Instant::now();
        let client = self.with_own_keys();
        let lease = client.lease_grant(ttl).await?;
        let expires = sent + Duration::from_millis(lease.ttl_ms);
        let (told, lives_until) = watch::channel(Some(expires));
        let stop = CancellationToken::new();
        let keeper = Keeper {
            client: client.clone(),
            id: lease.id,
            ttl: Duration::from_millis(lease.ttl_ms),
            expires,
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
            lives_until,
            stop: stop.drop_guard(),
        })
    }
}

pub(crate) fn is_gone(error: &Error) -> bool {
    error.code() == "lease-not-found"
}

/// A lease that is kept alive. Dropped without `release`, it is no longer renewed and runs out by itself.
#[derive(Debug)]
pub struct LeaseHandle {
    id: LeaseId,
    client: KvClient,
    /// `None` once it is lost. Nobody need have looked for the time to be over.
    lives_until: watch::Receiver<Option<Instant>>,
    stop: DropGuard,
}

impl LeaseHandle {
    pub fn id(&self) -> LeaseId {
        self.id
    }

    pub fn is_lost(&self) -> bool {
        let over = self
            .lives_until
            .borrow()
            .is_none_or(|until| Instant::now() >= until);
        // The keeper's end, for whatever reason, means that nobody renews the lease.
        over || self.lives_until.has_changed().is_err()
    }

    /// Waits until the lease is lost, or nobody renews it any longer. Cancel-safe.
    pub async fn lost(&self) {
        // The keeper's end closes the channel, which is the same news.
        let news = self.lives_until.clone().wait_for(Option::is_none).await.is_ok();
        tracing::debug!(lease.id = self.id, lease.expired = news, "lease is lost");
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
    ttl: Duration,
    /// When the store may end the lease, at the earliest.
    expires: Instant,
    told: watch::Sender<Option<Instant>>,
}

impl Keeper {
    /// Renews until the lease is lost.
    async fn run(mut self) {
        let mut next = self.expires - self.ttl + self.ttl / 3;
        loop {
            tokio::time::sleep_until(next).await;
            let sent = Instant::now();
            let left = self.expires.saturating_duration_since(sent);
            if left.is_zero() {
                break;
            }
            match self.client.with_deadline(left).lease_keepalive(self.id).await {
                Ok(_) => {
                    self.expires = sent + self.ttl;
                    self.told.send_replace(Some(self.expires));
                    next = sent + self.ttl / 3;
                }
                Err(error) if is_gone(&error) => break,
                Err(error) => {
                    tracing::debug!(lease.id = self.id, %error, "lease not renewed yet");
                    next = (Instant::now() + call::jitter(RETRY_PAUSE)).min(self.expires);
                }
            }
        }
        tracing::warn!(lease.id = self.id, "lease ran out although it was to be kept");
        self.told.send_replace(None);
    }
}
