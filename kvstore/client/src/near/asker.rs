//! The store's newest revision for many at once.
//! Invariant: a request answers only those who asked before it was sent; whoever comes later gets the next one.

use crate::client::KvClient;
use crate::wire::Revision;
use service::tasks::Tasks;
use tokio::sync::{mpsc, oneshot};

/// When so many wait already, further ones wait for a place.
const WAITING_MAX: usize = 4096;

pub(super) struct Asker {
    waiting: mpsc::Sender<oneshot::Sender<Option<Revision>>>,
}

impl Asker {
    pub(super) fn start(client: &KvClient, tasks: &Tasks) -> Self {
        let (waiting, asked) = mpsc::channel(WAITING_MAX);
        let (client, stop) = (client.clone(), tasks.clone());
        tasks.spawn("near cache revisions", async move {
            tokio::select! {
                () = answer_all(&client, asked) => {}
                () = stop.stopping() => {}
            }
        });
        Self { waiting }
    }

    /// A revision at least as new as every write acknowledged before; `None` when the store does not answer.
    pub(super) async fn ask(&self) -> Option<Revision> {
        let (answer, answered) = oneshot::channel();
        self.waiting.send(answer).await.ok()?;
        answered.await.ok()?
    }
}

async fn answer_all(client: &KvClient, mut asked: mpsc::Receiver<oneshot::Sender<Option<Revision>>>) {
    let mut group = Vec::new();
    while asked.recv_many(&mut group, WAITING_MAX).await > 0 {
        let revision = match client.revision().await {
            Ok(revision) => Some(revision),
            Err(error) => {
                tracing::debug!(%error, "near cache could not learn the newest revision");
                None
            }
        };
        for waiting in group.drain(..) {
            if waiting.send(revision).is_err() {
                tracing::trace!("a reader went before its answer came");
            }
        }
    }
}
