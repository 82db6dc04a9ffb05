//! Backups of what this node has applied, one at a time: each holds the space of everything it is of.

use std::path::Path;
use std::sync::Arc;

use service::tasks::Tasks;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinError;

use super::Store;
use crate::backup::{Head, Source, mark_of, write_while};

/// As long as it lives, no other backup is made here.
pub type Turn = OwnedSemaphorePermit;

impl Store {
    /// `None` when one is being made.
    pub fn backup_turn(&self) -> Option<Turn> {
        Arc::clone(&self.inner.backups).try_acquire_owned().ok()
    }

    /// Everything that this node has applied by now.
    pub async fn backup(&self, turn: Turn) -> anyhow::Result<(Source, Turn)> {
        let (machine, folder) = (Arc::clone(self.machine()), self.inner.folder.clone());
        let make = move || Source::of(&machine, &folder);
        let (source, turn) = in_turn(&self.inner.tasks, turn, make).await?;
        Ok((source?, turn))
    }

    /// The same, into a file, for as long as `go_on` has nothing against it: it is told how many bytes of how many are
    /// done, first that none are.
    pub async fn backup_to(
        &self,
        turn: Turn,
        path: &Path,
        mut go_on: impl FnMut(u64, u64) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Head> {
        let (source, turn) = self.backup(turn).await?;
        let (path, mark) = (path.to_owned(), mark_of(self.name()));
        let write = move || write_while(source, &path, &mark, &mut go_on);
        let (head, _turn) = in_turn(&self.inner.tasks, turn, write).await?;
        head
    }
}

/// The work keeps the turn. It goes on when its caller has left, who may ask again at once: then a second backup would
/// come on top of it.
async fn in_turn<T, F>(tasks: &Tasks, turn: Turn, work: F) -> Result<(T, Turn), JoinError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    tasks.spawn_blocking("backup", move || (work(), turn)).await
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn who_leaves_lets_nobody_in_before_the_work_is_done() {
        let (tasks, turns) = (Tasks::new(), Arc::new(Semaphore::new(1)));
        let turn = Arc::clone(&turns).try_acquire_owned().unwrap();
        let (end, ended) = mpsc::channel::<()>();
        let waiting = in_turn(&tasks, turn, move || ended.recv().is_ok());
        assert!(waiting.now_or_never().is_none());
        assert!(turns.try_acquire().is_err(), "the work goes on");
        drop(end);
        let next = tokio::time::timeout(Duration::from_secs(20), turns.acquire()).await;
        assert!(next.is_ok(), "the work is done");
    }
}
