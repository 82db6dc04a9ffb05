//! The append streams of one member, of which Raft is told one at a time. A leader gives up a stream without answers and
//! makes another, and while the disk here hangs none is answered: each would take up a connection, and Raft would have to
//! keep all that they say.
//!
//! Invariant: whoever waits has told Raft nothing, so the newest may take its place; whoever is told to make room reads no
//! more, and its turn lasts until all that it said is answered, or its connection has broken. Of one that broke Raft may
//! still take in a request or two, which do no harm late.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

const POISON: &str = "no holder of the turns panics";

#[derive(Default)]
pub(super) struct Turns(std::sync::Mutex<HashMap<u64, Line>>);

#[derive(Default)]
struct Line {
    /// Dropped when a newer stream comes.
    newest: Option<oneshot::Sender<Infallible>>,
    turn: Arc<Mutex<()>>,
}

/// A stream that may have to wait until the one before it is through.
pub(super) struct Waiting {
    pub(super) newer: Newer,
    turn: Arc<Mutex<()>>,
}

pub(super) struct Newer(oneshot::Receiver<Infallible>);

impl Turns {
    pub(super) fn enter(&self, peer: u64) -> Waiting {
        let (newest, newer) = oneshot::channel();
        let mut lines = self.0.lock().expect(POISON);
        let line = lines.entry(peer).or_default();
        line.newest = Some(newest);
        Waiting {
            newer: Newer(newer),
            turn: Arc::clone(&line.turn),
        }
    }
}

impl Waiting {
    /// Its turn, unless a newer one came before that.
    pub(super) async fn turn(&mut self) -> Option<OwnedMutexGuard<()>> {
        tokio::select! {
            biased;
            () = self.newer.comes() => None,
            turn = Arc::clone(&self.turn).lock_owned() => Some(turn),
        }
    }
}

impl Newer {
    pub(super) async fn comes(&mut self) {
        (&mut self.0).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_newest_stream_follows_the_one_whose_turn_it_is() {
        let turns = Turns::default();
        let [mut first, mut second] = [1, 1].map(|peer| turns.enter(peer));
        assert!(first.turn().await.is_none(), "there is a newer one");
        let turn = second.turn().await.expect("it is the newest");
        let mut other = turns.enter(2);
        assert!(other.turn().await.is_some(), "another member's");
        assert!(second.newer.comes().now_or_never().is_none(), "it is the newest");
        let mut third = turns.enter(1);
        assert!(second.newer.comes().now_or_never().is_some());
        assert!(third.turn().now_or_never().is_none(), "the second is not through");
        let mut fourth = turns.enter(1);
        assert!(third.turn().await.is_none());
        drop(turn);
        assert!(fourth.turn().await.is_some());
    }
}
