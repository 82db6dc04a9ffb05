//! Whether what clients saw of one key could have happened one operation after the other: the search of Wing and
//! Gong with the memory of Lowe ("Testing for linearizability", 2017).
//! Invariant: an operation whose end nobody was told may take effect at any time after its begin, or never.
//! Pure: it knows neither clock nor store, nor how the operations were made.

mod events;

use std::collections::HashSet;

use events::Events;

/// What a key holds: nothing, or a number.
pub(super) type Held = Option<i64>;

/// What an operation did, as far as its client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    Read(Held),
    Write(i64),
    /// `was_there` is what the client was told.
    Delete {
        was_there: Option<bool>,
    },
    /// Writes `new` if the key holds `expected`; `done` is what the client was told.
    Swap {
        expected: Held,
        new: i64,
        done: Option<bool>,
    },
    /// Adds, but not beyond `max`; absent is 0. The inner `None` is a refusal.
    Add {
        by: i64,
        max: i64,
        sum: Option<Held>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) start: u64,
    /// `None`: nobody was told.
    pub(super) end: Option<u64>,
    pub(super) did: Did,
}

/// Why no order was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is none; these are the operations that the longest attempt could not place next.
    NoOrder(Vec<Operation>),
    /// More was open at once than can be tried out.
    TooLarge,
}

/// So many states are remembered; a history that needs more was not made to be checked.
const STATES_MAX: usize = 2_000_000;

impl Did {
    /// Whether it changes nothing, wherever it is placed.
    fn only_looks(self) -> bool {
        matches!(
            self,
            Self::Read(_)
                | Self::Delete {
                    was_there: Some(false)
                }
                | Self::Swap {
                    done: Some(false),
                    ..
                }
                | Self::Add { sum: Some(None), .. }
        )
    }

    /// What the key holds afterwards; `None` when it cannot have happened here.
    fn after(self, held: Held) -> Option<Held> {
        match self {
            Self::Read(seen) => (seen == held).then_some(held),
            Self::Write(new) => Some(Some(new)),
            Self::Delete { was_there } => (was_there != Some(held.is_none())).then_some(None),
            Self::Swap { expected, new, done } => match (expected == held, done) {
                (true, Some(true) | None) => Some(Some(new)),
                (false, Some(false) | None) => Some(held),
                _ => None,
            },
            Self::Add { by, max, sum } => {
                let next = held.unwrap_or(0) + by;
                match sum {
                    Some(Some(told)) => (told == next && next <= max).then_some(Some(next)),
                    Some(None) => (next > max).then_some(held),
                    None => Some(if next <= max { Some(next) } else { held }),
                }
            }
        }
    }
}

/// The operations that have been placed, as bits.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Placed(Vec<u64>);

impl Placed {
    fn flip(&mut self, operation: usize) {
        self.0[operation / 64] ^= 1 << (operation % 64);
    }
}

/// Whether some order explains the operations on a key that held nothing before.
pub(super) fn check(operations: &[Operation]) -> Result<(), Fault> {
    let mut events = Events::of(operations);
    let mut open = operations
        .iter()
        .filter(|operation| operation.end.is_some())
        .count();
    let mut placed = Placed(vec![0; operations.len().div_ceil(64)]);
    let mut seen = HashSet::new();
    let mut stack: Vec<(usize, Held)> = Vec::new();
    let mut held: Held = None;
    let mut stuck = (usize::MAX, Vec::new());
    let mut place = events.first();
    while open > 0 {
        let (index, begins) = events.what[place];
        if begins {
            let operation = &operations[index];
            let after = operation.did.after(held);
            // One that changes nothing, and of which nobody was told, need not be placed.
            let idle = operation.end.is_none() && after == Some(held);
            placed.flip(index);
            if let Some(after) = after.filter(|_| !idle)
                && seen.insert((placed.clone(), after))
            {
                stack.push((index, held));
                held = after;
                open -= usize::from(operation.end.is_some());
                events.take(index);
                place = events.first();
            } else {
                placed.flip(index);
                place = events.next[place];
            }
            if seen.len() > STATES_MAX {
                return Err(Fault::TooLarge);
            }
            continue;
        }
        // This one has ended, and nothing that began before could be placed.
        if open < stuck.0 {
            stuck = (open, around(operations, &events, index));
        }
        loop {
            let Some((last, held_before)) = stack.pop() else {
                return Err(Fault::NoOrder(stuck.1));
            };
            held = held_before;
            placed.flip(last);
            open += usize::from(operations[last].end.is_some());
            events.put_back(last);
            // One that only looks was in nobody's way: to place it later would find no more, and try out far more.
            if !operations[last].did.only_looks() {
                place = events.next[events.begin[last]];
                break;
            }
        }
    }
    Ok(())
}

