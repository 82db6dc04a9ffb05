//! What a read that begins now has to see, by the word of a majority.
//!
//! openraft asks the majority once for all who wait, but each question is a message to its core, a turn of it and a
//! deadline. So the leader's own reads and those of the others share their questions; who is alone asks by itself.
//! Invariant: openraft is asked after every read that its answer serves has begun.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use service::tasks::Tasks;

use super::network::message::NotNow;
use super::rounds::{HOLD, Rounds};
use super::types::Raft;
use super::under_way::Going;
use crate::metrics::NodeMetrics;

/// A majority that is silent this long is not waited for: another may lead.
const ANSWER: Duration = Duration::from_millis(500);
/// Rounds that wait for such a majority, each begun when the one before it has taken long.
const SEEKING_MAX: usize = 64;

pub struct Reads {
    raft: Raft,
    metrics: Arc<NodeMetrics>,
    rounds: Rounds<Result<u64, NotNow>>,
}

impl Reads {
    pub fn start(raft: Raft, tasks: &Tasks, metrics: Arc<NodeMetrics>) -> Self {
        let (asked, counted) = (raft.clone(), Arc::clone(&metrics));
        let rounds = Rounds::start("read-round", tasks, SEEKING_MAX, move |going| {
            let (raft, metrics) = (asked.clone(), Arc::clone(&counted));
            async move { confirmed(&raft, &metrics, going).await }
        });
        Self {
            raft,
            metrics,
            rounds,
        }
    }

    /// The index after the last entry that a read beginning now has to see; a majority has confirmed that this node
    /// still leads. Cancel-safe.
    pub async fn index(&self) -> Result<u64, NotNow> {
        if let Some(going) = self.rounds.alone() {
            return confirmed(&self.raft, &self.metrics, going).await;
        }
        self.rounds.ask().await.unwrap_or(Err(NotNow::NotLeader))
    }
}

async fn confirmed(raft: &Raft, metrics: &NodeMetrics, going: Going) -> Result<u64, NotNow> {
    metrics.read_index_rounds.inc();
    let mut asking = std::pin::pin!(raft.get_read_linearizer(ReadPolicy::ReadIndex));
    let told = match going.hold_up(HOLD, &mut asking).await {
        Some(told) => told,
        None => tokio::time::timeout(ANSWER.saturating_sub(HOLD), asking)
            .await
            .map_err(|_late| NotNow::NotLeader)?,
    };
    let linearizer = told.map_err(|_refused| NotNow::NotLeader)?;
    Ok(linearizer.read_log_id().index() + 1)
}
