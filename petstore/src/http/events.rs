//! `GET /events`: what changes, as server-sent events. The id is the store's revision, so a page that lost its
//! instance goes on at another one.
//! Invariant: events of one revision leave together, and the last of them carries the id.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use payment_client::Currency;
use service::query::{Query, parse_number};
use tokio::time::{Instant, timeout};

use super::{Result, Shared};
use crate::shop::{EventStream, Since};

/// Longer silence would look like a dead connection to whatever stands in between.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How often a page is told how far it has seen when nothing on it changed.
const POSITION_EVERY: Duration = Duration::from_secs(5);

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
    let stream = shop
        .follow(user, since.map_or(Since::Now, Since::Revision))
        .await?;
    let pages = Pages {
        first: Some(format!("retry: 1000\nid: {}\n\n", stream.seen())),
        stream,
        currency: shop.currency,
        told_at: Instant::now(),
    };
    let body = futures_util::stream::unfold(pages, async |mut pages| {
        let frame = pages.frame().await?;
        Some((Ok::<Bytes, Infallible>(frame), pages))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    let value = HeaderValue::from_static;
    headers.insert(header::CONTENT_TYPE, value("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, value("no-cache"));
    Ok(response)
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
