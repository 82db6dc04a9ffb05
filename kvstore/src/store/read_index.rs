//! The index that a linearizable read has to wait for, on any node.
//!
//! The leader's own reads go to its desk, as the questions of the others do. A follower asks the leader, one
//! question for all reads that were waiting when it was sent; a read that comes later waits for the next,
//! since an index asked for before the read began could miss a write it must see.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use service::tasks::Tasks;
use service::time::Since;
use tokio::time::MissedTickBehavior;

use super::{LEADER_WAIT, ReadError};
use crate::raft::desk::Desk;
use crate::raft::network::message::{Ask, Moment, NotNow, Told};
use crate::raft::rounds::{HOLD, NoRound, Rounds};
use crate::raft::under_way::Going;
use crate::raft::view;

/// Questions to the leader under way.
const IN_FLIGHT: usize = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// A leader that is silent this long may have been replaced: ask again.
const ANSWER: Duration = Duration::from_millis(500);
/// How old a confirmation becomes where nobody reads.
const CONFIRM_EVERY: Duration = Duration::from_secs(1);

pub(super) struct ReadIndexes {
    desk: Arc<Desk>,
    rounds: Rounds<Result<Moment, ReadError>>,
    confirmed: Arc<Confirmed>,
}

/// When a majority last confirmed the leader, and the index it had then. It grows old while the machine sleeps, too.
#[derive(Default)]
struct Confirmed(Mutex<Option<(Since, u64)>>);

const POISON: &str = "no holder of the confirmation panics";

impl Confirmed {
    fn note(&self, asked: Since, index: u64) {
        let mut latest = self.0.lock().expect(POISON);
        if latest.is_none_or(|(before, _)| before < asked) {
            *latest = Some((asked, index));
        }
    }

    fn within(&self, age: Duration) -> Option<u64> {
        let latest = *self.0.lock().expect(POISON);
        let (asked, index) = latest?;
        (asked.elapsed() <= age).then_some(index)
    }
}

impl ReadIndexes {
    pub(super) fn start(desk: Arc<Desk>, tasks: &Tasks) -> Arc<Self> {
        let confirmed = Arc::new(Confirmed::default());
        let (asking, noting) = (Arc::clone(&desk), Arc::clone(&confirmed));
        let rounds = Rounds::start("read-index", tasks, IN_FLIGHT, move |going| {
            ask_in_turn(Arc::clone(&asking), Arc::clone(&noting), going)
        });
        let indexes = Arc::new(Self {
            desk,
            rounds,
            confirmed,
        });
        tasks.spawn(
            "confirmations",
            Arc::clone(&indexes).confirm_regularly(tasks.clone()),
        );
        indexes
    }

    /// Asks also when nobody reads: a node that is cut off can serve `bounded` only as far as it asked before.
    async fn confirm_regularly(self: Arc<Self>, tasks: Tasks) {
        let mut clock = tokio::time::interval(CONFIRM_EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = clock.tick() => {}
                () = tasks.stopping() => return,
            }
            // Once, and not until it succeeds: where no majority is left, that would go on for ever.
            let due = self.confirmed_within(CONFIRM_EVERY).is_none();
            if let Some(leader) = view::leader(&self.desk.raft).filter(|_| due) {
                let asked = Since::now();
                let answer = tokio::time::timeout(ANSWER, ask_leader(&self.desk, leader));
                tokio::select! {
                    answer = answer => if let Ok(Ok(moment)) = answer {
                        self.confirmed.note(asked, moment.index);
                    },
                    () = tasks.stopping() => return,
                }
            }
        }
    }

    pub(super) async fn read_index(&self) -> Result<Moment, ReadError> {
        let me = self.desk.peers.trust().identity.id();
        if view::leader(&self.desk.raft) == Some(me) {
            let asked = Since::now();
            if let Ok(moment) = self.desk.read_index().await {
                self.confirmed.note(asked, moment.index);
                return Ok(moment);
            }
        }
        self.rounds.ask().await.unwrap_or_else(|none| {
            Err(match none {
                NoRound::NotTakenOn => ReadError::NoLeader,
                NoRound::Stopping => ReadError::Stopping,
            })
        })
    }

    /// The index of a confirmation not older than `age`, if there is one.
    pub(super) fn confirmed_within(&self, age: Duration) -> Option<u64> {
        self.confirmed.within(age)
    }
}

/// A leader that is silent holds up no later reads for long: it may be another one that they find.
async fn ask_in_turn(desk: Arc<Desk>, confirmed: Arc<Confirmed>, going: Going) -> Result<Moment, ReadError> {
    let mut asking = std::pin::pin!(ask(&desk, &confirmed));
    match going.hold_up(HOLD, &mut asking).await {
        Some(answer) => answer,
        None => asking.await,
    }
}

/// Asks whoever leads until somebody does; reads may be repeated as often as it takes.
async fn ask(desk: &Desk, confirmed: &Confirmed) -> Result<Moment, ReadError> {
    let deadline = tokio::time::Instant::now() + LEADER_WAIT;
    loop {
        let leader = view::leader(&desk.raft);
        let asked = Since::now();
        let answer = match leader {
            Some(leader) => {
                let asking = async {
                    tokio::select! {
                        biased;
                        answer = ask_leader(desk, leader) => answer,
                        () = view::leader_changes(&desk.raft, Some(leader)) => Err(NotNow::NotLeader),
                    }
                };
                tokio::time::timeout(ANSWER, asking)
                    .await
                    .unwrap_or(Err(NotNow::NotLeader))
            }
            None => Err(NotNow::NotLeader),
        };
        if let Ok(moment) = answer {
            confirmed.note(asked, moment.index);
            return Ok(moment);
        }
        if tokio::time::Instant::now() + RETRY_PAUSE >= deadline {
            return Err(ReadError::NoLeader);
        }
        tokio::time::timeout(RETRY_PAUSE, view::leader_changes(&desk.raft, leader))
            .await
            .ok();
    }
}

async fn ask_leader(desk: &Desk, leader: u64) -> Result<Moment, NotNow> {
    if leader == desk.peers.trust().identity.id() {
        return desk.read_index().await;
    }
    let address = view::peer_address(&desk.raft, leader).ok_or(NotNow::NotLeader)?;
    match desk.peers.link(leader, &address).ask(&Ask::ReadIndex).await {
        Ok(Told::ReadIndex(answer)) => answer,
        Ok(_) | Err(_) => Err(NotNow::NotLeader),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_is_as_old_as_it_is_also_where_the_machine_slept() {
        let confirmed = Confirmed::default();
        let ten = Duration::from_secs(10);
        assert_eq!(confirmed.within(ten), None);
        confirmed.note(Since::now().earlier(ten), 7);
        assert_eq!(confirmed.within(ten / 2), None);
        assert_eq!(confirmed.within(ten * 6), Some(7));
        // Of two answers that overtake each other, that to the later question counts.
        confirmed.note(Since::now(), 8);
        confirmed.note(Since::now().earlier(ten), 6);
        assert_eq!(confirmed.within(ten / 2), Some(8));
    }
}
