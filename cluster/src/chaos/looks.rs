//! Reads that promise less than the newest: what was there a moment ago, or at least at some revision, or whatever the
//! node has. Clients ask for the first two now and then. Beside those somebody looks at each node all the time, at the
//! key that was written last: a client soon waits for a node that is cut off, and would not see that it still shows what
//! is too old.
//! Invariant: what a read has to show at least is fixed before it is sent. Whether it has shown that is judged by `order`;
//! what a node has, which may be old, is to have been there at the revision that it names, as `shown` judges.

use std::sync::Arc;
use std::time::Duration;

use kvstore_client::wire::kv::Page;
use kvstore_client::wire::level::Consistency;
use kvstore_client::{KvClient, RangeRequest, ReadOptions};
use service::tasks::Tasks;

use super::book::Book;
use super::clients;
use super::money;
use super::order::{Floor, Look};
use super::served::SERVED;
use super::shown::Shown;
use crate::arena::Lives;

/// What a bounded read allows.
const AGE_MAX: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(50);
/// Then a node that stands still is asked anew, so that what it shows as it goes on is judged by a moment not long ago.
const DEADLINE: Duration = Duration::from_secs(1);
/// A node that is behind has nothing yet of the registers that are in use now, so those before them are looked at too.
const GENERATIONS: u64 = 4;

/// Looks at one node, at one level, so that one that waits holds up nobody else.
struct Onlooker {
    name: String,
    client: KvClient,
    asks: Asks,
    book: Arc<Book>,
    tasks: Tasks,
    /// Of the node that it looks at.
    lives: Lives,
    /// The revision that the node named last in answer to a local read, and in which of its lives.
    newest: Option<(u64, u64)>,
}

#[derive(Clone, Copy)]
enum Asks {
    AtLeast,
    Bounded,
    Local,
}

/// `lives` are those of the nodes, in their order.
pub(super) fn start(
    endpoints: &[String],
    lives: &[Lives],
    token: &str,
    tasks: &Tasks,
    book: &Arc<Book>,
) -> kvstore_client::Result<()> {
    const LEVELS: [(&str, Asks); 3] = [
        ("at-least", Asks::AtLeast),
        ("bounded", Asks::Bounded),
        ("local", Asks::Local),
    ];
    for (number, (endpoint, lives)) in (1..).zip(endpoints.iter().zip(lives)) {
        for (what, asks) in LEVELS {
            let client = clients::client(std::slice::from_ref(endpoint), token, tasks)?;
            let onlooker = Onlooker {
                name: format!("{what} reads of n{number}"),
                client: client.with_deadline(DEADLINE),
                asks,
                book: Arc::clone(book),
                tasks: tasks.clone(),
                lives: lives.clone(),
                newest: None,
            };
            book.expects(&onlooker.name, SERVED);
            tasks.spawn("chaos onlooker", onlooker.run());
        }
    }
    Ok(())
}

impl Onlooker {
    async fn run(mut self) {
        for round in 0_u64.. {
            if self.tasks.is_stopping() {
                return;
            }
            let is_served = match self.asks {
                Asks::AtLeast => {
                    let newest = self.book.newest();
                    let floor = newest.map(|(key, revision)| (key, Floor::Revision(revision)));
                    self.look_at(floor).await
                }
                Asks::Bounded => {
                    let newest = self.book.newest();
                    let floor = newest.map(|(key, _)| (key, not_older(&self.book)));
                    self.look_at(floor).await
                }
                Asks::Local => self.look_around(round).await,
            };
            if is_served {
                self.book.served(&self.name);
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.tasks.stopping() => return,
            }
        }
    }

    /// At a key that has to show so much.
    async fn look_at(&self, asked: Option<(String, Floor)>) -> bool {
        let Some((key, floor)) = asked else {
            return false;
        };
        look(&self.client, &key, floor, &self.book).await.is_some()
    }

    /// At what the node has itself: accounts, which change all the time and two at once, and registers, each value of
    /// which somebody has written.
    async fn look_around(&mut self, round: u64) -> bool {
        let prefix = if round.is_multiple_of(2) {
            money::PREFIX.to_owned()
        } else {
            let back = u128::from(round / 2 % GENERATIONS);
            clients::registers(clients::generation(&self.book).saturating_sub(back))
        };
        let request = RangeRequest {
            read: ReadOptions {
                consistency: Consistency::Local,
                revision: None,
            },
            ..RangeRequest::prefix(prefix.clone())
        };
        let life = self.lives.count();
        match self.client.range(request).await {
            Ok(page) => {
                self.note(life, prefix, &page);
                true
            }
            Err(error) => {
                self.book.failed(&error, "reads that failed");
                false
            }
        }
    }

