//! Keeps the roster as the store has it, and asks those that failed whether they are ready again.
//! Invariant: while the store cannot be asked the last list stays, marked stale.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kvstore_client::wire::Revision;
use kvstore_client::{Error, KvClient, Registration, WatchRequest};
use service::tasks::Tasks;
use tokio::time::timeout;

use crate::roster::Roster;

const REGISTRY: &str = "registry/";
/// Changes are told by a watch; this is how soon one finds out that the store cannot be asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const PROBE_EVERY: Duration = Duration::from_millis(200);
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const DEADLINE: Duration = Duration::from_secs(1);
const PROBE_DEADLINE: Duration = Duration::from_millis(500);

pub(crate) async fn follow(client: KvClient, roster: Arc<Roster>, stop: Tasks) {
    let client = client.with_deadline(DEADLINE);
    tokio::select! {
        () = keep_looking(&client, &roster) => {}
        () = stop.stopping() => {}
    }
}

async fn keep_looking(client: &KvClient, roster: &Roster) {
    loop {
        if let Some(seen) = look(client, roster).await {
            let changes = WatchRequest::prefix(REGISTRY.to_owned()).after(seen);
            if let Err(error) = look_at_changes(client, roster, changes).await {
                tracing::debug!(%error, "the registry cannot be watched");
            }
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Looks whenever something has changed, and every now and then, until the watch fails.
async fn look_at_changes(client: &KvClient, roster: &Roster, changes: WatchRequest) -> Result<(), Error> {
    let mut changes = client.watch(changes).await?;
    loop {
        if let Ok(changed) = timeout(LOOK_EVERY, changes.next_batch()).await {
            changed?;
        }
        look(client, roster).await;
    }
}

/// The revision that was seen, unless the store cannot be asked.
async fn look(client: &KvClient, roster: &Roster) -> Option<Revision> {
    match client.scan(REGISTRY).await {
        Ok(scan) => {
            let values = scan.kvs.iter();
            roster.replace(values.filter_map(|kv| read(&kv.key, &kv.bytes())).collect());
            Some(scan.revision)
        }
        Err(error) => {
            if !roster.set_stale() {
                tracing::warn!(%error, "the registry cannot be read; the last list is used on");
            }
            None
        }
    }
}

/// What does not read as a registration was not made by one of ours, and must not stop the others.
pub(crate) fn read(key: &str, value: &[u8]) -> Option<Registration> {
    let read: Result<Registration, _> = serde_json::from_slice(value);
    let registration = read
        .inspect_err(|error| tracing::debug!(key, %error, "an entry of the registry cannot be read"))
        .ok()?;
    (registration.key() == key).then_some(registration)
}

pub(crate) async fn probe(http: reqwest::Client, roster: Arc<Roster>, stop: Tasks) {
    loop {
        if timeout(PROBE_EVERY, stop.stopping()).await.is_ok() {
            return;
        }
        let probes = roster.failed().into_iter().map(|instance| {
            let (http, roster) = (http.clone(), Arc::clone(&roster));
            async move {
                if is_ready(&http, &instance).await {
                    roster.take_back(&instance);
                }
            }
        });
        join_all(probes).await;
    }
}

/// Whether an instance says that it can do its work.
pub(crate) async fn is_ready(http: &reqwest::Client, instance: &Registration) -> bool {
    let url = format!("{}/readyz", service::http::base(&instance.address));
    let answer = http.get(url).timeout(PROBE_DEADLINE).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}
