//! The begins and ends of operations as a list that is taken apart and put together again: what is out of it has been
//! placed. Invariant: what was taken last is put back first, into the place that it had.

use super::Operation;

/// Begins and ends in the order of time, as a list from which operations are taken out and put back.
pub(super) struct Events {
    /// The operation, and whether it begins here.
    pub(super) what: Vec<(usize, bool)>,
    pub(super) next: Vec<usize>,
    before: Vec<usize>,
    /// Where each operation begins and ends.
    pub(super) begin: Vec<usize>,
    end: Vec<Option<usize>>,
}

/// The place before the first event; the others are counted from one.
const HEAD: usize = 0;

impl Events {
    pub(super) fn of(operations: &[Operation]) -> Self {
        let mut times: Vec<(u64, bool, usize)> = Vec::new();
        for (index, operation) in operations.iter().enumerate() {
            times.push((operation.start, true, index));
            times.extend(operation.end.map(|end| (end, false, index)));
        }
        // Of two at the same time a begin comes first, since then either order is possible.
        times.sort_by_key(|(time, begins, index)| (*time, !begins, *index));
        let count = times.len() + 1;
        let mut events = Self {
            what: vec![(usize::MAX, true)],
            next: (1..=count).collect(),
            before: (0..=count).map(|place| place.saturating_sub(1)).collect(),
            begin: vec![0; operations.len()],
            end: vec![None; operations.len()],
        };
        for (place, (_, begins, index)) in (1..).zip(times) {
            events.what.push((index, begins));
            if begins {
                events.begin[index] = place;
            } else {
                events.end[index] = Some(place);
            }
        }
        events
    }

    pub(super) fn first(&self) -> usize {
        self.next[HEAD]
    }

    fn unlink(&mut self, place: usize) {
        let (before, next) = (self.before[place], self.next[place]);
        self.next[before] = next;
        self.before[next] = before;
    }

    fn relink(&mut self, place: usize) {
        let (before, next) = (self.before[place], self.next[place]);
        self.next[before] = place;
        self.before[next] = place;
    }

    pub(super) fn take(&mut self, operation: usize) {
        self.unlink(self.begin[operation]);
        if let Some(end) = self.end[operation] {
            self.unlink(end);
        }
    }

    pub(super) fn put_back(&mut self, operation: usize) {
        if let Some(end) = self.end[operation] {
            self.relink(end);
        }
        self.relink(self.begin[operation]);
    }
}
