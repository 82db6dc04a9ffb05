//! What became of the tries to have a batch proposed, and when to try again.
//!
//! Invariant: once some copy of it may take effect, nothing that is said of a later one undoes that. Who has no room is
//! not asked as often as who does not lead: room comes slowly, and a new leader at any moment.

use std::time::Duration;

use super::WriteError;
use crate::raft::network::message::NotNow;

const PAUSE: Duration = Duration::from_millis(5);
/// After a leader has refused a batch for want of room, longer each time.
const REFUSED_PAUSE_MAX: Duration = Duration::from_millis(320);

pub(super) struct Tries {
    failure: WriteError,
    pause: Duration,
}

impl Tries {
    pub(super) fn new() -> Self {
        Self {
            failure: WriteError::NoLeader,
            pause: PAUSE,
        }
    }

    /// What is told when there is no time for another try.
    pub(super) fn failure(&self) -> WriteError {
        self.failure
    }

    pub(super) fn pause(&self) -> Duration {
        self.pause
    }

    /// Whether some copy may have taken effect, or may yet.
    pub(super) fn may_have_happened(&self) -> bool {
        self.failure == WriteError::OutcomeUnknown
    }

    /// Why one more came to nothing. `Err`: so would the next.
    pub(super) fn refused(&mut self, why: NotNow) -> Result<(), WriteError> {
        match why {
            NotNow::Unknown => self.failure = WriteError::OutcomeUnknown,
            NotNow::MirrorLost if !self.may_have_happened() => return Err(WriteError::MirrorLost),
            NotNow::Overloaded => {
                if self.failure == WriteError::NoLeader {
                    self.failure = WriteError::Overloaded;
                }
                self.pause = (self.pause * 2).min(REFUSED_PAUSE_MAX);
            }
            NotNow::NotLeader | NotNow::MirrorLost => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often one asks within so long, when each answer is this one and comes at once.
    fn asked_within(time: Duration, why: NotNow) -> usize {
        let (mut tries, mut count, mut spent) = (Tries::new(), 0, Duration::ZERO);
        while spent < time {
            tries.refused(why).unwrap();
            count += 1;
            spent += tries.pause();
        }
        count
    }

    #[test]
    fn a_leader_without_room_is_left_in_peace_and_a_new_one_is_found_soon() {
        let time = Duration::from_secs(5);
        assert!(asked_within(time, NotNow::NotLeader) >= 1000);
        let full = asked_within(time, NotNow::Overloaded);
        assert!((5..=25).contains(&full), "{full} times");
        // Not at once so seldom: it may be but a moment.
        assert!(asked_within(Duration::from_millis(100), NotNow::Overloaded) >= 4);
    }

    #[test]
    fn what_may_have_happened_stays_so() {
        let mut tries = Tries::new();
        assert_eq!(tries.refused(NotNow::MirrorLost), Err(WriteError::MirrorLost));
        assert_eq!(tries.failure(), WriteError::NoLeader);
        tries.refused(NotNow::Overloaded).unwrap();
        assert_eq!(
            tries.failure(),
            WriteError::Overloaded,
            "and not that nobody leads"
        );
        tries.refused(NotNow::NotLeader).unwrap();
        assert_eq!(tries.failure(), WriteError::Overloaded);
        assert!(!tries.may_have_happened());
        tries.refused(NotNow::Unknown).unwrap();
        for later in [NotNow::Overloaded, NotNow::NotLeader, NotNow::MirrorLost] {
            tries.refused(later).unwrap();
            assert!(tries.may_have_happened(), "{later:?}");
        }
        assert_eq!(tries.failure(), WriteError::OutcomeUnknown);
    }
}
