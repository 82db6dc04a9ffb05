//! Fan-out: one writer changes a key, and every watcher is to see it.
//! Invariant: the next change is made only once all have seen the last, so that a delivery that is late is a long
//! one and not a lost one; a watcher that ends fails the run.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use futures_util::future::{self, join_all};
use futures_util::stream::{self, BoxStream, FuturesUnordered};
use futures_util::{FutureExt as _, StreamExt as _};
use hyper::{Method, Uri};
use service::http::{self, Timeouts};
use tokio::time::timeout;

use super::{Notes, Order, Seen, Target};
use crate::bench::connection::{Connection, Outcome, uri};
use crate::etcd::{Call, Client, Watches};
use crate::moving::{Moving, beside};

const KEY: &str = "bench/watched";
const DEADLINE: Duration = Duration::from_secs(10);
/// What precedes the value in an event of the store.
const VALUE: &[u8] = b"\"value\":\"";
/// Connections that the watches of etcd share, as its own client would.
const CONNECTIONS: usize = 8;

/// Values as they come in.
type Values = BoxStream<'static, u64>;

enum Writer {
    Http(Box<Connection>, Uri),
    Etcd(Client),
}

impl Writer {
    async fn write(&self, value: u64) -> Outcome {
        let value = value.to_string();
        match self {
            Self::Http(connection, url) => {
                let body = Some(Bytes::from(value));
                connection.send(Method::PUT, url.clone(), body, None).await
            }
            Self::Etcd(client) => client.call(&Call::put(KEY, value.as_bytes())).await.into(),
        }
    }
}

pub(super) async fn watch(order: &Order, count: u32) -> anyhow::Result<Seen> {
    let (writer, mut watchers, mut moving) = match &order.target {
        Target::Store { endpoints, token } => over_http(endpoints, token, count).await?,
        Target::Etcd { endpoints } => over_etcd(endpoints, count).await?,
    };
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(order.seconds);
    let notes = Notes::closed(start, end)?;
    for change in 1.. {
        let begin = Instant::now();
        if begin >= end {
            break;
        }
        let seen = join_all(watchers.iter_mut().map(async |watcher| {
            while let Some(value) = watcher.next().await {
                if value == change {
                    notes.note(Outcome::Done, begin, Instant::now());
                    return true;
                }
            }
            false
        }));
        let seen = timeout(DEADLINE, seen);
        let both = async { tokio::join!(writer.write(change), seen) };
        let (written, seen) = beside(&mut moving, both).await;
        if written != Outcome::Done {
            bail!("the key that is watched cannot be written: {written:?}");
        }
        let seen = seen.context("wait until every watcher has seen a change")?;
        if !seen.iter().all(|seen| *seen) {
            bail!("a watch has ended");
        }
    }
    Ok(notes.end(start.elapsed()))
}

/// A writer, watchers, and what moves what they hear, if nothing else does.
type Ready = (Writer, Vec<Values>, Moving);

async fn over_http(endpoints: &[String], token: &str, count: u32) -> anyhow::Result<Ready> {
    let url = uri(&format!("http://{}/v1/kv/{KEY}", endpoints[0]))?;
    let writer = Writer::Http(Box::new(Connection::new(token, DEADLINE)?), url);
    let client = http::client(Timeouts::default());
    let mut watchers: Vec<Values> = Vec::new();
    for number in 0..count as usize {
        let address = &endpoints[number % endpoints.len()];
        let request = client
            .get(format!("http://{address}/v1/watch?key={KEY}"))
            .bearer_auth(token);
        let answer = request.send().await.context("begin a watch")?;
        let answer = answer.error_for_status().context("begin a watch")?;
        let mut rest = BytesMut::new();
        let values = answer.bytes_stream().flat_map(move |piece| {
            rest.extend_from_slice(&piece.unwrap_or_default());
            stream::iter(values_of(&mut rest))
        });
        watchers.push(values.boxed());
    }
    Ok((writer, watchers, future::pending().boxed().fuse()))
}

/// The values in the whole lines that have come in; what is left is the begin of the next line.
fn values_of(rest: &mut BytesMut) -> Vec<u64> {
    let mut values = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = rest.split_to(end + 1);
        let at = line.windows(VALUE.len()).position(|window| window == VALUE);
        let digits = at.map(|at| {
            line[at + VALUE.len()..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
        });
        let text: Option<String> = digits.map(|digits| digits.map(|byte| char::from(*byte)).collect());
        values.extend(text.and_then(|text| text.parse::<u64>().ok()));
    }
    values
}

async fn over_etcd(endpoints: &[String], count: u32) -> anyhow::Result<Ready> {
    let (mut connections, moving) = (Vec::new(), FuturesUnordered::new());
    for number in 0..CONNECTIONS {
        let opened = timeout(DEADLINE, Watches::open(&endpoints[number % endpoints.len()])).await;
        let (connection, moves) = opened.context("connect for watches")??;
        connections.push(connection);
        moving.push(moves);
    }
    let mut moving = moving.for_each(future::ready).boxed().fuse();
    let mut watchers: Vec<Values> = Vec::new();
    for number in 0..count as usize {
        let watching = connections[number % CONNECTIONS].watch(KEY);
        let watching = timeout(DEADLINE, beside(&mut moving, watching)).await;
        let watching = watching.context("begin a watch")?.context("begin a watch")?;
        let values = stream::unfold(watching, async |mut watching| {
            let values = watching.next().await.ok()?;
            let values: Vec<u64> = values.iter().filter_map(|value| value.parse().ok()).collect();
            Some((stream::iter(values), watching))
        });
        watchers.push(values.flatten().boxed());
    }
    let writer = Writer::Etcd(Client::new(&endpoints[0], DEADLINE)?);
    Ok((writer, watchers, moving))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_whole_lines_only() {
        let mut rest = BytesMut::from(
            &b"event: put\ndata: {\"key\":\"a\",\"value\":\"12\"}\n\ndata: {\"value\":\"1"[..],
        );
        assert_eq!(values_of(&mut rest), [12]);
        rest.extend_from_slice(b"3\"}\n");
        assert_eq!(values_of(&mut rest), [13]);
        assert!(rest.is_empty());
    }
}
