//! After the faults: whether everything that clients were told can be true, and all nodes hold the same.
//! Invariant: a check that could not be made is a violation too; one over nothing proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use kvstore_client::KvClient;

use super::Stage;
use super::alike;
use super::auditor;
use super::book::Book;
use super::buyers;
use super::checkouts::Checkouts;
use super::clients::{PREFIX, number};
use super::exposed;
use super::ground::Ground;
use super::leases;
use super::linear::{self, Did, Fault, Operation};
use super::lives;
use super::order;
use super::replayed;
use super::watchers::Watcher;
use crate::arena::{SERVERS, wait_for};

/// More than all steps may take together that do not depend on how long the run was.
const JUDGED: Duration = Duration::from_mins(8);
const CAUGHT_UP: Duration = Duration::from_secs(30);
/// Without these nothing was tried.
const NEEDED: [&str; 29] = [
    "reads",
    "scans",
    "transactions of gets",
    "walks",
    "walks over what was given up",
    "revisions asked for",
    "compactions",
    "reads of the past",
    "reads before the floor",
    "reads at least",
    "bounded reads",
    "local reads",
    "writes",
    "swaps",
    "deletions",
    "additions",
    "transfers",
    "renewals",
    leases::WATCHED,
    "checkouts",
    buyers::TAKEN_BACK,
    auditor::ORDERS,
    auditor::PAYMENTS,
    auditor::AGREEMENTS,
    auditor::SHELVES,
    auditor::BALANCES,
    "plain reads",
    "plain writes",
    "plain additions",
];

