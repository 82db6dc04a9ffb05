//! A client that reads the registers page by page, and takes its time, until history is given up beyond the moment that
//! its pages show; also over the death of the node that gave it the first one.
//! Invariant: the first page tells the moment of the whole walk, so it is a read of each key within the time of that page,
//! however long the others took. Without a pin a walk may come too late for its history, which it is told; one whose
//! pin the store has must not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvstore_client::wire::Revision;
use kvstore_client::wire::kv::Page;
use kvstore_client::{Error, KvClient, RangeRequest, Result};
use service::tasks::Tasks;

use super::book::Book;
use super::clients;
use super::pins::{Pin, Pins};
use super::scans::Together;
use super::served::SERVED;

/// How it is called among those who are to be served.
const WHO: &str = "walks over pages";
/// So that all registers are two pages.
const ROWS: u32 = 2;
const PAUSE: Duration = Duration::from_millis(100);
/// Where a node is away, no more history is given up than its watcher has seen. Longer than most are away: what became
/// of a pin meanwhile shows only below the floor.
const LINGER_MAX: Duration = Duration::from_secs(6);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a walk tries to go on that nobody serves.
const GIVE_UP: Duration = Duration::from_secs(15);

struct Walker {
    client: KvClient,
    book: Arc<Book>,
    tasks: Tasks,
    pins: Pins,
}

pub(super) fn start(endpoints: &[String], token: &str, tasks: &Tasks, book: &Arc<Book>) -> Result<()> {
    book.expects(WHO, SERVED);
    let walker = Walker {
        client: clients::client(endpoints, token, tasks)?,
        book: Arc::clone(book),
        tasks: tasks.clone(),
        pins: Pins::default(),
    };
    tasks.spawn("chaos walker", walker.run());
    Ok(())
}

