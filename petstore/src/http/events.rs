//! `GET /events`: what changes, as server-sent events. The id is the store's revision, so a page that lost its
//! instance goes on at another one.
//! Invariant: events of one revision leave together, and the last of them carries the id. A page that does not read
//! is left alone after a while, so that it keeps no place.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use payment_client::Currency;
use service::query::{Query, parse_number};
use service::tasks::Tasks;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::caller::{Caller, session_token};
use super::{Result, Shared};
use crate::shop::{EventStream, Since};

/// Longer silence would look like a dead connection to whatever stands in between.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How often a page is told how far it has seen when nothing on it changed.
const POSITION_EVERY: Duration = Duration::from_secs(5);
/// Frames that may wait for a page to read them, and how long the next one then waits for room.
const UNREAD_MAX: usize = 16;
const UNREAD_TIME_MAX: Duration = Duration::from_secs(10);

pub(super) async fn events(State(app): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response> {
    let shop = app.shop()?;
    let caller = app.caller(&Method::GET, &headers).await?;
    let query = Query::of(&uri);
    let user = match query.text("userId")? {
        Some(user) => Some(app.user_of_path(&caller, &user)?),
        None => caller.user(),
    };
    let last = headers.get("last-event-id").filter(|last| !last.is_empty());
    let since = match last {
        Some(last) => Some(parse_number(last.to_str().unwrap_or("?"), "Last-Event-ID")?),
        None => query.number("since")?,
    };
    let since = since.map_or(Since::Now, Since::Revision);
    let token = session_token(&headers, app.config.secure_cookies)
        .filter(|_| matches!(caller, Caller::User(_)))
        .map(|(token, _)| token);
    let stream = shop.follow(user, since, token).await?;
    let pages = Pages {
        first: Some(format!("retry: 1000\nid: {}\n\n", stream.seen())),
        stream,
        currency: shop.currency,
        told_at: Instant::now(),
    };
    let frames = stream::unfold(pages, async |mut pages| {
        let frame = pages.frame().await?;
        Some((frame, pages))
    });
    let (reader, written) = mpsc::channel(UNREAD_MAX);
    let (stop, closing) = (shop.closing.clone(), &shop.closing);
    closing.spawn("page", Box::pin(forward(frames, reader, UNREAD_TIME_MAX, stop)));
    let body = stream::unfold(written, async |mut written: mpsc::Receiver<Bytes>| {
        let frame = written.recv().await?;
        Some((Ok::<Bytes, Infallible>(frame), written))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    let value = HeaderValue::from_static;
    headers.insert(header::CONTENT_TYPE, value("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, value("no-cache"));
    Ok(response)
}

/// Hands frames over as fast as they are read. Nobody would ask for the next one in the name of a page that has stopped
/// reading, so it is not the body itself that waits for them.
async fn forward(
    frames: impl Stream<Item = Bytes>,
    reader: mpsc::Sender<Bytes>,
    unread_time_max: Duration,
    stop: Tasks,
) {
    let mut frames = pin!(frames);
    loop {
        let frame = tokio::select! {
            frame = frames.next() => frame,
            () = reader.closed() => None,
        };
        let Some(frame) = frame else { return };
        let taken = tokio::select! {
            sent = timeout(unread_time_max, reader.send(frame)) => matches!(sent, Ok(Ok(()))),
            () = stop.stopping() => false,
        };
        if !taken {
            return;
        }
    }
}

struct Pages {
    first: Option<String>,
    stream: EventStream,
    currency: Currency,
    told_at: Instant,
}

impl Pages {
    async fn frame(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first.into());
        }
        loop {
            let Ok(told) = timeout(SILENCE_MAX, self.stream.next()).await else {
                return Some(Bytes::from_static(b": alive\n\n"));
            };
            let told = told?;
            if told.events.is_empty() && self.told_at.elapsed() < POSITION_EVERY {
                continue;
            }
            self.told_at = Instant::now();
            let mut text = String::new();
            let last = told.events.len().saturating_sub(1);
            for (n, event) in told.events.iter().enumerate() {
                if n == last {
                    writeln!(text, "id: {}", told.revision).expect("a string takes any text");
                }
                let data = event.data(self.currency);
                write!(text, "event: {}\ndata: {data}\n\n", event.name).expect("a string takes any text");
            }
            if told.events.is_empty() {
                write!(text, "id: {}\n\n", told.revision).expect("a string takes any text");
            }
            return Some(text.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(10);
    const DEADLINE: Duration = Duration::from_secs(5);

    fn endless() -> impl Stream<Item = Bytes> {
        stream::repeat(Bytes::from_static(b": alive\n\n"))
    }

    #[tokio::test]
    async fn a_page_that_does_not_read_is_left_alone() {
        let (reader, written) = mpsc::channel(2);
        let left = timeout(DEADLINE, forward(endless(), reader, SOON, Tasks::new())).await;
        assert!(left.is_ok() && written.len() == 2);
    }

    #[tokio::test]
    async fn a_page_that_has_gone_is_left_at_once() {
        let (reader, written) = mpsc::channel(2);
        drop(written);
        let nothing = stream::pending();
        let left = timeout(DEADLINE, forward(nothing, reader, SOON, Tasks::new())).await;
        assert!(left.is_ok());
    }

    #[tokio::test]
    async fn a_page_that_reads_gets_everything() {
        let (reader, mut written) = mpsc::channel::<Bytes>(2);
        let frames = stream::iter((0..9).map(|n: u8| Bytes::from(vec![n])));
        let reading = async {
            let mut read = Vec::new();
            while let Some(frame) = written.recv().await {
                read.extend_from_slice(&frame);
            }
            read
        };
        let forwarding = forward(frames, reader, DEADLINE, Tasks::new());
        let ((), read) = tokio::join!(forwarding, reading);
        assert_eq!(read, (0..9).collect::<Vec<u8>>());
    }
}
