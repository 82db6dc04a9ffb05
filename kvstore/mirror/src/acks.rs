//! Tells the store how far this mirror is: it waits for that before it acknowledges a write to its client.
//! Invariant: what is told is on the disk, and is of the cluster that is told. A mirror that cannot write falls silent,
//! so that the store does what its mode says of a mirror that is lost.

use std::sync::Arc;
use std::time::Duration;

use kvstore_client::wire::mirror::{MirrorAck, MirrorRequest};
use kvstore_client::{Error, KvClient};
use service::config::{MirrorConfig, MirrorMode};
use service::tasks::Tasks;

use crate::progress::{Applied, Progress};

/// A sign of life at least so often; the store waits a second for one.
const SIGN_OF_LIFE: Duration = Duration::from_millis(200);
/// Of one for which nobody waits.
const SIGN_OF_LIFE_ASYNC: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_millis(900);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Acks {
    pub(crate) client: KvClient,
    pub(crate) config: MirrorConfig,
    pub(crate) progress: Arc<Progress>,
    pub(crate) tasks: Tasks,
}

/// What is announced: a database, to the cluster that it is a copy of. No other cluster may take it for its own.
#[derive(Clone, PartialEq, Eq)]
struct Announced {
    cluster: String,
    incarnation: String,
}

impl Announced {
    fn of(applied: &Applied) -> Option<Self> {
        Some(Self {
            cluster: applied.cluster.clone()?,
            incarnation: applied.incarnation.clone(),
        })
    }
}

impl Acks {
    pub(crate) async fn run(self) {
        let tasks = self.tasks.clone();
        tokio::select! {
            () = self.tell() => {}
            () = tasks.stopping() => {}
        }
    }

    async fn tell(&self) {
        let client = self.client.with_deadline(DEADLINE);
        let mut announced = None;
        let mut progress = self.progress.subscribe();
        loop {
            let applied = progress.borrow_and_update().clone();
            let trouble = applied.trouble.is_some();
            let (copy, revision) = (Announced::of(&applied), applied.revision);
            if announced != copy {
                // What another database was told, or of it, says nothing about this one.
                announced = None;
                self.progress.set_word(None);
                if let Some(copy) = &copy {
                    match self.announce(&client, &copy.incarnation).await {
                        Ok(()) => announced = Some(copy.clone()),
                        Err(error) => tracing::debug!(%error, "the store does not know of this mirror yet"),
                    }
                }
            }
            if let Some(copy) = &announced
                && !trouble
                && !self.tell_of(&client, copy, revision).await
            {
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
            // An asynchronous mirror need not hurry: nobody waits for it.
            if self.config.mode == MirrorMode::Async {
                tokio::time::sleep(SIGN_OF_LIFE_ASYNC).await;
            } else {
                tokio::time::timeout(SIGN_OF_LIFE, progress.changed()).await.ok();
            }
        }
    }

    /// Answers whether the store has answered.
    async fn tell_of(&self, client: &KvClient, copy: &Announced, revision: u64) -> bool {
        let ack = MirrorAck {
            revision,
            incarnation: copy.incarnation.clone(),
        };
        match client.mirror_ack(&self.config.name, &ack).await {
            Ok(status) => {
                self.progress.set_word(Some(status.state));
                true
            }
            // Also where it may have arrived: nobody has refused it.
            Err(Error::Unavailable { source } | Error::Unknown { source, .. }) => {
                tracing::debug!(error = %source, "the store cannot be told how far this mirror is");
                self.progress.set_word(None);
                false
            }
            Err(error) => {
                // Taken out by an operator, or announced by another copy under the same name. That this is another
                // cluster, which does not know of it, is found out by who follows, and then it is announced there.
                tracing::debug!(%error, "the store does not take this mirror's word");
                self.progress.set_word(Some("unannounced".to_owned()));
                tokio::time::sleep(SIGN_OF_LIFE).await;
                true
            }
        }
    }

    async fn announce(&self, client: &KvClient, incarnation: &str) -> kvstore_client::Result<()> {
        let request = MirrorRequest {
            mode: self.config.mode.word().to_owned(),
            on_loss: self.config.on_loss.word().to_owned(),
            incarnation: incarnation.to_owned(),
        };
        client.mirror_put(&self.config.name, &request).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use service::config::{MirrorEngine, OnLoss};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// A store that takes every word and is gone before it answers.
    async fn swallowing(tasks: &Tasks) -> KvClient {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = tasks.clone();
        tasks.spawn("store", async move {
            loop {
                let (mut socket, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    () = stop.stopping() => return,
                };
                socket.read_buf(&mut Vec::<u8>::with_capacity(4096)).await.ok();
            }
        });
        let builder = KvClient::builder([address]).tasks(tasks.clone());
        builder.deadline(Duration::from_millis(300)).build().unwrap()
    }

    #[tokio::test]
    async fn a_word_without_an_answer_is_no_refusal() {
        let tasks = Tasks::new();
        let copy = Announced {
            cluster: "cluster".to_owned(),
            incarnation: "copy".to_owned(),
        };
        let acks = Acks {
            client: swallowing(&tasks).await,
            config: MirrorConfig {
                name: "mirror-one".to_owned(),
                address: "127.0.0.1:0".to_owned(),
                engine: MirrorEngine::Sqlite,
                mode: MirrorMode::Sync,
                on_loss: OnLoss::Degrade,
                interval_ms: 20,
            },
            progress: Arc::new(Progress::new(5, copy.incarnation.clone())),
            tasks: tasks.clone(),
        };
        acks.progress.set_word(Some("ok".to_owned()));
        let answered = acks.tell_of(&acks.client, &copy, 5).await;
        assert_eq!((answered, acks.progress.word()), (false, None));
        tasks.stop();
    }
}
