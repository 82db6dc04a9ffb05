//! One client of a side: what each work is, said in that side's own words.
//! Invariant: requests are made before they are sent, as far as they can be, since making them is no part of what is
//! measured; and both sides are asked for the same keys in the same order.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use reqwest::{Method, Url};
use serde_json::json;
use tonic::Status;

use super::{Order, Target, Work};
use crate::bench::connection::{Connection, Outcome};
use crate::etcd::{Call, Client};

const DEADLINE: Duration = Duration::from_secs(10);
/// Different keys of one client.
const KEYS_MAX: u32 = 256;
/// One in so many of the mixed work is a put.
const MIX_WRITE_EVERY: u32 = 10;
const COUNTER: &str = "bench/counter";
const PREFIX: &str = "bench/keys/";
/// What the side that is asked by HTTP calls its keys in a path.
const PATH: &str = "/v1/kv/";

pub(super) struct Caller {
    side: Side,
    work: Work,
    keys: Vec<String>,
    filling: String,
}

enum Side {
    Http {
        connection: Connection,
        base: String,
        /// By number of the key; what is put is the same for all.
        urls: Vec<Url>,
        value: Bytes,
        other: Option<(Method, Url, Option<Bytes>)>,
    },
    Etcd {
        client: Client,
        puts: Vec<Call>,
        gets: Vec<Call>,
        other: Option<Call>,
    },
}

fn key(n: u32) -> String {
    format!("{PREFIX}{n:07}")
}

/// The keys of a client: spread over all, by a stride that hits each once before it repeats any.
fn keys_of(client: u32, clients: u32, keys: u32) -> impl Iterator<Item = u32> {
    const STRIDE: u64 = 7_368_787;
    let count = KEYS_MAX.min(keys.max(1)).min((65_536 / clients.max(1)).max(16));
    (0..count).map(move |n| {
        let place = (u64::from(client) * u64::from(count) + u64::from(n)) * STRIDE;
        u32::try_from(place % u64::from(keys.max(1))).expect("the rest is below a number of 32 bits")
    })
}

fn value(bytes: usize) -> Bytes {
    // Not one letter again and again, which would compress to nothing.
    (0..bytes)
        .map(|n| b'a' + u8::try_from((n * n + 7 * n) % 26).expect("it is below 26"))
        .collect()
}

impl Caller {
    pub(super) fn new(order: &Order, number: u32) -> anyhow::Result<Self> {
        let keys: Vec<String> = keys_of(number, order.clients, order.keys).map(key).collect();
        let bytes = match order.work {
            Work::Put { bytes } | Work::Mix { bytes } | Work::Txn { bytes, .. } | Work::Fill { bytes } => {
                bytes
            }
            _ => 0,
        };
        let value = value(bytes);
        let side = match &order.target {
            Target::Store { endpoints, token } => http(order, number, endpoints, token, &keys, value)?,
            Target::Etcd { endpoints } => etcd(order, number, endpoints, &keys, &value)?,
        };
        Ok(Self {
            side,
            work: order.work,
            keys,
            filling: String::from_utf8_lossy(&self::value(bytes)).into_owned(),
        })
    }

    pub(super) async fn call(&self, n: u32) -> Outcome {
        let place = n as usize % self.keys.len();
        let write = match self.work {
            Work::Put { .. } => true,
            Work::Mix { .. } => n.is_multiple_of(MIX_WRITE_EVERY),
            _ => false,
        };
        match &self.side {
            Side::Http {
                connection,
                urls,
                value,
                other,
                ..
            } => {
                let (method, url, body) = match other {
                    Some((method, url, body)) => (method.clone(), url.clone(), body.clone()),
                    None if write => (Method::PUT, urls[place].clone(), Some(value.clone())),
                    None => (Method::GET, urls[place].clone(), None),
                };
                connection.send(method, url, body, None).await
            }
            Side::Etcd { client, .. } if self.work == Work::Counter => outcome(client.add_one(COUNTER).await),
            Side::Etcd {
                client,
                puts,
                gets,
                other,
            } => {
                let call = match other {
                    Some(other) => other,
                    None if write => &puts[place],
                    None => &gets[place],
                };
                outcome(client.call(call).await)
            }
        }
    }

