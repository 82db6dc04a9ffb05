//! One client of a side: what each work is, said in that side's own words.
//! Invariant: what is the same in all requests is made before they are sent, since making it is no part of what is
//! measured; and both sides are asked for the same keys in the same order, drawn from all that there are, or a cache
//! would soon hold every key that is asked for.

use std::time::Duration;

use bytes::Bytes;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Uri};
use serde_json::json;

use super::{Order, Target, Work};
use crate::bench::connection::{Connection, Outcome, uri};
use crate::etcd::{Call, Client};

const DEADLINE: Duration = Duration::from_secs(10);
/// One in so many of the mixed work is a put.
const MIX_WRITE_EVERY: u32 = 10;
const COUNTER: &str = "bench/counter";
const PREFIX: &str = "bench/keys/";
/// What the side that is asked by HTTP calls its keys in a path.
const PATH: &str = "/v1/kv/";
const TXN: &str = "/v1/txn";

pub(super) struct Caller {
    side: Side,
    work: Work,
    draws: Draws,
    filling: String,
}

enum Side {
    Http {
        connection: Box<Connection>,
        /// Without a path.
        base: Uri,
        /// What is put, the same for all keys.
        value: Bytes,
        other: Option<(Method, Uri, Option<Bytes>)>,
    },
    Etcd {
        client: Client,
        value: Bytes,
        other: Option<Call>,
    },
}

/// Which key each call is about: any of all, and none of them more often than another.
struct Draws {
    seed: u64,
    keys: u32,
}

impl Draws {
    fn new(seed: u64, client: u32, keys: u32) -> Self {
        Self {
            seed: scattered(seed ^ scattered(u64::from(client))),
            keys: keys.max(1),
        }
    }

    fn of(&self, n: u32) -> u32 {
        let drawn = scattered(self.seed.wrapping_add(u64::from(n))) % u64::from(self.keys);
        u32::try_from(drawn).expect("the rest is below a number of 32 bits")
    }
}

/// `SplitMix64`: of neighbours it makes numbers that have nothing to do with each other.
fn scattered(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn key(n: u32) -> String {
    format!("{PREFIX}{n:07}")
}

/// So many keys of one client, to be put at once: spread over all, by a stride that hits each once before it repeats
/// any, since etcd takes none twice.
fn keys_of(client: u32, count: u32, keys: u32) -> Vec<String> {
    const STRIDE: u64 = 7_368_787;
    let spread = (0..count.min(keys)).map(|n| {
        let place = (u64::from(client) * u64::from(count) + u64::from(n)) * STRIDE;
        key(u32::try_from(place % u64::from(keys)).expect("the rest is below a number of 32 bits"))
    });
    spread.collect()
}

fn value(bytes: usize) -> Bytes {
    // Not one letter again and again, which would compress to nothing.
    (0..bytes)
        .map(|n| b'a' + u8::try_from((n * n + 7 * n) % 26).expect("it is below 26"))
        .collect()
}

impl Caller {
    pub(super) fn new(order: &Order, number: u32) -> anyhow::Result<Self> {
        let bytes = match order.work {
            Work::Put { bytes } | Work::Mix { bytes } | Work::Txn { bytes, .. } | Work::Fill { bytes } => {
                bytes
            }
            _ => 0,
        };
        let value = value(bytes);
        let side = match &order.target {
            Target::Store { endpoints, token } => http(order, number, endpoints, token, value)?,
            Target::Etcd { endpoints } => etcd(order, number, endpoints, value)?,
        };
        Ok(Self {
            side,
            work: order.work,
            draws: Draws::new(order.seed, number, order.keys),
            filling: String::from_utf8_lossy(&self::value(bytes)).into_owned(),
        })
    }

    pub(super) async fn call(&self, n: u32) -> Outcome {
        let drawn = || key(self.draws.of(n));
        let write = match self.work {
            Work::Put { .. } => true,
            Work::Mix { .. } => n.is_multiple_of(MIX_WRITE_EVERY),
            _ => false,
        };
        match &self.side {
            Side::Http {
                connection,
                base,
                value,
                other,
            } => {
                let url = || with_path(base, &format!("{PATH}{}", drawn()));
                let (method, url, body) = match other {
                    Some((method, url, body)) => (method.clone(), url.clone(), body.clone()),
                    None if write => (Method::PUT, url(), Some(value.clone())),
                    None => (Method::GET, url(), None),
                };
                connection.send(method, url, body, None).await
            }
            Side::Etcd { client, .. } if self.work == Work::Counter => client.add_one(COUNTER).await.into(),
            Side::Etcd { client, value, other } => {
                let call = match other {
                    Some(other) => other.clone(),
                    None if write => Call::put(&drawn(), value),
                    None => Call::get(&drawn()),
                };
                client.call(&call).await.into()
            }
        }
    }

    /// Puts `count` keys from `from` on at once.
    pub(super) async fn fill(&self, from: u32, count: u32) -> Outcome {
        let keys: Vec<String> = (from..from + count).map(key).collect();
        match &self.side {
            Side::Http { connection, base, .. } => {
                let (url, body) = (with_path(base, TXN), puts_in_json(&keys, &self.filling));
                connection.send(Method::POST, url, Some(body), None).await
            }
            Side::Etcd { client, .. } => {
                let pairs = keys.iter().map(|key| (key.as_str(), self.filling.as_bytes()));
                client.call(&Call::puts(pairs)).await.into()
            }
        }
    }
}

fn with_path(base: &Uri, path: &str) -> Uri {
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).expect("keys and paths here are plain text"));
    Uri::from_parts(parts).expect("the base has a host")
}

