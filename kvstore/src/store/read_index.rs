//! The index that a linearizable read has to wait for, on any node.
//!
//! The leader's own reads go to its desk, as the questions of the others do. A follower asks the leader, one
//! question for all reads that were waiting when it was sent; a read that comes later waits for the next,
//! since an index asked for before the read began could miss a write it must see.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use service::tasks::Tasks;

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

pub(super) struct ReadIndexes {
    desk: Arc<Desk>,
    rounds: Rounds<Result<Moment, ReadError>>,
    confirmed: Arc<Confirmed>,
}

/// When a majority last confirmed the leader, and the index it had then.
#[derive(Default)]
struct Confirmed(Mutex<Option<(Instant, u64)>>);

impl Confirmed {
    fn note(&self, asked: Instant, index: u64) {
        let mut latest = self.0.lock().expect("no holder of the confirmation panics");
        if latest.is_none_or(|(before, _)| before < asked) {
            *latest = Some((asked, index));
        }
    }
}

impl ReadIndexes {
    pub(super) fn start(desk: Arc<Desk>, tasks: &Tasks) -> Self {
        let confirmed = Arc::new(Confirmed::default());
        let (asking, noting) = (Arc::clone(&desk), Arc::clone(&confirmed));
        let rounds = Rounds::start("read-index", tasks, IN_FLIGHT, move |going| {
            ask_in_turn(Arc::clone(&asking), Arc::clone(&noting), going)
        });
        Self {
            desk,
            rounds,
            confirmed,
        }
    }

    pub(super) async fn read_index(&self) -> Result<Moment, ReadError> {
        let me = self.desk.peers.trust().identity.id();
        if view::leader(&self.desk.raft) == Some(me) {
            let asked = Instant::now();
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
        let latest = *self
            .confirmed
            .0
            .lock()
            .expect("no holder of the confirmation panics");
        latest
            .filter(|(asked, _)| asked.elapsed() <= age)
            .map(|(_, index)| index)
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
        let asked = Instant::now();
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
