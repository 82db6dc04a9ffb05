//! Reads that promise less than the newest: what was there a moment ago, or at least at some revision. Clients ask for
//! them now and then. Beside those somebody looks at each node all the time, at the key that was written last: a client
//! soon waits for a node that is cut off, and would not see that it still shows what is too old.
//! Invariant: what a read has to show at least is fixed before it is sent. Whether it has shown that is judged by `order`.

use std::sync::Arc;
use std::time::Duration;

use kvstore_client::wire::level::Consistency;
use kvstore_client::{KvClient, ReadOptions};
use service::tasks::Tasks;

use super::book::Book;
use super::clients;
use super::order::{Floor, Look};
use super::served::SERVED;

/// What a bounded read allows.
const AGE_MAX: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(50);
/// Then a node that stands still is asked anew, so that what it shows as it goes on is judged by a moment not long ago.
const DEADLINE: Duration = Duration::from_secs(1);

/// Looks at one node, at one level, so that one that waits holds up nobody else.
struct Onlooker {
    name: String,
    client: KvClient,
    asks: Asks,
    book: Arc<Book>,
    tasks: Tasks,
}

#[derive(Clone, Copy)]
enum Asks {
    AtLeast,
    Bounded,
}

pub(super) fn start(
    endpoints: &[String],
    token: &str,
    tasks: &Tasks,
    book: &Arc<Book>,
) -> kvstore_client::Result<()> {
    for (number, endpoint) in (1..).zip(endpoints) {
        for (what, asks) in [("at-least", Asks::AtLeast), ("bounded", Asks::Bounded)] {
            let client = clients::client(std::slice::from_ref(endpoint), token, tasks)?;
            let onlooker = Onlooker {
                name: format!("{what} reads of n{number}"),
                client: client.with_deadline(DEADLINE),
                asks,
                book: Arc::clone(book),
                tasks: tasks.clone(),
            };
            book.expects(&onlooker.name, SERVED);
            tasks.spawn("chaos onlooker", onlooker.run());
        }
    }
    Ok(())
}

impl Onlooker {
    async fn run(self) {
        while !self.tasks.is_stopping() {
            if let Some((key, revision)) = self.book.newest() {
                let floor = match self.asks {
                    Asks::AtLeast => Floor::Revision(revision),
                    Asks::Bounded => not_older(&self.book),
                };
                if look(&self.client, &key, floor, &self.book).await.is_some() {
                    self.book.served(&self.name);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.tasks.stopping() => return,
            }
        }
    }
}

/// What a bounded read that is sent now has to show.
pub(super) fn not_older(book: &Book) -> Floor {
    let age_max = u64::try_from(AGE_MAX.as_nanos()).unwrap_or(u64::MAX);
    Floor::Before(book.now().saturating_sub(age_max))
}

/// A read that may show something old, but not older than it says. Answers the revision of what it saw, 0 for nothing.
pub(super) async fn look(client: &KvClient, key: &str, floor: Floor, book: &Book) -> Option<u64> {
    let (consistency, what) = match floor {
        Floor::Revision(revision) => (Consistency::AtLeast(revision), "reads at least"),
        Floor::Before(_) => {
            let age_ms_max = u64::try_from(AGE_MAX.as_millis()).unwrap_or(u64::MAX);
            (Consistency::Bounded { age_ms_max }, "bounded reads")
        }
    };
    let options = ReadOptions {
        consistency,
        revision: None,
    };
    match client.get_with(key, options).await {
        Ok(found) => {
            let seen = found.map(|kv| kv.mod_revision);
            let key = key.to_owned();
            book.pages().looks.push(Look { key, floor, seen });
            book.success();
            book.count(what);
            Some(seen.unwrap_or(0))
        }
        // It is not as fresh as it was asked to be, and says so until there is no time left.
        Err(error) if ["stale", "behind"].contains(&error.code()) => {
            book.count("reads that were refused as old");
            None
        }
        Err(error) => {
            book.failed(&error, "reads that failed");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use kvstore_client::wire::headers;
    use service::serve::{Limits, serve};
    use tokio::net::TcpListener;

    use super::*;
    use crate::arena::wait_for;

    #[tokio::test]
    async fn a_node_that_says_nothing_keeps_nobody_from_looking_at_another() {
        let found = async || ([(headers::REVISION, "7"), ("etag", "\"7\"")], "1");
        let app = Router::new().route("/v1/kv/{*key}", get(found));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Connections to it are opened, and nobody takes them.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nodes = [&silent, &listener].map(|node| node.local_addr().unwrap().to_string());
        let (tasks, book) = (Tasks::new(), Arc::new(Book::new()));
        tasks.spawn("node", serve(listener, app, Limits::default(), tasks.clone()));
        start(&nodes, "token", &tasks, &book).unwrap();
        book.acknowledged(book.now(), 7, "chaos/r/1", Some("1".to_owned()));
        let looked = wait_for("looks of both kinds", Duration::from_secs(10), async || {
            let pages = book.pages();
            let mut looks = pages.looks.iter();
            assert!(looks.all(|look| look.key == "chaos/r/1" && look.seen == Some(7)));
            let mut floors = pages.looks.iter().map(|look| look.floor);
            let at_least = floors.clone().any(|floor| matches!(floor, Floor::Revision(7)));
            let bounded = floors.any(|floor| matches!(floor, Floor::Before(_)));
            (at_least && bounded).then_some(())
        });
        looked.await.unwrap();
        let served = book.not_served_since(0);
        let waiting: Vec<String> = served.into_iter().map(|(who, _)| who).collect();
        assert_eq!(waiting, ["at-least reads of n1", "bounded reads of n1"]);
        tasks.stop();
    }
}
