//! Writers of keys that nobody else writes, and adders to a few counters that all share.
//! Invariant: a key is put by one call and an addition carries a key of its own, so that whatever is done
//! twice, or not at all, shows in the end.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use kvstore_client::{Error, KvClient};
use service::tasks::Tasks;

use super::book::{Addition, Book, Fate};
use crate::harness::{Cluster, wait_until};

/// How many clients, and how hard they work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) writers: usize,
    pub(crate) adders: usize,
    pub(crate) counters: usize,
    /// From the end of one call to the begin of the next.
    pub(crate) pause: Duration,
    pub(crate) deadline: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            writers: 6,
            adders: 4,
            counters: 2,
            pause: Duration::from_millis(3),
            deadline: Duration::from_secs(15),
        }
    }
}

/// Clients at work until they are stopped.
pub(crate) struct Load {
    tasks: Tasks,
    book: Arc<Mutex<Book>>,
    plan: Plan,
}

impl Load {
    pub(crate) fn start(cluster: &Cluster, plan: Plan) -> Self {
        let load = Self {
            tasks: Tasks::new(),
            book: Arc::default(),
            plan,
        };
        let worker = |number: usize| Worker {
            number,
            client: cluster.client().with_deadline(plan.deadline),
            plan,
            tasks: load.tasks.clone(),
            book: Arc::clone(&load.book),
        };
        for number in 0..plan.writers {
            load.tasks.spawn("writer", worker(number).put());
        }
        for number in 0..plan.adders {
            load.tasks.spawn("adder", worker(number).add());
        }
        load
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// Waits until so many operations have been acknowledged from `since` on.
    #[track_caller]
    pub(crate) fn progress(&self, since: Instant, count: usize) -> impl Future<Output = ()> {
        wait_until(
            "operations acknowledged",
            Duration::from_mins(1),
            async move || {
                let book = self.book();
                let seen = book.gaps.count_since(since);
                (seen >= count)
                    .then_some(())
                    .ok_or_else(|| format!("{seen} of {count} since then; {}", book.summary()))
            },
        )
    }

    pub(crate) fn longest_gap(&self, from: Instant) -> Duration {
        self.book().gaps.longest(from, Instant::now())
    }

    /// Lets every operation under way end; what was told stands in the book.
    pub(crate) async fn stop(self) -> Book {
        self.tasks.stop();
        let longest = self.plan.deadline + Duration::from_secs(5);
        assert!(self.tasks.drain(longest).await, "a call outlived its deadline");
        let book = std::mem::take(&mut *self.book.lock().unwrap());
        super::say(&book.summary());
        book
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

struct Worker {
    number: usize,
    client: KvClient,
    plan: Plan,
    tasks: Tasks,
    book: Arc<Mutex<Book>>,
}

impl Worker {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    async fn put(self) {
        for n in 0_u32.. {
            let key = format!("load/w{}/{n:06}", self.number);
            self.book().puts.insert(key.clone(), Fate::Open);
            let result = self.client.put(&key, Book::value_of(&key)).await;
            let fate = self.fate(result.map(|put| put.revision));
            self.book().puts.insert(key, fate);
            if !self.goes_on().await {
                return;
            }
        }
    }

    async fn add(self) {
        for n in 0_usize.. {
            let counter = format!("load/counter/{}", (self.number + n) % self.plan.counters);
            let key = format!("add-{}-{n}", self.number);
            let addition = Addition {
                counter: counter.clone(),
                fate: Fate::Open,
            };
            self.book().additions.insert(key.clone(), addition);
            let client = self.client.with_idempotency_key(&key).unwrap();
            let result = client.add(&counter, 1, None, None).await;
            let fate = self.fate(result.map(|sum| sum.expect("an addition without bounds is not refused")));
            self.book().additions.insert(key, Addition { counter, fate });
            if !self.goes_on().await {
                return;
            }
        }
    }

    fn fate<T>(&self, result: Result<T, Error>) -> Fate<T> {
        let mut book = self.book();
        match result {
            Ok(told) => {
                book.gaps.success();
                Fate::Done(told)
            }
            Err(error) => {
                let words = format!("{error}: {}", error.code());
                *book.errors.entry(words).or_default() += 1;
                match error {
                    Error::Unavailable { .. } => Fate::Denied,
                    Error::Unknown { .. } => Fate::Open,
                    other => panic!("no fault of a node may be answered like this: {other:?}"),
                }
            }
        }
    }

    async fn goes_on(&self) -> bool {
        tokio::select! {
            () = tokio::time::sleep(self.plan.pause) => true,
            () = self.tasks.stopping() => false,
        }
    }
}
