//! Who reads the past, one on each node: all accounts at a revision that must be there still, the very last of them as
//! often as any other; and what was given up, which must be refused to readers and to watchers.
//! Invariant: nothing is gone that nobody has asked to give up, and all that was given up is. Whether what is read is
//! what was there is judged by `shown`.

use std::sync::Arc;
use std::time::Duration;

use kvstore_client::{KvClient, RangeRequest, ReadOptions, Result, WatchRequest};
use service::tasks::Tasks;

use super::book::Book;
use super::clients;
use super::floor::Floors;
use super::money;
use super::random::Random;
use super::sent::Fate;
use super::served::SERVED;
use super::shown::Shown;

const PAUSE: Duration = Duration::from_millis(200);

struct Historian {
    name: String,
    client: KvClient,
    book: Arc<Book>,
    tasks: Tasks,
    random: Random,
    /// One of whose node something was found tells no more of the same.
    has_found: bool,
}

pub(super) fn start(
    endpoints: &[String],
    token: &str,
    tasks: &Tasks,
    book: &Arc<Book>,
    seed: u64,
) -> Result<()> {
    for (number, endpoint) in (1..).zip(endpoints) {
        let historian = Historian {
            name: format!("the past of n{number}"),
            client: clients::client(std::slice::from_ref(endpoint), token, tasks)?,
            book: Arc::clone(book),
            tasks: tasks.clone(),
            random: Random::from(seed ^ (number + 300) << 32),
            has_found: false,
        };
        book.expects(&historian.name, SERVED);
        tasks.spawn("chaos historian", historian.run());
    }
    Ok(())
}

fn at(revision: u64) -> RangeRequest {
    RangeRequest {
        read: ReadOptions {
            revision: Some(revision),
            ..ReadOptions::default()
        },
        ..RangeRequest::prefix(money::PREFIX)
    }
}

impl Historian {
    async fn run(mut self) {
        while !self.tasks.is_stopping() {
            let floors = self.book.pages().floors;
            if floors.asked > 0 {
                match self.look_back(floors).await {
                    Ok(fault) => self.served(fault),
                    // No fault may be answered like that.
                    Err(error) if Fate::told_by(&error).is_none() => {
                        self.served(Some(format!("the answer was {error:?}")));
                    }
                    Err(error) => {
                        self.book.failed(&error, "reads of the past that failed");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.tasks.stopping() => return,
            }
        }
    }

    fn served(&mut self, fault: Option<String>) {
        if let Some(fault) = fault.filter(|_| !self.has_found) {
            self.has_found = true;
            self.book.violation(format!("{}: {fault}", self.name));
        }
        self.book.success();
        self.book.served(&self.name);
    }

    /// Answers what cannot be.
    async fn look_back(&mut self, floors: Floors) -> Result<Option<String>> {
        let newest = self.book.newest().map_or(0, |(_, revision)| revision);
        let above = newest.saturating_sub(floors.asked);
        // Right before the floor the collector is at work.
        let revision = if self.random.below(2) == 0 {
            floors.asked
        } else {
            floors.asked + self.random.below(above + 1)
        };
        let fault = self.read(revision).await?;
        if fault.is_some() || floors.reached <= 1 {
            return Ok(fault);
        }
        self.is_refused(floors.reached).await
    }

    async fn read(&self, revision: u64) -> Result<Option<String>> {
        match self.client.range(at(revision)).await {
            Ok(page) if page.revision == revision => {
                let shown = Shown::of(money::PREFIX.to_owned(), revision, &page.kvs);
                self.book.pages().shown.push(shown);
                self.book.count("reads of the past");
                Ok(None)
            }
            Ok(page) => Ok(Some(format!(
                "asked for revision {revision}, it shows {}",
                page.revision
            ))),
            Err(error) if error.is_compacted() => {
                let asked = self.book.pages().floors.asked;
                if asked > revision {
                    self.book.count("reads of a past that went meanwhile");
                    return Ok(None);
                }
                Ok(Some(format!(
                    "revision {revision} is gone, and nobody has given up more than what comes before {asked}"
                )))
            }
            Err(error) => Err(error),
        }
    }

    /// What comes before the floor can be neither read nor watched, nor can the changes of the floor itself.
    async fn is_refused(&self, floor: u64) -> Result<Option<String>> {
        match self.client.range(at(floor - 1)).await {
            Ok(_) => {
                return Ok(Some(format!(
                    "revision {} can be read, and history was given up to {floor}",
                    floor - 1
                )));
            }
            Err(error) if error.is_compacted() => {}
            Err(error) => return Err(error),
        }
        let watch = WatchRequest::prefix(clients::PREFIX).from(floor);
        match self.client.watch(watch).await {
            Ok(_) => Ok(Some(format!(
                "a watch begins at revision {floor}, and history was given up to there"
            ))),
            Err(error) if error.is_compacted() => {
                self.book.count("reads before the floor");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use axum::extract::{Query, State};
    use axum::http::StatusCode;
    use axum::response::{IntoResponse as _, Response};
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;
    use service::serve::{Limits, serve};
    use tokio::net::TcpListener;

    use super::*;
    use crate::arena::wait_for;

    /// Before which revision a node lets nobody read, and up to which nobody watch.
    type Gone = (u64, u64);

    fn number(query: &HashMap<String, String>, name: &str) -> u64 {
        query[name].parse().unwrap()
    }

    fn refusal() -> Response {
        let problem = json!({"code": "compacted", "status": 410});
        (StatusCode::GONE, Json(problem)).into_response()
    }

    /// What a historian finds at such a node.
    async fn found(gone: Gone, floors: Floors) -> Option<String> {
        let (tasks, book) = (Tasks::new(), Arc::new(Book::new()));
        let read = async |State(floor): State<Gone>, Query(query): Query<HashMap<String, String>>| {
            let revision = number(&query, "revision");
            let page = json!({"revision": revision, "kvs": [], "count": 0, "more": false});
            if revision < floor.0 {
                refusal()
            } else {
                Json(page).into_response()
            }
        };
        let watch = async |State(floor): State<Gone>, Query(query): Query<HashMap<String, String>>| {
            if number(&query, "from") <= floor.1 {
                refusal()
            } else {
                StatusCode::OK.into_response()
            }
        };
        let app = Router::new().route("/v1/kv", get(read));
        let app = app.route("/v1/watch", get(watch)).with_state(gone);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tasks.spawn("node", serve(listener, app, Limits::default(), tasks.clone()));
        book.pages().floors = floors;
        start(&[address], "token", &tasks, &book, 1).unwrap();
        let served = wait_for("the past to be read", Duration::from_secs(10), async || {
            book.not_served_since(0).is_empty().then_some(())
        });
        served.await.unwrap();
        tasks.stop();
        book.pages().violations.first().cloned()
    }

    #[tokio::test]
    async fn what_was_given_up_must_be_gone_and_nothing_else() {
        let floors = |asked, reached| Floors { asked, reached };
        assert_eq!(found((7, 7), floors(7, 7)).await, None);
        // What nobody was told may have happened.
        assert_eq!(found((9, 9), floors(9, 7)).await, None);
        for (gone, words) in [
            ((8, 8), "n1: revision 7 is gone"),
            ((6, 6), "n1: revision 6 can be read"),
            ((7, 6), "n1: a watch begins at revision 7"),
        ] {
            let told = found(gone, floors(7, 7)).await.unwrap();
            assert!(told.contains(words), "{told}");
        }
    }
}
