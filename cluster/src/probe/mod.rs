//! The probe: writes and reads through the client at a steady pace and proves that nothing acknowledged is lost.
//! Every write goes to the next key of a ring, on the condition that the key still holds what was acknowledged
//! last; the whole ring is read back through one node after the other. So each acknowledged write is looked for
//! at least twice. `ring` decides (pure), `run` does it, `gaps` measures how long nobody succeeded.
//! Invariant: bounded: so many keys, so many calls at once; its keys hang on a lease and go with it.

mod gaps;
mod ring;
mod run;

use std::time::{Duration, Instant};

use kvstore_client::{KvClient, Reads};
use serde::Serialize;
use service::tasks::Tasks;

pub(crate) use gaps::Gaps;

/// Fine enough to see a gap of some milliseconds, and little work for a cluster.
pub(crate) const PACE: Duration = Duration::from_millis(10);
const TRY_TIME_MAX: Duration = Duration::from_millis(250);

pub(crate) struct Probe {
    /// The keys are below it.
    prefix: String,
    writer: KvClient,
    reader: KvClient,
    /// One for each node, by name: what was written must be found through every one of them.
    nodes: Vec<(String, KvClient)>,
}

/// What the probe has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    pub(crate) acknowledged: u64,
    /// Surely not written; the probe was told so.
    pub(crate) refused: u64,
    /// Written or not, the answer was lost.
    pub(crate) unknown: u64,
    /// Acknowledged and yet not found. Anything but 0 is a fault of the store.
    pub(crate) lost: u64,
    pub(crate) reads: u64,
    /// How often the whole ring was read back, and through which node last.
    pub(crate) checks: u64,
    pub(crate) checked_through: Option<String>,
}

/// One thing that has just happened.
#[derive(Debug)]
pub(crate) enum Event {
    Write(Call),
    Read(Call),
    /// All that was acknowledged was looked for through this node.
    Checked {
        through: String,
        lost: u64,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) succeeded: bool,
}

impl Probe {
    /// `nodes` are names and client addresses; `who` keeps the keys of several probes apart.
    pub(crate) fn new(
        who: &str,
        nodes: &[(String, String)],
        token: &str,
        tasks: &Tasks,
    ) -> kvstore_client::Result<Self> {
        let client = |addresses: Vec<String>, reads| {
            KvClient::builder(addresses)
                .token(token)
                .try_time_max(TRY_TIME_MAX)
                .reads(reads)
                .tasks(tasks.clone())
                .build()
        };
        let all = || nodes.iter().map(|(_, address)| address.clone()).collect();
        let one = |(name, address): &(String, String)| {
            Ok((name.clone(), client(vec![address.clone()], Reads::Sticky)?))
        };
        Ok(Self {
            prefix: format!("menagerie/probe/{who}/"),
            writer: client(all(), Reads::Leader)?,
            reader: client(all(), Reads::Spread)?,
            nodes: nodes.iter().map(one).collect::<kvstore_client::Result<_>>()?,
        })
    }
}