fn puts_in_json(keys: &[String], value: &str) -> Bytes {
    let puts: Vec<_> = keys
        .iter()
        .map(|key| json!({"put": {"key": key, "value": value}}))
        .collect();
    json!({ "then": puts }).to_string().into()
}

fn http(order: &Order, number: u32, endpoints: &[String], token: &str, value: Bytes) -> anyhow::Result<Side> {
    let base = format!("http://{}", endpoints[number as usize % endpoints.len()]);
    let base = uri(&base)?;
    let post = |body: Bytes| Some((Method::POST, with_path(&base, TXN), Some(body)));
    let other = match order.work {
        Work::Counter => {
            let add = json!({"then": [{"add": {"key": COUNTER, "by": 1}}]});
            post(add.to_string().into())
        }
        Work::Txn { keys: count, .. } => {
            let keys = keys_of(number, count, order.keys);
            post(puts_in_json(&keys, &String::from_utf8_lossy(&value)))
        }
        Work::Range { rows } => {
            let page = with_path(&base, &format!("/v1/kv?prefix={PREFIX}&limit={rows}"));
            Some((Method::GET, page, None))
        }
        _ => None,
    };
    let connection = Box::new(Connection::new(token, DEADLINE)?);
    Ok(Side::Http {
        connection,
        base,
        value,
        other,
    })
}

fn etcd(order: &Order, number: u32, endpoints: &[String], value: Bytes) -> anyhow::Result<Side> {
    let client = Client::new(&endpoints[number as usize % endpoints.len()], DEADLINE)?;
    let other = match order.work {
        Work::Txn { keys: count, .. } => {
            let keys = keys_of(number, count, order.keys);
            Some(Call::puts(keys.iter().map(|key| (key.as_str(), &value[..]))))
        }
        Work::Range { rows } => Some(Call::range(PREFIX, u64::from(rows))),
        _ => None,
    };
    Ok(Side::Etcd { client, value, other })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Draws, keys_of};

    const KEYS: u32 = 1_000_000;

    fn drawn(seed: u64, client: u32, count: u32) -> Vec<u32> {
        let draws = Draws::new(seed, client, KEYS);
        (0..count).map(|n| draws.of(n)).collect()
    }

    #[test]
    fn calls_are_about_any_of_all_keys() {
        let of_all: BTreeSet<u32> = (0..64).flat_map(|client| drawn(7, client, 2000)).collect();
        // Of 128 000 draws from a million about 8 000 hit a key that was drawn before.
        assert!((118_000..122_000).contains(&of_all.len()), "{}", of_all.len());
        assert!(of_all.iter().all(|key| *key < KEYS));
        for tenth in 0..10 {
            let inside = of_all.iter().filter(|key| **key / (KEYS / 10) == tenth).count();
            assert!((11_000..13_000).contains(&inside), "{tenth}: {inside}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_keys_and_another_seed_others() {
        assert_eq!(drawn(7, 3, 100), drawn(7, 3, 100));
        assert_ne!(drawn(7, 3, 100), drawn(8, 3, 100));
        assert_ne!(drawn(7, 3, 100), drawn(7, 4, 100));
    }

    #[test]
    fn keys_put_at_once_are_different() {
        let of_all: Vec<String> = (0..64).flat_map(|client| keys_of(client, 10, 1000)).collect();
        let different: BTreeSet<&String> = of_all.iter().collect();
        assert_eq!((of_all.len(), different.len()), (640, 640));
    }
}
