//! What the rows of one state say together: much of it stands in two places, so that either can be found quickly, or
//! need not be counted anew.
//! Invariant: whoever decides by one of the two decides as by the other.

use std::io;

use super::part::Part;
use super::{decoded, row_hash, shown};
use crate::command::Record;
use crate::machine::state::{Head, Kept, State};
use crate::storage::keys;

#[derive(Default)]
pub(super) struct Account {
    keys: u64,
    answers_bytes: u64,
    /// The first key whose head is not that of its record.
    misread: Option<String>,
    /// Which keys have which lease, by their heads and by the rows of leases.
    attached: [u128; 2],
    /// Which answer ends when, by the answers and by the rows that are swept by.
    ends: [u128; 2],
}

fn add(sum: &mut u128, key: &[u8]) {
    *sum = sum.wrapping_add(row_hash(key, &[]));
}

impl Account {
    /// Answers what the key adds to the hash of all.
    pub(super) fn note_key(&mut self, key: &[u8], head: Head, record: &Record) -> u128 {
        self.keys += 1;
        if head.lease != 0 {
            add(&mut self.attached[0], &keys::lease_key(head.lease, key));
        }
        let right = Head::of(key, record);
        if head != right {
            self.misread.get_or_insert_with(|| shown(key));
        }
        right.hash
    }

    pub(super) fn note(&mut self, part: Part, key: &[u8], value: &[u8]) -> io::Result<()> {
        match part {
            Part::LeaseKeys => add(&mut self.attached[1], key),
            Part::AnswersByEnd => add(&mut self.ends[1], key),
            Part::Answers => {
                let id = keys::parse_kept(key);
                let id = id.ok_or_else(|| io::Error::other("a kept answer is nobody's"))?;
                let kept: Kept = decoded(value)?;
                self.answers_bytes += kept.bytes(&id);
                add(
                    &mut self.ends[0],
                    &keys::kept_expiry(kept.expires_ms, &id.owner, &id.key),
                );
            }
            _ => {}
        }
        Ok(())
    }

    /// Where that is not so. `keys_hash` is what all keys add up to.
    pub(super) fn contradictions(self, state: &State, keys_hash: u128) -> Vec<String> {
        let claims = [
            (
                state.hash == keys_hash,
                "the hash that is carried along is not that of the keys that are there",
            ),
            (
                state.keys == self.keys,
                "as many keys are counted as are not there",
            ),
            (
                self.attached[0] == self.attached[1],
                "leases have other keys than those which name them",
            ),
            (
                self.ends[0] == self.ends[1],
                "kept answers end at other times than they are swept by",
            ),
            (
                state.answers_bytes == self.answers_bytes,
                "as many bytes of kept answers are counted as are not there",
            ),
        ];
        let misread = self.misread.into_iter();
        let misread = misread.map(|key| format!("the head of the key {key} is not that of its record"));
        let untrue = claims.into_iter().filter(|(is_true, _)| !is_true);
        misread.chain(untrue.map(|(_, said)| said.to_owned())).collect()
    }
}
