//! Rows of the table of events: which keys a batch changed, and which versions nobody needs who reads after it.
//! Invariant: what newer nodes add to a row stands behind what older ones read of it, who look no further.

use bytes::Bytes;

use super::machine_db::{decode, encode};
use crate::machine::state::{Event, Superseded};

/// `superseded` has one entry for each event.
pub(super) fn encode_row(events: &[Event], superseded: &[Superseded]) -> Vec<u8> {
    let changes: Vec<(u64, &[u8])> = events
        .iter()
        .map(|event| (event.record.modified, event.key.as_ref()))
        .collect();
    let mut row = encode(&changes);
    row.extend(encode(&superseded));
    row
}

/// Revisions and keys, in order.
pub(super) fn changes(row: &[u8]) -> Vec<(u64, Bytes)> {
    decode(row)
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
        let row = encode_row(&events, &superseded);
        let plain = vec![(300, Bytes::from_static(b"a")), (301, Bytes::from_static(b"b"))];
        assert_eq!(changes(&row), plain);
        let whole: Vec<_> = plain
            .iter()
            .zip(superseded)
            .map(|((revision, key), superseded)| (*revision, key.clone(), Some(superseded)))
            .collect();
        assert_eq!(changes_with_superseded(&row), whole);

        let older = encode(&plain);
        assert_eq!(changes(&older), plain);
        let silent = changes_with_superseded(&older);
        assert!(silent.len() == 2 && silent.iter().all(|(_, _, superseded)| superseded.is_none()));
    }
}
