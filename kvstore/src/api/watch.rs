//! `GET /v1/watch`: changes as server-sent events.
//!
//! The body is pulled: nothing is read for a caller who does not read. Invariant: events of one revision follow each
//! other, with nothing between them that would be taken for their end, and only the last of them carries the id, so that
//! a cut anywhere loses nothing; a caller who lost access gets nothing that came after, not even the rest of a revision.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use kvstore_client::wire::headers;
use kvstore_client::wire::watch::{Compacted, EVENT_COMPACTED, EVENT_LAGGING, EVENT_PROGRESS, Position};
use service::planted::{Bug, is_planted};
use service::problem::{self, Problem, Result};

use super::auth::Caller;
use super::events::{self, event, progress};
use super::once::single;
use super::params::{self, Params, malformed};
use super::places::Place;
use super::{Api, Shared, reply};
use crate::machine::reading::Reader;
use crate::machine::registry::Selector;
use crate::machine::watcher::{self, Step, Watcher};

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
    let reader = Reader {
        machine,
        selector: selector.clone(),
        with_previous,
        with_aside,
        words: Arc::new(events::changes),
    };
    let watcher =
        Watcher::open(reader, next, caller.name(), api.streams.clone()).telling_progress_after(quiet_max);
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
                Step::Changes { words, events } => {
                    self.api.store.metrics().events_delivered.inc_by(events);
                    return Some(words);
                }
                Step::Failed => return None,
                // A node that is cut off has nothing to tell, and whoever watches it must notice and go elsewhere.
                Step::Progress(_) | Step::Waiting(_) | Step::Amid if !self.api.store.is_in_touch() => {}
                Step::Progress(revision) => return Some(progress(revision)),
                Step::Amid => return Some(Bytes::from_static(b": the revision goes on\n\n")),
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::BodyDataStream;
    use bytes::Bytes;
    use futures_util::StreamExt as _;
    use service::config::LimitsConfig;
    use tokio::time::timeout;
    use tower::ServiceExt as _;

    use crate::api::half_made::{request, seed};
    use crate::api::{Api, router};
    use crate::command::{Action, Expect};
    use crate::raft::bare::{Bare, DEADLINE};
    use crate::raft::start::root_rules;
    use crate::store::Store;

    const KEYS: usize = 64;
    const VALUE_BYTES: usize = 200 << 10;
    const FRAME_BYTES_MAX: usize = 1 << 20;

    /// A node with large keys that one revision has deleted, what callers meet of it, and that revision.
    async fn deleted() -> (Bare, Router, u64) {
        let node = Bare::cluster(1).await.remove(0);
        seed(&node, "an id", "root", root_rules()).await;
        let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
        for n in 0..KEYS {
            let put = Action::Put {
                key: format!("k/{n:02}").into(),
                value: value.clone(),
                lease: 0,
                expect: Expect::Any,
            };
            node.desk.propose_own(put).await.unwrap();
        }
        let prefix = Bytes::from_static(b"k/");
        let delete = Action::DeletePrefix { prefix };
        node.desk.propose_own(delete).await.unwrap();
        let revision = node.desk.machine.state().revision;
        let limits = LimitsConfig::default();
        let app = router(Api::new(Store::over(&node, &limits), limits));
        (node, app, revision)
    }

    /// What a watch of them answers, frame by frame.
    async fn watch(app: &Router, from: u64) -> BodyDataStream {
        let target = format!("/v1/watch?prefix=k/&prev=1&from={from}");
        let request = request("GET", &target, Some("root"));
        let answer = app.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body().into_data_stream()
    }

    /// `None` at the end.
    async fn frame(frames: &mut BodyDataStream) -> Option<String> {
        let frame = timeout(DEADLINE, frames.next()).await.expect("it goes on");
        Some(String::from_utf8(frame?.unwrap().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_revision_with_much_to_tell_comes_in_frames_of_bounded_size() {
        let (node, app, revision) = deleted().await;
        // Only the deletion, which is in memory, and all from the tables as well.
        for from in [revision, 1] {
            let mut frames = watch(&app, from).await;
            let mut text = String::new();
            let mut is_whole = false;
            while !is_whole {
                let frame = frame(&mut frames).await.expect("it goes on");
                assert!(frame.len() <= FRAME_BYTES_MAX, "{}", frame.len());
                is_whole = frame.contains(&format!("id: {revision}\nevent: delete"));
                text += &frame;
            }
            let events = text.split_terminator("\n\n");
            let deletes = events.filter(|event| event.contains("event: delete\n"));
            let deletes: Vec<&str> = deletes.collect();
            assert_eq!(deletes.len(), KEYS);
            for (n, event) in deletes.into_iter().enumerate() {
                assert_eq!(event.starts_with("id: "), n == KEYS - 1);
                let (_, data) = event.split_once("data: ").unwrap();
                let data: serde_json::Value = serde_json::from_str(data).unwrap();
                assert_eq!(data["key"], format!("k/{n:02}"));
                assert_eq!(data["prev"]["value"].as_str().unwrap().len(), VALUE_BYTES);
            }
        }
        node.end().await;
    }

    #[tokio::test]
    async fn who_loses_access_in_the_middle_of_a_revision_gets_nothing_more_of_it() {
        let (node, app, revision) = deleted().await;
        let mut frames = watch(&app, revision).await;
        loop {
            let frame = frame(&mut frames).await.expect("it goes on");
            if frame.contains("event: delete\n") {
                break;
            }
        }
        let replaced = Action::TokenPut {
            name: "root".to_owned(),
            hash: [7; 32],
            rules: root_rules(),
        };
        node.desk.propose_own(replaced).await.unwrap();
        assert_eq!(frame(&mut frames).await, None);
        node.end().await;
    }
}
