//! Rows of the table of events: which keys a batch changed, and which versions nobody needs who reads after it.
//! Invariant: what newer nodes add to a row stands behind what older ones read of it, who look no further.

use bytes::Bytes;

use super::machine_db::decode;
use super::scratch::Scratch;
use crate::machine::state::{Event, Superseded};

/// `superseded` has one entry for each event. Two lists as one value are the two, one behind the other.
pub(super) fn encode_row<'s>(
    scratch: &'s mut Scratch,
    events: &[Event],
    superseded: &[Superseded],
) -> &'s [u8] {
    // The keys as bytes: a list of numbers would be the same, but written one by one.
    let changes: Vec<(u64, &Bytes)> = events
        .iter()
        .map(|event| (event.record.modified, &event.key))
        .collect();
    scratch.encode(&(changes, superseded))
}

/// Revisions and keys, in order.
pub(super) fn changes(row: &[u8]) -> Vec<(u64, Bytes)> {
    decode(row)
}

/// The same where they lie.
pub(super) fn changes_in_place(row: &[u8]) -> Vec<(u64, &[u8])> {
    postcard::from_bytes(row).expect("a row of events decodes, or the database is damaged")
}

/// The same with what each change superseded, unless the node that wrote the row did not say.
pub(super) fn changes_with_superseded(row: &[u8]) -> Vec<(u64, Bytes, Option<Superseded>)> {
    let (changes, rest): (Vec<(u64, Bytes)>, &[u8]) =
        postcard::take_from_bytes(row).expect("a row of events decodes, or the database is damaged");
    let superseded: Vec<Superseded> = if rest.is_empty() { Vec::new() } else { decode(rest) };
    let mut superseded = superseded.into_iter();
    let whole = changes.into_iter();
    whole
        .map(|(revision, key)| (revision, key, superseded.next()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Record;
    use crate::storage::machine_db::encode;

    fn event(key: &'static [u8], revision: u64) -> Event {
        Event {
            key: Bytes::from_static(key),
            record: Record::tombstone(revision),
        }
    }

    #[test]
    fn older_nodes_read_a_row_as_theirs_and_theirs_is_read_without_the_rest() {
        let events = [event(b"a", 300), event(b"b", 301)];
        let superseded = [
            Superseded {
                before: 0,
                deleted: false,
            },
            Superseded {
                before: 299,
                deleted: true,
            },
        ];
        let mut scratch = Scratch::default();
        let row = encode_row(&mut scratch, &events, &superseded);
        let plain = vec![(300, Bytes::from_static(b"a")), (301, Bytes::from_static(b"b"))];
        assert_eq!(changes(row), plain);
        assert_eq!(changes_in_place(row), [(300, &b"a"[..]), (301, b"b")]);
        let whole: Vec<_> = plain
            .iter()
            .zip(superseded)
            .map(|((revision, key), superseded)| (*revision, key.clone(), Some(superseded)))
            .collect();
        assert_eq!(changes_with_superseded(row), whole);

        let older = encode(&plain);
        assert_eq!(changes(&older), plain);
        let silent = changes_with_superseded(&older);
        assert!(silent.len() == 2 && silent.iter().all(|(_, _, superseded)| superseded.is_none()));
    }

    /// As rows were made once, and must be for ever.
    #[test]
    fn a_row_is_a_list_of_changes_and_behind_it_one_of_what_they_superseded() {
        let keys = [&b""[..], b"k", &[0xff; 127], &[b'k'; 128], &[0; 1000]];
        let events: Vec<Event> = keys
            .into_iter()
            .zip(126..)
            .map(|(key, revision)| event(key, revision))
            .collect();
        let superseded: Vec<Superseded> = (126_u64..)
            .take(events.len())
            .map(|before| Superseded {
                before,
                deleted: before.is_multiple_of(2),
            })
            .collect();
        let changes: Vec<(u64, &[u8])> = events
            .iter()
            .map(|event| (event.record.modified, event.key.as_ref()))
            .collect();
        let mut scratch = Scratch::default();
        for length in 0..=events.len() {
            let expected = [
                encode(&changes[..length].to_vec()),
                encode(&superseded[..length].to_vec()),
            ]
            .concat();
            let row = encode_row(&mut scratch, &events[..length], &superseded[..length]);
            assert_eq!(row, expected);
        }
    }
}
