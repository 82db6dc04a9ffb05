//! Connections that have not proved yet who they are: few, and the oldest makes room for the newest.
//!
//! Who proves it does so within a few messages; who keeps others waiting outside is a stranger.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

const STRANGERS_MAX: usize = 64;
const POISON: &str = "no holder of the doorway panics";

#[derive(Default)]
struct Inside {
    next: u64,
    /// By their turn. Whose entry is dropped is sent away.
    strangers: BTreeMap<u64, oneshot::Sender<()>>,
}

#[derive(Clone, Default)]
pub(super) struct Doorway(Arc<Mutex<Inside>>);

/// A stranger's place, until it is dropped.
pub(super) struct Place {
    doorway: Doorway,
    turn: u64,
    kept: oneshot::Receiver<()>,
}

impl Doorway {
    pub(super) fn enter(&self) -> Place {
        let mut inside = self.0.lock().expect(POISON);
        if inside.strangers.len() >= STRANGERS_MAX {
            inside.strangers.pop_first();
        }
        let (keep, kept) = oneshot::channel();
        let turn = inside.next;
        inside.next += 1;
        inside.strangers.insert(turn, keep);
        Place {
            doorway: self.clone(),
            turn,
            kept,
        }
    }
}

impl Place {
    /// Returns when somebody newer needs it.
    pub(super) async fn lost(&mut self) {
        (&mut self.kept).await.ok();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.doorway.0.lock().expect(POISON).strangers.remove(&self.turn);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn the_oldest_stranger_makes_room() {
        let doorway = Doorway::default();
        let mut first = doorway.enter();
        let proved = doorway.enter();
        let mut others: Vec<Place> = (2..STRANGERS_MAX).map(|_| doorway.enter()).collect();
        drop(proved);
        others.push(doorway.enter());
        assert!(first.lost().now_or_never().is_none(), "there was room for all");
        let mut newest = doorway.enter();
        assert!(first.lost().now_or_never().is_some());
        assert!(others[0].lost().now_or_never().is_none() && newest.lost().now_or_never().is_none());
    }
}
