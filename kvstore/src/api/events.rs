//! Changes as server-sent events.
//!
//! Invariant: only the last event of a revision carries its id, and only where the revision ends. It must not know who
//! watches, nor where changes come from.

use std::fmt::Write as _;

use bytes::Bytes;
use kvstore_client::wire::mirror::Granted;
use kvstore_client::wire::watch::{Change, EVENT_DELETE, EVENT_PROGRESS, EVENT_PUT, Position};
use serde::Serialize;

use super::answers;
use super::keys::text_of;
use super::range::row;
use crate::machine::found::{Delivery, Noted};
use crate::machine::host::Machine;

pub(super) fn changes(machine: &Machine, deliveries: Vec<Delivery>) -> Bytes {
    let mut text = String::new();
    for Delivery {
        revision,
        events,
        ends,
        mut kept,
    } in deliveries
    {
        let last = ends.then(|| events.len() - 1);
        for (n, noted) in events.into_iter().enumerate() {
            let is_last = last == Some(n);
            let id = is_last.then_some(revision);
            let name = if noted.event.record.is_tombstone() {
                EVENT_DELETE
            } else {
                EVENT_PUT
            };
            let mut change = change(noted);
            if is_last {
                let kept = kept.take();
                let kept = kept.map(|(id, kept)| answers::wire(machine.now_ms(), id, kept));
                // The key may have been used again since: what is kept now then tells of a later revision.
                change.kept = kept.filter(|kept| kept.revision == revision);
            }
            write_event(&mut text, name, id, &change);
        }
    }
    Bytes::from(text)
}

fn change(noted: Noted) -> Change {
    let Noted {
        event,
        previous,
        lease,
    } = noted;
    let deleted = event.record.is_tombstone();
    Change {
        key: text_of(&event.key).to_owned(),
        prev: previous.map(|record| row(&event.key, record, true)),
        create_revision: event.record.created,
        mod_revision: event.record.modified,
        version: event.record.version,
        lease: event.record.lease,
        granted: lease.map(|lease| Granted {
            id: event.record.lease,
            ttl_ms: lease.ttl_ms,
            owner: lease.owner,
        }),
        kept: None,
        value: (!deleted).then_some(event.record.value),
    }
}

/// All is delivered up to `revision`, so that a caller may resume after it.
pub(super) fn progress(revision: u64) -> Bytes {
    event(EVENT_PROGRESS, Some(revision), &Position { revision })
}

pub(super) fn event(name: &str, id: Option<u64>, data: &impl Serialize) -> Bytes {
    let mut text = String::new();
    write_event(&mut text, name, id, data);
    Bytes::from(text)
}

fn write_event(text: &mut String, name: &str, id: Option<u64>, data: &impl Serialize) {
    let data = serde_json::to_string(data).expect("wire types have text keys, so they always encode");
    if let Some(id) = id {
        writeln!(text, "id: {id}").expect("writing to memory does not fail");
    }
    // JSON holds no raw line ends, so it is one line of the event.
    writeln!(text, "event: {name}\ndata: {data}\n").expect("writing to memory does not fail");
}