    /// Puts `count` keys from `from` on at once.
    pub(super) async fn fill(&self, from: u32, count: u32) -> Outcome {
        let keys: Vec<String> = (from..from + count).map(key).collect();
        match &self.side {
            Side::Http { connection, base, .. } => {
                let Ok(url) = Url::parse(&format!("{base}/v1/txn")) else {
                    return Outcome::Broken;
                };
                connection
                    .send(Method::POST, url, Some(puts_in_json(&keys, &self.filling)), None)
                    .await
            }
            Side::Etcd { client, .. } => {
                let pairs = keys.iter().map(|key| (key.as_str(), self.filling.as_bytes()));
                outcome(client.call(&Call::puts(pairs)).await)
            }
        }
    }
}

fn puts_in_json(keys: &[String], value: &str) -> Bytes {
    let puts: Vec<_> = keys
        .iter()
        .map(|key| json!({"put": {"key": key, "value": value}}))
        .collect();
    json!({ "then": puts }).to_string().into()
}

fn http(
    order: &Order,
    number: u32,
    endpoints: &[String],
    token: &str,
    keys: &[String],
    value: Bytes,
) -> anyhow::Result<Side> {
    let base = format!("http://{}", endpoints[number as usize % endpoints.len()]);
    let url = |path: &str| Url::parse(&format!("{base}{path}")).context("make a URL");
    let post = |body: Bytes| -> anyhow::Result<_> { Ok(Some((Method::POST, url("/v1/txn")?, Some(body)))) };
    let other = match order.work {
        Work::Counter => post(
            json!({"then": [{"add": {"key": COUNTER, "by": 1}}]})
                .to_string()
                .into(),
        )?,
        Work::Txn { keys: count, .. } => {
            let keys: Vec<String> = keys.iter().take(count as usize).cloned().collect();
            post(puts_in_json(&keys, &String::from_utf8_lossy(&value)))?
        }
        Work::Range { rows } => {
            let page = url(&format!("/v1/kv?prefix={PREFIX}&limit={rows}"))?;
            Some((Method::GET, page, None))
        }
        _ => None,
    };
    let urls = keys
        .iter()
        .map(|key| url(&format!("{PATH}{key}")))
        .collect::<anyhow::Result<_>>()?;
    let connection = Connection::new(token, DEADLINE)?;
    Ok(Side::Http {
        connection,
        base: base.clone(),
        urls,
        value,
        other,
    })
}

fn etcd(
    order: &Order,
    number: u32,
    endpoints: &[String],
    keys: &[String],
    value: &Bytes,
) -> anyhow::Result<Side> {
    let client = Client::new(&endpoints[number as usize % endpoints.len()], DEADLINE)?;
    let other = match order.work {
        Work::Txn { keys: count, .. } => {
            let keys = keys.iter().take(count as usize);
            Some(Call::puts(keys.map(|key| (key.as_str(), &value[..]))))
        }
        Work::Range { rows } => Some(Call::range(PREFIX, u64::from(rows))),
        _ => None,
    };
    let reads = !matches!(order.work, Work::Put { .. });
    let puts = keys.iter().map(|key| Call::put(key, value)).collect();
    let gets = keys.iter().filter(|_| reads).map(|key| Call::get(key)).collect();
    Ok(Side::Etcd {
        client,
        puts,
        gets,
        other,
    })
}

/// As HTTP has statuses, so has gRPC, with smaller numbers.
fn outcome<T>(answer: Result<T, Status>) -> Outcome {
    match answer {
        Ok(_) => Outcome::Done,
        Err(status) => Outcome::Refused(u16::try_from(i32::from(status.code())).unwrap_or(u16::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::keys_of;

    #[test]
    fn clients_spread_over_all_keys() {
        let of_all: Vec<u32> = (0..16)
            .flat_map(|client| keys_of(client, 16, 1_000_000))
            .collect();
        let different: BTreeSet<&u32> = of_all.iter().collect();
        assert_eq!((of_all.len(), different.len()), (16 * 256, 16 * 256));
        assert!(of_all.iter().all(|key| *key < 1_000_000));
        assert!(different.iter().any(|key| **key > 900_000) && different.iter().any(|key| **key < 100_000));
        assert_eq!(keys_of(3, 256, 1000).count(), 256);
    }
}
