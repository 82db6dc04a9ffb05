//! Removes from this node's disk what compaction has given up, a little at a time.
//!
//! How far that has come is asked of the database each time: an installed snapshot brings another one, in which less
//! may have been removed.

use std::sync::Arc;
use std::time::Duration;

use service::planted::{Bug, is_planted};

use super::Upkeep;

const COLLECT_EVERY: Duration = Duration::from_secs(1);
const COLLECT_PAUSE: Duration = Duration::from_millis(50);

impl Upkeep {
    /// A little at a time, so that others get their turn, until nothing is left to remove.
    pub(super) async fn collect_regularly(self: Arc<Self>) {
        let mut pause = COLLECT_EVERY;
        while self.pause(pause).await {
            pause = if self.collect().await {
                COLLECT_PAUSE
            } else {
                COLLECT_EVERY
            };
        }
    }

    /// Removes what compaction gave up, unless a live pin still protects it. Whether there is more to remove.
    async fn collect(&self) -> bool {
        let machine = &self.desk.machine;
        // The state first, so that the database is at least as far: one that was installed in between brings a later
        // one. What the database alone says was given up may not have been told yet to those who read.
        let state = machine.state();
        let generation = machine.generation();
        let before = generation.db().collected();
        if before >= state.compacted {
            return false;
        }
        let floor = if is_planted(Bug::CollectsTooMuch) {
            state.revision
        } else {
            state.compacted
        };
        let collecting = self
            .tasks
            .spawn_blocking("collect", move || generation.db().collect(floor));
        match collecting.await {
            Ok(Ok(collected)) => (before + 1..state.compacted).contains(&collected),
            Ok(Err(error)) => {
                tracing::error!(%error, "given-up history could not be removed");
                false
            }
            // The node is stopping, or ends since damage was met.
            Err(_ended) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use tokio::time::timeout;

    use super::*;
    use crate::command::{Action, Expect};
    use crate::machine::host::{Item, Machine};
    use crate::machine::small::{entry, opened};
    use crate::raft::bare::{Bare, DEADLINE, calm};
    use crate::storage::damage::damage_in;
    use crate::storage::machine_db::EVENTS;

    /// Writes a key three times and gives up what was before the last.
    fn history() -> Vec<Item> {
        let put = || Action::Put {
            key: Bytes::from_static(b"key"),
            value: Bytes::from_static(b"value"),
            lease: 0,
            expect: Expect::Any,
        };
        let compact = Action::AutoCompact { revision: 3 };
        vec![entry(1, 1000, [put(), put(), put(), compact])]
    }

    fn collected(machine: &Machine) -> u64 {
        machine.generation().db().collected()
    }

    #[tokio::test]
    async fn a_state_that_was_installed_is_collected_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let node = Box::pin(Bare::start(1, &calm())).await;
        let (upkeep, machine) = (Upkeep::over(&node), &node.desk.machine);
        machine.apply(history()).unwrap();
        assert!(!upkeep.collect().await, "there is more to remove");
        assert_eq!(collected(machine), 3);
        // As far as this one, and nothing is removed there yet.
        let other = opened(folder.path());
        other.apply(history()).unwrap();
        let incoming = machine.incoming_folder();
        other.generation().db().checkpoint(&incoming).unwrap();
        machine.install(&incoming).unwrap();
        assert_eq!(collected(machine), 0);
        upkeep.collect().await;
        assert_eq!(collected(machine), 3);
        node.end().await;
    }

    #[tokio::test]
    async fn damage_that_is_met_ends_the_node() {
        let node = Box::pin(Bare::start(1, &calm())).await;
        let (upkeep, machine) = (Upkeep::over(&node), &node.desk.machine);
        machine.apply(history()).unwrap();
        machine.generation().db().flip_a_bit(EVENTS);
        assert!(!upkeep.collect().await);
        assert_eq!(collected(machine), 0);
        let said = timeout(DEADLINE, machine.damage.found()).await;
        let said = said.expect("the node goes on");
        assert_eq!(damage_in(node.folder.path()).unwrap(), Some(said));
        node.end().await;
    }
}
