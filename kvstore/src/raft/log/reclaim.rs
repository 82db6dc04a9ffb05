//! Gives back the room of removed entries, on a thread of its own: each of their files is unlinked, and the database
//! notes that on the disk, which may take long after a snapshot of much. Meanwhile entries have to get to the disk.
//! Invariant: of many ends only the newest counts, so nothing piles up here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::storage::closing::Joined;

pub(super) struct Reclaimer {
    /// Of what was removed.
    end: Arc<AtomicU64>,
    wake: mpsc::Sender<()>,
    /// After `wake`, whose end ends it.
    _thread: Joined,
}

impl Reclaimer {
    pub(super) fn start(mut give_back: impl FnMut(u64) + Send + 'static) -> io::Result<Self> {
        let end = Arc::new(AtomicU64::new(0));
        let (wake, mut woken) = mpsc::channel(1);
        let removed = Arc::clone(&end);
        let thread = Joined::spawn("log-reclaim", move || {
            while woken.blocking_recv().is_some() {
                give_back(removed.load(Ordering::Acquire));
            }
        })?;
        Ok(Self {
            end,
            wake,
            _thread: thread,
        })
    }

    /// Called once the removal is on disk: files are dropped without a word in the log of the database.
    pub(super) fn removed_before(&self, end: u64) {
        self.end.fetch_max(end, Ordering::AcqRel);
        // Where one is waiting already, it is yet to look how far it goes.
        self.wake.try_send(()).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn next(given: &Receiver<u64>) -> u64 {
        given.recv_timeout(PATIENCE).expect("it is given back")
    }

    #[test]
    fn nobody_waits_for_it_and_only_the_newest_counts() {
        let (begun, given) = sync_channel(8);
        let (go_on, may_go_on) = sync_channel(8);
        let reclaimer = Reclaimer::start(move |end| {
            begun.send(end).expect("the test listens");
            may_go_on.recv_timeout(PATIENCE).ok();
        })
        .expect("its thread starts");
        reclaimer.removed_before(3);
        assert_eq!(next(&given), 3);
        for end in [5, 8, 9] {
            reclaimer.removed_before(end);
        }
        assert!(given.try_recv().is_err(), "one at a time");
        for _ in 0..2 {
            go_on.send(()).expect("it waits");
        }
        // What it was told of is done before it ends.
        drop(reclaimer);
        assert_eq!(given.iter().collect::<Vec<u64>>(), [9]);
    }
}
