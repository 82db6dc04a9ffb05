//! A watcher on each node, and one that goes from node to node, from the first revision on.
//! Invariant: whatever became of its node and its connection, it has seen each revision once, whole and in order;
//! what it has seen makes the state that the store must hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kvstore_client::{EventKind, KvClient, WatchBatch, WatchRequest, WatchStream};
use service::tasks::Tasks;

use super::book::{Book, Pages};
use super::served::SERVED;
use super::{money, shown};

/// Of one revision: each key with its value, or that it was deleted.
type Changes = Vec<(String, Option<String>)>;

#[derive(Clone, Default)]
pub(super) struct Watcher {
    name: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    revisions: BTreeMap<u64, Changes>,
    /// Everything up to here was seen.
    position: u64,
    accounts: BTreeMap<String, i64>,
}

impl Watcher {
    pub(super) async fn start(
        name: String,
        client: &KvClient,
        from: u64,
        tasks: &Tasks,
        book: &Arc<Book>,
    ) -> kvstore_client::Result<Self> {
        let watcher = Self {
            name,
            seen: Arc::default(),
        };
        book.expects(&watcher.to_be_served(), SERVED);
        let stream = client
            .watch(WatchRequest::prefix(super::clients::PREFIX).from(from))
            .await?;
        let (this, book) = (watcher.clone(), Arc::clone(book));
        tasks.spawn("chaos watcher", this.follow(stream, book, tasks.clone()));
        Ok(watcher)
    }

    /// How it is called among those who are to be served.
    fn to_be_served(&self) -> String {
        format!("watch on {}", self.name)
    }

    async fn follow(self, mut stream: WatchStream, book: Arc<Book>, tasks: Tasks) {
        let mut repeated = 0;
        loop {
            let batch = tokio::select! {
                batch = stream.next_batch() => Some(batch),
                () = tasks.stopping() => None,
            };
            // The stream hands on no revision twice, so that only its count shows what a node has told again.
            if stream.repeated() > repeated {
                repeated = stream.repeated();
                book.violation(format!(
                    "{}: what came after revision {} had been seen before, {repeated} times so far",
                    self.name,
                    self.position()
                ));
            }
            match batch {
                None => return,
                Some(Ok(batch)) => self.hear(batch, &book),
                Some(Err(error)) => {
                    return book.violation(format!("the watch on {} ended: {error:?}", self.name));
                }
            }
        }
    }