    /// Takes in what a node has shown that was asked in this life.
    fn note(&mut self, life: u64, prefix: String, page: &Page) {
        let shown = Shown::of(prefix, page.revision, &page.kvs);
        self.book.pages().shown.push(shown);
        self.book.success();
        self.book.count("local reads");
        // Who was started anew may have less than it had, until it has applied that again.
        if self.lives.count() != life {
            return;
        }
        let newest = self.newest.replace((life, page.revision));
        if let Some((_, newest)) = newest.filter(|(then, newest)| *then == life && *newest > page.revision) {
            self.book.violation(format!(
                "{} go back from revision {newest} to {}, and it was not started anew",
                self.name, page.revision
            ));
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
    use axum::routing::get;
    use axum::{Json, Router};
    use kvstore_client::wire::headers;
    use serde_json::json;
    use service::serve::{Limits, serve};
    use tokio::net::TcpListener;

    use super::*;
    use crate::arena::wait_for;
    use crate::chaos::shown::judge;

    const SOON: Duration = Duration::from_secs(10);
    /// What the node below shows of whichever keys it is asked for.
    const SHOWN: &str = "chaos/account/1";

    /// A node whose newest revision is 7.
    async fn node(tasks: &Tasks) -> String {
        let found = async || ([(headers::REVISION, "7"), ("etag", "\"7\"")], "1");
        let page = async || {
            let kvs = json!([{"key": SHOWN, "value": "1"}]);
            Json(json!({"revision": 7, "kvs": kvs, "count": 1, "more": false}))
        };
        let app = Router::new().route("/v1/kv/{*key}", get(found));
        let app = app.route("/v1/kv", get(page));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tasks.spawn("node", serve(listener, app, Limits::default(), tasks.clone()));
        address
    }

    #[tokio::test]
    async fn a_node_that_says_nothing_keeps_nobody_from_looking_at_another() {
        let (tasks, book) = (Tasks::new(), Arc::new(Book::new()));
        // Connections to it are opened, and nobody takes them.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nodes = [silent.local_addr().unwrap().to_string(), node(&tasks).await];
        let lives = [Lives::default(), Lives::default()];
        start(&nodes, &lives, "token", &tasks, &book).unwrap();
        book.acknowledged(book.now(), 7, "chaos/r/1", Some("1".to_owned()));
        let looked = wait_for("looks of all kinds", SOON, async || {
            let pages = book.pages();
            let mut looks = pages.looks.iter();
            assert!(looks.all(|look| look.key == "chaos/r/1" && look.seen == Some(7)));
            let mut floors = pages.looks.iter().map(|look| look.floor);
            let at_least = floors.clone().any(|floor| matches!(floor, Floor::Revision(7)));
            let bounded = floors.any(|floor| matches!(floor, Floor::Before(_)));
            (at_least && bounded && !pages.shown.is_empty()).then_some(())
        });
        looked.await.unwrap();
        let served = book.not_served_since(0);
        let waiting: Vec<String> = served.into_iter().map(|(who, _)| who).collect();
        assert_eq!(
            waiting,
            ["at-least reads of n1", "bounded reads of n1", "local reads of n1"]
        );
        tasks.stop();
    }

    #[tokio::test]
    async fn what_a_local_read_shows_that_was_never_there_is_named() {
        let (tasks, book) = (Tasks::new(), Arc::new(Book::new()));
        let nodes = [node(&tasks).await];
        start(&nodes, &[Lives::default()], "token", &tasks, &book).unwrap();
        let shown = wait_for("a local read", SOON, async || {
            let shown = book.pages().shown.clone();
            (!shown.is_empty()).then_some(shown)
        });
        let shown = shown.await.unwrap();
        tasks.stop();
        // The first look is one at the accounts.
        assert_eq!(judge(&shown[..1], [(7, SHOWN, Some("1"))]), None);
        for changes in [(7, SHOWN, Some("2")), (8, SHOWN, Some("1"))] {
            let told = judge(&shown[..1], [changes]).unwrap();
            assert!(told.contains("at revision 7") && told.contains(SHOWN), "{told}");
        }
        assert_eq!(book.pages().violations, [""; 0]);
    }

    #[test]
    fn a_node_that_knows_less_than_it_did_is_named_unless_it_was_started_anew() {
        let lives = Lives::default();
        let mut onlooker = Onlooker {
            name: "local reads of n1".to_owned(),
            client: KvClient::builder(["127.0.0.1:1".to_owned()]).build().unwrap(),
            asks: Asks::Local,
            book: Arc::new(Book::new()),
            tasks: Tasks::new(),
            lives: lives.clone(),
            newest: None,
        };
        let mut shows = |life, revision| {
            let page = json!({"revision": revision, "kvs": [], "count": 0, "more": false});
            onlooker.note(life, String::new(), &serde_json::from_value(page).unwrap());
            onlooker.book.pages().violations.len()
        };
        assert_eq!((shows(0, 7), shows(0, 7), shows(0, 9)), (0, 0, 0));
        lives.begin();
        // Whichever of its lives has said that.
        assert_eq!(shows(0, 5), 0);
        assert_eq!((shows(1, 5), shows(1, 4)), (0, 1));
    }
}
