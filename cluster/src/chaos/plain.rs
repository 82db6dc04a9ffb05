//! Clients as curl is one, each of one node alone: followers have to pass on what they write, no kept answer hides what
//! the store does twice, and a node that says that nothing was done is taken at its word.
//! Invariant: each value and each amount is sent once, so that each read and each revision tells which of them it saw.
//! How they speak to their node is in `curl`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use service::tasks::Tasks;

use super::book::Book;
use super::clients;
use super::curl::{Done, Failed, Node};
use super::linear::{Did, Operation};
use super::random::Random;
use super::sent::Fate;
use super::served::SERVED;

/// Registers, and sums, that only these clients write.
pub(super) const VALUES: &str = "chaos/plain/r/";
pub(super) const SUMS: &str = "chaos/plain/c/";
const PAUSE: Duration = Duration::from_millis(5);
/// A node that is down is not asked so often: what became of a try that broke nobody is told.
const PAUSE_FAILED: Duration = Duration::from_millis(100);
/// About so many writes to one key may be open: each may have happened at any time since, or never, and whoever judges
/// has to try out all of that.
const OPEN_MAX: u64 = 4;
const READ_ONE_IN: u64 = 4;

/// How a client writes.
#[derive(Clone, Copy, Debug)]
enum Writes {
    /// By a put, each time another value.
    Values,
    /// By a transaction that adds, each time another amount.
    Sums,
}

/// What they have in common, so that no number comes twice, whichever of them sends it.
#[derive(Default)]
struct Common {
    numbers: AtomicI64,
    /// How many writes were left open so far.
    open: AtomicU64,
}

struct Plain {
    name: String,
    writes: Writes,
    node: Node,
    common: Arc<Common>,
    book: Arc<Book>,
    tasks: Tasks,
    random: Random,
}

pub(super) fn start(endpoints: &[String], token: &str, tasks: &Tasks, book: &Arc<Book>, seed: u64) {
    let common = Arc::new(Common::default());
    let mut random = Random::from(seed ^ 300 << 32);
    for (number, endpoint) in (1..).zip(endpoints) {
        for writes in [Writes::Values, Writes::Sums] {
            let plain = Plain {
                name: format!("{} at n{number}", writes.words()),
                writes,
                node: Node::new(endpoint, token),
                common: Arc::clone(&common),
                book: Arc::clone(book),
                tasks: tasks.clone(),
                random: Random::from(random.next()),
            };
            book.expects(&plain.name, SERVED);
            tasks.spawn("plain client", plain.run());
        }
    }
}

impl Writes {
    fn prefix(self) -> &'static str {
        match self {
            Self::Values => VALUES,
            Self::Sums => SUMS,
        }
    }

    /// By which they are counted.
    fn words(self) -> &'static str {
        match self {
            Self::Values => "plain writes",
            Self::Sums => "plain additions",
        }
    }
}

