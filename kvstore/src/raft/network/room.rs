//! How many questions of one peer are answered at the same time.
//!
//! Invariant: reads that wait for a mirror leave places to others: the word that they wait for may come the same way.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::message::Ask;

pub(super) const QUESTIONS_MAX: usize = 512;
/// Of these, reads that wait for a mirror.
const WAITING_READS_MAX: usize = 256;

pub(super) struct Room {
    questions: Arc<Semaphore>,
    waiting_reads: Arc<Semaphore>,
}

/// The place of one question, until it is dropped.
pub(super) struct Seat {
    _question: OwnedSemaphorePermit,
    _waiting_read: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub(super) fn new() -> Self {
        Self {
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            waiting_reads: Arc::new(Semaphore::new(WAITING_READS_MAX)),
        }
    }

    /// Waits for a place. `None`: it is one more read that would wait, and enough of them do.
    pub(super) async fn enter(&self, question: &Ask) -> Option<Seat> {
        let place = Arc::clone(&self.questions).acquire_owned().await;
        let waiting_read = match question {
            Ask::Mirrored(_) => Some(Arc::clone(&self.waiting_reads).try_acquire_owned().ok()?),
            _ => None,
        };
        Some(Seat {
            _question: place.expect("nobody closes the room"),
            _waiting_read: waiting_read,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn reads_that_wait_for_a_mirror_leave_room_for_its_word() {
        let room = Room::new();
        let enter = |question: &Ask| room.enter(question).now_or_never();
        let (read, word) = (
            Ask::Mirrored(7),
            Ask::Mirror {
                name: "m".to_owned(),
                incarnation: "a".to_owned(),
                revision: 7,
            },
        );
        let mut reads = Vec::new();
        while let Some(seat) = enter(&read).expect("what does not get in is told so at once") {
            reads.push(seat);
        }
        assert_eq!(reads.len(), WAITING_READS_MAX);
        let others: Vec<Seat> = (reads.len()..QUESTIONS_MAX)
            .map(|_| {
                enter(&word)
                    .flatten()
                    .expect("there is room for what waits for nothing")
            })
            .collect();
        assert!(!others.is_empty());
        assert!(
            enter(&word).is_none(),
            "now everybody waits until somebody is answered"
        );
        drop(others);
        assert!(
            enter(&read).is_some_and(|seat| seat.is_none()),
            "the reads still wait"
        );
        reads.pop();
        assert!(enter(&read).is_some_and(|seat| seat.is_some()));
    }
}
