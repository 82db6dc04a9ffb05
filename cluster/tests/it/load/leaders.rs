//! Who says that it leads, and in which term, seen from outside at short intervals.
//! Invariant: two nodes that ever claimed the same term are found, also when they claimed it at different times,
//! and so is a node that says it leads after another was seen to lead in a higher term.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kvstore_client::wire::cluster::{NodeStatus, Role};
use service::tasks::Tasks;

use crate::harness::Cluster;

/// A node said, between these moments, that it led in this term.
#[derive(Clone, Copy, Debug)]
struct Claim {
    term: u64,
    id: u64,
    asked: Instant,
    told: Instant,
}

pub(crate) struct Leaders {
    tasks: Tasks,
    claims: Arc<Mutex<Vec<Claim>>>,
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
                    let asked = Instant::now();
                    if let Some(status) = ask(&request).await
                        && status.role == Role::Leader
                    {
                        let told = Instant::now();
                        let (term, id) = (status.term, status.id);
                        claims.lock().unwrap().push(Claim {
                            term,
                            id,
                            asked,
                            told,
                        });
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
        leaders
    }

    /// The terms in which somebody led; fails if two did in one, or if one did not know that its time was over.
    pub(crate) async fn stop(self) -> Vec<u64> {
        self.tasks.stop();
        assert!(self.tasks.drain(Duration::from_secs(5)).await);
        let claims = self.claims.lock().unwrap();
        let mut terms: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for claim in claims.iter() {
            terms.entry(claim.term).or_default().insert(claim.id);
        }
        for (term, ids) in &terms {
            assert_eq!(
                ids.len(),
                1,
                "several nodes say that they led in term {term}: {ids:?}"
            );
        }
        let mut by_end = claims.clone();
        by_end.sort_by_key(|claim| claim.told);
        let mut by_begin = claims.clone();
        by_begin.sort_by_key(|claim| claim.asked);
        let mut ended = by_end.iter().peekable();
        let mut newest: Option<&Claim> = None;
        for claim in &by_begin {
            while let Some(earlier) = ended.next_if(|earlier| earlier.told < claim.asked) {
                newest = newest
                    .filter(|newest| newest.term >= earlier.term)
                    .or(Some(earlier));
            }
            let stale = newest.filter(|newest| newest.term > claim.term);
            assert!(
                stale.is_none(),
                "two leaders were visible: {claim:?} after {stale:?}"
            );
        }
        terms.keys().copied().collect()
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
