//! A client that reads the registers page by page, and takes its time, until history is given up beyond the moment that
//! its pages show; also over the death of the node that gave it the first one.
//! Invariant: the first page tells the moment of the whole walk, so it is a read of each key within the time of that page,
//! however long the others took. Without a pin a walk may come too late for its history, which it is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvstore_client::wire::kv::Page;
use kvstore_client::{Error, KvClient, RangeRequest, Result};
use service::tasks::Tasks;

use super::book::Book;
use super::clients;
use super::scans::Together;
use super::served::SERVED;

/// How it is called among those who are to be served.
const WHO: &str = "walks over pages";
/// So that all registers are two pages.
const ROWS: u32 = 2;
const PAUSE: Duration = Duration::from_millis(100);
/// Where a node is away, no more history is given up than its watcher has seen.
const LINGER_MAX: Duration = Duration::from_millis(1500);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a walk tries to go on that nobody serves.
const GIVE_UP: Duration = Duration::from_secs(15);

struct Walker {
    client: KvClient,
    book: Arc<Book>,
    tasks: Tasks,
}

pub(super) fn start(endpoints: &[String], token: &str, tasks: &Tasks, book: &Arc<Book>) -> Result<()> {
    book.expects(WHO, SERVED);
    let walker = Walker {
        client: clients::client(endpoints, token, tasks)?,
        book: Arc::clone(book),
        tasks: tasks.clone(),
    };
    tasks.spawn("chaos walker", walker.run());
    Ok(())
}

impl Walker {
    async fn run(self) {
        while !self.tasks.is_stopping() {
            match self.walk().await {
                // Where that fails they end by themselves.
                Ok(()) => drop(self.end_pins().await),
                Err(error) if error.is_compacted() => self.book.count("walks whose history was gone"),
                Err(error) => {
                    // A walk that failed saw nothing.
                    self.book.failed(&error, "walks that failed");
                }
            }
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
        while cursor.is_some() {
            self.linger(revision).await;
            let page = self.page(RangeRequest {
                cursor,
                ..range.clone()
            });
            let page = page.await?;
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
            if self.book.pages().floors.reached > revision {
                self.book.count("walks over what was given up");
            }
        }
        Ok(())
    }

    /// Pins are kept for a minute after their last use, for whoever shares them, and the collector waits for them. Here
    /// nobody does, and all that is read of the past is to meet it at work.
    async fn end_pins(&self) -> Result<()> {
        let leases = self.client.lease_list().await?.into_iter();
        for lease in leases.filter(|lease| lease.pin.is_some()) {
            self.client.lease_revoke(lease.id).await?;
        }
        Ok(())
    }

    /// Waits until that revision is no longer kept for anybody who has no pin.
    async fn linger(&self, revision: u64) {
        let end = Instant::now() + LINGER_MAX;
        while self.book.pages().floors.reached <= revision && Instant::now() < end {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.tasks.stopping() => return,
            }
        }
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

    use axum::extract::{Query, State};
    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::{Value, json};
    use service::serve::{Limits, serve};
    use tokio::net::TcpListener;

    use super::*;
    use crate::arena::wait_for;
    use crate::chaos::linear::{Did, Operation};

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Walks over the pages of such a node, whose later ones are this answer.
    async fn walking(status: StatusCode, later: Value) -> (Arc<Book>, Tasks) {
        type Later = (StatusCode, Value);
        let answer = async |State((status, later)): State<Later>,
                            Query(query): Query<HashMap<String, String>>| {
            let register = format!("{}1", query["prefix"]);
            let kvs = [json!({"key": register, "value": "5", "mod_revision": 6})];
            let first = json!({"revision": 7, "kvs": kvs, "count": 2, "more": true, "cursor": "on"});
            if query.contains_key("cursor") {
                (status, Json(later))
            } else {
                (StatusCode::OK, Json(first))
            }
        };
        let app = Router::new().route("/v1/kv", get(answer));
        let app = app.with_state((status, later));
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

    #[tokio::test]
    async fn a_walk_is_a_read_of_the_moment_of_its_first_page() {
        let (book, tasks) = walking(StatusCode::OK, last(7)).await;
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
        let (book, tasks) = walking(StatusCode::OK, last(8)).await;
        let found = wait_for("a violation", DEADLINE, async || {
            book.pages().violations.first().cloned()
        });
        assert_eq!(found.await.unwrap(), "a walk at revision 7 goes on at 8");
        tasks.stop();
        let (book, tasks) = walking(StatusCode::GONE, json!({"code": "compacted"})).await;
        let counted = wait_for("a walk that came too late", DEADLINE, async || {
            let pages = book.pages();
            pages.counts.get("walks whose history was gone").copied()
        });
        counted.await.unwrap();
        tasks.stop();
        let pages = book.pages();
        assert_eq!(pages.violations, [""; 0]);
        assert!(pages.histories.is_empty(), "it has seen nothing");
    }
}
