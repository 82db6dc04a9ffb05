//! Who leads the store, for the quiet corner of a page.
//! Invariant: it is asked once a second at the most, and nobody waits long for it.

use std::sync::{Mutex, PoisonError};

use tokio::time::{Duration, Instant};

use super::Shop;

const FRESH: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_millis(300);

/// What was heard last, and when.
#[derive(Default)]
pub(crate) struct Standing(Mutex<Option<(Instant, Option<String>)>>);

impl Shop {
    /// The name of the leader, such as `n1`; `None` when nobody leads, as far as one can hear.
    pub(crate) async fn leader(&self) -> Option<String> {
        {
            let heard = self.standing.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, leader)) = &*heard
                && at.elapsed() < FRESH
            {
                return leader.clone();
            }
        }
        let cluster = self.store.client.with_deadline(PATIENCE).cluster().await;
        let leader = cluster
            .ok()
            .and_then(|cluster| cluster.leader)
            .map(|id| format!("n{id}"));
        let mut heard = self.standing.0.lock().unwrap_or_else(PoisonError::into_inner);
        *heard = Some((Instant::now(), leader.clone()));
        leader
    }
}
