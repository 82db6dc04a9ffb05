//! After the faults: whether everything that clients were told can be true, and all nodes hold the same.
//! Invariant: a check that could not be made is a violation too; one over nothing proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kvstore_client::KvClient;

use super::Stage;
use super::book::Book;
use super::clients::{PREFIX, number};
use super::exposed;
use super::ground::Ground;
use super::linear::{self, Did, Fault, Operation};
use super::order;
use crate::arena::{SERVERS, wait_for};

/// Leases run out in full after the last change of leader.
const LEASES_GONE: Duration = Duration::from_secs(20);
/// More than all of its steps may take together.
const JUDGED: Duration = Duration::from_mins(8);
const CAUGHT_UP: Duration = Duration::from_secs(30);
/// Without these nothing was tried.
const NEEDED: [&str; 10] = [
    "reads",
    "reads at least",
    "bounded reads",
    "writes",
    "swaps",
    "deletions",
    "additions",
    "transfers",
    "renewals",
    "checkouts",
];

pub(super) async fn verify(ground: &Ground, stage: &Stage) {
    let book = &stage.book;
    match tokio::time::timeout(JUDGED, everything(ground, stage)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => book.violation(format!("the end could not be judged: {error:#}")),
        Err(_late) => book.violation(format!("the end was not judged within {} s", JUDGED.as_secs())),
    }
    for what in NEEDED {
        if !book.pages().counts.contains_key(what) {
            book.violation(format!("there were no {what}, so nothing was tried"));
        }
    }
    let histories = book.pages().histories.clone();
    for (key, history) in histories {
        match linear::check(&history) {
            Ok(()) => {}
            Err(Fault::NoOrder(around)) => {
                book.violation(format!(
                    "{key} is not linearizable; nothing of this can come next: {around:?}"
                ));
            }
            Err(Fault::TooLarge) => book.violation(format!("the history of {key} is too large to be judged")),
        }
    }
}

async fn everything(ground: &Ground, stage: &Stage) -> anyhow::Result<()> {
    let book = &stage.book;
    let client = &ground.client;
    let to_go: BTreeSet<String> = book.pages().to_go.iter().cloned().collect();
    let gone = wait_for("keys whose leases ran out to go", LEASES_GONE, async || {
        let left = client.scan("chaos/lease/").await.ok()?;
        (!left.kvs.iter().any(|kv| to_go.contains(&kv.key))).then_some(())
    });
    if gone.await.is_err() {
        book.violation("a key outlived its lease by far".to_owned());
    }
    stage.checkouts.judge(book).await;
    let revision = client.revision().await?;
    let watchers = &stage.watchers;
    let caught_up = wait_for("the watchers to have seen everything", CAUGHT_UP, async || {
        watchers
            .iter()
            .all(|watcher| watcher.position() >= revision)
            .then_some(())
    });
    if caught_up.await.is_err() {
        let positions: Vec<u64> = watchers.iter().map(super::Watcher::position).collect();
        book.violation(format!(
            "at revision {revision} the watchers have seen {positions:?}"
        ));
    }
    let mut faults = Vec::new();
    {
        let pages = book.pages();
        for watcher in watchers {
            faults.extend(watcher.judge(&pages, &watchers[0]));
        }
        faults.extend(order::real_time(&pages.acknowledged));
        let looks = order::stale(&pages.looks, &pages.acknowledged, &watchers[0].by_key());
        faults.extend(looks);
    }
    read_all(client, book).await?;
    let mut hashes = BTreeMap::new();
    for (index, watcher) in watchers.iter().take(SERVERS).enumerate() {
        let node = ground.only(index)?.with_deadline(CAUGHT_UP);
        hashes.insert(index + 1, node.hash(Some(revision)).await?.hash);
        let scan = node.scan(PREFIX).await?;
        let found = scan
            .kvs
            .iter()
            .map(|kv| (kv.key.clone(), String::from_utf8_lossy(&kv.bytes()).into_owned()));
        let found: BTreeMap<String, String> = found.collect();
        let state = watcher.state();
        if found != state {
            let different = state.iter().find(|(key, value)| found.get(*key) != Some(value));
            let more = found.keys().find(|key| !state.contains_key(*key));
            faults.push(format!(
                "n{} does not hold what was seen: {different:?}, {more:?}",
                index + 1
            ));
        }
    }
    if hashes.values().collect::<BTreeSet<_>>().len() != 1 {
        faults.push(format!("the nodes differ at revision {revision}: {hashes:?}"));
    }
    for fault in faults {
        book.violation(fault);
    }
    for exposed in exposed::look(ground, &stage.checkouts).await? {
        book.violation(exposed);
    }
    Ok(())
}

/// Reads every key with a history once more: what was acknowledged last must be there, also if nobody came after it.
async fn read_all(client: &KvClient, book: &Book) -> anyhow::Result<()> {
    let start = book.now();
    let scan = client.scan(PREFIX).await?;
    let end = Some(book.now());
    let held: BTreeMap<String, i64> = scan
        .kvs
        .iter()
        .map(|kv| (kv.key.clone(), number(&kv.bytes())))
        .collect();
    for (key, history) in &mut book.pages().histories {
        let did = Did::Read(held.get(key).copied());
        history.push(Operation { start, end, did });
    }
    Ok(())
}
