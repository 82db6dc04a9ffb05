//! Leases that many keys share: sessions and names are anybody's to make up, and the store has only so many leases.
//! Invariant: an instance asks for one lease in a slice of time, whoever hangs up meanwhile. A key that is put under it
//! stays at least as long as was wanted, and a slice longer at the most. Nobody ends a lease: it is not theirs alone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use kvstore_client::wire::LeaseId;
use kvstore_client::wire::txn::TxnAnswer;
use kvstore_client::{KvClient, Txn, problem_of};
use service::problem::{Problem, Result};
use service::tasks::Tasks;
use tokio::task::coop::unconstrained;
use tokio::time::{Duration, Instant};

use super::Shop;

/// All that was put under one lease goes at the same moment, so it should not be too much.
const SLICE_MAX: Duration = Duration::from_mins(10);
/// The longest that the store gives.
const TTL_MAX: Duration = Duration::from_hours(24);

type Asked = Shared<BoxFuture<'static, Result<LeaseId>>>;

/// Lends the same lease to all who ask within a slice of time.
pub(super) struct Leases {
    /// How long what is put under one stays at least.
    pub(super) least: Duration,
    slice: Duration,
    /// The last one, and since when it is lent.
    asked: Mutex<Option<(Instant, Asked)>>,
}

impl Leases {
    /// As long as this, or as a lease can last.
    pub(super) fn lasting(least: Duration) -> Self {
        let slice = (least / 4).min(SLICE_MAX);
        Self {
            least: least.min(TTL_MAX.saturating_sub(slice)),
            slice,
            asked: Mutex::default(),
        }
    }

    async fn lend(&self, client: &KvClient, tasks: &Tasks) -> Result<LeaseId> {
        self.ask(client, tasks).await
    }

    fn last(&self) -> MutexGuard<'_, Option<(Instant, Asked)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, client: &KvClient, tasks: &Tasks) -> Asked {
        // From before it is granted, so that the store never ends it sooner than is counted on.
        let now = Instant::now();
        let mut last = self.last();
        // What came is looked for here, for nobody may have waited for it: a refusal is not for the next one as well.
        if let Some((since, asked)) = &*last
            && now.duration_since(*since) < self.slice
            && !matches!(unconstrained(asked.clone()).now_or_never(), Some(Err(_)))
        {
            return asked.clone();
        }
        let (client, ttl) = (client.clone(), self.least + self.slice);
        // A task of its own: when whoever asked hangs up, what the store gives is for the next one, and not for nobody.
        let granted = tasks.spawn("lease", async move {
            let granted = client.lease_grant(ttl).await;
            granted.map(|lease| lease.id).map_err(problem_of)
        });
        let asked: BoxFuture<'static, Result<LeaseId>> = Box::pin(async move {
            match granted.await {
                Ok(lease) => lease,
                Err(gone) => Err(Problem::internal("ask for a lease", gone)),
            }
        });
        let asked = asked.shared();
        *last = Some((now, asked.clone()));
        asked
    }

    /// It is not in the store any more; whoever was faster may have another one already.
    fn forget(&self, lease: LeaseId) {
        let mut last = self.last();
        let is_it = |(_, asked): &(Instant, Asked)| matches!(asked.peek(), Some(Ok(id)) if *id == lease);
        if last.as_ref().is_some_and(is_it) {
            *last = None;
        }
    }
}

impl Shop {
    /// Commits what is put under a lease that others share. Where that is gone, as it is from a store that was restored
    /// from a backup, another one takes its place.
    pub(super) async fn commit_leased(
        &self,
        leases: &Leases,
        txn: impl Fn(LeaseId) -> Txn,
    ) -> Result<TxnAnswer> {
        let lease = leases.lend(&self.store.client, &self.tasks).await?;
        if let Some(answer) = self.commit_if_leased(txn(lease)).await? {
            return Ok(answer);
        }
        leases.forget(lease);
        let lease = leases.lend(&self.store.client, &self.tasks).await?;
        self.store.commit(txn(lease)).await
    }

    /// `None` when a lease that it names is gone.
    pub(super) async fn commit_if_leased(&self, txn: Txn) -> Result<Option<TxnAnswer>> {
        match self.store.client.txn(txn).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.code() == "lease-not-found" => Ok(None),
            Err(error) => Err(problem_of(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::time::timeout;

    use super::*;
    use crate::nowhere::Granting;

    impl Granting {
        async fn lend(&self, leases: &Leases) -> LeaseId {
            leases.lend(&self.client, &self.tasks).await.unwrap()
        }
    }

    #[tokio::test]
    async fn whoever_hangs_up_leaves_the_lease_to_the_next() {
        let (store, leases) = (Granting::start().await, Leases::lasting(Duration::from_hours(1)));
        for _ in 0..3 {
            let gone = timeout(Duration::from_millis(1), store.lend(&leases)).await;
            assert!(gone.is_err());
        }
        store.open();
        let lent = join_all((0..8).map(|_| store.lend(&leases))).await;
        assert_eq!(lent, [1; 8]);
        assert_eq!(store.granted(), 1);
    }

    #[tokio::test]
    async fn a_refusal_is_for_those_who_waited() {
        let (store, leases) = (Granting::start().await, Leases::lasting(Duration::from_hours(1)));
        let others = store.tasks.running();
        store.refuse_next();
        let gone = timeout(Duration::from_millis(1), store.lend(&leases)).await;
        assert!(gone.is_err());
        store.open();
        let refused = async {
            while store.tasks.running() > others {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), refused).await.unwrap();
        assert_eq!(store.lend(&leases).await, 1);
        assert_eq!(store.lend(&leases).await, 1);
    }

    #[tokio::test]
    async fn one_that_is_gone_is_replaced_once() {
        let (store, leases) = (Granting::start().await, Leases::lasting(Duration::from_hours(1)));
        store.open();
        assert_eq!(store.lend(&leases).await, 1);
        leases.forget(1);
        assert_eq!(store.lend(&leases).await, 2);
        leases.forget(1);
        assert_eq!(store.lend(&leases).await, 2);
        let always_over = Leases {
            slice: Duration::ZERO,
            ..leases
        };
        assert_eq!(store.lend(&always_over).await, 3);
    }

    #[test]
    fn no_lease_is_longer_than_the_store_gives() {
        for (wanted_s, least_s, ttl_ms) in [
            (1, 1, 1250),
            (60, 60, 75_000),
            (43_200, 43_200, 43_800_000),
            (86_400, 85_800, 86_400_000),
        ] {
            let leases = Leases::lasting(Duration::from_secs(wanted_s));
            assert_eq!(leases.least, Duration::from_secs(least_s));
            assert_eq!(leases.least + leases.slice, Duration::from_millis(ttl_ms));
        }
    }
}
