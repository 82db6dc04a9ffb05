//! Telling others where a service is: a key under a lease, so that it is gone when the process is.
//! Invariant: as long as the task runs and the store can be reached, the registration is there; when it was
//! lost, because the store or this process stood still, it is made anew.

use crate::client::KvClient;
use crate::error::Result;
use crate::leases::LeaseHandle;
use serde::{Deserialize, Serialize};
use tokio::time::Duration;

const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What stands under `registry/SERVICE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// `payment`, `petstore` and so on.
    pub service: String,
    /// Of the process, such as `pay1`.
    pub name: String,
    /// `host:port` where it listens.
    pub address: String,
    pub version: String,
    pub started_ms: u64,
}

impl Registration {
    pub fn key(&self) -> String {
        format!("registry/{}/{}", self.service, self.name)
    }
}

impl KvClient {
    /// Keeps the registration until the client's tasks are told to stop, and then takes it back.
    pub async fn keep_registered(&self, registration: Registration, ttl: Duration) {
        let tasks = self.tasks().clone();
        loop {
            let lease = tokio::select! {
                lease = self.register(&registration, ttl) => lease,
                () = tasks.stopping() => return,
            };
            let stopping = match &lease {
                // Stopping ends the keep-alive too, so both may be ready: the order says which it is.
                Ok(lease) => tokio::select! {
                    biased;
                    () = tasks.stopping() => true,
                    () = lease.lost() => false,
                },
                Err(error) => {
                    tracing::debug!(%error, "not registered yet");
                    tokio::time::timeout(RETRY_PAUSE, tasks.stopping()).await.is_ok()
                }
            };
            if !stopping {
                continue;
            }
            // Nobody shall be sent here any more; should this fail, the lease runs out by itself.
            if let Ok(lease) = lease {
                let _gone = tokio::time::timeout(ttl, lease.release()).await;
            }
            return;
        }
    }

    async fn register(&self, registration: &Registration, ttl: Duration) -> Result<LeaseHandle> {
        let value = serde_json::to_vec(registration).map_err(crate::Error::json)?;
        self.put_kept(&registration.key(), value.into(), ttl).await
    }
}
