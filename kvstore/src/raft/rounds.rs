//! One answer for all who ask at about the same time.
//!
//! What it costs to find does not depend on how many wait for it, so while some rounds are under way the next one
//! fills. There is no timer, and where few ask nobody waits for the others. Invariant: the answer of a round is sought
//! after all who get it have asked, since what a read must see may have been written just before.
//! It must not know what is asked.

use std::sync::Arc;
use std::time::Duration;

use service::tasks::Tasks;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::under_way::{Going, UnderWay};

/// Rounds under way. Another one begins only when as many wait for it as waited for the last.
const UNDER_WAY_MAX: usize = 3;
/// A round that has no answer by then holds up no other: whoever is asked may be gone. Most need far less.
pub const HOLD: Duration = Duration::from_millis(10);
/// Askers of one round, and as many wait for the one after it; more are not taken on.
const ASKERS_MAX: usize = 16_384;
/// Times that others may run, and the queue is looked into again, before a round begins beside others. Where these are
/// small, so is what could still come.
const YIELDS_MAX: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRound {
    /// Too many wait already, or the node takes nothing on any more.
    NotTakenOn,
    /// The node stops.
    Stopping,
}

type Asker<A> = oneshot::Sender<A>;

pub struct Rounds<A> {
    queue: mpsc::Sender<Asker<A>>,
    under_way: Arc<UnderWay>,
}

struct Gatherer<A> {
    name: &'static str,
    tasks: Tasks,
    queue: mpsc::Receiver<Asker<A>>,
    under_way: Arc<UnderWay>,
    /// For all rounds that have no answer yet.
    room: Arc<Semaphore>,
    /// How many waited for the round that began last.
    last: usize,
}

impl<A: Copy + Send + 'static> Rounds<A> {
    /// What `seek` makes finds the answer of one round. While it keeps what it was given, it holds up the next ones. No
    /// more than `seeking_max` are sought at the same time, also of those that hold up nothing any more.
    pub fn start<Seeking>(
        name: &'static str,
        tasks: &Tasks,
        seeking_max: usize,
        seek: impl Fn(Going) -> Seeking + Send + 'static,
    ) -> Self
    where
        Seeking: Future<Output = A> + Send + 'static,
    {
        let (sender, queue) = mpsc::channel(ASKERS_MAX);
        let under_way = Arc::new(UnderWay::default());
        let gatherer = Gatherer {
            name,
            tasks: tasks.clone(),
            queue,
            under_way: Arc::clone(&under_way),
            room: Arc::new(Semaphore::new(seeking_max)),
            last: 0,
        };
        tasks.spawn(name, gatherer.run(seek));
        Self {
            queue: sender,
            under_way,
        }
    }

    /// What the next round finds.
    pub async fn ask(&self) -> Result<A, NoRound> {
        let (asker, answered) = oneshot::channel();
        self.queue.try_send(asker).map_err(|_asker| NoRound::NotTakenOn)?;
        answered.await.map_err(|_dropped| NoRound::Stopping)
    }

    /// The right to a round of one's own, which others then wait for as for any: for whoever is alone.
    pub fn alone(&self) -> Option<Going> {
        Going::begin_alone(&self.under_way)
    }
}