impl Plain {
    async fn run(mut self) {
        while !self.tasks.is_stopping() {
            let key = self.key();
            let is_served = if self.random.below(READ_ONE_IN) == 0 {
                self.read(&key).await
            } else {
                self.write(&key).await
            };
            let pause = if is_served { PAUSE } else { PAUSE_FAILED };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.tasks.stopping() => return,
            }
        }
    }

    /// All of them leave a key at the same time: once it has been in use for long enough, or enough was left open.
    fn key(&self) -> String {
        let page = self.common.open.load(Ordering::Relaxed) / OPEN_MAX;
        let generation = format!("{:05}", clients::generation(&self.book));
        format!("{}{generation}/{page}", self.writes.prefix())
    }

    async fn read(&self, key: &str) -> bool {
        let start = self.book.now();
        match self.node.read(key).await {
            Ok(held) => {
                let (end, did) = (Some(self.book.now()), Did::Read(held));
                self.book.record(key, Operation { start, end, did });
                self.book.success();
                self.book.count("plain reads");
                true
            }
            Err(failed) => {
                self.failed(&failed, "plain reads that failed");
                false
            }
        }
    }

    async fn write(&self, key: &str) -> bool {
        // A sum that nothing is added to would not change.
        let sent = 1 + self.common.numbers.fetch_add(1, Ordering::Relaxed);
        self.note(key, sent, Fate::Open);
        let start = self.book.now();
        let told = match self.writes {
            Writes::Values => self.node.put(key, sent).await,
            Writes::Sums => self.node.add(key, sent).await,
        };
        let fate = match told {
            Ok(done) => {
                let value = Some(done.number.to_string());
                self.book.acknowledged(start, done.revision, key, value);
                let end = Some(self.book.now());
                let did = self.did(sent, Some(done));
                self.book.record(key, Operation { start, end, did });
                self.book.success();
                self.book.served(&self.name);
                self.book.count(self.writes.words());
                Fate::Done
            }
            Err(failed) => {
                self.lost(key, start, sent, &failed);
                failed.fate
            }
        };
        self.note(key, sent, fate);
        fate == Fate::Done
    }

    /// One that surely did not happen has no place in the history.
    fn lost(&self, key: &str, start: u64, sent: i64, failed: &Failed) {
        if failed.fate == Fate::Denied {
            return self.failed(failed, "plain writes refused");
        }
        self.failed(failed, "plain writes left open");
        let (end, did) = (None, self.did(sent, None));
        self.book.record(key, Operation { start, end, did });
        self.common.open.fetch_add(1, Ordering::Relaxed);
    }

    fn did(&self, sent: i64, told: Option<Done>) -> Did {
        match self.writes {
            Writes::Values => Did::Write(sent),
            Writes::Sums => Did::Add {
                by: sent,
                max: i64::MAX,
                sum: told.map(|done| Some(done.number)),
            },
        }
    }

    fn note(&self, key: &str, sent: i64, fate: Fate) {
        match self.writes {
            Writes::Values => self.book.sent(key, &sent.to_string(), fate),
            Writes::Sums => self.book.added(key, sent, fate),
        }
    }

    fn failed(&self, failed: &Failed, what: &'static str) {
        self.book.count(what);
        if let Some(wrong) = &failed.wrong {
            let name = &self.name;
            self.book.violation(format!(
                "no fault may be answered like this, which {name} were: {wrong}"
            ));
        }
        if let Some(request) = &failed.internal {
            self.book.internal(&self.name, request);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::arena::free_address;
    use crate::chaos::book::Pages;
    use crate::chaos::curl::tests::{Parrot, put, refusal, sum};
    use crate::chaos::linear;

    fn client(address: &str, writes: Writes) -> Plain {
        Plain {
            name: format!("{} at n1", writes.words()),
            writes,
            node: Node::new(address, "token"),
            common: Arc::default(),
            book: Arc::new(Book::new()),
            tasks: Tasks::new(),
            random: Random::from(1),
        }
    }

    /// How many faults there are when this was seen.
    fn faults(pages: &Pages, seen: &[(u64, &str, &str)]) -> usize {
        let (sent, added) = (&pages.sent, &pages.added);
        sent.judge(seen.iter().copied()).len() + added.judge(seen.iter().copied()).len()
    }

    /// The first write by such a client, to a node that says this, is judged by what it was told.
    #[track_caller]
    fn judged(client: &Plain, key: &str, fate: Fate) {
        let pages = client.book.pages();
        assert_eq!(pages.violations, [""; 0]);
        let once = (7, key, "1");
        assert_eq!(faults(&pages, &[once]), usize::from(fate == Fate::Denied));
        let again = match client.writes {
            Writes::Values => "1",
            Writes::Sums => "2",
        };
        assert!(faults(&pages, &[once, (8, key, again)]) > 0, "{fate:?}");
        assert_eq!(pages.acknowledged.len(), usize::from(fate == Fate::Done));
        let history = pages.histories.get(key);
        assert_eq!(history.is_none(), fate == Fate::Denied);
        if let Some(history) = history {
            assert_eq!(history[0].end.is_some(), fate == Fate::Done);
            assert_eq!(linear::check(history), Ok(()));
        }
    }

    #[tokio::test]
    async fn a_write_is_noted_as_what_its_node_said_of_it() {
        let (values, sums) = (Writes::Values, Writes::Sums);
        for (status, says, writes, fate) in [
            (200, put(), values, Fate::Done),
            (200, sum(1), sums, Fate::Done),
            (503, refusal("no-leader"), values, Fate::Denied),
            (503, refusal("overloaded"), sums, Fate::Denied),
            (503, refusal("outcome-unknown"), values, Fate::Open),
            (503, refusal("outcome-unknown"), sums, Fate::Open),
            // What that says of the node is another matter.
            (500, refusal("internal"), sums, Fate::Open),
        ] {
            let parrot = Parrot::saying(status, says).await;
            let client = client(&parrot.address, writes);
            let key = client.key();
            assert_eq!(client.write(&key).await, fate == Fate::Done);
            parrot.tasks.stop();
            judged(&client, &key, fate);
        }
    }

    #[tokio::test]
    async fn what_no_node_may_say_is_a_violation() {
        let failed = json!({"revision": 7, "succeeded": false, "branch": "else", "results": []});
        for (status, says, writes) in [
            (200, failed, Writes::Sums),
            (200, Value::Null, Writes::Values),
            (412, refusal("precondition-failed"), Writes::Values),
            (422, refusal("invalid-request"), Writes::Sums),
        ] {
            let parrot = Parrot::saying(status, says).await;
            let client = client(&parrot.address, writes);
            assert!(!client.write("k").await);
            parrot.tasks.stop();
            let told = client.book.pages().violations.join("\n");
            let expected = format!("which {} were: {status} ", client.name);
            assert!(told.contains(&expected), "{told}");
        }
    }

    #[tokio::test]
    async fn that_something_is_wrong_inside_of_a_node_is_noted_with_who_was_told() {
        let says = json!({"code": "internal", "request_id": "a-1"});
        let parrot = Parrot::saying(500, says).await;
        let client = client(&parrot.address, Writes::Values);
        assert!(!client.write("k").await && !client.read("k").await);
        parrot.tasks.stop();
        let pages = client.book.pages();
        assert_eq!(pages.internal[&client.name], ["a-1", "a-1"]);
        assert_eq!(pages.violations, [""; 0]);
    }

    #[test]
    fn a_key_is_left_once_much_of_it_is_open() {
        let client = client(&free_address().unwrap(), Writes::Values);
        let first = client.key();
        assert!(first.starts_with(VALUES));
        client.common.open.fetch_add(OPEN_MAX - 1, Ordering::Relaxed);
        assert_eq!(client.key(), first);
        client.common.open.fetch_add(1, Ordering::Relaxed);
        assert_ne!(client.key(), first);
    }
}
