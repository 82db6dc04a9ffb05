//! One piece of memory in which all values of a batch are encoded, each in the place of the one before: the database
//! copies what it is given. In memory of its own, a value would be moved four or five times while that grows.
//! Invariant: the bytes are those that [`encode`](super::machine_db::encode) makes.

use serde::Serialize;

#[derive(Default)]
pub(super) struct Scratch(Vec<u8>);

impl Scratch {
    pub(super) fn encode<T: Serialize>(&mut self, value: &T) -> &[u8] {
        let mut memory = std::mem::take(&mut self.0);
        memory.clear();
        self.0 = postcard::to_extend(value, memory)
            .expect("stored values hold no map of unknown length, so they always encode");
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::command::Record;
    use crate::machine::state::{Head, Kept, Lease, MinuteMark, State};
    use crate::storage::machine_db::encode;

    #[test]
    fn the_bytes_are_those_of_memory_of_its_own() {
        let mut scratch = Scratch::default();
        for number in [0, 1, 127, 128, 70_000, u64::MAX] {
            let record = Record {
                created: number,
                modified: number,
                version: number,
                lease: number,
                value: Bytes::from(vec![7; usize::try_from(number % 1000).unwrap()]),
            };
            assert_eq!(scratch.encode(&record), encode(&record));
            let head = Head::of(b"key", &record);
            assert_eq!(scratch.encode(&head), encode(&head));
            let lease = Lease {
                ttl_ms: number,
                owner: "shop".to_owned(),
                renewals: number,
                pin: Some(number),
            };
            assert_eq!(scratch.encode(&lease), encode(&lease));
            let kept = Kept {
                fingerprint: [9; 16],
                expires_ms: number,
                reply: Bytes::from_static(b"reply"),
            };
            assert_eq!(scratch.encode(&kept), encode(&kept));
            let state = State {
                cluster_id: "cluster".to_owned(),
                revision: number,
                hash: head.hash,
                ..State::default()
            };
            assert_eq!(scratch.encode(&state), encode(&state));
            let mark = MinuteMark {
                revision: number,
                history_bytes: number,
            };
            assert_eq!(scratch.encode(&mark), encode(&mark));
            assert_eq!(scratch.encode(&number), encode(&number));
        }
    }
}
