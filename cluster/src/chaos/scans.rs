//! Clients that read several keys at one moment: all registers in one page, or one by one in a transaction; and the
//! revision of the store alone. One for each node, so that one that waits holds up nobody else.
//! Invariant: what is read together is a read of each key within the same time, also of those that are not there. Whether
//! all of it is of one revision is judged by `shown`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::Op;
use kvstore_client::{KvClient, RangeRequest, Result, Txn};
use service::tasks::Tasks;

use super::book::Book;
use super::clients::{self, KEYS, counter, register, registers};
use super::linear::{Did, Held, Operation};
use super::served::SERVED;
use super::shown::Shown;

const PAUSE: Duration = Duration::from_millis(100);

/// All registers of a generation as they were at one moment within this time.
pub(super) struct Together<'read> {
    pub(super) generation: u128,
    pub(super) start: u64,
    pub(super) end: u64,
    /// That of the store at that moment.
    pub(super) revision: u64,
    pub(super) kvs: &'read [KeyValue],
}

impl Together<'_> {
    pub(super) fn note(&self, book: &Book) {
        let reads = match self.reads() {
            Ok(reads) => reads,
            Err(fault) => return book.violation(fault),
        };
        for (key, held) in reads {
            let read = Operation {
                start: self.start,
                end: Some(self.end),
                did: Did::Read(held),
            };
            book.record(&key, read);
        }
        let shown = Shown::of(registers(self.generation), self.revision, self.kvs);
        book.pages().shown.push(shown);
    }

    /// What was seen of each register, or what cannot be.
    fn reads(&self) -> std::result::Result<BTreeMap<String, Held>, String> {
        let registers = (0..KEYS).map(|number| (register(self.generation, number), None));
        let mut reads: BTreeMap<String, Held> = registers.collect();
        let mut last = "";
        for kv in self.kvs {
            let Some(held) = reads.get_mut(&kv.key).filter(|_| kv.key.as_str() > last) else {
                return Err(format!(
                    "a scan at revision {} shows {} behind {last:?}, where it has no place",
                    self.revision, kv.key
                ));
            };
            *held = Some(clients::number(&kv.bytes()));
            last = &kv.key;
        }
        Ok(reads)
    }
}

struct Scanner {
    name: String,
    client: KvClient,
    book: Arc<Book>,
    tasks: Tasks,
}

pub(super) fn start(endpoints: &[String], token: &str, tasks: &Tasks, book: &Arc<Book>) -> Result<()> {
    for (number, endpoint) in (1..).zip(endpoints) {
        let scanner = Scanner {
            name: format!("scans of n{number}"),
            client: clients::client(std::slice::from_ref(endpoint), token, tasks)?,
            book: Arc::clone(book),
            tasks: tasks.clone(),
        };
        book.expects(&scanner.name, SERVED);
        tasks.spawn("chaos scanner", scanner.run());
    }
    Ok(())
}

