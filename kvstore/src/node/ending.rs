//! How a node ends: first another leads, then Raft stops and with it all that works for it.
//! Invariant: nothing is waited for without end, since it may be for the disk that it does not come.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use service::tasks::Tasks;

use crate::machine::host::Machine;
use crate::raft::desk::Desk;
use crate::raft::network::message::Ask;
use crate::raft::types::Raft;
use crate::raft::view;

/// How long the others have to take over when this node stops.
const HAND_OVER: Duration = Duration::from_secs(3);
/// Who does not answer within this is no heir.
const HEIR_ANSWERS: Duration = Duration::from_millis(200);

/// A leader that stops lets the most advanced voter lead first, so that nobody waits for a timeout.
pub(super) async fn hand_over(desk: &Desk) {
    let view = view::view(&desk.raft);
    if !view.is_leader() {
        return;
    }
    let mut heirs: Vec<u64> = view
        .voters
        .iter()
        .copied()
        .filter(|voter| *voter != view.me)
        .collect();
    heirs.sort_by_key(|voter| std::cmp::Reverse(view.matched.get(voter).copied()));
    let others = desk.others();
    for heir in heirs {
        // One that is gone would be waited for in vain; when all stop, the last has nobody to hand over to.
        let lives = match others.get(&heir) {
            Some(member) => answers(desk, heir, &member.peer_address).await,
            None => false,
        };
        if !lives {
            continue;
        }
        match tokio::time::timeout(HAND_OVER, desk.hand_over(heir)).await {
            Ok(Ok(())) => {
                tracing::info!(node.leader = heir, "handed over the lead");
                return;
            }
            Ok(Err(refused)) => tracing::warn!(node.id = heir, ?refused, "this voter did not take over"),
            Err(_) => tracing::warn!(node.id = heir, "this voter did not take over in time"),
        }
    }
}

async fn answers(desk: &Desk, id: u64, peer_address: &str) -> bool {
    let link = desk.peers.link(id, peer_address);
    let answer = tokio::time::timeout(HEIR_ANSWERS, link.ask(&Ask::Probe)).await;
    matches!(answer, Ok(Ok(_)))
}

/// Raft's core waits for the disk itself when it votes, and hears nobody meanwhile; so its end is waited for as that of any
/// task is. Answers whether all has ended in time.
pub(super) async fn end_raft(raft: &Raft, inner: &Tasks, deadline: Duration) -> bool {
    inner.stop();
    let ending = raft.clone();
    inner.spawn("raft-end", async move { ending.shutdown().await });
    let has_ended = inner.drain(deadline).await;
    if !has_ended {
        let running = inner.running();
        tracing::warn!(
            tasks = running,
            "not all that this node does has ended in time; its disk may hang"
        );
    }
    has_ended
}

/// Spares the next start the reading of the log. A disk that hangs meanwhile is left behind: the log has it all.
pub(super) async fn flush(machine: &Arc<Machine>, deadline: Duration) -> anyhow::Result<()> {
    let machine = Arc::clone(machine);
    let flushing = tokio::task::spawn_blocking(move || machine.generation().db().flush());
    if let Ok(flushed) = tokio::time::timeout(deadline, flushing).await {
        flushed?.context("flush the state machine")?;
    } else {
        tracing::warn!("the state was not brought to disk in time; its disk may hang");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::time::timeout;

    use super::*;
    use crate::raft::bare::{Bare, DEADLINE, calm};
    use crate::raft::log::held;
    use crate::raft::types::Member;

    const SOON: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn raft_is_not_waited_for_without_end_while_it_waits_for_its_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (log, release) = held::open(folder.path());
        let node = Bare::over(log, folder, 1, &calm()).await;
        let raft = &node.desk.raft;
        let alone = BTreeMap::from([(1, Member::default())]);
        raft.initialize(alone).await.unwrap();
        // It votes for itself, and has to write that down.
        raft.trigger().elect(false).await.unwrap();
        let asking = timeout(SOON, raft.with_raft_state(|_state| ())).await;
        assert!(asking.is_err(), "its disk does not hang");
        let ended = timeout(DEADLINE, end_raft(raft, &node.tasks, SOON)).await;
        assert!(!ended.expect("it is waited for"), "it says that it has ended");
        assert!(node.tasks.running() > 0, "it has ended");
        drop(release);
        assert!(node.tasks.drain(DEADLINE).await, "it ends once its disk answers");
    }
}
