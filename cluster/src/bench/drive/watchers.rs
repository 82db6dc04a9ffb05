//! Fan-out: one writer changes a key, and every watcher is to see it.
//! Invariant: the next change is made only once all have seen the last, so that a delivery that is late is a long
//! one and not a lost one; a watcher that ends fails the run.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream};
use hyper::{Method, Uri};
use service::http::{self, Timeouts};

use super::{Notes, Order, Seen, Target};
use crate::bench::connection::{Connection, Outcome, uri};
use crate::etcd::{Call, Client};

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
            Self::Etcd(client) => match client.call(&Call::put(KEY, value.as_bytes())).await {
                Ok(_) => Outcome::Done,
                Err(_) => Outcome::Broken,
            },
        }
    }
}

pub(super) async fn watch(order: &Order, count: u32) -> anyhow::Result<Seen> {
    let (writer, mut watchers) = match &order.target {
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
        let seen = tokio::time::timeout(DEADLINE, seen);
        let (written, seen) = tokio::join!(writer.write(change), seen);
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

async fn over_http(endpoints: &[String], token: &str, count: u32) -> anyhow::Result<(Writer, Vec<Values>)> {
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
    Ok((writer, watchers))
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

async fn over_etcd(endpoints: &[String], count: u32) -> anyhow::Result<(Writer, Vec<Values>)> {
    let clients = (0..CONNECTIONS).map(|number| Client::new(&endpoints[number % endpoints.len()], DEADLINE));
    let clients = clients.collect::<anyhow::Result<Vec<_>>>()?;
    let mut watchers: Vec<Values> = Vec::new();
    for number in 0..count as usize {
        let watching = clients[number % clients.len()]
            .watch(KEY)
            .await
            .context("begin a watch")?;
        let values = stream::unfold(watching, async |mut watching| {
            let values = watching.next().await.ok()?;
            let values: Vec<u64> = values.iter().filter_map(|value| value.parse().ok()).collect();
            Some((stream::iter(values), watching))
        });
        watchers.push(values.flatten().boxed());
    }
    Ok((Writer::Etcd(Client::new(&endpoints[0], DEADLINE)?), watchers))
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
