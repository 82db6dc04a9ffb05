//! Reads a watch: server-sent events, one at a time, each with a deadline.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use reqwest::{Method, Response};
use serde_json::Value;
use tokio::time::timeout;

use crate::harness::{Client, DEADLINE};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<u64>,
    pub(crate) data: Value,
}

impl Event {
    pub(crate) fn revision(&self) -> u64 {
        let member = if self.is_change() {
            "mod_revision"
        } else {
            "revision"
        };
        self.data[member].as_u64().unwrap_or_else(|| panic!("{self:?}"))
    }

    pub(crate) fn is_change(&self) -> bool {
        self.name == "put" || self.name == "delete"
    }
}

pub(crate) struct Events {
    bytes: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    text: String,
}

impl Events {
    /// `query` is what stands behind the `?`.
    pub(crate) async fn open(client: &Client, query: &str) -> Self {
        Self::open_after(client, query, None).await
    }

    pub(crate) async fn open_after(client: &Client, query: &str, last_event_id: Option<u64>) -> Self {
        let mut request = client.request(Method::GET, &format!("/v1/watch?{query}"));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id.to_string());
        }
        let response = request.send().await.unwrap();
        assert_eq!(
            response.status().as_u16(),
            200,
            "{}",
            response.text().await.unwrap()
        );
        Self::of(response)
    }

    fn of(response: Response) -> Self {
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            bytes: Box::pin(response.bytes_stream()),
            text: String::new(),
        }
    }

    /// Watches this client's own keys from the present on.
    pub(crate) async fn of_space(client: &Client, more: &str) -> Self {
        let mut events = Self::open(client, &format!("prefix={}{more}", client.key(""))).await;
        // The first event tells that the watch has begun.
        assert_eq!(events.next().await.name, "progress");
        events
    }

    /// The next event, or `None` when the node has closed the stream.
    pub(crate) async fn next_or_end(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = parse(event);
                let rest = rest.to_owned();
                self.text = rest;
                if event.is_some() {
                    return event;
                }
                continue;
            }
            let piece = timeout(DEADLINE, self.bytes.next()).await;
            let piece = piece.unwrap_or_else(|_elapsed| panic!("no event in time; so far: {:?}", self.text));
            // A connection that is cut is an end as well.
            let Some(Ok(piece)) = piece else { return None };
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    pub(crate) async fn next(&mut self) -> Event {
        self.next_or_end().await.expect("the watch goes on")
    }

    /// The next put or delete.
    pub(crate) async fn change(&mut self) -> Event {
        loop {
            let event = self.next().await;
            if event.is_change() {
                return event;
            }
            assert_eq!(event.name, "progress", "{event:?}");
        }
    }

    pub(crate) async fn changes(&mut self, count: usize) -> Vec<Event> {
        let mut changes = Vec::with_capacity(count);
        for _ in 0..count {
            changes.push(self.change().await);
        }
        changes
    }
}

/// `None` for a comment.
fn parse(text: &str) -> Option<Event> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let name = field("event")?.to_owned();
    let id = field("id").map(|id| id.parse().unwrap());
    Some(Event {
        name,
        id,
        data: serde_json::from_str(field("data").unwrap()).unwrap(),
    })
}
