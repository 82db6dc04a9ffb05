//! What the page is told while it is open: server-sent events, the same for all who look.
//! Invariant: everything waits in a bounded place; a page that is too slow is told the present anew.
//! It must not know what the frames say.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use service::problem::{self, Problem, Result};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use super::{Console, picture};

const VIEWERS_MAX: usize = 16;
const FRAMES_MAX: usize = 256;
/// How many entries of the journal a new page gets.
const ENTRIES: usize = 50;
/// A page that is loaded again, or looked at again at once, finds everything still at work.
const LINGER: Duration = Duration::from_secs(3);

pub(super) struct Hub {
    viewers: watch::Sender<usize>,
    frames: broadcast::Sender<Bytes>,
}

impl Hub {
    pub(super) fn new() -> Self {
        Self {
            viewers: watch::Sender::new(0),
            frames: broadcast::Sender::new(FRAMES_MAX),
        }
    }

    pub(super) fn tell(&self, event: &'static str, data: &impl Serialize) {
        // Nobody may be listening at this very moment.
        let _ = self.frames.send(frame(event, data));
    }

    /// Returns when at least one page is open.
    pub(super) async fn somebody_looks(&self) {
        let mut viewers = self.viewers.subscribe();
        // The sender lives in self, so waiting cannot fail.
        let _ = viewers.wait_for(|viewers| *viewers > 0).await;
    }

    /// Returns when no page has been open for a while.
    pub(super) async fn nobody_looks(&self) {
        let mut viewers = self.viewers.subscribe();
        loop {
            let _ = viewers.wait_for(|viewers| *viewers == 0).await;
            let returned = viewers.wait_for(|viewers| *viewers > 0);
            if tokio::time::timeout(LINGER, returned).await.is_err() {
                return;
            }
        }
    }
}

fn frame(event: &'static str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).expect("what the page is told has only names as keys");
    format!("event: {event}\ndata: {data}\n\n").into()
}

/// One open page; counted as long as it lives.
struct Viewer {
    console: Arc<Console>,
    first: VecDeque<Bytes>,
    frames: broadcast::Receiver<Bytes>,
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.console.hub.viewers.send_modify(|viewers| *viewers -= 1);
    }
}

pub(super) async fn events(State(console): State<Arc<Console>>) -> Result<Response> {
    let taken = console.hub.viewers.send_if_modified(|viewers| {
        let room = *viewers < VIEWERS_MAX;
        *viewers += usize::from(room);
        room
    });
    if !taken {
        let detail = format!("{VIEWERS_MAX} pages are open already; close one of them.");
        return Err(Problem::new(problem::OVERLOADED, detail));
    }
    let mut viewer = Viewer {
        frames: console.hub.frames.subscribe(),
        first: VecDeque::new(),
        console,
    };
    viewer.tell_the_present().await;
    let body = futures_util::stream::unfold(viewer, async |mut viewer| {
        let frame = viewer.next().await?;
        Some((Ok::<Bytes, Infallible>(frame), viewer))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

impl Viewer {
    async fn tell_the_present(&mut self) {
        let views = self.console.supervisor.present().processes;
        let standings = self.console.nodes.ask_for_a_new_page(&views).await;
        self.first
            .push_back(frame("picture", &picture::draw(&views, &standings)));
        let (entries, _) = self.console.supervisor.journal.read();
        for entry in &entries[entries.len().saturating_sub(ENTRIES)..] {
            self.first.push_back(frame("entry", entry));
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.first.pop_front() {
                return Some(frame);
            }
            let received = tokio::select! {
                received = self.frames.recv() => received,
                () = self.console.tasks.stopping() => return None,
            };
            match received {
                Ok(frame) => return Some(frame),
                Err(RecvError::Lagged(_)) => self.tell_the_present().await,
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
