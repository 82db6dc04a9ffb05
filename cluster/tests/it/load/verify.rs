//! After the faults: whether the store holds what it acknowledged, once, on every node, and nothing else.
//! Invariant: open additions are settled with their own keys first, so that the counters must be exact.

use std::collections::{BTreeMap, BTreeSet};

use kvstore_client::KvClient;
use kvstore_client::wire::kv::KeyValue;

use super::book::{Book, Fate};
use crate::harness::{Cluster, SOON, wait_until};

/// Demands that every node of `names` holds exactly what the book says.
pub(crate) async fn verify(cluster: &Cluster, names: &[&str], mut book: Book) {
    assert!(
        book.acknowledged() > 0,
        "nothing was acknowledged, so nothing was tested"
    );
    settle(&cluster.client(), &mut book).await;
    equal_everywhere(cluster, names).await;
    for name in names {
        let client = cluster.client_of(vec![cluster.address(name).to_owned()]);
        let scan = client.scan("load/").await.unwrap();
        let found: BTreeMap<&str, &KeyValue> = scan.kvs.iter().map(|kv| (kv.key.as_str(), kv)).collect();
        let mut faults = puts(&book, &found);
        faults.extend(counters(&book, &found));
        assert!(faults.is_empty(), "{name}: {faults:#?}; {}", book.summary());
    }
}

/// An addition whose end nobody was told is done by repeating it: once, however often it is repeated.
async fn settle(client: &KvClient, book: &mut Book) {
    for (key, addition) in &mut book.additions {
        if addition.fate == Fate::Open {
            let once = client.with_idempotency_key(key).unwrap();
            let sum = once.add(&addition.counter, 1, None, None).await.unwrap();
            addition.fate = Fate::Done(sum.unwrap());
        }
    }
}

/// What is wrong with the keys, at most the first few faults.
pub(super) fn puts(book: &Book, found: &BTreeMap<&str, &KeyValue>) -> Vec<String> {
    let mut faults = Vec::new();
    for (key, fate) in &book.puts {
        let seen = found.get(key.as_str());
        match (fate, seen) {
            (Fate::Done(revision), None) => {
                faults.push(format!(
                    "{key} was acknowledged at revision {revision} and is lost"
                ));
            }
            (Fate::Denied, Some(kv)) => {
                faults.push(format!("{key} surely did not happen, and stands there: {kv:?}"));
            }
            (Fate::Done(revision), Some(kv)) if kv.mod_revision != *revision => {
                faults.push(format!("{key} was acknowledged at revision {revision}: {kv:?}"));
            }
            (_, Some(kv)) if kv.version != 1 || kv.bytes() != Book::value_of(key) => {
                faults.push(format!("{key} was put once: {kv:?}"));
            }
            _ => {}
        }
    }
    let keys = found.keys().filter(|key| !key.starts_with("load/counter/"));
    let strangers = keys.filter(|key| !book.puts.contains_key(**key));
    faults.extend(strangers.map(|key| format!("nobody has put {key}")));
    faults.truncate(5);
    faults
}

fn counters(book: &Book, found: &BTreeMap<&str, &KeyValue>) -> Vec<String> {
    let mut sums: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for addition in book.additions.values() {
        if let Fate::Done(sum) = addition.fate {
            sums.entry(&addition.counter).or_default().push(sum);
        }
    }
    let mut faults = Vec::new();
    for (counter, sums) in sums {
        let text = found.get(counter).map(|kv| kv.bytes()).unwrap_or_default();
        let stands = String::from_utf8_lossy(&text).parse::<usize>().unwrap_or(0);
        if stands != sums.len() {
            faults.push(format!(
                "{counter} is {stands} after {} additions of 1",
                sums.len()
            ));
        }
        let different: BTreeSet<i64> = sums.iter().copied().collect();
        if different.len() != sums.len() {
            faults.push(format!("{counter}: two additions were told the same sum"));
        }
    }
    faults
}

/// Demands one state on all these nodes: the same hash at the same revision.
pub(crate) async fn equal_everywhere(cluster: &Cluster, names: &[&str]) {
    let revision = cluster.client().revision().await.unwrap();
    let mut hashes = BTreeMap::new();
    for name in names {
        let client = cluster.client_of(vec![cluster.address(name).to_owned()]);
        let hash = wait_until(&format!("the hash of {name}"), SOON, async || {
            let hash = client.hash(Some(revision)).await;
            hash.map_err(|error| format!("{error:?}"))
        })
        .await;
        assert_eq!(hash.revision, revision);
        hashes.insert(*name, hash.hash);
    }
    let different: BTreeSet<&String> = hashes.values().collect();
    assert_eq!(
        different.len(),
        1,
        "the nodes differ at revision {revision}: {hashes:?}"
    );
}

/// A number of `/metrics` of one node; 0 when it has not been counted yet.
pub(crate) async fn metric(cluster: &Cluster, name: &str, metric: &str) -> u64 {
    let answer = cluster.request("GET", name, "/metrics").send().await.unwrap();
    let text = answer.error_for_status().unwrap().text().await.unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.map_or(0, |number| number.parse().unwrap())
}

pub(crate) fn addresses_of(cluster: &Cluster, names: &[&str]) -> Vec<String> {
    names
        .iter()
        .map(|name| cluster.address(name).to_owned())
        .collect()
}
