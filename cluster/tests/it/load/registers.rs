//! A few keys that several clients write, while every node is asked for them all the time.
//! Invariant: reads begin at their pace whether or not earlier ones have ended, so that a node that was away
//! finds reads waiting that began long after what it last knew.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kvstore_client::{Error, KvClient};
use service::tasks::Tasks;

use super::history::{History, Operation, What};
use crate::harness::Cluster;

const KEYS: usize = 2;
const WRITERS_OF_A_KEY: usize = 2;
const WRITE_PAUSE: Duration = Duration::from_millis(4);
const READ_EVERY: Duration = Duration::from_millis(25);
/// A node answers within its own limit, or is gone; a paused one may take so much longer.
const READ_DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Registers {
    tasks: Tasks,
    shared: Arc<Shared>,
}

struct Shared {
    began: Instant,
    histories: Mutex<BTreeMap<String, History>>,
    /// Reads that were answered, by the node that was asked.
    answered: Mutex<BTreeMap<String, u64>>,
    failed_reads: AtomicU64,
    /// Answers that no fault may cause.
    odd: Mutex<Vec<String>>,
}

impl Registers {
    pub(crate) fn start(cluster: &Cluster, names: &[&str]) -> Self {
        let registers = Self {
            tasks: Tasks::new(),
            shared: Arc::new(Shared {
                began: Instant::now(),
                histories: Mutex::default(),
                answered: Mutex::default(),
                failed_reads: AtomicU64::new(0),
                odd: Mutex::default(),
            }),
        };
        for key in (0..KEYS).map(|n| format!("register/{n}")) {
            for writer in 0..WRITERS_OF_A_KEY {
                let client = cluster.client().with_deadline(Duration::from_secs(10));
                let (shared, tasks) = (Arc::clone(&registers.shared), registers.tasks.clone());
                registers.tasks.spawn(
                    "register-writer",
                    shared.write(tasks, client, key.clone(), writer),
                );
            }
            for name in names {
                let request = cluster
                    .request("GET", name, &format!("/v1/kv/{key}"))
                    .timeout(READ_DEADLINE);
                let (shared, tasks) = (Arc::clone(&registers.shared), registers.tasks.clone());
                let reading = shared.read(tasks, request, key.clone(), (*name).to_owned());
                registers.tasks.spawn("register-reader", reading);
            }
        }
        registers
    }

    /// How many reads a node has answered so far.
    pub(crate) fn answered(&self, name: &str) -> u64 {
        self.shared
            .answered
            .lock()
            .unwrap()
            .get(name)
            .copied()
            .unwrap_or(0)
    }

    /// Ends the clients and judges what they saw.
    pub(crate) async fn check(self) {
        self.tasks.stop();
        assert!(self.tasks.drain(READ_DEADLINE + Duration::from_secs(5)).await);
        let histories = self.shared.histories.lock().unwrap();
        let failed = self.shared.failed_reads.load(Ordering::Relaxed);
        assert!(!histories.is_empty());
        let odd = self.shared.odd.lock().unwrap();
        assert!(
            odd.is_empty(),
            "no fault of a node may be answered like this: {odd:?}"
        );
        for (key, history) in histories.iter() {
            let (all, reads) = (history.operations.len(), history.reads());
            super::say(&format!(
                "{key}: {all} operations, {reads} of them reads; {failed} reads failed"
            ));
            assert!(reads > 0 && all > reads, "{key} was not both read and written");
            if let Err(fault) = history.check() {
                panic!("{key} is not linearizable: {fault}");
            }
        }
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Shared {
    fn now(&self) -> u64 {
        // From 1 on: 0 is the time before all operations.
        1 + u64::try_from(self.began.elapsed().as_nanos()).unwrap()
    }

    fn record(&self, key: &str, start: u64, end: Option<u64>, what: What) {
        let mut histories = self.histories.lock().unwrap();
        let history = histories.entry(key.to_owned()).or_default();
        history.operations.push(Operation { start, end, what });
    }

    async fn write(self: Arc<Self>, tasks: Tasks, client: KvClient, key: String, writer: usize) {
        for n in 0_u32.. {
            let value = format!("{writer}-{n}");
            let start = self.now();
            let result = client.put(&key, value.clone()).await;
            let end = self.now();
            match result {
                Ok(put) => {
                    let revision = Some(put.revision);
                    self.record(&key, start, Some(end), What::Write { value, revision });
                }
                Err(Error::Unknown { .. }) => {
                    self.record(
                        &key,
                        start,
                        None,
                        What::Write {
                            value,
                            revision: None,
                        },
                    );
                }
                Err(Error::Unavailable { .. }) => {
                    let mut histories = self.histories.lock().unwrap();
                    histories.entry(key.clone()).or_default().denied.push(value);
                }
                Err(other) => self.odd.lock().unwrap().push(format!("{other:?}")),
            }
            tokio::select! {
                () = tokio::time::sleep(WRITE_PAUSE) => {}
                () = tasks.stopping() => return,
            }
        }
    }

    async fn read(
        self: Arc<Self>,
        tasks: Tasks,
        request: reqwest::RequestBuilder,
        key: String,
        name: String,
    ) {
        loop {
            let (shared, key, name) = (Arc::clone(&self), key.clone(), name.clone());
            let request = request
                .try_clone()
                .expect("a request without a body can be repeated");
            tasks.spawn("register-read", async move {
                let start = shared.now();
                match seen(request, &shared.odd).await {
                    Some(seen) => {
                        shared.record(&key, start, Some(shared.now()), What::Read { seen });
                        *shared.answered.lock().unwrap().entry(name).or_default() += 1;
                    }
                    None => {
                        shared.failed_reads.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            tokio::select! {
                () = tokio::time::sleep(READ_EVERY) => {}
                () = tasks.stopping() => return,
            }
        }
    }
}

/// Value and revision, or that the key is absent; `None` when the read was not served.
async fn seen(request: reqwest::RequestBuilder, odd: &Mutex<Vec<String>>) -> Option<Option<(String, u64)>> {
    let answer = request.send().await.ok()?;
    if answer.status() == reqwest::StatusCode::NOT_FOUND {
        return Some(None);
    }
    if answer.status().is_client_error() {
        odd.lock().unwrap().push(format!("{answer:?}"));
    }
    let answer = answer.error_for_status().ok()?;
    let level = answer.headers().get("x-kv-consistency")?.to_str().ok()?;
    if level != "linearizable" {
        odd.lock()
            .unwrap()
            .push(format!("a read that was served as {level}"));
    }
    let tag = answer
        .headers()
        .get("etag")?
        .to_str()
        .ok()?
        .trim_matches('"')
        .parse()
        .ok()?;
    Some(Some((answer.text().await.ok()?, tag)))
}
