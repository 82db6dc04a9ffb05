//! When openraft's own clock runs. It ticks five times as often as a leader sends heartbeats, on every member, and nearly
//! always in vain: each tick of an idle node costs more than all else it does. So a leader's heartbeats have a timer of
//! their own here, and a follower's clock rests while its leader is heard.
//!
//! Invariant: the clock runs again, in good time, before openraft may find that the leader has been silent for too long.
//! What a tick does is untouched, so only the cost of an election that does not happen changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use service::config::StoreConfig;
use service::tasks::Tasks;

use super::desk::Desk;
use super::types::{Raft, Vote};

const NEVER: u64 = u64::MAX;

/// When this node last heard the leader whose vote is its own.
pub struct Heard {
    origin: Instant,
    at_ms: AtomicU64,
}

impl Default for Heard {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            at_ms: AtomicU64::new(NEVER),
        }
    }
}

impl Heard {
    /// An append has come. Openraft waits anew from the moment at which it takes it in, which is after this one. The
    /// word of anybody else, such as of a leader of before that nobody can answer, is none to rest on.
    pub fn note(&self, raft: &Raft, from: &Vote) {
        if raft.server_metrics().borrow_watched().vote == *from {
            let at_ms = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(NEVER);
            self.at_ms.store(at_ms, Ordering::Relaxed);
        }
    }

    pub fn ago(&self) -> Duration {
        match self.at_ms.load(Ordering::Relaxed) {
            NEVER => Duration::MAX,
            at_ms => self.origin.elapsed().saturating_sub(Duration::from_millis(at_ms)),
        }
    }
}

/// Lets the clock run when it is dropped, for whatever reason.
struct Clock<'r>(&'r Raft);

impl Clock<'_> {
    fn run(&self, runs: bool) {
        self.0.runtime_config().tick(runs);
    }
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        self.run(true);
    }
}

/// Until the node stops.
pub async fn keep(desk: Arc<Desk>, store: StoreConfig, tasks: Tasks) {
    let heartbeat = Duration::from_millis(store.heartbeat_ms);
    // What is left until an election is due is several ticks, and time for this task to get its turn.
    let rest = Duration::from_millis(store.election_min_ms) / 2;
    let clock = Clock(&desk.raft);
    let mut standing = desk.raft.server_metrics();
    loop {
        let leads = standing.borrow_watched().state == ServerState::Leader;
        let resting = rest.checked_sub(desk.heard.ago());
        let pause = if leads {
            clock.run(false);
            if desk.raft.trigger().heartbeat().await.is_err() {
                return;
            }
            heartbeat
        } else if let Some(left) = resting {
            clock.run(false);
            left
        } else {
            clock.run(true);
            heartbeat
        };
        tokio::select! {
            changed = standing.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
            () = tasks.stopping() => return,
        }
    }
}
