//! What must stand in which key: the memory of the probe, and its judgement of what it finds.
//! Invariant: each slot has at most one write under way; every write is conditional on what was there before,
//! so one whose answer was lost either has happened by the time of the next success, or never will.
//! Pure: it knows neither clock nor client.

use kvstore_client::wire::Revision;

/// A slot whose writes were lost so often since the last success is left alone.
const DOUBTS_MAX: usize = 8;

pub(super) struct Ring {
    slots: Vec<Slot>,
    /// The number of the next write; numbers are the values, and they only grow.
    next: u64,
}

#[derive(Clone, Default)]
struct Slot {
    /// The last value that is known to be there; 0 = none yet.
    value: u64,
    /// The highest value that was ever sent.
    sent: u64,
    /// Of the value; 0 = the key does not exist.
    revision: Revision,
    /// Values whose answers were lost since.
    doubts: Vec<u64>,
    /// Whether one must look before one can write again.
    unsure: bool,
    busy: bool,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// `revision` is the condition; 0 = the key must not exist.
    Write {
        slot: usize,
        value: u64,
        revision: Revision,
    },
    Look {
        slot: usize,
    },
}

/// What was known when a read began; what the read finds must not be older.
pub(super) struct Known(Vec<u64>);

impl Ring {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: vec![Slot::default(); slots],
            next: 1,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// None when the slot whose turn it is cannot be written at the moment; the turn is skipped.
    pub(super) fn turn(&mut self) -> Option<Turn> {
        let value = self.next;
        self.next += 1;
        let index = usize::try_from(value % self.slots.len() as u64).expect("the rest fits like the divisor");
        let slot = &mut self.slots[index];
        if slot.busy || slot.doubts.len() >= DOUBTS_MAX {
            return None;
        }
        slot.busy = true;
        if slot.unsure {
            return Some(Turn::Look { slot: index });
        }
        slot.sent = value;
        Some(Turn::Write {
            slot: index,
            value,
            revision: slot.revision,
        })
    }

    pub(super) fn acknowledged(&mut self, slot: usize, value: u64, revision: Revision) {
        let slot = &mut self.slots[slot];
        (slot.value, slot.revision) = (value, revision);
        slot.doubts.clear();
        slot.busy = false;
    }

    /// Surely not written.
    pub(super) fn refused(&mut self, slot: usize) {
        self.slots[slot].busy = false;
    }

    pub(super) fn unknown(&mut self, slot: usize, value: u64) {
        let slot = &mut self.slots[slot];
        slot.doubts.push(value);
        slot.unsure = true;
        slot.busy = false;
    }

    /// The condition did not hold: one must look what is there.
    pub(super) fn conflicted(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.unsure = true;
        slot.busy = false;
    }

    /// What a look at one slot has found. False when what was acknowledged is not there.
    pub(super) fn looked(&mut self, slot: usize, found: Option<(u64, Revision)>) -> bool {
        let slot = &mut self.slots[slot];
        slot.busy = false;
        slot.unsure = false;
        let (value, revision) = found.unwrap_or((0, 0));
        let sound = value == slot.value || slot.doubts.contains(&value);
        if value != slot.value {
            // The others were conditional on what this one has replaced.
            slot.doubts.clear();
        }
        (slot.value, slot.revision) = (value, revision);
        sound
    }

    /// A slot that holds something and is not being written, to read it back.
    pub(super) fn readable(&self, near: u64) -> Option<usize> {
        let count = self.slots.len();
        let start = usize::try_from(near % count as u64).unwrap_or(0);
        let mut slots = (0..count).map(|offset| (start + offset) % count);
        slots.find(|slot| self.slots[*slot].value != 0 && !self.slots[*slot].busy)
    }

    pub(super) fn known(&self) -> Known {
        Known(self.slots.iter().map(|slot| slot.value).collect())
    }

    /// Whether a slot may hold this, for a read that began when `known` was true.
    pub(super) fn may_hold(&self, known: &Known, slot: usize, found: Option<u64>) -> bool {
        let found = found.unwrap_or(0);
        found >= known.0[slot] && found <= self.slots[slot].sent
    }

    /// How many slots do not hold what they must.
    pub(super) fn missing(&self, known: &Known, found: impl Fn(usize) -> Option<u64>) -> u64 {
        let slots = 0..self.slots.len();
        slots
            .filter(|slot| !self.may_hold(known, *slot, found(*slot)))
            .count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(ring: &mut Ring) -> (usize, u64, Revision) {
        match ring.turn() {
            Some(Turn::Write {
                slot,
                value,
                revision,
            }) => (slot, value, revision),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_write_is_conditional_on_the_one_before() {
        let mut ring = Ring::new(2);
        assert_eq!(write(&mut ring), (1, 1, 0));
        assert_eq!(write(&mut ring), (0, 2, 0));
        assert_eq!(ring.turn(), None, "slot 1 is being written");
        ring.acknowledged(1, 1, 10);
        ring.refused(0);
        assert_eq!(write(&mut ring), (0, 4, 0));
        assert_eq!(write(&mut ring), (1, 5, 10));
    }

    #[test]
    fn a_lost_answer_is_looked_after_and_may_have_happened_or_not() {
        for happened in [false, true] {
            let mut ring = Ring::new(1);
            let (slot, value, _) = write(&mut ring);
            ring.acknowledged(slot, value, 10);
            let (_, doubtful, _) = write(&mut ring);
            ring.unknown(slot, doubtful);
            assert_eq!(ring.turn(), Some(Turn::Look { slot }));
            let (value, revision) = if happened { (doubtful, 11) } else { (value, 10) };
            assert!(ring.looked(slot, Some((value, revision))));
            assert_eq!(write(&mut ring).2, revision);
        }
    }

    #[test]
    fn what_was_acknowledged_must_be_found() {
        let mut ring = Ring::new(1);
        let (slot, first, _) = write(&mut ring);
        ring.acknowledged(slot, first, 10);
        let (_, second, _) = write(&mut ring);
        ring.acknowledged(slot, second, 11);
        ring.conflicted(slot);
        assert!(!ring.looked(slot, Some((first, 10))), "an older value");
        ring.conflicted(slot);
        assert!(!ring.looked(slot, None), "no value");
        ring.conflicted(slot);
        assert!(!ring.looked(slot, Some((99, 12))), "a value nobody sent");
    }

    #[test]
    fn a_read_may_find_what_was_known_when_it_began_or_what_came_after() {
        let mut ring = Ring::new(1);
        let (slot, first, _) = write(&mut ring);
        ring.acknowledged(slot, first, 10);
        let known = ring.known();
        let (_, second, _) = write(&mut ring);
        let lost = |ring: &Ring, found| ring.missing(&known, |_| found);
        assert_eq!(lost(&ring, Some(first)), 0);
        assert_eq!(lost(&ring, Some(second)), 0, "it may have happened already");
        assert_eq!(lost(&ring, Some(second + 1)), 1, "nobody sent that");
        assert_eq!(lost(&ring, None), 1);
        ring.acknowledged(slot, second, 11);
        let known = ring.known();
        assert_eq!(ring.missing(&known, |_| Some(first)), 1, "a stale read");
    }
}