pub(super) async fn verify(ground: &Ground, stage: &Stage) {
    let book = &stage.book;
    // Nobody renews any of them any more.
    let keys = book.given_up_by(u64::MAX);
    leases::run_out(&ground.client, book, &keys, ("the end", leases::GONE)).await;
    // How long that may take depends on how many orders there are.
    stage.checkouts.judge(book).await;
    let judged = async {
        let nodes = (0..SERVERS).map(|index| ground.only(index));
        let nodes = nodes.collect::<anyhow::Result<Vec<_>>>();
        let nodes = made(book, nodes.context("make a client of each node")).unwrap_or_default();
        everything(&ground.client, &nodes, &stage.watchers, book).await;
        stage.auditor.judge(&ground.client, book).await;
        let exposed = exposed::look(ground, &stage.checkouts).await;
        for exposed in made(book, exposed).unwrap_or_default() {
            book.violation(exposed);
        }
    };
    if tokio::time::timeout(JUDGED, judged).await.is_err() {
        book.violation(format!("the end was not judged within {} s", JUDGED.as_secs()));
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

/// What shows only when nobody runs any more.
pub(super) async fn at_rest(ground: &mut Ground, stage: &mut Stage) {
    let Stage { book, checkouts, .. } = stage;
    if made(book, end(ground, checkouts, book).await).is_none() {
        return;
    }
    let differ = made(book, alike::compare(ground).await);
    let drifted = made(book, replayed::compare(ground, book).await);
    let exposed = made(book, exposed::look_into_tables(ground, &checkouts.cards).await);
    for fault in [differ, drifted, exposed].into_iter().flatten().flatten() {
        book.violation(fault);
    }
}

/// Ends all, and the nodes so that what they leave behind can be compared.
async fn end(ground: &mut Ground, checkouts: &mut Checkouts, book: &Book) -> anyhow::Result<()> {
    let services: Vec<usize> = (0..checkouts.servers.len()).collect();
    lives::end(&mut checkouts.servers, &services).await?;
    alike::stop(ground, book).await
}

/// A step that fails is a fault beside all others: neither what was found before nor what the next finds is lost by it.
fn made<T>(book: &Book, step: anyhow::Result<T>) -> Option<T> {
    step.inspect_err(|error| book.violation(format!("the end could not be judged: {error:#}")))
        .ok()
}

/// `nodes` are clients of one node each, in the order of the watchers.
async fn everything(client: &KvClient, nodes: &[KvClient], watchers: &[Watcher], book: &Book) {
    let revision = client.revision().await.context("read the last revision");
    let revision = made(book, revision);
    if let Some(revision) = revision {
        let caught_up = wait_for("the watchers to have seen everything", CAUGHT_UP, async || {
            watchers
                .iter()
                .all(|watcher| watcher.position() >= revision)
                .then_some(())
        });
        if caught_up.await.is_err() {
            let positions: Vec<u64> = watchers.iter().map(Watcher::position).collect();
            book.violation(format!(
                "at revision {revision} the watchers have seen {positions:?}"
            ));
        }
    }
    for fault in seen(watchers, book) {
        book.violation(fault);
    }
    let read = read_all(client, book).await.context("read all keys once more");
    made(book, read);
    if let Some(revision) = revision {
        compare(nodes, watchers, revision, book).await;
    }
}

/// What the watchers have seen, beside each other and what clients were told.
fn seen(watchers: &[Watcher], book: &Book) -> Vec<String> {
    let pages = book.pages();
    let mut faults = Vec::new();
    for watcher in watchers {
        faults.extend(watcher.judge(&pages, &watchers[0]));
    }
    faults.extend(order::real_time(&pages.acknowledged, &pages.told));
    faults.extend(order::stale(
        &pages.looks,
        &pages.acknowledged,
        &watchers[0].by_key(),
    ));
    faults
}

/// What the nodes hold, beside each other and what their watchers have seen.
async fn compare(nodes: &[KvClient], watchers: &[Watcher], revision: u64, book: &Book) {
    agree(nodes, revision, book).await;
    // At the floor it is made of old versions, behind those that every node has removed by itself.
    let floor = book.pages().floors.asked;
    if floor > 0 {
        agree(nodes, floor, book).await;
    }
    for (number, (node, watcher)) in (1..).zip(nodes.iter().zip(watchers)) {
        let scan = node.with_deadline(CAUGHT_UP).scan(PREFIX).await;
        let scan = scan.with_context(|| format!("read all keys of n{number}"));
        let Some(scan) = made(book, scan) else {
            continue;
        };
        let found = scan
            .kvs
            .iter()
            .map(|kv| (kv.key.clone(), String::from_utf8_lossy(&kv.bytes()).into_owned()));
        let found: BTreeMap<String, String> = found.collect();
        let state = watcher.state();
        if found != state {
            let different = state.iter().find(|(key, value)| found.get(*key) != Some(value));
            let more = found.keys().find(|key| !state.contains_key(*key));
            book.violation(format!(
                "n{number} does not hold what was seen: {different:?}, {more:?}"
            ));
        }
    }
}

/// Whether all nodes held the same at this revision.
async fn agree(nodes: &[KvClient], revision: u64, book: &Book) {
    let mut hashes = BTreeMap::new();
    for (number, node) in (1..).zip(nodes) {
        let hash = node.with_deadline(CAUGHT_UP).hash(Some(revision)).await;
        let hash = hash.with_context(|| format!("ask n{number} for its hash at revision {revision}"));
        hashes.extend(made(book, hash).map(|hash| (number, hash.hash)));
    }
    if hashes.values().collect::<BTreeSet<_>>().len() > 1 {
        book.violation(format!("the nodes differ at revision {revision}: {hashes:?}"));
    }
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

#[cfg(test)]
mod tests {
    use service::tasks::Tasks;

    use super::*;
    use crate::arena::free_address;
    use crate::chaos::clients::client;

    #[tokio::test]
    async fn what_the_watchers_found_is_told_also_where_nobody_answers() {
        let (book, watchers) = (Book::new(), [Watcher::default()]);
        book.acknowledged(book.now(), 3, "chaos/r/1", Some("1".to_owned()));
        let nobody = [free_address().unwrap()];
        let nobody = client(&nobody, "token", &Tasks::new()).unwrap();
        let nobody = nobody.with_deadline(Duration::from_millis(20));
        everything(&nobody, &[], &watchers, &book).await;
        let told = book.pages().violations.join("\n");
        assert!(told.contains("seen instead of"), "{told}");
        assert!(told.contains("judged: read the last revision"), "{told}");
        assert!(told.contains("judged: read all keys once more"), "{told}");
    }
}
