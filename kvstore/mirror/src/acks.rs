//! Tells the store how far this mirror is: it waits for that before it acknowledges a write to its client.
//! Invariant: what is told is on the disk. A mirror that cannot write falls silent, so that the store does what its
//! mode says of a mirror that is lost.

use std::sync::Arc;
use std::time::Duration;

use kvstore_client::wire::mirror::{MirrorAck, MirrorRequest};
use kvstore_client::{Error, KvClient};
use service::config::{MirrorConfig, MirrorMode};
use service::tasks::Tasks;

use crate::progress::Progress;

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
            let incarnation = applied.incarnation;
            if announced.as_ref() != Some(&incarnation) {
                match self.announce(&client, &incarnation).await {
                    Ok(()) => announced = Some(incarnation.clone()),
                    Err(error) => tracing::debug!(%error, "the store does not know of this mirror yet"),
                }
            }
            if announced.is_some() && applied.trouble.is_none() {
                let ack = MirrorAck {
                    revision: applied.revision,
                    incarnation,
                };
                match client.mirror_ack(&self.config.name, &ack).await {
                    Ok(status) => self.progress.set_word(Some(status.state)),
                    Err(Error::Unavailable { source }) => {
                        tracing::debug!(error = %source, "the store cannot be told how far this mirror is");
                        self.progress.set_word(None);
                        tokio::time::sleep(RETRY_PAUSE).await;
                        continue;
                    }
                    Err(error) => {
                        // Taken out by an operator, or announced by another copy under the same name.
                        tracing::debug!(%error, "the store does not take this mirror's word");
                        self.progress.set_word(Some("unannounced".to_owned()));
                        tokio::time::sleep(SIGN_OF_LIFE).await;
                    }
                }
            }
            // An asynchronous mirror need not hurry: nobody waits for it.
            if self.config.mode == MirrorMode::Async {
                tokio::time::sleep(SIGN_OF_LIFE_ASYNC).await;
            } else {
                tokio::time::timeout(SIGN_OF_LIFE, progress.changed()).await.ok();
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