impl Walker {
    async fn run(mut self) {
        self.end_pins().await;
        while !self.tasks.is_stopping() {
            match self.walk().await {
                Ok(()) => {}
                Err(error) if error.is_compacted() => self.book.count("walks whose history was gone"),
                Err(error) => {
                    // A walk that failed saw nothing.
                    self.book.failed(&error, "walks that failed");
                }
            }
            self.end_pins().await;
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.tasks.stopping() => return,
            }
        }
    }

    async fn walk(&self) -> Result<()> {
        let generation = clients::generation(&self.book);
        let range = RangeRequest {
            limit: Some(ROWS),
            ..RangeRequest::prefix(clients::registers(generation))
        };
        let start = self.book.now();
        let first = self.client.range(range.clone()).await?;
        let (end, revision) = (self.book.now(), first.revision);
        self.book.told("the first page of a walk", start, revision);
        let (mut kvs, mut cursor) = (first.kvs, first.cursor);
        let has_more = cursor.is_some();
        let pin = if has_more {
            self.pins.of(&self.client, revision).await?
        } else {
            None
        };
        let mut is_given_up = false;
        while cursor.is_some() {
            is_given_up = self.linger(revision).await;
            let page = self.page(RangeRequest {
                cursor,
                ..range.clone()
            });
            let page = page
                .await
                .inspect_err(|refusal| self.judge(refusal, revision, pin.as_ref()))?;
            if page.revision != revision {
                let fault = format!("a walk at revision {revision} goes on at {}", page.revision);
                self.book.violation(fault);
                return Ok(());
            }
            kvs.extend(page.kvs);
            cursor = page.cursor;
        }
        let together = Together {
            generation,
            start,
            end,
            revision,
            kvs: &kvs,
        };
        together.note(&self.book);
        self.book.success();
        // A new generation has few registers, which stand on one page.
        if has_more {
            self.book.served(WHO);
            self.book.count("walks");
            if is_given_up {
                self.book.count("walks over what was given up");
            }
        }
        Ok(())
    }

    /// A walk that had no pin may come too late. One whose pin must live yet has lost it.
    fn judge(&self, refusal: &Error, revision: Revision, pin: Option<&Pin>) {
        let left = pin.map_or(Duration::ZERO, Pin::left);
        if let Some(pin) = pin.filter(|_| refusal.is_compacted() && !left.is_zero()) {
            self.book.violation(format!(
                "a walk at revision {revision} is told that its history is gone, and its pin is lost: lease {} \
                 keeps what came from revision {} on, was there after the first page, was not ended, and must live \
                 for {left:?} yet",
                pin.lease, pin.revision
            ));
        }
    }

    /// Where that fails they end by themselves.
    async fn end_pins(&mut self) {
        drop(self.pins.end(&self.client).await);
    }

    /// Waits until that revision is no longer kept for anybody who has no pin, and tells whether that came to pass.
    async fn linger(&self, revision: Revision) -> bool {
        let is_given_up = || self.book.pages().floors.reached > revision;
        let end = Instant::now() + LINGER_MAX;
        while !is_given_up() && Instant::now() < end {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.tasks.stopping() => break,
            }
        }
        is_given_up()
    }

    /// A later page, from whichever node serves it first.
    async fn page(&self, range: RangeRequest) -> Result<Page> {
        let end = Instant::now() + GIVE_UP;
        loop {
            match self.client.range(range.clone()).await {
                Err(Error::Unavailable { .. }) if Instant::now() < end && !self.tasks.is_stopping() => {}
                told => return told,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::extract::{Query, State};
    use axum::http::StatusCode;
    use axum::routing::{delete, get};
    use axum::{Json, Router};
    use serde_json::{Value, json};
    use service::serve::{Limits, serve};
    use tokio::net::TcpListener;

    use super::*;
    use crate::arena::wait_for;
    use crate::chaos::linear::{Did, Operation};

    const DEADLINE: Duration = Duration::from_secs(10);

    /// What a node tells.
    struct Node {
        /// What it answers whoever asks for a later page.
        later: (StatusCode, Value),
        /// The leases that it lists between two walks, and behind the first page of one.
        leases: [Value; 2],
        is_walked: AtomicBool,
    }

    /// Walks over the pages of a node with this answer and these leases.
    async fn walking(status: StatusCode, later: Value, leases: [Value; 2]) -> (Arc<Book>, Tasks) {
        let node = Node {
            later: (status, later),
            leases,
            is_walked: AtomicBool::new(false),
        };
        let page = async |State(node): State<Arc<Node>>, Query(query): Query<HashMap<String, String>>| {
            let is_first = !query.contains_key("cursor");
            node.is_walked.store(is_first, Ordering::Relaxed);
            let register = format!("{}1", query["prefix"]);
            let kvs = [json!({"key": register, "value": "5", "mod_revision": 6})];
            let first = json!({"revision": 7, "kvs": kvs, "count": 2, "more": true, "cursor": "on"});
            if is_first {
                (StatusCode::OK, Json(first))
            } else {
                (node.later.0, Json(node.later.1.clone()))
            }
        };
        let list = async |State(node): State<Arc<Node>>| {
            let which = usize::from(node.is_walked.load(Ordering::Relaxed));
            Json(node.leases[which].clone())
        };
        let gone = async || (StatusCode::NOT_FOUND, Json(json!({"code": "lease-not-found"})));
        let app = Router::new()
            .route("/v1/kv", get(page))
            .route("/v1/leases", get(list))
            .route("/v1/leases/{id}", delete(gone))
            .with_state(Arc::new(node));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = listener.local_addr().unwrap().to_string();
        let (tasks, book) = (Tasks::new(), Arc::new(Book::new()));
        tasks.spawn("node", serve(listener, app, Limits::default(), tasks.clone()));
        // All is given up, so that nobody lingers.
        book.pages().floors.reached = 100;
        start(&[node], "token", &tasks, &book).unwrap();
        (book, tasks)
    }

    fn last(revision: u64) -> Value {
        json!({"revision": revision, "kvs": [], "count": 2, "more": false})
    }

    fn pin() -> Value {
        json!([{"id": 5, "ttl_ms": 61_000, "remaining_ms": 61_000, "pin": 6}])
    }

    /// A walker at a node that says that the history of each later page is gone.
    async fn too_late(leases: [Value; 2]) -> (Arc<Book>, Tasks) {
        let problem = json!({"code": "compacted"});
        let (book, tasks) = walking(StatusCode::GONE, problem, leases).await;
        let counted = wait_for("a walk that came too late", DEADLINE, async || {
            let pages = book.pages();
            pages.counts.get("walks whose history was gone").copied()
        });
        counted.await.unwrap();
        (book, tasks)
    }

    #[tokio::test]
    async fn a_walk_is_a_read_of_the_moment_of_its_first_page() {
        let (book, tasks) = walking(StatusCode::OK, last(7), [json!([]), pin()]).await;
        let served = wait_for("a walk", DEADLINE, async || {
            book.not_served_since(0).is_empty().then_some(())
        });
        served.await.unwrap();
        tasks.stop();
        let pages = book.pages();
        assert!(pages.counts["walks over what was given up"] > 0);
        assert_eq!(pages.violations, [""; 0]);
        let first = &pages.told[0];
        let mut histories = pages.histories.iter();
        let (_, reads) = histories.find(|(key, _)| key.ends_with("/1")).unwrap();
        let Operation { start, end, did } = reads[0];
        assert_eq!((start, did), (first.start, Did::Read(Some(5))));
        assert!(end.unwrap() <= first.end, "it took longer than the first page");
    }

    #[tokio::test]
    async fn a_walk_that_goes_on_elsewhere_is_found_and_one_that_comes_too_late_is_not() {
        let (book, tasks) = walking(StatusCode::OK, last(8), [json!([]), pin()]).await;
        let found = wait_for("a violation", DEADLINE, async || {
            book.pages().violations.first().cloned()
        });
        assert_eq!(found.await.unwrap(), "a walk at revision 7 goes on at 8");
        tasks.stop();
        let (book, tasks) = too_late([json!([]), json!([])]).await;
        tasks.stop();
        let pages = book.pages();
        assert_eq!(pages.violations, [""; 0]);
        assert!(pages.histories.is_empty(), "it has seen nothing");
    }

    #[tokio::test]
    async fn a_pin_is_lost_by_which_a_walk_cannot_go_on_unless_it_was_ended() {
        let (book, tasks) = too_late([json!([]), pin()]).await;
        tasks.stop();
        let told = book.pages().violations.join("\n");
        assert!(
            told.contains("a walk at revision 7 is told that its history is gone"),
            "{told}"
        );
        assert!(told.contains("lease 5 keeps what came from revision 6"), "{told}");
        // It was there before, and its end may have been asked for with nobody told.
        let (book, tasks) = too_late([pin(), pin()]).await;
        tasks.stop();
        assert_eq!(book.pages().violations, [""; 0]);
    }
}
