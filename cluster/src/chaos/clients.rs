//! Clients of registers and counters: reads on every node at every level, writes, deletions, compare-and-set, bounded
//! additions.
//! Keys change every few seconds, so that each has a history of its own that is short enough to be judged exactly.
//! Invariant: every value is written at most once, so that each read tells which write it saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use kvstore_client::{Error, KvClient, PutOptions, ReadOptions, Reads};
use service::tasks::Tasks;

use super::book::Book;
use super::linear::{Did, Held, Operation};
use super::looks;
use super::order::Floor;
use super::random::Random;
use super::sent::Fate;
use super::served::SERVED;

pub(super) const PREFIX: &str = "chaos/";
pub(super) const REGISTERS: &str = "chaos/r/";
const CLIENTS: u64 = 8;
/// So many registers are in use at a time.
pub(super) const KEYS: u64 = 4;
/// How long a set of keys is in use.
const GENERATION: Duration = Duration::from_millis(1500);
const PAUSE: Duration = Duration::from_millis(4);
const DEADLINE: Duration = Duration::from_secs(4);
const COUNTER_MAX: i64 = 60;
/// Each client makes few of them, so that any of theirs tells that they are served.
const ADDITIONS: &str = "additions";

struct Client {
    name: String,
    /// Any node, by its own choice.
    any: KvClient,
    nodes: Vec<Node>,
    book: Arc<Book>,
    tasks: Tasks,
    values: Arc<AtomicI64>,
    random: Random,
    /// The highest revision that it was told of.
    seen: u64,
}

/// A client that knows this node alone.
#[derive(Clone)]
struct Node {
    client: KvClient,
    reads: String,
}

/// Whoever reads there: one client alone comes there too seldom.
fn reads_of(number: usize) -> String {
    format!("reads of n{number}")
}

/// What a compare-and-set expects to find.
#[derive(Clone, Copy)]
enum Expected {
    Anything,
    This(Held),
}

/// What a client last read of a key: value and revision.
type Last = Option<(i64, u64)>;

/// By which number the keys go that are in use now.
pub(super) fn generation(book: &Book) -> u128 {
    book.elapsed().as_millis() / GENERATION.as_millis()
}

/// What the registers of a generation begin with, and no other key.
pub(super) fn registers(generation: u128) -> String {
    format!("{REGISTERS}{generation:05}/")
}

pub(super) fn register(generation: u128, number: u64) -> String {
    format!("{}{number}", registers(generation))
}

pub(super) fn counter(generation: u128) -> String {
    format!("{PREFIX}c/{generation:05}")
}

pub(super) fn client(endpoints: &[String], token: &str, tasks: &Tasks) -> kvstore_client::Result<KvClient> {
    KvClient::builder(endpoints.iter().cloned())
        .token(token)
        .deadline(DEADLINE)
        .try_time_max(Duration::from_secs(1))
        .reads(Reads::Sticky)
        .tasks(tasks.clone())
        .build()
}

pub(super) fn start(
    endpoints: &[String],
    token: &str,
    tasks: &Tasks,
    book: &Arc<Book>,
    seed: u64,
) -> kvstore_client::Result<()> {
    let values = Arc::new(AtomicI64::new(1));
    book.expects(ADDITIONS, SERVED);
    for number in 1..=endpoints.len() {
        book.expects(&reads_of(number), SERVED);
    }
    for number in 0..CLIENTS {
        let nodes = (1..).zip(endpoints).map(|(number, endpoint)| {
            let client = client(std::slice::from_ref(endpoint), token, tasks)?;
            let reads = reads_of(number);
            Ok::<_, Error>(Node { client, reads })
        });
        let name = format!("client {number}");
        book.expects(&name, SERVED);
        let client = Client {
            name,
            any: client(endpoints, token, tasks)?,
            nodes: nodes.collect::<kvstore_client::Result<_>>()?,
            book: Arc::clone(book),
            tasks: tasks.clone(),
            values: Arc::clone(&values),
            random: Random::from(seed ^ (number + 1) << 32),
            seen: 0,
        };
        tasks.spawn("chaos client", client.run());
    }
    Ok(())
}

impl Client {
    async fn run(mut self) {
        let mut last: (String, Last) = (String::new(), None);
        while !self.tasks.is_stopping() {
            let generation = generation(&self.book);
            let key = register(generation, self.random.below(KEYS));
            match self.random.below(100) {
                0..30 => last = (key.clone(), self.read(&key).await),
                30..36 => self.look(&key, Floor::Revision(self.seen)).await,
                36..40 => self.look(&key, looks::not_older(&self.book)).await,
                40..62 => self.put(&key, PutOptions::default(), Expected::Anything).await,
                62..84 => {
                    let (key, known) = last.clone();
                    if !key.is_empty() {
                        let options = PutOptions {
                            if_match: known.map(|(_, revision)| revision),
                            if_absent: known.is_none(),
                            ..PutOptions::default()
                        };
                        self.put(&key, options, Expected::This(known.map(|(value, _)| value)))
                            .await;
                    }
                }
                84..90 => self.delete(&key).await,
                _ => self.add(&counter(generation)).await,
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.tasks.stopping() => return,
            }
        }
    }

