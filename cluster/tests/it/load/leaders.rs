//! Who says that it leads, and in which term, seen from outside at short intervals.
//! Invariant: two nodes that ever claimed the same term are found, also when they claimed it at different times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvstore_client::wire::cluster::{NodeStatus, Role};
use service::tasks::Tasks;

use crate::harness::Cluster;

type Claims = BTreeMap<u64, BTreeSet<u64>>;

pub(crate) struct Leaders {
    tasks: Tasks,
    claims: Arc<Mutex<Claims>>,
}

impl Leaders {
    pub(crate) fn watch(cluster: &Cluster) -> Self {
        let leaders = Self {
            tasks: Tasks::new(),
            claims: Arc::default(),
        };
        for node in &cluster.config.nodes {
            let request = cluster
                .request("GET", &node.name(), "/v1/status")
                .timeout(Duration::from_secs(1));
            let (tasks, claims) = (leaders.tasks.clone(), Arc::clone(&leaders.claims));
            leaders.tasks.spawn("leaders", async move {
                while !tasks.is_stopping() {
                    if let Some(status) = ask(&request).await
                        && status.role == Role::Leader
                    {
                        claims
                            .lock()
                            .unwrap()
                            .entry(status.term)
                            .or_default()
                            .insert(status.id);
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
        leaders
    }

    /// The terms in which somebody led; fails if two did in one.
    pub(crate) async fn stop(self) -> Vec<u64> {
        self.tasks.stop();
        assert!(self.tasks.drain(Duration::from_secs(5)).await);
        let claims = self.claims.lock().unwrap();
        for (term, ids) in claims.iter() {
            assert_eq!(
                ids.len(),
                1,
                "several nodes say that they led in term {term}: {ids:?}"
            );
        }
        claims.keys().copied().collect()
    }
}

impl Drop for Leaders {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn ask(request: &reqwest::RequestBuilder) -> Option<NodeStatus> {
    let answer = request.try_clone()?.send().await.ok()?;
    answer.json().await.ok()
}
