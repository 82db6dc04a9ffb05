//! What revisions must say of the order of things: answers that follow each other in time do so in revisions too, of
//! whichever clients and nodes, and a read of a weaker level shows no less than it promised.
//! Pure: it knows neither clock nor store.

use std::collections::BTreeMap;

/// A write that was acknowledged, in nanoseconds of the book.
#[derive(Clone, Debug)]
pub(super) struct Acknowledged {
    pub(super) revision: u64,
    pub(super) key: String,
    /// No value is a deletion.
    pub(super) value: Option<String>,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// A revision that the store was said to have reached, by an answer that wrote nothing and is not of a weaker level.
pub(super) struct Told {
    pub(super) what: &'static str,
    pub(super) revision: u64,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// An answer that names a revision of the store.
#[derive(Clone, Copy)]
enum Answer<'a> {
    Wrote(&'a Acknowledged),
    Read(&'a Told),
}

impl Answer<'_> {
    fn start(self) -> u64 {
        match self {
            Self::Wrote(write) => write.start,
            Self::Read(told) => told.start,
        }
    }

    fn end(self) -> u64 {
        match self {
            Self::Wrote(write) => write.end,
            Self::Read(told) => told.end,
        }
    }

    fn revision(self) -> u64 {
        match self {
            Self::Wrote(write) => write.revision,
            Self::Read(told) => told.revision,
        }
    }

    fn in_words(self) -> String {
        match self {
            Self::Wrote(write) => format!("{write:?}"),
            Self::Read(Told {
                what,
                revision,
                start,
                end,
            }) => format!("{what} at revision {revision}, from {start} to {end},"),
        }
    }

    /// Whether it can come after one that named this revision: a write makes a revision of its own.
    fn may_follow(self, earlier: u64) -> bool {
        match self {
            Self::Wrote(write) => write.revision > earlier,
            Self::Read(told) => told.revision >= earlier,
        }
    }
}

/// What a read of a weaker level has to show at least.
#[derive(Clone, Copy, Debug)]
pub(super) enum Floor {
    /// Everything up to this revision.
    Revision(u64),
    /// Everything that was acknowledged before this moment.
    Before(u64),
}

#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) key: String,
    pub(super) floor: Floor,
    /// The revision of the version that was seen; `None` when there was none.
    pub(super) seen: Option<u64>,
}

/// Of one key: each revision that changed it, and whether it is there from then on.
type Changes = BTreeMap<u64, bool>;

/// The first answer that was asked for after another had come, and whose revision goes back behind that one's.
pub(super) fn real_time(acknowledged: &[Acknowledged], told: &[Told]) -> Option<String> {
    let wrote = acknowledged.iter().map(Answer::Wrote);
    let mut by_start: Vec<Answer<'_>> = wrote.chain(told.iter().map(Answer::Read)).collect();
    by_start.sort_by_key(|answer| answer.start());
    let mut by_end = by_start.clone();
    by_end.sort_by_key(|answer| answer.end());
    let mut ended = by_end.into_iter().peekable();
    let mut newest: Option<Answer<'_>> = None;
    for answer in by_start {
        while let Some(earlier) = ended.next_if(|earlier| earlier.end() < answer.start()) {
            if newest.is_none_or(|newest| newest.revision() < earlier.revision()) {
                newest = Some(earlier);
            }
        }
        if let Some(earlier) = newest.filter(|earlier| !answer.may_follow(earlier.revision())) {
            return Some(format!(
                "revisions go back: {} was asked for after {} had been answered",
                answer.in_words(),
                earlier.in_words()
            ));
        }
    }
    None
}

/// Looks that show less than they promised. `changes` are all that ever happened, key by key.
pub(super) fn stale(
    looks: &[Look],
    acknowledged: &[Acknowledged],
    changes: &BTreeMap<String, Changes>,
) -> Vec<String> {
    let mut by_end: Vec<(u64, u64)> = acknowledged
        .iter()
        .map(|write| (write.end, write.revision))
        .collect();
    by_end.sort_unstable();
    // The highest revision up to each moment.
    let mut highest = 0;
    for (_, revision) in &mut by_end {
        highest = highest.max(*revision);
        *revision = highest;
    }
    let floor_of = |look: &Look| match look.floor {
        Floor::Revision(revision) => revision,
        Floor::Before(moment) => {
            let ended = by_end.partition_point(|(end, _)| *end < moment);
            ended.checked_sub(1).map_or(0, |last| by_end[last].1)
        }
    };
    let nothing = Changes::new();
    let is_stale = |look: &&Look| {
        let changes = changes.get(&look.key).unwrap_or(&nothing);
        !could_show(changes, floor_of(look), look.seen)
    };
    let faults = looks.iter().filter(is_stale);
    faults
        .map(|look| {
            format!(
                "a read shows less than it promised, which was everything up to revision {}: {look:?}",
                floor_of(look)
            )
        })
        .collect()
}

/// Whether the key was like that at some revision from `floor` on.
fn could_show(changes: &Changes, floor: u64, seen: Option<u64>) -> bool {
    let until = |revision: u64| {
        let next = changes.range(revision + 1..).next();
        next.map_or(u64::MAX, |(next, _)| *next)
    };
    if let Some(revision) = seen {
        return changes.get(&revision) == Some(&true) && until(revision) > floor;
    }
    let never_yet = until(0) > floor;
    let mut gone = changes.iter().filter(|(_, is_there)| !**is_there);
    never_yet || gone.any(|(revision, _)| until(*revision) > floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(revision: u64, start: u64, end: u64) -> Acknowledged {
        Acknowledged {
            revision,
            key: "k".to_owned(),
            value: None,
            start,
            end,
        }
    }

    fn told(revision: u64, start: u64, end: u64) -> Told {
        Told {
            what: "a scan",
            revision,
            start,
            end,
        }
    }

    #[test]
    fn revisions_follow_the_order_of_time() {
        let goes_back = |writes: &[Acknowledged]| real_time(writes, &[]).is_some();
        // Open at the same time: either may come first.
        assert!(!goes_back(&[write(6, 10, 30), write(5, 20, 40)]));
        assert!(!goes_back(&[write(5, 10, 20), write(6, 21, 40)]));
        assert!(goes_back(&[write(6, 10, 20), write(5, 21, 40)]));
        assert!(goes_back(&[write(6, 10, 20), write(9, 12, 60), write(6, 21, 40)]));
    }

    #[test]
    fn what_is_told_of_revisions_never_goes_back() {
        let goes_back = |writes: &[Acknowledged], told: &[Told]| real_time(writes, told).is_some();
        let write_6 = write(6, 10, 20);
        // What was acknowledged before is there, and may have been before that too.
        assert!(goes_back(std::slice::from_ref(&write_6), &[told(5, 21, 30)]));
        assert!(!goes_back(std::slice::from_ref(&write_6), &[told(6, 21, 30)]));
        assert!(!goes_back(std::slice::from_ref(&write_6), &[told(5, 20, 30)]));
        // What one client was told holds for all others.
        assert!(goes_back(&[], &[told(7, 10, 20), told(6, 21, 30)]));
        assert!(!goes_back(&[], &[told(7, 10, 20), told(7, 21, 30)]));
        assert!(!goes_back(&[], &[told(7, 10, 30), told(6, 20, 40)]));
        // A write that comes later has a revision of its own.
        assert!(goes_back(&[write(7, 21, 30)], &[told(7, 10, 20)]));
        assert!(!goes_back(&[write(8, 21, 30)], &[told(7, 10, 20)]));
        let fault = real_time(&[write(7, 21, 30)], &[told(7, 10, 20)]).unwrap();
        assert!(fault.contains("a scan"), "{fault}");
    }

    #[test]
    fn a_look_must_show_what_it_promised() {
        // There from 3, changed at 7, gone from 9.
        let changes = BTreeMap::from([(3, true), (7, true), (9, false)]);
        let shows = |floor, seen| could_show(&changes, floor, seen);
        assert!(shows(0, None) && shows(20, None), "it is gone in the end");
        assert!(shows(6, Some(3)) && !shows(7, Some(3)));
        assert!(shows(7, Some(7)) && shows(8, Some(7)) && !shows(9, Some(7)));
        assert!(!shows(0, Some(5)), "nobody wrote that");
        assert!(!shows(0, Some(9)), "that was a deletion");
        let there = BTreeMap::from([(3, true), (7, true)]);
        assert!(could_show(&there, 2, None) && !could_show(&there, 3, None));
        assert!(could_show(&Changes::new(), 20, None));
    }

    #[test]
    fn a_bounded_look_shows_what_was_acknowledged_before_its_bound() {
        let acknowledged = [write(3, 10, 20), write(7, 30, 40)];
        let changes = BTreeMap::from([("k".to_owned(), BTreeMap::from([(3, true), (7, true)]))]);
        let look = |moment, seen| Look {
            key: "k".to_owned(),
            floor: Floor::Before(moment),
            seen,
        };
        let faults = |moment, seen| stale(&[look(moment, seen)], &acknowledged, &changes).len();
        assert_eq!(faults(20, None), 0);
        assert_eq!(faults(21, None), 1);
        assert_eq!(faults(40, Some(3)), 0);
        assert_eq!(faults(41, Some(3)), 1);
        assert_eq!(faults(41, Some(7)), 0);
    }
}