    async fn read(&mut self, key: &str) -> Last {
        let node = self.random.choose(&self.nodes).clone();
        let start = self.book.now();
        match node.client.read(key, ReadOptions::default()).await {
            Ok(read) => {
                let seen = read.kv.map(|kv| (number(&kv.bytes()), kv.mod_revision));
                self.heard(read.revision);
                self.book.told("a read", start, read.revision);
                self.done(key, start, Did::Read(seen.map(|(value, _)| value)), "reads");
                self.book.served(&node.reads);
                seen
            }
            Err(error) => {
                // A read that failed saw nothing.
                self.book.failed(&error, "reads that failed");
                None
            }
        }
    }

    async fn look(&mut self, key: &str, floor: Floor) {
        let node = self.random.choose(&self.nodes).clone();
        if let Some(seen) = looks::look(&node.client, key, floor, &self.book).await {
            self.heard(seen);
        }
    }

    fn heard(&mut self, revision: u64) {
        self.seen = self.seen.max(revision);
    }

    async fn put(&mut self, key: &str, options: PutOptions, expected: Expected) {
        let new = self.values.fetch_add(1, Ordering::Relaxed);
        let value = new.to_string();
        self.book.sent(key, &value, Fate::Open);
        let start = self.book.now();
        let swaps = matches!(expected, Expected::This(_));
        let did = |done| match expected {
            Expected::Anything => Did::Write(new),
            Expected::This(expected) => Did::Swap { expected, new, done },
        };
        let fate = match self.any.put_with(key, value.clone(), options).await {
            Ok(put) => {
                self.book
                    .acknowledged(start, put.revision, key, Some(value.clone()));
                self.heard(put.revision);
                let what = if swaps { "swaps" } else { "writes" };
                self.done(key, start, did(Some(true)), what);
                Fate::Done
            }
            Err(Error::Conflict { .. }) if swaps => {
                self.done(key, start, did(Some(false)), "swaps refused");
                Fate::Denied
            }
            Err(error) => self.lost(key, start, did(None), &error),
        };
        self.book.sent(key, &value, fate);
    }

    async fn delete(&mut self, key: &str) {
        let start = self.book.now();
        match self.any.delete(key).await {
            Ok(deleted) => {
                if deleted.deleted > 0 {
                    self.book.acknowledged(start, deleted.revision, key, None);
                } else {
                    self.book.told("a deletion of nothing", start, deleted.revision);
                }
                self.heard(deleted.revision);
                let was_there = Some(deleted.deleted > 0);
                self.done(key, start, Did::Delete { was_there }, "deletions");
            }
            Err(error) => {
                self.lost(key, start, Did::Delete { was_there: None }, &error);
            }
        }
    }

    async fn add(&mut self, key: &str) {
        let start = self.book.now();
        let did = |sum| Did::Add {
            by: 1,
            max: COUNTER_MAX,
            sum,
        };
        match self.any.add(key, 1, None, Some(COUNTER_MAX)).await {
            Ok(sum) => {
                self.done(key, start, did(Some(sum)), ADDITIONS);
                self.book.served(ADDITIONS);
            }
            Err(error) => {
                self.lost(key, start, did(None), &error);
            }
        }
    }

    fn done(&self, key: &str, start: u64, did: Did, what: &'static str) {
        let end = Some(self.book.now());
        self.book.record(key, Operation { start, end, did });
        self.book.success();
        // Reads go through other connections, to one node each.
        if !matches!(did, Did::Read(_)) {
            self.book.served(&self.name);
        }
        self.book.count(what);
    }

    /// One that surely did not happen has no place in the history.
    fn lost(&self, key: &str, start: u64, did: Did, error: &Error) -> Fate {
        let fate = self.book.failed(error, "writes that failed");
        if fate != Fate::Denied {
            self.book.record(
                key,
                Operation {
                    start,
                    end: None,
                    did,
                },
            );
        }
        fate
    }
}

/// What was written as a number; a value from elsewhere is one that nobody wrote.
pub(super) fn number(bytes: &[u8]) -> i64 {
    let text = String::from_utf8_lossy(bytes);
    text.parse().unwrap_or(i64::MIN)
}
