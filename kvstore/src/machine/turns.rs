//! Whose turn it is to do much work for one client: reading tables, or putting much into words.
//!
//! Invariant: few work at the same time, however many want to, and never all of them for one owner, so that nobody waits
//! for all that another one has asked for. A turn lasts as long as the work does, also when nobody waits for that any more.
//! It must not know what the work is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Of all. They are few, since a node has other things to do, and Raft must not wait for a processor.
const TURNS: usize = 2;
/// Of one owner.
const TURNS_EACH: usize = 1;

const POISON: &str = "no holder of the owners panics";
const NEVER_CLOSED: &str = "the semaphores are never closed";

/// Goes along to the thread that works.
#[derive(Debug)]
pub struct Turn {
    _own: OwnedSemaphorePermit,
    _one_of_all: OwnedSemaphorePermit,
}

pub struct Turns {
    all: Arc<Semaphore>,
    /// By name, of those who have wanted one lately.
    owners: Mutex<BTreeMap<String, Weak<Semaphore>>>,
}

/// The turns that one owner may have.
#[derive(Clone)]
pub struct OwnTurns {
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self::new()
    }
}

impl Turns {
    pub fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(TURNS)),
            owners: Mutex::default(),
        }
    }

    pub fn of(&self, owner: &str) -> OwnTurns {
        let mut owners = self.owners.lock().expect(POISON);
        let own = owners.get(owner).and_then(Weak::upgrade).unwrap_or_else(|| {
            // Now and then, so that nothing is left of those who have gone.
            owners.retain(|_, own| own.strong_count() > 0);
            let own = Arc::new(Semaphore::new(TURNS_EACH));
            owners.insert(owner.to_owned(), Arc::downgrade(&own));
            own
        });
        OwnTurns {
            own,
            all: Arc::clone(&self.all),
        }
    }
}

impl OwnTurns {
    /// Whoever waits for it has to be polled, or else holds it up: that is not left to a client.
    pub async fn turn(&self) -> Turn {
        // First among one's own: an owner with many watchers waits for one of all turns only once.
        let own = Arc::clone(&self.own).acquire_owned().await;
        let one_of_all = Arc::clone(&self.all).acquire_owned().await;
        Turn {
            _own: own.expect(NEVER_CLOSED),
            _one_of_all: one_of_all.expect(NEVER_CLOSED),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn there_are_few_turns_and_never_all_for_one_owner() {
        let turns = Turns::new();
        let (one, other, third) = (turns.of("one"), turns.of("other"), turns.of("third"));
        let own = one.turn().now_or_never().expect("it is free");
        assert!(turns.of("one").turn().now_or_never().is_none());
        let mut waiting = Box::pin(one.turn());
        assert!(waiting.as_mut().now_or_never().is_none());
        // However many of them wait, there is one for another owner.
        let others = other.turn().now_or_never().expect("it is free");
        assert!(third.turn().now_or_never().is_none(), "two are at work");
        drop(own);
        let again = waiting.now_or_never().expect("it is one's turn again");
        assert!(third.turn().now_or_never().is_none(), "two are at work");
        drop(others);
        let last = third.turn().now_or_never().expect("it is free");
        drop((again, last));
        drop((one, other, third));
        let _anybody = turns.of("anybody");
        assert_eq!(turns.owners.lock().unwrap().len(), 1);
    }
}
