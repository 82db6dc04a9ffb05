//! Has answers swept whose time is over, where the entries of clients do not keep up with it.
//!
//! What an entry sweeps is bounded, and the same on members of all versions, since their states must be; what it keeps
//! is not. Invariant: what is proposed here holds no command, so every member knows it, and does with it what it does
//! with each entry first: it sweeps.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::Upkeep;
use crate::command::{Proposal, encode_commands};
use crate::machine::state::State;

/// While sweeping keeps up.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Entries are proposed for it when it is so far behind. A second is as it should be.
const LAG_MS_MAX: u64 = 2000;
/// They sweep 4096 answers, so with the pause and a commit about 50 000 a second.
const ROUND_ENTRIES: usize = 8;
/// Between two rounds clients get their turn.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

/// By the state's own clock: where nothing is proposed it stands still, and nothing ends.
fn lags(state: &State) -> bool {
    state.now_ms.saturating_sub(state.answers_swept_ms) > LAG_MS_MAX
}

impl Upkeep {
    pub(super) async fn sweep_regularly(self: Arc<Self>) {
        while self.until_leading().await {
            let lags = lags(&self.desk.machine.state());
            if lags {
                tokio::select! {
                    () = self.sweep() => {}
                    () = self.tasks.stopping() => return,
                }
            }
            self.pause(if lags { ROUND_PAUSE } else { LOOK_EVERY }).await;
        }
    }

    /// Not through the intake, which would join them to those of clients. All at once, so that they share a sync.
    async fn sweep(&self) {
        let desk = &self.desk;
        let entries = (0..ROUND_ENTRIES).map(|_| {
            let nothing = Proposal::new(desk.machine.now_ms(), &encode_commands(&[]));
            desk.raft.client_write(nothing)
        });
        // Where it fails the next round, or the next leader, goes on.
        let written = join_all(entries).await;
        let written = written.iter().filter(|written| written.is_ok()).count();
        desk.metrics.proposals.inc_by(written as u64);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::command::{Action, Actor, Command, Once};
    use crate::raft::bare::{Bare, DEADLINE};

    const BEGIN_MS: u64 = 1_000_000;

    /// One entry, which keeps many answers for a moment.
    async fn keep(node: &Bare, at_ms: u64) {
        let command = |number: u32| Command {
            actor: Actor::System,
            action: Action::LeaseRenew { id: 1 },
            once: Some(Once {
                key: format!("{at_ms}/{number:04}"),
                fingerprint: [0; 16],
                ttl_ms: 1,
                room_bytes: u64::MAX,
            }),
        };
        let commands: Vec<Command> = (0..1500).map(command).collect();
        let proposal = Proposal::new(at_ms, &encode_commands(&commands));
        node.desk.raft.client_write(proposal).await.unwrap();
    }

    #[tokio::test]
    async fn answers_that_entries_do_not_sweep_do_not_pile_up() {
        let nodes = Bare::cluster(1).await;
        let (node, machine) = (&nodes[0], &nodes[0].desk.machine);
        keep(node, BEGIN_MS).await;
        let of_one = machine.state().answers_bytes;
        for entry in 1..4 {
            keep(node, BEGIN_MS + entry * 5000).await;
        }
        let piled = machine.state();
        assert!(piled.answers_bytes > 2 * of_one && lags(&piled), "{piled:?}");
        node.tasks.spawn("sweeper", Upkeep::over(node).sweep_regularly());
        // Those of the last entry have not ended.
        let mut progress = machine.progress();
        let swept = progress.wait_for(|_| machine.state().answers_bytes == of_one);
        assert!(timeout(DEADLINE, swept).await.is_ok(), "{:?}", machine.state());
        assert!(!lags(&machine.state()));
        for node in nodes {
            node.end().await;
        }
    }
}
