//! Whether this member's state is the same as that of the others.
//!
//! Every few seconds the leader puts a command into the log that says what its hash was at an earlier one of its
//! kind. All members meet it at the same place of the log, so each knows its own hash there and compares. What
//! follows from a difference is not decided here: the leader may be the one who is wrong.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
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
                && self.differs(said, here)
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

    /// Whether what the leader had at an earlier place than this one is not what this member had there.
    fn differs(&self, said: &Mark, here: &Mark) -> bool {
        let marks = self.marks.lock().expect(POISON);
        let known = !marks.is_empty() && said.revision > here.revision;
        known || known_of(marks.iter(), said.revision).is_some_and(|known| known != Known::Has(said.hash))
    }

    /// What the leader said and this member did not find so.
    pub fn doubts(&self) -> watch::Receiver<Option<Mark>> {
        self.doubt.subscribe()
    }
}

/// What a member knows of the place at which another had some revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Has(u128),
    /// It was there, and had another revision: it left out, or did twice, what others did.
    Lacks,
}

/// `None` where the place lies before or behind all that the member remembers. The places it remembers have no gap, and
/// revisions only grow, so a revision within them is that of one of them.
fn known_of<'m>(marks: impl IntoIterator<Item = &'m Mark>, revision: u64) -> Option<Known> {
    let (mut before, mut behind) = (false, false);
    for mark in marks {
        match mark.revision.cmp(&revision) {
            Ordering::Less => before = true,
            Ordering::Equal => return Some(Known::Has(mark.hash)),
            Ordering::Greater => behind = true,
        }
    }
    (before && behind).then_some(Known::Lacks)
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

/// Judges by the newest place at which members differ and most voters agree. `others` are the marks of voters, `we_vote` whether ours
/// count among the `voters`.
pub fn judge(own: &[Mark], we_vote: bool, others: &[(u64, Vec<Mark>)], voters: usize) -> Verdict {
    let theirs = others.iter().flat_map(|(_, marks)| marks);
    let places: BTreeSet<u64> = own.iter().chain(theirs).map(|mark| mark.revision).collect();
    let mut undecided = None;
    for revision in places.into_iter().rev() {
        let Some(ours) = known_of(own, revision) else {
            continue;
        };
        let theirs = others.iter();
        let theirs = theirs.filter_map(|(id, marks)| Some((*id, known_of(marks, revision)?)));
        let theirs: Vec<(u64, Known)> = theirs.collect();
        let Some((other, _)) = theirs.iter().find(|(_, theirs)| *theirs != ours) else {
            continue;
        };
        let votes = |hash: u128| {
            let with = theirs
                .iter()
                .filter(|(_, theirs)| *theirs == Known::Has(hash))
                .count();
            with + usize::from(we_vote && ours == Known::Has(hash))
        };
        let hashes = theirs.iter().map(|(_, theirs)| *theirs).chain([ours]);
        let right = hashes
            .filter_map(|known| match known {
                Known::Has(hash) => Some(hash),
                Known::Lacks => None,
            })
            .find(|hash| votes(*hash) > voters / 2);
        match right {
            Some(hash) if ours == Known::Has(hash) => return Verdict::OtherIsWrong(*other),
            Some(hash) => return Verdict::WeAreWrong(Mark { revision, hash }),
            // Of an earlier place more may know.
            None => undecided = undecided.or(Some(*other)),
        }
    }
    undecided.map_or(Verdict::Agreed, Verdict::Undecided)
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
        agreement.learn(&[met(11, 110, Some(mark(3, 1)))]);
        assert!(!doubts.has_changed().unwrap());
        agreement.learn(&[met(12, 120, Some(mark(9, 91)))]);
        assert_eq!(*doubts.borrow(), Some(mark(9, 91)));
    }

    #[test]
    fn a_place_that_this_member_met_with_another_revision_is_a_doubt() {
        let met_at = |revisions: &[u64]| {
            let agreement = Agreement::default();
            for revision in revisions {
                agreement.learn(&[met(*revision, u128::from(*revision), None)]);
            }
            let doubts = agreement.doubts();
            assert!(!doubts.has_changed().unwrap());
            (agreement, doubts)
        };
        // It left something out: at 28 it has not yet been where the leader was before, at 38 it has passed by.
        for here in [28, 38] {
            let (agreement, doubts) = met_at(&[10, 20, 27]);
            agreement.learn(&[met(here, 7, Some(mark(20, 20)))]);
            assert!(!doubts.has_changed().unwrap());
            agreement.learn(&[met(here, 7, Some(mark(30, 30)))]);
            assert_eq!(*doubts.borrow(), Some(mark(30, 30)), "{here}");
        }
        // Whose state was replaced knows nothing of earlier places.
        let (agreement, doubts) = met_at(&[20]);
        agreement.learn(&[met(25, 25, Some(mark(15, 1)))]);
        assert!(!doubts.has_changed().unwrap());
    }

    #[test]
    fn who_was_at_no_place_of_the_others_is_wrong() {
        let right = [mark(10, 1), mark(20, 2), mark(30, 3), mark(40, 4)];
        let skipped = [mark(10, 1), mark(18, 5), mark(28, 6), mark(38, 7)];
        let twice = [mark(10, 1), mark(21, 8), mark(31, 9), mark(41, 9)];
        for wrong in [skipped, twice] {
            let judged = judge(&wrong, true, &[(2, right.to_vec()), (3, right.to_vec())], 3);
            assert!(
                matches!(judged, Verdict::WeAreWrong(mark) if right.contains(&mark)),
                "{judged:?}"
            );
            let others = [(2, right.to_vec()), (3, wrong.to_vec())];
            assert_eq!(judge(&right, true, &others, 3), Verdict::OtherIsWrong(3));
            assert!(matches!(
                judge(&right, true, &[(2, wrong.to_vec())], 3),
                Verdict::Undecided(2)
            ));
        }
        // Whoever is behind, or remembers less, differs from nobody.
        assert_eq!(
            judge(
                &right,
                true,
                &[(2, right[..2].to_vec()), (3, right[2..].to_vec())],
                3
            ),
            Verdict::Agreed
        );
        assert_eq!(
            judge(&right[..1], true, &[(2, right[3..].to_vec())], 3),
            Verdict::Agreed
        );
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
