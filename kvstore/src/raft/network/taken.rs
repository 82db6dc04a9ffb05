//! When this node last took in a request of an append stream. For a short time a leader lets an answer to one stand
//! for what it has sent since (`super::sent`), because whoever answered has not voted for another meanwhile. A lease
//! makes sure of that, except where a vote is asked for as by a leader that hands over: then leases do not count. The
//! dead-leader shortcut asks so, and the leader may live all the same: its port can also be refused on the way to it.
//!
//! Invariant: whoever gives such a vote, also to itself, took in nothing for longer than its answers could stand for
//! anything later, and takes in nothing until Raft has the vote.

use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

use super::sent::LATE;

/// A little longer, since the leader counts by a clock of its own. One that stood still with its whole machine is not
/// made up for.
const QUIET: Duration = LATE.saturating_add(Duration::from_millis(1));

#[derive(Default)]
pub struct Taken(Mutex<Option<Instant>>);

impl Taken {
    /// A request has come, and goes to Raft after this. Cancel-safe.
    pub(super) async fn note(&self) {
        *self.0.lock().await = Some(Instant::now());
    }

    /// When the last one came. Cancel-safe.
    pub(super) async fn last(&self) -> Option<Instant> {
        *self.0.lock().await
    }

    /// Waits until a vote can do no harm. As long as what this answers is held, nothing is taken in. Cancel-safe.
    ///
    /// That a stream has ended changes nothing: it may have been cut on the way, and the leader still read its answers.
    pub(super) async fn quiet(&self) -> MutexGuard<'_, Option<Instant>> {
        loop {
            let last = self.last().await;
            if let Some(quiet) = self.quiet_since(last).await {
                return quiet;
            }
        }
    }

    /// The same while nothing comes after what was `last`: whoever sends more lives, and `None` says so.
    pub(super) async fn quiet_since(&self, last: Option<Instant>) -> Option<MutexGuard<'_, Option<Instant>>> {
        loop {
            let now = self.0.lock().await;
            if *now != last {
                return None;
            }
            let left = last.map_or(Duration::ZERO, |last| QUIET.saturating_sub(last.elapsed()));
            if left.is_zero() {
                return Some(now);
            }
            drop(now);
            tokio::time::sleep(left).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use openraft::raft::{AppendEntriesRequest, VoteRequest};

    use super::*;
    use crate::raft::bare::{Bare, calm, trust};
    use crate::raft::entry::log_id;
    use crate::raft::led::{FOLLOWER, LEADER, begin_to_lead};
    use crate::raft::network::frame::write_frame;
    use crate::raft::network::handshake::{Purpose, connect};
    use crate::raft::network::message::{self, Control, Controlled, Streamed};
    use crate::raft::types::Vote;

    #[tokio::test]
    async fn whoever_took_in_nothing_votes_at_once_and_lets_nothing_in_meanwhile() {
        let taken = Taken::default();
        let voting = taken
            .quiet()
            .now_or_never()
            .expect("there is nothing to wait for");
        assert!(taken.note().now_or_never().is_none(), "it may be answered");
        drop(voting);
        assert!(taken.note().now_or_never().is_some(), "nobody votes");
        assert!(taken.quiet().now_or_never().is_none(), "the answer is young");
    }

    #[tokio::test]
    async fn a_vote_that_sets_leases_aside_waits_until_no_answer_is_young() {
        let node = Bare::start(FOLLOWER, &calm()).await;
        begin_to_lead(&node.desk, "127.0.0.1:1").await;
        let there = tempfile::tempdir().unwrap();
        let leader = trust(there.path(), LEADER);
        let appending = connect(&leader, FOLLOWER, &node.address, Purpose::Append);
        let mut appends = appending.await.unwrap();
        let controlling = connect(&leader, FOLLOWER, &node.address, Purpose::Control);
        let mut control = controlling.await.unwrap();
        let last = Some(log_id(1, LEADER, 0));
        let append = AppendEntriesRequest {
            vote: Vote::new_committed(1, LEADER),
            prev_log_id: last,
            entries: Vec::new(),
            leader_commit: None,
        };
        let vote = VoteRequest {
            vote: Vote::new(2, LEADER),
            last_log_id: last,
            leadership_transfer: true,
        };
        let began = Instant::now();
        let append = message::encode_append(&append);
        write_frame(&mut appends.writer, &append).await.unwrap();
        let answer = appends.reader.next().await.unwrap().expect("it goes on");
        let answer: Streamed = message::decode(&answer).unwrap();
        assert!(matches!(answer, Streamed::Flushed(_)), "{answer:?}");
        let vote = message::encode(&Control::Vote(vote));
        write_frame(&mut control.writer, &vote).await.unwrap();
        let answer = control.reader.next().await.unwrap().expect("it goes on");
        let answer: Controlled = message::decode(&answer).unwrap();
        assert!(
            matches!(&answer, Controlled::Voted(voted) if voted.vote_granted),
            "{answer:?}"
        );
        let took = began.elapsed();
        assert!(took > LATE, "it voted {took:?} after it was asked to append");
        node.end().await;
    }
}
