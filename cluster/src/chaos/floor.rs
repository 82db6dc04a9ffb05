//! Gives up history behind the watchers all the time, so that whatever breaks meets that too: walks and their pins,
//! watches that go on, snapshots, restarts, and the collector.
//! Invariant: nothing is given up that a watcher of the run has yet to see, so that none of them may ever be told that
//! what comes next is gone, however long its node was away; what they have seen is all that ever happened.

use std::sync::Arc;
use std::time::Duration;

use kvstore_client::KvClient;
use service::tasks::Tasks;

use super::auditor::Auditor;
use super::book::Book;
use super::served::SERVED;
use super::watchers::Watcher;

/// So many revisions stay readable, or more, where a watcher is behind.
const KEPT: u64 = 100;
const EVERY: Duration = Duration::from_millis(200);
/// How it is called among those who are to be served.
const WHO: &str = "giving up of history";

/// Up to where history was given up. What comes before that is refused.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Floors {
    /// The most that was ever asked for: from there on nothing may be gone.
    pub(super) asked: u64,
    /// The most that was ever answered: before that nothing may be there.
    pub(super) reached: u64,
}

impl Floors {
    /// To be called before it is asked for, since what nobody was told may have happened all the same.
    fn ask(&mut self, floor: u64) {
        self.asked = self.asked.max(floor);
    }

    /// Takes in the answer, and tells what cannot be.
    fn hear(&mut self, floor: u64, reached: u64) -> Option<String> {
        self.reached = self.reached.max(reached);
        if reached < floor {
            return Some(format!(
                "history was to be given up to revision {floor}, and the answer was {reached}"
            ));
        }
        (reached > self.asked).then(|| {
            format!(
                "history was given up to revision {reached}, and nobody has asked for more than {}",
                self.asked
            )
        })
    }
}

/// Up to where history may go at this revision, when the watchers have seen that much.
fn floor(present: u64, seen: impl Iterator<Item = u64>) -> u64 {
    let seen = seen.min().unwrap_or(0);
    present.saturating_sub(KEPT).min(seen).max(1)
}

struct Compactor {
    client: KvClient,
    watchers: Vec<Watcher>,
    auditor: Auditor,
    book: Arc<Book>,
    tasks: Tasks,
}

pub(super) fn start(
    client: &KvClient,
    (watchers, auditor): (&[Watcher], &Auditor),
    tasks: &Tasks,
    book: &Arc<Book>,
) {
    book.expects(WHO, SERVED);
    let compactor = Compactor {
        client: client.clone(),
        watchers: watchers.to_vec(),
        auditor: auditor.clone(),
        book: Arc::clone(book),
        tasks: tasks.clone(),
    };
    tasks.spawn("chaos compactor", compactor.run());
}

impl Compactor {
    async fn run(self) {
        while !self.tasks.is_stopping() {
            match self.give_up().await {
                Ok(()) => {
                    self.book.success();
                    self.book.served(WHO);
                    self.book.count("compactions");
                }
                Err(error) => {
                    self.book.failed(&error, "compactions that failed");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.tasks.stopping() => return,
            }
        }
    }

    async fn give_up(&self) -> kvstore_client::Result<()> {
        let start = self.book.now();
        let present = self.client.revision().await?;
        self.book.told("/v1/revision", start, present);
        let seen = self.watchers.iter().map(Watcher::position);
        let floor = floor(present, seen.chain([self.auditor.position()]));
        self.book.pages().floors.ask(floor);
        let reached = self.client.compact(floor).await?;
        let fault = self.book.pages().floors.hear(floor, reached);
        if let Some(fault) = fault {
            self.book.violation(fault);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_given_up_that_a_watcher_has_yet_to_see() {
        let at = |present, seen: &[u64]| floor(present, seen.iter().copied());
        assert_eq!(at(1000, &[1000, 990]), 1000 - KEPT);
        assert_eq!(at(1000, &[1000, 300]), 300);
        assert_eq!(at(1000, &[1000, 0]), 1, "it has seen nothing");
        assert_eq!(at(1000, &[]), 1, "nobody has seen anything");
        assert_eq!(at(KEPT, &[KEPT]), 1);
    }

    #[test]
    fn history_goes_as_far_as_was_asked_and_no_further() {
        let mut floors = Floors::default();
        floors.ask(20);
        floors.ask(10);
        assert_eq!(floors.hear(10, 10), None);
        // What was asked for before may have come to pass meanwhile.
        assert_eq!(floors.hear(10, 20), None);
        assert_eq!((floors.asked, floors.reached), (20, 20));
        let less = floors.hear(20, 19).unwrap();
        assert!(less.contains("the answer was 19"), "{less}");
        let more = floors.hear(20, 21).unwrap();
        assert!(more.contains("more than 20"), "{more}");
    }
}