impl<A: Copy + Send + 'static> Gatherer<A> {
    async fn run<Seeking>(mut self, seek: impl Fn(Going) -> Seeking + Send)
    where
        Seeking: Future<Output = A> + Send + 'static,
    {
        while let Some((askers, going, place)) = self.next_round().await {
            self.last = askers.len();
            let seeking = seek(going);
            self.tasks.spawn(self.name, async move {
                let answer = seeking.await;
                drop(place);
                for asker in askers {
                    // Who has left meanwhile needs no answer.
                    asker.send(answer).ok();
                }
            });
        }
    }

    /// Who waits for the next round, once it may begin; `None` when the node stops.
    async fn next_round(&mut self) -> Option<(Vec<Asker<A>>, Going, OwnedSemaphorePermit)> {
        let first = tokio::select! {
            first = self.queue.recv() => first,
            () = self.tasks.stopping() => None,
        };
        let mut askers = vec![first?];
        // From now on nobody is alone, and so nobody overtakes those who wait.
        let going = Going::begin(&self.under_way);
        let yields = if self.others() == 0 {
            1
        } else {
            self.last.clamp(1, YIELDS_MAX)
        };
        while !self.may_begin(askers.len()) {
            let asker = tokio::select! {
                asker = self.queue.recv(), if askers.len() < ASKERS_MAX => Some(asker?),
                () = self.under_way.fewer() => None,
                () = self.tasks.stopping() => return None,
            };
            askers.extend(asker);
        }
        let place = tokio::select! {
            place = Arc::clone(&self.room).acquire_owned() => place.ok(),
            () = self.tasks.stopping() => None,
        };
        let place = place?;
        for _ in 0..yields {
            tokio::task::yield_now().await;
            while askers.len() < ASKERS_MAX
                && let Ok(asker) = self.queue.try_recv()
            {
                askers.push(asker);
            }
        }
        Some((askers, going, place))
    }

    /// Rounds under way beside the one that is gathered for.
    fn others(&self) -> usize {
        self.under_way.count().saturating_sub(1)
    }

    fn may_begin(&self, askers: usize) -> bool {
        let others = self.others();
        others == 0 || (others < UNDER_WAY_MAX && askers >= self.last)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);
    /// One more than those that hold up others.
    const ROOM: usize = UNDER_WAY_MAX + 1;

    async fn until(what: &str, is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                yield_now().await;
            }
        };
        let waited = timeout(DEADLINE, waiting).await;
        assert!(waited.is_ok(), "waited in vain until {what}");
    }

    #[tokio::test]
    async fn an_answer_is_sought_after_all_who_get_it_have_asked() {
        const ASKERS: usize = 2000;
        let tasks = Tasks::new();
        let (asked, begun) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seen, counted) = (Arc::clone(&asked), Arc::clone(&begun));
        let rounds = Rounds::start("round", &tasks, ROOM, move |going| {
            counted.fetch_add(1, Ordering::SeqCst);
            let found = seen.load(Ordering::SeqCst);
            async move {
                // Meanwhile others ask.
                for _ in 0..3 {
                    yield_now().await;
                }
                drop(going);
                found
            }
        });
        let rounds = Arc::new(rounds);
        let askers: Vec<_> = (0..ASKERS)
            .map(|number| {
                let (rounds, asked) = (Arc::clone(&rounds), Arc::clone(&asked));
                tasks.spawn("asker", async move {
                    for _ in 0..number % 7 {
                        yield_now().await;
                    }
                    let before = asked.fetch_add(1, Ordering::SeqCst);
                    let found = rounds.ask().await.unwrap();
                    assert!(
                        found > before,
                        "asked as number {before}, told what {found} asked for"
                    );
                })
            })
            .collect();
        for asker in askers {
            timeout(DEADLINE, asker).await.unwrap().unwrap();
        }
        let begun = begun.load(Ordering::SeqCst);
        assert!(begun < ASKERS / 4, "{begun} rounds");
    }

    #[tokio::test]
    async fn rounds_that_never_end_hold_up_the_next_for_a_moment_only() {
        let (tasks, begun) = (Tasks::new(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&begun);
        let rounds = Rounds::start("round", &tasks, ROOM, move |going| {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                let mut seeking = std::pin::pin!(async {
                    if number < UNDER_WAY_MAX {
                        std::future::pending::<()>().await;
                    }
                });
                if going.hold_up(HOLD, &mut seeking).await.is_none() {
                    seeking.await;
                }
                number
            }
        });
        let rounds = Arc::new(rounds);
        for stuck in 1..=UNDER_WAY_MAX {
            let asking = Arc::clone(&rounds);
            tasks.spawn("asker", async move { asking.ask().await });
            until("a round has begun", || begun.load(Ordering::SeqCst) == stuck).await;
        }
        let told = timeout(DEADLINE, rounds.ask()).await;
        assert_eq!(told.expect("the stuck ones hold it up"), Ok(UNDER_WAY_MAX));
    }

    #[tokio::test]
    async fn who_is_alone_holds_up_others_until_done_or_gone() {
        let tasks = Tasks::new();
        let rounds = Rounds::start("round", &tasks, ROOM, |going| async move { drop(going) });
        let mine = rounds.alone().expect("nobody else is there");
        assert!(rounds.alone().is_none());
        drop(mine);
        assert!(rounds.alone().is_some());
        assert_eq!(timeout(DEADLINE, rounds.ask()).await.unwrap(), Ok(()));
        until("nobody is there any more", || rounds.alone().is_some()).await;
        tasks.stop();
        assert!(tasks.drain(DEADLINE).await);
        assert_eq!(rounds.ask().await, Err(NoRound::NotTakenOn));
    }
}
