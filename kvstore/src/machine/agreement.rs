//! Whether this member's state is the same as that of the others.
//!
//! Every few seconds the leader puts a command into the log that says what its hash was at an earlier one of its
//! kind. All members meet it at the same place of the log, so each knows its own hash there and compares. What
//! follows from a difference is not decided here: the leader may be the one who is wrong.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Marks that are remembered, so that members a little behind can be compared with.
const MARKS: usize = 16;
const POISON: &str = "no holder of the marks panics";

/// The state hash at a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub revision: u64,
    pub hash: u128,
}

/// What one such command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// The state here, as it is at this place of the log.
    pub here: Mark,
    /// What the leader says of an earlier place.
    pub said: Option<Mark>,
}

#[derive(Debug)]
pub struct Agreement {
    marks: Mutex<VecDeque<Mark>>,
    doubt: watch::Sender<Option<Mark>>,
}

impl Default for Agreement {
    fn default() -> Self {
        Self {
            marks: Mutex::default(),
            doubt: watch::Sender::new(None),
        }
    }
}

impl Agreement {
    /// Takes in what was applied; a difference from what the leader said is published as a doubt.
    pub fn learn(&self, met: &[Met]) {
        for Met { here, said } in met {
            if let Some(said) = said
                && self.at(said.revision).is_some_and(|hash| hash != said.hash)
            {
                self.doubt.send_replace(Some(*said));
            }
            let mut marks = self.marks.lock().expect(POISON);
            if marks.back() != Some(here) {
                marks.push_back(*here);
            }
            if marks.len() > MARKS {
                marks.pop_front();
            }
        }
    }

    /// The state was replaced: what was known of the old one says nothing about it.
    pub fn forget(&self) {
        self.marks.lock().expect(POISON).clear();
    }

    pub fn marks(&self) -> Vec<Mark> {
        self.marks.lock().expect(POISON).iter().copied().collect()
    }

    pub fn last(&self) -> Option<Mark> {
        self.marks.lock().expect(POISON).back().copied()
    }

    fn at(&self, revision: u64) -> Option<u128> {
        let marks = self.marks.lock().expect(POISON);
        let found = marks.iter().find(|mark| mark.revision == revision);
        found.map(|mark| mark.hash)
    }

    /// What the leader said and this member did not find so.
    pub fn doubts(&self) -> watch::Receiver<Option<Mark>> {
        self.doubt.subscribe()
    }
}

/// What is to be concluded from the marks of several members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Agreed,
    /// More than half of the voters have this hash at this revision, and it is not ours.
    WeAreWrong(Mark),
    /// We are with more than half of the voters; this member is not.
    OtherIsWrong(u64),
    /// There is a difference, and no side has more than half of the voters.
    Undecided(u64),
}

/// Judges by the newest revision at which members differ. `others` are the marks of voters, `we_vote` whether ours
/// count among the `voters`.
pub fn judge(own: &[Mark], we_vote: bool, others: &[(u64, Vec<Mark>)], voters: usize) -> Verdict {
    for mark in own.iter().rev() {
        let theirs = others.iter().filter_map(|(id, marks)| {
            let same = marks.iter().find(|theirs| theirs.revision == mark.revision);
            same.map(|theirs| (*id, *theirs))
        });
        let theirs: Vec<(u64, Mark)> = theirs.collect();
        let Some((other, _)) = theirs.iter().find(|(_, theirs)| theirs.hash != mark.hash) else {
            continue;
        };
        let votes = |hash: u128| {
            let with = theirs.iter().filter(|(_, theirs)| theirs.hash == hash).count();
            with + usize::from(we_vote && hash == mark.hash)
        };
        if votes(mark.hash) > voters / 2 {
            return Verdict::OtherIsWrong(*other);
        }
        let wins = |theirs: &&(u64, Mark)| votes(theirs.1.hash) > voters / 2;
        return match theirs.iter().find(wins) {
            Some((_, right)) => Verdict::WeAreWrong(*right),
            None => Verdict::Undecided(*other),
        };
    }
    Verdict::Agreed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(revision: u64, hash: u128) -> Mark {
        Mark { revision, hash }
    }

    fn met(revision: u64, hash: u128, said: Option<Mark>) -> Met {
        Met {
            here: mark(revision, hash),
            said,
        }
    }

    #[test]
    fn a_difference_from_the_leader_is_a_doubt_and_nothing_else_is() {
        let agreement = Agreement::default();
        let doubts = agreement.doubts();
        agreement.learn(&[met(5, 50, None), met(9, 90, Some(mark(5, 50)))]);
        // Of a place that this member has not met it knows nothing.
        agreement.learn(&[met(11, 110, Some(mark(7, 1)))]);
        assert!(!doubts.has_changed().unwrap());
        agreement.learn(&[met(12, 120, Some(mark(9, 91)))]);
        assert_eq!(*doubts.borrow(), Some(mark(9, 91)));
    }

    #[test]
    fn marks_are_bounded_and_end_with_the_state() {
        let agreement = Agreement::default();
        for revision in 0..100 {
            agreement.learn(&[met(revision, 1, None), met(revision, 1, None)]);
        }
        assert_eq!(agreement.marks().len(), MARKS);
        assert_eq!(agreement.last(), Some(mark(99, 1)));
        agreement.forget();
        assert_eq!(agreement.last(), None);
    }

    #[test]
    fn only_more_than_half_of_the_voters_say_who_is_wrong() {
        let own = [mark(1, 10), mark(2, 20)];
        let same = |id| (id, vec![mark(1, 10), mark(2, 20)]);
        let differs = |id| (id, vec![mark(1, 10), mark(2, 21)]);
        assert_eq!(judge(&own, true, &[same(2), same(3)], 3), Verdict::Agreed);
        assert_eq!(judge(&own, true, &[(2, vec![mark(3, 7)])], 3), Verdict::Agreed);
        assert_eq!(
            judge(&own, true, &[differs(2), same(3)], 3),
            Verdict::OtherIsWrong(2)
        );
        assert_eq!(
            judge(&own, true, &[differs(2), differs(3)], 3),
            Verdict::WeAreWrong(mark(2, 21))
        );
        assert_eq!(judge(&own, true, &[differs(2)], 3), Verdict::Undecided(2));
        assert_eq!(judge(&own, true, &[differs(2)], 2), Verdict::Undecided(2));
        // A learner has no vote in this either.
        assert_eq!(
            judge(&own, false, &[differs(1), differs(2), same(3)], 3),
            Verdict::WeAreWrong(mark(2, 21))
        );
        assert_eq!(
            judge(&own, false, &[differs(1), same(3)], 3),
            Verdict::Undecided(1)
        );
    }
}
