//! Keeps the roster as the store has it, and asks those that failed whether they are ready again.
//! Invariant: while the store cannot be asked the last list stays, marked stale.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kvstore_client::{KvClient, Registration};
use service::tasks::Tasks;

use crate::roster::Roster;

const REGISTRY: &str = "registry/";
/// One cheap read; who dies is left out before that by those who are refused.
const EVERY: Duration = Duration::from_millis(200);
const DEADLINE: Duration = Duration::from_secs(1);
const PROBE_DEADLINE: Duration = Duration::from_millis(500);

pub(crate) async fn follow(client: KvClient, roster: Arc<Roster>, stop: Tasks) {
    let client = client.with_deadline(DEADLINE);
    loop {
        tokio::select! {
            () = look(&client, &roster) => {}
            () = stop.stopping() => return,
        }
        if tokio::time::timeout(EVERY, stop.stopping()).await.is_ok() {
            return;
        }
    }
}

async fn look(client: &KvClient, roster: &Roster) {
    match client.scan(REGISTRY).await {
        Ok(scan) => {
            let values = scan.kvs.iter();
            roster.replace(values.filter_map(|kv| read(&kv.key, &kv.bytes())).collect());
        }
        Err(error) => {
            if !roster.set_stale() {
                tracing::warn!(%error, "the registry cannot be read; the last list is used on");
            }
        }
    }
}

/// What does not read as a registration was not made by one of ours, and must not stop the others.
fn read(key: &str, value: &[u8]) -> Option<Registration> {
    let read: Result<Registration, _> = serde_json::from_slice(value);
    let registration = read
        .inspect_err(|error| tracing::debug!(key, %error, "an entry of the registry cannot be read"))
        .ok()?;
    (registration.key() == key).then_some(registration)
}

pub(crate) async fn probe(http: reqwest::Client, roster: Arc<Roster>, stop: Tasks) {
    loop {
        if tokio::time::timeout(EVERY, stop.stopping()).await.is_ok() {
            return;
        }
        let probes = roster.failed().into_iter().map(|instance| {
            let (http, roster) = (http.clone(), Arc::clone(&roster));
            async move {
                let url = format!("{}/readyz", service::http::base(&instance.address));
                let answer = http.get(url).timeout(PROBE_DEADLINE).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    roster.take_back(&instance);
                }
            }
        });
        join_all(probes).await;
    }
}
