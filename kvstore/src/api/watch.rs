//! `GET /v1/watch`: changes as server-sent events.
//!
//! The body is pulled: nothing is read for a caller who does not read. Invariant: events of one revision
//! leave together and only the last of them carries the id, so that a cut anywhere loses nothing; a caller
//! who lost access gets nothing that came after.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use kvstore_client::wire::headers;
use kvstore_client::wire::mirror::Granted;
use kvstore_client::wire::watch::{
    Change, Compacted, EVENT_COMPACTED, EVENT_DELETE, EVENT_LAGGING, EVENT_PROGRESS, EVENT_PUT, Position,
};
use serde::Serialize;
use service::planted::{Bug, is_planted};
use service::problem::{self, Problem, Result};

use super::auth::Caller;
use super::keys::text_of;
use super::once::single;
use super::params::{self, Params, malformed};
use super::places::Place;
use super::range::row;
use super::{Api, Shared, answers, large, reply};
use crate::machine::found::{Delivery, Noted, Turn};
use crate::machine::host::Machine;
use crate::machine::registry::Selector;
use crate::machine::watcher::{self, Step, Watcher};
use crate::store::Store;

/// What an event says beside key and value.
const EVENT_BYTES: usize = 128;

pub(super) async fn watch(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let params = Params::of(&parts.uri);
    let selector = selector(&params, api.limits.key_bytes_max)?;
    let from = first_revision(&params, &parts.headers)?;
    let with_previous = params.flag("prev")?;
    let with_aside = params.flag("aside")?;
    let quiet_max = quiet_max(&params)?;
    let level = params.level()?;
    let point = api.read_point(level).await?;
    may_watch(&api, &caller, &selector)?;
    if with_aside {
        caller.may_read_prefix(&api, b"")?;
    }
    if let Some(from) = from {
        point.check_watch(from).map_err(reply::read_problem)?;
    }
    let mut next = from.unwrap_or(point.revision + 1);
    if next <= point.revision && is_planted(Bug::WatchSkips) {
        next += 1;
    }
    if next <= point.revision && is_planted(Bug::WatchRepeats) {
        next = next.max(2) - 1;
    }
    let place = api.watchers.take(caller.name()).ok_or_else(|| no_place(&api))?;
    let machine = Arc::clone(api.store.machine());
    let cluster_id = machine.state().cluster_id;
    let watcher = Watcher::open(machine, selector.clone(), next, with_previous)
        .telling_progress_after(quiet_max)
        .with_aside(with_aside);
    let first = if watcher.next_revision() <= point.revision + 1 {
        progress(watcher.next_revision() - 1)
    } else {
        Bytes::from_static(b": connected, waiting for the revision asked for\n\n")
    };
    let stream = Stream {
        api,
        caller,
        selector,
        watcher,
        first: Some(first),
        ended: false,
        _place: place,
    };
    let body = futures_util::stream::unfold(stream, async |mut stream| {
        let frame = stream.frame().await?;
        Some((Ok::<Bytes, Infallible>(frame), stream))
    });
    let mut response = Response::new(Body::from_stream(body));
    let told = response.headers_mut();
    told.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    told.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply::stamp_read(point.revision, level, told);
    if let Ok(id) = HeaderValue::try_from(cluster_id) {
        told.insert(headers::CLUSTER, id);
    }
    Ok(response)
}

fn selector(params: &Params<'_>, key_bytes_max: usize) -> Result<Selector> {
    match (params.text("key")?, params.text("prefix")?) {
        (Some(_), Some(_)) => Err(malformed("The parameters `key` and `prefix` exclude each other.")),
        (Some(key), None) => {
            params::check_key(&key, key_bytes_max)?;
            Ok(Selector::Key(Bytes::copy_from_slice(key.as_bytes())))
        }
        (None, prefix) => {
            let prefix = prefix.unwrap_or_default();
            params::check_bound(&prefix, key_bytes_max)?;
            Ok(Selector::Prefix(Bytes::copy_from_slice(prefix.as_bytes())))
        }
    }
}

/// The first revision to deliver, if the caller says which. Before revision 1 there was nothing.
fn first_revision(params: &Params<'_>, headers: &HeaderMap) -> Result<Option<u64>> {
    let from = params.number("from")?;
    let seen = single(headers, headers::LAST_EVENT_ID)?.filter(|seen| !seen.is_empty());
    let first = match seen {
        None => from,
        Some(seen) => {
            let seen = std::str::from_utf8(seen).unwrap_or_default();
            Some(params::parse_number(seen, "Last-Event-ID")?.saturating_add(1))
        }
    };
    Ok(first.map(|first| first.max(1)))
}

/// How soon a revision without an event is told, if the caller says so.
fn quiet_max(params: &Params<'_>) -> Result<Duration> {
    let Some(ms) = params.number("progress_ms")? else {
        return Ok(watcher::QUIET);
    };
    if (1..=5000).contains(&ms) {
        return Ok(Duration::from_millis(ms));
    }
    Err(malformed(
        "The parameter `progress_ms` is a number from 1 to 5000.",
    ))
}

fn may_watch(api: &Api, caller: &Caller, selector: &Selector) -> Result<()> {
    match selector {
        Selector::Key(key) => caller.may_read_key(api, key),
        Selector::Prefix(prefix) => caller.may_read_prefix(api, prefix),
    }
}

