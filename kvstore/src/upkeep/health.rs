//! What members ask each other about their health: whether their states are the same, and how fast their disks are.
//!
//! A member whose state differs from that of most voters ends and stays away. A leader whose disk has become much
//! slower than another's, or has no room where another has, lets that one lead. Neither touches the rules of the log.

use std::sync::Arc;
use std::time::Duration;

use service::config::StoreConfig;

use super::Upkeep;
use crate::command::Action;
use crate::machine::agreement::{Verdict, judge};
use crate::raft::network::message::{Ask, Health, Told};
use crate::raft::view::{self, RaftView};
use crate::storage::machine_db::TABLES_OF_STATE;

const ANSWER: Duration = Duration::from_millis(300);
const LOOK_AT_DISK_EVERY: Duration = Duration::from_millis(250);
/// So often in a row it must have been slow.
const SLOW_LOOKS: u32 = 4;
/// Disks that share what makes them slow gain nothing from a change.
const BETTER_BY: u32 = 4;
/// After a hand-over, or when nobody is better.
const SLOW_REST: Duration = Duration::from_secs(10);

impl Upkeep {
    /// The leader has the members compare; every member follows up what it doubts.
    pub(super) async fn agree(self: Arc<Self>, period: Duration) {
        let mut doubts = self.desk.machine.agreement.doubts();
        loop {
            let doubt = tokio::select! {
                () = tokio::time::sleep(period) => false,
                changed = doubts.changed() => changed.is_ok(),
                () = self.tasks.stopping() => return,
            };
            if doubt || self.leads() {
                self.compare(doubt).await;
            }
        }
    }

    async fn compare(&self, doubt: bool) {
        let view = view::view(&self.desk.raft);
        let answers = self.ask_all().await;
        // A member that does not answer may run a program that does not know the command, and could not apply it.
        let all_know = answers.len() == view.members.len().saturating_sub(1);
        let others: Vec<_> = answers
            .into_iter()
            .filter(|(id, _)| view.is_voter(*id))
            .map(|(id, health)| (id, health.marks))
            .collect();
        let agreement = &self.desk.machine.agreement;
        let verdict = judge(
            &agreement.marks(),
            view.is_voter(view.me),
            &others,
            view.voters.len(),
        );
        self.desk
            .metrics
            .health
            .disagreeing
            .set(i64::from(verdict != Verdict::Agreed));
        match verdict {
            Verdict::Agreed if doubt => {
                tracing::warn!("a doubt about the state of this member was not confirmed");
            }
            Verdict::Agreed => {}
            Verdict::OtherIsWrong(id) => tracing::error!(
                node.id = id,
                "this member's state differs from that of most voters; it has to be replaced (`menagerie kv member replace`)"
            ),
            Verdict::Undecided(id) => tracing::error!(
                node.id = id,
                "the states of this member and of that one differ, and no side has most of the voters: compare `menagerie kv hash`"
            ),
            Verdict::WeAreWrong(right) => {
                let what = format!(
                    "at revision {} most voters have the state hash {:032x}, and this member has another",
                    right.revision, right.hash
                );
                self.desk.machine.damage.report_corruption(TABLES_OF_STATE, &what);
                return;
            }
        }
        if all_know && self.leads() {
            let said = agreement.last();
            // Not now: the next round does it.
            self.desk.propose_own(Action::Agree { said }).await.ok();
        }
    }

    /// The members that answer, and what they say.
    async fn ask_all(&self) -> Vec<(u64, Health)> {
        let asked = self.desk.others().into_iter().map(|(id, member)| async move {
            let link = self.desk.peers.link(id, &member.peer_address);
            match tokio::time::timeout(ANSWER, link.ask(&Ask::Health)).await {
                Ok(Ok(Told::Health(health))) => Some((id, health)),
                _ => None,
            }
        });
        let answers = futures_util::future::join_all(asked).await;
        answers.into_iter().flatten().collect()
    }

    /// Lets another lead when syncing the log has become slow here and is not so there.
    pub(super) async fn watch_pace(self: Arc<Self>, store: StoreConfig) {
        let slow = Duration::from_millis(store.slow_disk_ms);
        let mut looks = 0;
        while self.pause(LOOK_AT_DISK_EVERY).await {
            let pace = self.desk.metrics.log_pace.now();
            looks = if pace >= slow && self.leads() {
                looks + 1
            } else {
                0
            };
            if looks < SLOW_LOOKS {
                continue;
            }
            looks = 0;
            self.flee(pace).await;
            if !self.pause(SLOW_REST).await {
                return;
            }
        }
    }

    async fn flee(&self, pace: Duration) {
        let view = view::view(&self.desk.raft);
        let answers = self.ask_all().await;
        let best = heirs(&view, answers).min_by_key(|(_, health)| health.sync_us);
        let better = best.filter(|(_, health)| Duration::from_micros(health.sync_us) * BETTER_BY < pace);
        let Some((heir, _)) = better else {
            tracing::warn!(
                disk.sync_ms = pace.as_millis(),
                "this disk is slow, and no voter that could take over has a faster one"
            );
            return;
        };
        if self.give_away(heir, "this disk has become slow").await {
            self.desk.metrics.health.slow_disk_handovers.inc();
        }
    }

    /// A leader without room refuses what others could take, and would end when others go on sending it their writes.
    pub(super) async fn flee_full_disk(&self) {
        let view = view::view(&self.desk.raft);
        let answers = self.ask_all().await;
        let roomy = heirs(&view, answers).filter(|(_, health)| !health.disk_full);
        if let Some((heir, _)) = roomy.min_by_key(|(_, health)| health.sync_us) {
            self.give_away(heir, "this disk is almost full").await;
        } else {
            tracing::warn!(
                "this disk is almost full, and no voter that could take over is known to have more room"
            );
        }
    }

    async fn give_away(&self, heir: u64, why: &str) -> bool {
        match self.desk.hand_over(heir).await {
            Ok(()) => {
                tracing::warn!(node.leader = heir, "{why}: handed over the lead");
                true
            }
            Err(refused) => {
                tracing::warn!(
                    node.id = heir,
                    ?refused,
                    "{why}, and that voter did not take over"
                );
                false
            }
        }
    }
}

/// Of those who answered, whoever could take over. What the others lack they would have to get first, however good
/// their disks are.
fn heirs(view: &RaftView, answers: Vec<(u64, Health)>) -> impl Iterator<Item = (u64, Health)> {
    answers.into_iter().filter(|(id, _)| view.can_take_over(*id))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::raft::view::Standing;

    #[test]
    fn who_lacks_much_is_no_heir() {
        let view = RaftView {
            me: 1,
            term: 2,
            leader: Some(1),
            state: Standing::Leader,
            last_log: Some(5000),
            committed: Some(5000),
            applied: Some(5000),
            snapshot: None,
            purged: None,
            members: BTreeMap::new(),
            voters: vec![1, 2, 3, 4],
            joint: false,
            members_committed: true,
            // The last of them is no voter.
            matched: BTreeMap::from([(1, 5000), (2, 4990), (3, 4000), (5, 5000)]),
            majority_silent: None,
        };
        let health = Health {
            sync_us: 100,
            marks: Vec::new(),
            disk_full: false,
        };
        let answers = (2..=5).map(|id| (id, health.clone())).collect();
        let heirs: Vec<u64> = heirs(&view, answers).map(|(id, _)| id).collect();
        assert_eq!(heirs, [2]);
    }
}
