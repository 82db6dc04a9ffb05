//! Events that no store sends.
//! Invariant: whatever comes, revisions are delivered in order, each once, and the same wherever the network cuts it.
//! From each of them one can go on.

use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use super::{Connection, Step, WatchBatch, WatchRequest};
use crate::bent::feed;
use crate::endpoints::{Endpoints, Prefer, Tried};
use crate::sse::Parser;
use crate::wire::Revision;

/// Everything up to here came before.
const POSITION: Revision = 4;

/// Revision 9 has two changes, each in an event of its own.
const WHOLE: [&str; 3] = [
    "\u{feff}: hello\nevent: put\ndata: {\"key\":\"a\",\"value\":\"b\",\"create_revision\":5,\"mod_revision\":5,\
     \"version\":1,\"granted\":{\"id\":7,\"ttl_ms\":500,\"owner\":\"root\"},\"lease\":7}\nid: 5\n\nevent: progress\n\
     data: {\"revision\":8}\n\nevent: put\ndata: {\"key\":\"a\",\"value_base64\":\"AJ+Slg==\",\"mod_revision\":9,\
     \"version\":2,\"prev\":{\"key\":\"a\",\"value\":\"b\"}}\n\nevent: delete\r\ndata: {\"key\":\"c\",\r\n\
     data: \"mod_revision\":9,\"kept\":{\"owner\":\"o\",\"key\":\"k\",\"revision\":9,\"expires_ms\":1,\
     \"fingerprint\":\"AA==\",\"reply\":\"\"}}\r\nid: 9\r\n\r\n",
    "event: put\ndata: {\"key\":\"a\",\"mod_revision\":5}\nid: 5\n\nevent: lagging\ndata: {\"revision\":5}\n\n",
    "event: progress\ndata: {\"revision\":18446744073709551615}\n\nevent: compacted\n\
     data: {\"compacted_revision\":9}\n\n",
];

/// What a connection delivers of these pieces until it is given up or ends in an error.
fn delivered(pieces: &[&[u8]]) -> Vec<WatchBatch> {
    let endpoints = Endpoints::new(vec!["http://127.0.0.1:7001".to_owned()], 0);
    let mut connection = Connection {
        endpoint: endpoints.choose(Prefer::Sticky, &mut Tried::default()),
        pieces: stream::empty().boxed(),
        heard: Instant::now(),
        parser: Parser::default(),
        partial: Vec::new(),
        partial_bytes: 0,
    };
    let (mut position, mut batches) = (POSITION, Vec::new());
    for piece in pieces {
        if connection.parser.feed(piece).is_err() {
            break;
        }
        while let Some(event) = connection.parser.next() {
            match connection.step(event, &mut position) {
                Ok(Step::Deliver(batch)) => batches.push(batch),
                Ok(Step::Nothing | Step::Repeated) => {}
                Ok(Step::Reconnect) | Err(_) => return batches,
            }
        }
    }
    batches
}

#[test]
fn events() {
    let whole = WHOLE.map(|text| text.as_bytes().to_vec());
    let revisions = |bytes: &Vec<u8>| -> Vec<Revision> {
        let batches = delivered(&[bytes]);
        batches.iter().map(|batch| batch.revision).collect()
    };
    let told = whole.each_ref().map(revisions);
    assert_eq!(told, [vec![5, 8, 9], vec![5], vec![Revision::MAX]]);
    let follow = WatchRequest::prefix("a/").prev();
    feed(&whole, |bytes| {
        let batches = delivered(&[bytes]);
        let (begin, end) = bytes.split_at(bytes.len() / 2);
        assert_eq!(delivered(&[begin, end]), batches);
        let mut position = POSITION;
        for batch in &batches {
            assert!(batch.revision > position);
            position = batch.revision;
            assert!(batch.events.iter().all(|event| event.revision == position));
        }
        let target = follow.target(position);
        assert!(target.starts_with("/v1/watch?prefix=a%2F&from="), "{target}");
    });
}

#[test]
fn behind_the_last_revision_that_there_can_be_nothing_is_asked_for() {
    let last = format!("from={}", Revision::MAX);
    let follow = WatchRequest::key("a");
    assert!(follow.target(Revision::MAX).ends_with(&last));
    assert_eq!(follow.after(Revision::MAX).from, Some(Revision::MAX));
}