impl Scanner {
    async fn run(self) {
        while !self.tasks.is_stopping() {
            match self.look_around().await {
                Ok(()) => self.book.served(&self.name),
                Err(error) => {
                    // Reads that failed saw nothing.
                    self.book.failed(&error, "scans that failed");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.tasks.stopping() => return,
            }
        }
    }

    async fn look_around(&self) -> Result<()> {
        let generation = clients::generation(&self.book);
        self.scan(generation).await?;
        self.get_all(generation).await?;
        self.ask_for_revision().await
    }

    async fn scan(&self, generation: u128) -> Result<()> {
        let start = self.book.now();
        let range = RangeRequest::prefix(registers(generation));
        let page = self.client.range(range).await?;
        let together = Together {
            generation,
            start,
            end: self.book.now(),
            revision: page.revision,
            kvs: &page.kvs,
        };
        together.note(&self.book);
        self.told("a scan", start, page.revision);
        self.book.count("scans");
        Ok(())
    }

    /// The registers, and the counter beside them.
    async fn get_all(&self, generation: u128) -> Result<()> {
        let keys = (0..KEYS).map(|number| register(generation, number));
        let keys: Vec<String> = keys.chain([counter(generation)]).collect();
        let txn = keys.iter().fold(Txn::new(), |txn, key| txn.then(Op::get(key)));
        let start = self.book.now();
        let answer = self.client.txn(txn).await?;
        let end = Some(self.book.now());
        for (op, key) in keys.iter().enumerate() {
            let kv = answer.got(op);
            let did = Did::Read(kv.map(|kv| clients::number(&kv.bytes())));
            self.book.record(key, Operation { start, end, did });
            let shown = Shown::of(key.clone(), answer.revision, kv);
            self.book.pages().shown.push(shown);
        }
        self.told("a transaction of gets", start, answer.revision);
        self.book.count("transactions of gets");
        Ok(())
    }

    async fn ask_for_revision(&self) -> Result<()> {
        let start = self.book.now();
        let revision = self.client.revision().await?;
        self.told("/v1/revision", start, revision);
        self.book.count("revisions asked for");
        Ok(())
    }

    fn told(&self, what: &'static str, start: u64, revision: u64) {
        self.book.told(what, start, revision);
        self.book.success();
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use axum::{Json, Router};
    use serde_json::{Value, json};
    use service::serve::{Limits, serve};
    use tokio::net::TcpListener;

    use super::*;
    use crate::arena::wait_for;
    use crate::chaos::clients::REGISTERS;
    use crate::chaos::shown::judge;

    fn kv(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(value.to_owned().into()),
            ..KeyValue::default()
        }
    }

    /// What is written down of a scan that has shown these.
    fn noted(kvs: &[KeyValue]) -> Book {
        let book = Book::new();
        let together = Together {
            generation: 7,
            start: 30,
            end: 40,
            revision: 9,
            kvs,
        };
        together.note(&book);
        book
    }

    #[test]
    fn a_scan_reads_each_register_also_one_that_is_not_there() {
        let book = noted(&[kv("chaos/r/00007/1", "5")]);
        let pages = book.pages();
        assert_eq!((pages.histories.len(), pages.violations.len()), (4, 0));
        for (key, history) in &pages.histories {
            let seen = (key == "chaos/r/00007/1").then_some(5);
            let read = Operation {
                start: 30,
                end: Some(40),
                did: Did::Read(seen),
            };
            assert_eq!(history, &[read], "{key}");
        }
        let changes = [
            (9, "chaos/r/00007/1", Some("5")),
            (10, "chaos/r/00007/2", Some("6")),
        ];
        assert_eq!(judge(&pages.shown, changes), None);
        assert!(judge(&pages.shown, [changes[1]]).is_some());
    }

    #[test]
    fn what_no_scan_can_show_is_found() {
        let (first, second) = (kv("chaos/r/00007/0", "1"), kv("chaos/r/00007/1", "1"));
        let strange = kv("chaos/r/00008/0", "1");
        for (kvs, words) in [
            ([second.clone(), first], "chaos/r/00007/0 behind"),
            ([second.clone(), second.clone()], "chaos/r/00007/1 behind"),
            ([second, strange], "chaos/r/00008/0 behind"),
        ] {
            let book = noted(&kvs);
            let pages = book.pages();
            let told = pages.violations.join("\n");
            assert!(told.contains(words) && pages.histories.is_empty(), "{told}");
        }
    }

    #[tokio::test]
    async fn a_scanner_writes_down_what_it_was_told_in_each_way() {
        let page = async || Json(json!({"revision": 7, "kvs": [], "count": 0, "more": false}));
        let gets = async |Json(txn): Json<Value>| {
            let asked = txn["then"].as_array().unwrap().len();
            let results = vec![json!({"get": {"kvs": [], "count": 0}}); asked];
            Json(json!({"revision": 8, "succeeded": true, "branch": "then", "results": results}))
        };
        let revision = async || Json(json!({"revision": 9}));
        let app = Router::new()
            .route("/v1/kv", get(page))
            .route("/v1/txn", post(gets))
            .route("/v1/revision", get(revision));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = listener.local_addr().unwrap().to_string();
        let (tasks, book) = (Tasks::new(), Arc::new(Book::new()));
        tasks.spawn("node", serve(listener, app, Limits::default(), tasks.clone()));
        start(&[node], "token", &tasks, &book).unwrap();
        let served = wait_for("a scanner to be served", Duration::from_secs(10), async || {
            book.not_served_since(0).is_empty().then_some(())
        });
        served.await.unwrap();
        tasks.stop();
        let pages = book.pages();
        let told: Vec<(&str, u64)> = pages.told.iter().map(|told| (told.what, told.revision)).collect();
        let expected = [("a scan", 7), ("a transaction of gets", 8), ("/v1/revision", 9)];
        assert_eq!(told[..3], expected);
        // Both read the registers, and the second the counter too.
        let mut histories = pages.histories.iter();
        let (_, reads) = histories.find(|(key, _)| key.starts_with(REGISTERS)).unwrap();
        assert!(reads.len() >= 2, "{reads:?}");
        let mut keys = pages.histories.keys();
        assert!(keys.any(|key| key.starts_with("chaos/c/")));
        assert_eq!(pages.violations, [""; 0]);
    }
}
