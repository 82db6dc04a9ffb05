//! Stores for tests: one that has nothing and goes as soon as that was read, and one that only grants leases.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, StatusCode};
use axum::{Json, Router};
use kvstore_client::KvClient;
use serde_json::json;
use service::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::shop::Catalogue;
use crate::store::Keys;

pub(crate) async fn empty_catalogue(keys: &Keys) -> (KvClient, Catalogue) {
    let nothing = async || Json(json!({"revision": 1, "kvs": [], "count": 0, "more": false}));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let client = KvClient::builder([address]).build().expect("it is an address");
    let serving = axum::serve(listener, Router::new().fallback(nothing));
    let catalogue = tokio::select! {
        ended = serving => panic!("the store is gone: {ended:?}"),
        catalogue = Catalogue::open(&client, keys) => catalogue.expect("it has nothing"),
    };
    (client, catalogue)
}

/// Grants a lease once it is open, a new one for each idempotency key: the first is number 1.
pub(crate) struct Granting {
    pub(crate) client: KvClient,
    pub(crate) tasks: Tasks,
    gate: Arc<Semaphore>,
    refusing: Arc<AtomicBool>,
    keys: Arc<Mutex<HashSet<Vec<u8>>>>,
}

impl Granting {
    pub(crate) async fn start() -> Self {
        let gate = Arc::new(Semaphore::new(0));
        let keys = Arc::<Mutex<HashSet<Vec<u8>>>>::default();
        let refusing = Arc::<AtomicBool>::default();
        let (opens, refuses, known) = (gate.clone(), refusing.clone(), keys.clone());
        let grant = move |headers: HeaderMap| {
            let (opens, refuses, known) = (opens.clone(), refuses.clone(), known.clone());
            async move {
                drop(opens.acquire().await);
                if refuses.swap(false, Ordering::Relaxed) {
                    let refusal = json!({"status": 409, "code": "too-many-leases"});
                    return (StatusCode::CONFLICT, Json(refusal));
                }
                let mut known = known.lock().expect("nobody panics with it");
                known.insert(headers["idempotency-key"].as_bytes().to_vec());
                (
                    StatusCode::CREATED,
                    Json(json!({"id": known.len(), "ttl_ms": 1000})),
                )
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let tasks = Tasks::new();
        let serving = axum::serve(listener, Router::new().fallback(grant));
        let _serving = tasks.spawn("store", serving.into_future());
        Self {
            client: KvClient::builder([address]).build().expect("it is an address"),
            tasks,
            gate,
            refusing,
            keys,
        }
    }

    pub(crate) fn open(&self) {
        self.gate.add_permits(1);
    }

    /// Of those who ask, one gets none.
    pub(crate) fn refuse_next(&self) {
        self.refusing.store(true, Ordering::Relaxed);
    }

    /// How many leases were granted.
    pub(crate) fn granted(&self) -> usize {
        self.keys.lock().expect("nobody panics with it").len()
    }
}
