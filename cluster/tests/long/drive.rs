//! The load generator of the comparison, given orders of a test's own.
//! Invariant: it is a process of its own, so that what it takes is not taken from those who judge.

use serde_json::{Value, json};

use crate::ALL;
use crate::harness::Cluster;
use crate::load::{addresses_of, say};

const VALUE_BYTES: u64 = 256;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Puts,
    /// Every key once.
    Fill,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) work: Work,
    pub(crate) clients: u32,
    pub(crate) seconds: u64,
    /// Calls a second, by all together, each at its time; without one, each client waits for its answer.
    pub(crate) rate: Option<u64>,
    pub(crate) keys: u32,
}

impl Order {
    /// Every key below `keys`, once, as fast as it goes.
    pub(crate) const fn fill(keys: u32) -> Self {
        Self {
            work: Work::Fill,
            clients: 16,
            seconds: 1,
            rate: None,
            keys,
        }
    }

    /// Puts of 64 clients among so many keys, each as soon as the last is answered.
    pub(crate) const fn puts(seconds: u64, keys: u32) -> Self {
        Self {
            work: Work::Puts,
            clients: 64,
            seconds,
            rate: None,
            keys,
        }
    }

    pub(crate) async fn drive(&self, cluster: &Cluster) -> Value {
        let work = match self.work {
            Work::Puts => json!({"put": {"bytes": VALUE_BYTES}}),
            Work::Fill => json!({"fill": {"bytes": VALUE_BYTES}}),
        };
        let order = json!({
            "target": {"store": {"endpoints": addresses_of(cluster, &ALL), "token": cluster.token("root")}},
            "work": work,
            "clients": self.clients,
            "seconds": self.seconds,
            "rate": self.rate,
            "keys": self.keys,
            "seed": 1,
        });
        let order = order.to_string();
        let ran = cluster
            .run_with_input(&["bench", "drive"], order.as_bytes())
            .await;
        let seen = ran.json();
        say(&format!("{self:?}: {seen}"));
        seen
    }
}

/// How much was acknowledged.
pub(crate) fn done(seen: &Value) -> u64 {
    seen["figures"]["operations"].as_u64().unwrap()
}
