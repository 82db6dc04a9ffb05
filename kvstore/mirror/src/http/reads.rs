//! Reads of the copy, on threads that may block, and only a few at the same time.
//! Invariant: who gets no place in time is told so, and nothing is read for them: each read may hold a whole catalogue
//! in memory, and whoever asked may be gone before it ends. What takes but a moment does not wait behind those.

use std::sync::Arc;
use std::time::Duration;

use service::problem::{self, Problem, Result};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::copy::Reader;

/// With the look-ups, as many connections as the copy keeps for readers.
const READS_AT_ONCE: usize = 4;
const LOOK_UPS_AT_ONCE: usize = 2;
/// How long one more waits for a place among them.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Reads {
    reader: Arc<Reader>,
    places: Arc<Semaphore>,
    /// Of those who look up a key, or the few below a prefix.
    look_ups: Arc<Semaphore>,
    patience: Duration,
}

impl Reads {
    pub(super) fn of(reader: Arc<Reader>) -> Self {
        Self {
            reader,
            places: Arc::new(Semaphore::new(READS_AT_ONCE)),
            look_ups: Arc::new(Semaphore::new(LOOK_UPS_AT_ONCE)),
            patience: PATIENCE,
        }
    }

    /// What the copy says.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.read_in(&self.places, read).await
    }

    /// What stands at a key, or the few things below a prefix.
    pub(super) async fn look_up<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.read_in(&self.look_ups, read).await
    }

    async fn read_in<T: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        read: impl FnOnce(&Reader) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = timeout(self.patience, Arc::clone(places).acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(Problem::new(
                problem::OVERLOADED,
                "The copy is read by as many as it can be at the same time. Ask again shortly.",
            )
            .retry_after_ms(1000));
        };
        let reader = Arc::clone(&self.reader);
        let reading = tokio::task::spawn_blocking(move || {
            // Until the end, also where nobody waits for it any more.
            let _place = place;
            read(&reader)
        });
        let read = reading.await.map_err(anyhow::Error::from).flatten();
        read.map_err(|error| Problem::internal("read the copy", error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt as _;
    use service::config::{MirrorEngine, MirrorMode};

    use super::*;
    use crate::copy;

    #[tokio::test]
    async fn only_a_few_read_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let (_writer, reader) = copy::open(folder.path(), MirrorEngine::Json, MirrorMode::Async, 0).unwrap();
        let reads = Reads {
            patience: Duration::from_millis(20),
            ..Reads::of(Arc::new(reader))
        };
        let gates: Vec<mpsc::Sender<()>> = (0..READS_AT_ONCE)
            .map(|_| {
                let (gate, opened) = mpsc::channel();
                let begun = reads
                    .read(move |_reader| Ok(opened.recv().is_ok()))
                    .now_or_never();
                assert!(begun.is_none(), "it waits, and whoever asked hangs up");
                gate
            })
            .collect();
        let refused = reads.read(|_reader| Ok(())).await.unwrap_err();
        assert_eq!(refused.kind, problem::OVERLOADED);
        gates[0].send(()).unwrap();
        let patient = Reads {
            patience: Duration::from_secs(20),
            ..reads
        };
        patient.read(|_reader| Ok(())).await.unwrap();
    }
}