/// What could have come next when the attempt got stuck: all that began before this one ended.
fn around(operations: &[Operation], events: &Events, ended: usize) -> Vec<Operation> {
    const SHOWN_MAX: usize = 12;
    let mut found = vec![operations[ended]];
    let mut place = events.first();
    while events.what[place].1 && found.len() < SHOWN_MAX {
        found.push(operations[events.what[place].0]);
        place = events.next[place];
    }
    found.sort_by_key(|operation| operation.start);
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::random::Random;

    fn at(start: u64, end: u64, did: Did) -> Operation {
        Operation {
            start,
            end: Some(end),
            did,
        }
    }

    fn open(start: u64, did: Did) -> Operation {
        Operation {
            start,
            end: None,
            did,
        }
    }

    #[test]
    fn a_stale_read_is_found() {
        let mut operations = vec![
            at(1, 2, Did::Write(1)),
            at(3, 6, Did::Write(2)),
            at(4, 5, Did::Read(Some(1))),
            at(7, 8, Did::Read(Some(2))),
        ];
        check(&operations).unwrap();
        operations.push(at(9, 10, Did::Read(Some(1))));
        let Err(Fault::NoOrder(shown)) = check(&operations) else {
            panic!("not found")
        };
        assert!(shown.contains(&operations[4]), "{shown:?}");
    }

    #[test]
    fn an_open_write_may_happen_late_or_never_but_not_come_undone() {
        let write = open(1, Did::Write(1));
        check(&[write, at(20, 21, Did::Read(None)), at(30, 31, Did::Read(Some(1)))]).unwrap();
        check(&[write, at(20, 21, Did::Read(None))]).unwrap();
        check(&[write, at(20, 21, Did::Read(Some(1))), at(30, 31, Did::Read(None))]).unwrap_err();
    }

    #[test]
    fn a_deletion_says_whether_there_was_something() {
        let delete = |told| Did::Delete { was_there: told };
        let (was_there, was_not) = (delete(Some(true)), delete(Some(false)));
        let write = at(1, 2, Did::Write(1));
        check(&[write, at(3, 4, was_there), at(5, 6, was_not)]).unwrap();
        check(&[write, at(3, 4, was_there), at(5, 6, was_there)]).unwrap_err();
        check(&[write, at(3, 4, was_not)]).unwrap_err();
        check(&[at(1, 4, Did::Write(1)), at(2, 3, was_not)]).unwrap();
        check(&[write, open(3, delete(None)), at(5, 6, Did::Read(None))]).unwrap();
    }

    #[test]
    fn swaps_and_sums_are_judged() {
        let swap = |expected, new, done| Did::Swap {
            expected,
            new,
            done: Some(done),
        };
        check(&[at(1, 2, swap(None, 1, true)), at(3, 4, swap(None, 2, false))]).unwrap();
        check(&[at(1, 2, swap(None, 1, true)), at(3, 4, swap(None, 2, true))]).unwrap_err();
        check(&[at(1, 2, swap(None, 1, false))]).unwrap_err();
        let add = |sum| Did::Add {
            by: 1,
            max: 2,
            sum: Some(sum),
        };
        check(&[
            at(1, 2, add(Some(1))),
            at(3, 4, add(Some(2))),
            at(5, 6, add(None)),
        ])
        .unwrap();
        check(&[at(1, 2, add(Some(1))), at(3, 4, add(Some(1)))]).unwrap_err();
        check(&[at(1, 2, add(None))]).unwrap_err();
        let lost = open(
            1,
            Did::Add {
                by: 1,
                max: 2,
                sum: None,
            },
        );
        check(&[lost, at(3, 4, add(Some(2)))]).unwrap();
    }

    /// Scans read each key beside all others. Placed in whatever order, they would make more than can be tried out.
    #[test]
    fn reads_that_are_open_at_once_do_not_multiply_what_is_tried() {
        const AT_ONCE: u64 = 30;
        let mut operations = vec![at(1, 2, Did::Write(1))];
        operations.extend((0..AT_ONCE).map(|n| at(3 + n, 100 + n, Did::Read(Some(1)))));
        check(&operations).unwrap();
        operations.push(at(200, 201, Did::Read(Some(2))));
        assert!(matches!(check(&operations), Err(Fault::NoOrder(_))));
    }

    /// Whether some order explains the operations: tried one by one.
    fn some_order(rest: &[Operation], held: Held) -> bool {
        let Some(first_end) = rest.iter().filter_map(|operation| operation.end).min() else {
            return true;
        };
        (0..rest.len()).any(|index| {
            let operation = rest[index];
            let Some(after) = operation
                .did
                .after(held)
                .filter(|_| operation.start < first_end || operation.end == Some(first_end))
            else {
                return false;
            };
            let mut others = rest.to_vec();
            others.remove(index);
            some_order(&others, after)
        })
    }

    fn any(random: &mut Random) -> Did {
        let held =
            |random: &mut Random| Some(i64::try_from(random.below(3)).unwrap()).filter(|held| *held > 0);
        match random.below(5) {
            0 => Did::Read(held(random)),
            1 => Did::Write(i64::try_from(1 + random.below(2)).unwrap()),
            2 => Did::Delete {
                was_there: Some(random.below(2) == 0),
            },
            3 => {
                let (expected, new) = (held(random), i64::try_from(1 + random.below(2)).unwrap());
                Did::Swap {
                    expected,
                    new,
                    done: Some(random.below(2) == 0),
                }
            }
            _ => Did::Add {
                by: 1,
                max: 2,
                sum: Some(held(random)),
            },
        }
    }

    #[test]
    fn it_agrees_with_trying_out_all_orders() {
        let mut random = Random::from(1);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..20_000 {
            let mut times: Vec<u64> = (1..=10).collect();
            let mut operations = Vec::new();
            while !times.is_empty() {
                let mut time =
                    || times.swap_remove(usize::try_from(random.below(times.len() as u64)).unwrap());
                let (a, b) = (time(), time());
                let mut did = any(&mut random);
                let told = random.below(4) > 0 || matches!(did, Did::Read(_));
                match &mut did {
                    Did::Swap { done, .. } if !told => *done = None,
                    Did::Delete { was_there } if !told => *was_there = None,
                    Did::Add { sum, .. } if !told => *sum = None,
                    _ => {}
                }
                operations.push(Operation {
                    start: a.min(b),
                    end: told.then_some(a.max(b)),
                    did,
                });
            }
            let expected = some_order(&operations, None);
            assert_eq!(check(&operations).is_ok(), expected, "{operations:#?}");
            *(if expected { &mut good } else { &mut bad }) += 1;
        }
        assert!(
            good > 500 && bad > 500,
            "{good} good and {bad} bad histories are too few of one kind"
        );
    }
}
