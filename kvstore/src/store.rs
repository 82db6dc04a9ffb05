//! The store's use cases: propose or forward a write, find the moment a read may see, read, and tell
//! how things stand. The only caller of Raft; it must not know HTTP.

mod backup;
mod fair_room;
#[cfg(test)]
mod full_leader;
mod gauges;
#[cfg(test)]
mod lost_leader;
mod membership;
mod mirrors;
mod permit;
mod propose;
mod range;
mod read;
mod read_index;
mod sending;
mod standing;
mod tries;
mod weight;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use service::arrival;
use service::config::LimitsConfig;
use service::tasks::Tasks;
use service::time::Since;
use tokio::sync::Semaphore;

pub use crate::storage::walk::{Direction, Span};
pub use backup::Turn;
pub use fair_room::fair_part;
pub use membership::{Keyed, MemberError};
pub use mirrors::HearError;
pub use range::{Asker, RangePage, RangeQuery, With};
pub use read::{Got, Level, ReadError, ReadPoint};
pub use standing::{ClusterView, MemberView, Role, StatusView};

use crate::command::{Action, Command, Reply};
use crate::machine::host::Machine;
use crate::machine::state::Tokens;
use crate::metrics::NodeMetrics;
use crate::raft::desk::Desk;
use crate::raft::view;
use propose::Proposals;
use read_index::ReadIndexes;

/// How long a call waits for a leader before it gives up.
const LEADER_WAIT: Duration = Duration::from_secs(2);

/// Why a write has no answer. All but `OutcomeUnknown` say that it surely did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("no leader is known")]
    NoLeader,
    #[error("more is waiting than this node takes on")]
    Overloaded,
    #[error("the write may have happened, or may still")]
    OutcomeUnknown,
    #[error("the disk is almost full")]
    DiskFull,
    #[error("this node is stopping")]
    Stopping,
    #[error("a mirror is gone without which nothing is written")]
    MirrorLost,
    #[error("it is larger than what nodes send each other")]
    TooLarge,
}

#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    desk: Arc<Desk>,
    tasks: Tasks,
    edge: Tasks,
    proposals: Proposals,
    read_indexes: Arc<ReadIndexes>,
    fingerprint_key: Vec<u8>,
    folder: std::path::PathBuf,
    started: Instant,
    stopping: AtomicBool,
    backups: Arc<Semaphore>,
}

impl Store {
    pub fn start(
        name: String,
        desk: Arc<Desk>,
        (tasks, edge): (Tasks, Tasks),
        limits: &LimitsConfig,
        fingerprint_key: Vec<u8>,
        folder: std::path::PathBuf,
    ) -> Self {
        let proposals = Proposals::start(Arc::clone(&desk), &tasks, limits);
        let read_indexes = ReadIndexes::start(Arc::clone(&desk), &tasks);
        let inner = Inner {
            name,
            desk,
            tasks,
            edge,
            proposals,
            read_indexes,
            fingerprint_key,
            folder,
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            backups: Arc::new(Semaphore::new(1)),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Runs a command through the log; the answer is what applying it answered.
    pub async fn write(&self, command: Command) -> Result<Reply, WriteError> {
        self.write_of(command, arrival::came()).await
    }

    /// The same for what came then, as where its own task no longer tells.
    pub async fn write_of(&self, command: Command, came: Since) -> Result<Reply, WriteError> {
        if self.inner.desk.disk_full.load(Ordering::Relaxed) && self.needs_room(&command.action) {
            return Err(WriteError::DiskFull);
        }
        if self.passes_mirrors(&command.action) {
            return self.inner.proposals.propose_unheld(command, came).await;
        }
        self.inner.proposals.propose(command, came).await
    }

    /// Also a pin does that is renewed: history that it keeps cannot be given up.
    fn needs_room(&self, action: &Action) -> bool {
        let pins = |id| self.machine().leases.has_pin(id);
        action.grows() || matches!(action, Action::LeaseRenew { id } if pins(*id))
    }

    pub fn tokens(&self) -> Arc<Tokens> {
        self.inner.desk.machine.tokens()
    }

    pub fn machine(&self) -> &Arc<Machine> {
        &self.inner.desk.machine
    }

    pub fn metrics(&self) -> &Arc<NodeMetrics> {
        &self.inner.desk.metrics
    }

    /// Tasks that belong to clients' requests; they stop before the store does.
    pub fn edge(&self) -> &Tasks {
        &self.inner.edge
    }

    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Key of the fingerprints under which answers are kept; the same on all members.
    pub fn fingerprint_key(&self) -> &[u8] {
        &self.inner.fingerprint_key
    }

    /// Where clients find the leader.
    pub fn leader_client_address(&self) -> Option<String> {
        view::leader_client_address(&self.inner.desk.raft)
    }

    /// Whether what this node tells is not old without anybody noticing.
    pub fn is_in_touch(&self) -> bool {
        self.inner.desk.is_in_touch()
    }

    /// From now on this node says that it is not ready, while it still serves.
    pub fn set_stopping(&self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
    }

    pub fn set_disk_full(&self, full: bool) {
        if self.inner.desk.disk_full.swap(full, Ordering::Relaxed) != full {
            if full {
                tracing::error!("the disk is almost full: this node takes no writes that need room");
            } else {
                tracing::info!("the disk has room again: this node takes writes");
            }
        }
    }
}

#[cfg(test)]
impl Store {
    /// Over a node of which nobody takes care.
    pub(crate) fn over(node: &crate::raft::bare::Bare, limits: &LimitsConfig) -> Self {
        Self::start(
            format!("n{}", node.desk.peers.trust().identity.id()),
            Arc::clone(&node.desk),
            (node.tasks.clone(), node.tasks.clone()),
            limits,
            b"a key".to_vec(),
            node.folder.path().to_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Actor;
    use crate::raft::bare::Bare;

    #[tokio::test]
    async fn a_full_disk_lets_pins_end_and_keeps_other_leases() {
        let node = Bare::cluster(1).await.remove(0);
        let store = Store::over(&node, &LimitsConfig::default());
        let write = |action| {
            let actor = Actor::System;
            store.write(Command {
                actor,
                action,
                once: None,
            })
        };
        for (id, pin) in [(1, None), (2, Some(0))] {
            let ttl_ms = 60_000;
            write(Action::LeaseGrant { id, ttl_ms, pin }).await.unwrap();
        }
        for (full, told) in [(true, Some(WriteError::DiskFull)), (false, None)] {
            store.set_disk_full(full);
            write(Action::LeaseRenew { id: 1 }).await.unwrap();
            let renewed = write(Action::LeaseRenew { id: 2 }).await;
            assert_eq!(renewed.err(), told, "full: {full}");
        }
        node.end().await;
    }
}