    fn hear(&self, batch: WatchBatch, book: &Book) {
        let events = batch.events.into_iter().map(|event| {
            let value = event.change.value.filter(|_| event.kind == EventKind::Put);
            let text = value.map(|value| String::from_utf8_lossy(&value).into_owned());
            (event.change.key, text)
        });
        if let Err(fault) = self.take(batch.revision, events.collect()) {
            book.violation(fault);
        }
        book.served(&self.to_be_served());
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn position(&self) -> u64 {
        self.seen().position
    }

    /// One more revision, or without changes the news that nothing happened up to it.
    fn take(&self, revision: u64, changes: Changes) -> Result<(), String> {
        let mut seen = self.seen();
        if changes.is_empty() {
            seen.position = seen.position.max(revision);
            return Ok(());
        }
        if revision <= seen.position {
            return Err(format!(
                "{}: revision {revision} came after {}",
                self.name, seen.position
            ));
        }
        seen.position = revision;
        let paid = changes.iter().filter(|(key, _)| key.starts_with(money::PREFIX));
        let paid: Vec<(String, i64)> = paid
            .map(|(key, value)| {
                (
                    key.clone(),
                    super::clients::number(value.as_deref().unwrap_or("").as_bytes()),
                )
            })
            .collect();
        let touched = !paid.is_empty();
        seen.accounts.extend(paid);
        seen.revisions.insert(revision, changes);
        let total: i64 = seen
            .accounts
            .values()
            .fold(0, |sum, held| sum.saturating_add(*held));
        if touched && (total != money::TOTAL || seen.accounts.values().any(|held| *held < 0)) {
            return Err(format!(
                "at revision {revision} the accounts hold {total}: {:?}",
                seen.accounts
            ));
        }
        Ok(())
    }

    /// What does not fit to what was acknowledged, and to what the other watchers have seen.
    pub(super) fn judge(&self, pages: &Pages, other: &Self) -> Vec<String> {
        let seen = self.seen();
        let mut faults = Vec::new();
        for write in &pages.acknowledged {
            let changes = seen.revisions.get(&write.revision);
            let found = changes.is_some_and(|changes| {
                changes
                    .iter()
                    .any(|change| (&change.0, &change.1) == (&write.key, &write.value))
            });
            if !found {
                faults.push(format!("{}: seen instead of {write:?}: {changes:?}", self.name));
            }
        }
        if self.name == other.name {
            // All have seen the same, or that is a fault of its own.
            let all = || {
                seen.revisions.iter().flat_map(|(revision, changes)| {
                    let changes = changes.iter();
                    changes.map(move |(key, value)| (*revision, key.as_str(), value.as_deref()))
                })
            };
            let values = all().filter_map(|(revision, key, value)| Some((revision, key, value?)));
            faults.extend(pages.sent.judge(values.clone()));
            faults.extend(pages.added.judge(values));
            faults.extend(shown::judge(&pages.shown, all()));
        } else if seen.revisions != other.seen().revisions {
            faults.push(format!(
                "{} and {} have seen different changes",
                self.name, other.name
            ));
        }
        faults
    }

    /// Of each key, the revisions that changed it, and whether it was there from then on.
    pub(super) fn by_key(&self) -> BTreeMap<String, BTreeMap<u64, bool>> {
        let mut by_key: BTreeMap<String, BTreeMap<u64, bool>> = BTreeMap::new();
        for (revision, changes) in &self.seen().revisions {
            for (key, value) in changes {
                by_key
                    .entry(key.clone())
                    .or_default()
                    .insert(*revision, value.is_some());
            }
        }
        by_key
    }

    /// The state that follows from all changes.
    pub(super) fn state(&self) -> BTreeMap<String, String> {
        let mut state = BTreeMap::new();
        for (key, value) in self.seen().revisions.values().flatten() {
            match value {
                Some(value) => state.insert(key.clone(), value.clone()),
                None => state.remove(key),
            };
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Router;
    use axum::extract::State;
    use axum::routing::get;
    use service::serve::{Limits, serve};
    use tokio::net::TcpListener;

    use super::*;
    use crate::arena::wait_for;
    use crate::chaos::order::Acknowledged;
    use crate::chaos::sent::Fate;

    fn put(key: &str, value: &str) -> (String, Option<String>) {
        (key.to_owned(), Some(value.to_owned()))
    }

    #[test]
    fn a_revision_twice_and_money_from_nowhere_are_found() {
        let watcher = Watcher::default();
        watcher.take(3, vec![put("chaos/account/0", "8000")]).unwrap();
        watcher
            .take(
                5,
                vec![put("chaos/account/0", "7999"), put("chaos/account/1", "1")],
            )
            .unwrap();
        watcher.take(5, vec![put("chaos/r/1", "1")]).unwrap_err();
        watcher.take(6, vec![put("chaos/account/1", "2")]).unwrap_err();
    }

    /// Watches a node that tells this, again and again.
    async fn watching(told: String) -> (Watcher, Arc<Book>, Tasks) {
        let app = Router::new().route("/v1/watch", get(async |State(text): State<String>| text));
        let app = app.with_state(told);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (tasks, book) = (Tasks::new(), Arc::new(Book::new()));
        tasks.spawn("node", serve(listener, app, Limits::default(), tasks.clone()));
        let client = KvClient::builder([address]).build().unwrap();
        let watcher = Watcher::start("n1".to_owned(), &client, 5, &tasks, &book);
        (watcher.await.unwrap(), book, tasks)
    }

    fn event(revision: u64) -> String {
        let data = serde_json::json!({"key": "chaos/r/1", "value": "1", "mod_revision": revision});
        format!("id: {revision}\nevent: put\ndata: {data}\n\n")
    }

    #[tokio::test]
    async fn what_a_node_tells_again_is_found_though_it_is_handed_on_once() {
        let (watcher, book, tasks) = watching([event(5), event(5), event(6)].concat()).await;
        let found = wait_for("a violation", Duration::from_secs(10), async || {
            book.pages().violations.first().cloned()
        });
        let found = found.await.unwrap();
        assert!(
            found.starts_with("n1: what came after revision 5 had been seen before"),
            "{found}"
        );
        assert_eq!(watcher.by_key()["chaos/r/1"].len(), 2);
        tasks.stop();
    }

    #[tokio::test]
    async fn who_watches_is_served_by_what_it_hears_and_not_by_being_connected() {
        let (_silent, book, tasks) = watching(String::new()).await;
        let missed = |book: &Book| -> Vec<String> {
            let missed = book.not_served_since(0);
            missed.into_iter().map(|(who, _)| who).collect()
        };
        assert_eq!(missed(&book), ["watch on n1"]);
        tasks.stop();
        let (_heard, book, tasks) = watching(event(5)).await;
        let served = wait_for("a watch to be served", Duration::from_secs(10), async || {
            missed(&book).is_empty().then_some(())
        });
        served.await.unwrap();
        tasks.stop();
    }

    #[test]
    fn a_lost_write_and_watchers_that_differ_are_found() {
        let named = |name: &str| Watcher {
            name: name.to_owned(),
            seen: Arc::default(),
        };
        let (one, other) = (named("n1"), named("n2"));
        one.take(3, vec![put("a", "1")]).unwrap();
        other.take(3, vec![put("a", "1")]).unwrap();
        let mut pages = Pages::default();
        let write = |revision, key: &str| Acknowledged {
            revision,
            key: key.to_owned(),
            value: Some("1".to_owned()),
            start: 1,
            end: 2,
        };
        pages.acknowledged.push(write(3, "a"));
        assert!(one.judge(&pages, &other).is_empty());
        other.take(4, vec![put("b", "1")]).unwrap();
        assert_eq!(one.judge(&pages, &other).len(), 1);
        pages.acknowledged.push(write(4, "b"));
        assert_eq!(one.judge(&pages, &one).len(), 1);
        assert_eq!(other.state().len(), 2);
    }

    #[test]
    fn an_addition_that_happened_twice_is_found() {
        let watcher = Watcher::default();
        let mut pages = Pages::default();
        pages.added.note("chaos/plain/c/1", 5, Fate::Done);
        watcher.take(3, vec![put("chaos/plain/c/1", "5")]).unwrap();
        assert!(watcher.judge(&pages, &watcher).is_empty());
        watcher.take(4, vec![put("chaos/plain/c/1", "10")]).unwrap();
        assert_eq!(watcher.judge(&pages, &watcher).len(), 1);
    }

    #[test]
    fn a_transfer_that_happened_twice_is_found_though_no_money_is_lost() {
        let watcher = Watcher::default();
        let mut pages = Pages::default();
        pages.sent.note("chaos/paid/0", "4", Fate::Done);
        let transfer = |left: &str, there: &str| {
            let accounts = [put("chaos/account/0", left), put("chaos/account/1", there)];
            [accounts.to_vec(), vec![put("chaos/paid/0", "4")]].concat()
        };
        watcher.take(3, vec![put("chaos/account/0", "8000")]).unwrap();
        watcher.take(4, transfer("7900", "100")).unwrap();
        assert!(watcher.judge(&pages, &watcher).is_empty());
        watcher.take(5, transfer("7800", "200")).unwrap();
        assert_eq!(watcher.judge(&pages, &watcher).len(), 1);
    }
}