fn no_place(api: &Api) -> Problem {
    let detail = format!(
        "This node has no place for another watch of this token: it serves {} at most, and a token that has more than a \
         quarter of them leaves the last one to others.",
        api.limits.watchers_max
    );
    Problem::new(problem::TOO_MANY_WATCHERS, detail)
}

struct Stream {
    api: Shared,
    caller: Caller,
    selector: Selector,
    watcher: Watcher,
    first: Option<Bytes>,
    ended: bool,
    _place: Place,
}

impl Stream {
    /// What to send next; `None` closes the stream.
    async fn frame(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        while !self.ended {
            let step = tokio::select! {
                step = self.watcher.next() => step,
                () = self.api.streams.stopping() => return None,
            };
            // After the step: what it brought may be newer than a change of the rules.
            if may_watch(&self.api, &self.caller, &self.selector).is_err() {
                return None;
            }
            match step {
                Step::Idle => {}
                Step::Changes(deliveries, turn) => return changes(&self.api.store, deliveries, turn).await,
                // A node that is cut off has nothing to tell, and whoever watches it must notice and go elsewhere.
                Step::Progress(_) | Step::Waiting(_) if !self.api.store.is_in_touch() => {}
                Step::Progress(revision) => return Some(progress(revision)),
                Step::Waiting(revision) => return Some(event(EVENT_PROGRESS, None, &Position { revision })),
                Step::Compacted(compacted_revision) => {
                    self.ended = true;
                    return Some(event(EVENT_COMPACTED, None, &Compacted { compacted_revision }));
                }
                Step::Lagging(revision) => {
                    self.ended = true;
                    return Some(event(EVENT_LAGGING, None, &Position { revision }));
                }
            }
        }
        None
    }
}

/// What of changes is sent; nothing more if the node is stopping.
async fn changes(store: &Store, deliveries: Vec<Delivery>, turn: Turn) -> Option<Bytes> {
    let events = deliveries.iter().map(|delivery| delivery.events.len() as u64);
    store.metrics().events_delivered.inc_by(events.sum());
    let machine = Arc::clone(store.machine());
    let bytes = deliveries.iter().map(bytes).sum();
    let writing = large::written(store.edge(), bytes, move || {
        let _turn = turn;
        changes_text(&machine, deliveries)
    });
    writing.await.ok()
}

/// Roughly, as JSON.
fn bytes(delivery: &Delivery) -> usize {
    let kept = delivery.kept.as_ref().map_or(0, |(_, kept)| kept.reply.len());
    let events = delivery.events.iter().map(|Noted { event, previous, .. }| {
        let previous = previous.as_ref().map_or(0, |record| record.value.len());
        event.key.len() + event.record.value.len() + previous + EVENT_BYTES
    });
    kept + events.sum::<usize>()
}

fn changes_text(machine: &Machine, deliveries: Vec<Delivery>) -> Bytes {
    let mut text = String::new();
    for Delivery {
        revision,
        events,
        mut kept,
    } in deliveries
    {
        let last = events.len() - 1;
        for (n, noted) in events.into_iter().enumerate() {
            let id = (n == last).then_some(revision);
            let name = if noted.event.record.is_tombstone() {
                EVENT_DELETE
            } else {
                EVENT_PUT
            };
            let mut change = change(noted);
            if n == last {
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
fn progress(revision: u64) -> Bytes {
    event(EVENT_PROGRESS, Some(revision), &Position { revision })
}

fn event(name: &str, id: Option<u64>, data: &impl Serialize) -> Bytes {
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use service::config::LimitsConfig;

    use super::*;
    use crate::command::Record;
    use crate::machine::state::Event;
    use crate::raft::bare::Bare;

    /// Of one revision.
    fn deletes(count: usize) -> Vec<Delivery> {
        let event = |n: usize| Event {
            key: Bytes::from(format!("k/{n}")),
            record: Record::tombstone(7),
        };
        let noted = (0..count).map(|n| Noted {
            event: event(n),
            previous: None,
            lease: None,
        });
        vec![Delivery {
            revision: 7,
            events: noted.collect(),
            kept: None,
        }]
    }

    #[tokio::test]
    async fn what_is_large_is_put_into_words_on_another_thread() {
        let node = Bare::cluster(1).await.remove(0);
        let store = Store::over(&node, &LimitsConfig::default());
        let few = changes(&store, deletes(3), Turn::default()).now_or_never();
        let few = few.expect("it is done at once").unwrap();
        let mut writing = Box::pin(changes(&store, deletes(1000), Turn::default()));
        assert!(writing.as_mut().now_or_never().is_none(), "it was done here");
        let many = writing.await.unwrap();
        for (text, count) in [(few, 3), (many, 1000)] {
            let text = std::str::from_utf8(&text).unwrap();
            let events: Vec<&str> = text.split_terminator("\n\n").collect();
            assert_eq!(events.len(), count);
            let (last, others) = events.split_last().unwrap();
            assert!(last.starts_with("id: 7\nevent: delete\n"), "{last}");
            assert!(others.iter().all(|event| event.starts_with("event: delete\n")));
        }
        node.end().await;
    }
}
