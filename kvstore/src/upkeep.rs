//! What a node does by itself: lease expiry, sweeping of answers, snapshots, backups, flushes, compaction,
//! watching its disk, and comparing itself with the others.
//!
//! Each duty is a task that wakes on a clock and does a bounded piece of work. Decisions that all members
//! must share go through the log as commands; the rest is local housekeeping.

mod backups;
mod collector;
mod health;
mod snapshots;
mod sweeper;

pub use backups::newest_backup_ms;

use std::sync::Arc;
use std::time::{Duration, Instant};

use service::config::{Config, LimitsConfig, StoreConfig};
use service::tasks::Tasks;

pub(crate) use backups::BackupFolder;

use crate::command::Action;
use crate::machine::host::Lead;
use crate::raft::clock;
use crate::raft::desk::Desk;
use crate::raft::start::{self, TokenSeeds};
use crate::raft::view;
use crate::store::Store;

const MIRRORS_EVERY: Duration = Duration::from_millis(100);
/// How often the leadership is looked at, beside when it changes: until the cluster has its tokens, and then.
const LOOK_UNSETTLED: Duration = Duration::from_millis(20);
const LOOK_SETTLED: Duration = Duration::from_millis(500);
/// Leases ended by one command.
const EXPIRED_MAX: usize = 500;
/// Between two looks for leases that have ended: no less, so that many end at once, and no more, since a lease that
/// is given meanwhile may end then.
const EXPIRY_PAUSE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(20)..=Duration::from_millis(500);
/// A change of the voters that takes longer than this between its steps was left behind.
const UNFINISHED_MIN: Duration = Duration::from_secs(1);
/// A full disk, when nobody took over.
const FLEE_AGAIN: Duration = Duration::from_secs(10);

pub(crate) struct Upkeep {
    pub(crate) desk: Arc<Desk>,
    pub(crate) store: Store,
    pub(crate) tasks: Tasks,
    pub(crate) folder: std::path::PathBuf,
}

impl Upkeep {
    pub(crate) fn start(self, config: &Config, tokens: TokenSeeds) {
        let upkeep = Arc::new(self);
        let clock = clock::keep(
            Arc::clone(&upkeep.desk),
            config.store.clone(),
            upkeep.tasks.clone(),
        );
        upkeep.tasks.spawn("clock", clock);
        let store = config.store.clone();
        upkeep.tasks.spawn(
            "flushes",
            Arc::clone(&upkeep).flush_regularly(Duration::from_secs(store.flush_every_s)),
        );
        upkeep.tasks.spawn(
            "snapshots",
            Arc::clone(&upkeep).snapshot_when_due(store.clone(), config.limits.clone()),
        );
        upkeep
            .tasks
            .spawn("compaction", Arc::clone(&upkeep).compact_when_due(store));
        if config.store.agreement_every_s > 0 {
            let period = Duration::from_secs(config.store.agreement_every_s);
            upkeep.tasks.spawn("agreement", Arc::clone(&upkeep).agree(period));
        }
        if config.store.slow_disk_ms > 0 {
            let store = config.store.clone();
            upkeep
                .tasks
                .spawn("slow-disk", Arc::clone(&upkeep).watch_pace(store));
        }
        if config.backup.every_s > 0 {
            upkeep
                .tasks
                .spawn("backups", Arc::clone(&upkeep).back_up_regularly(config.clone()));
        }
        upkeep.tasks.spawn(
            "disk-watch",
            Arc::clone(&upkeep).watch_disk(config.limits.clone()),
        );
        upkeep.tasks.spawn("mirrors", Arc::clone(&upkeep).watch_mirrors());
        upkeep
            .tasks
            .spawn("collector", Arc::clone(&upkeep).collect_regularly());
        upkeep
            .tasks
            .spawn("sweeper", Arc::clone(&upkeep).sweep_regularly());
        upkeep
            .tasks
            .spawn("lease-expiry", Arc::clone(&upkeep).expire_leases());
        upkeep.tasks.spawn(
            "leadership",
            Arc::clone(&upkeep).follow_leadership(config.clone(), tokens),
        );
    }

    /// False when the node stops.
    async fn pause(&self, period: Duration) -> bool {
        pause(&self.tasks, period).await
    }

    fn leads(&self) -> bool {
        view::leader(&self.desk.raft) == Some(self.desk.peers.trust().identity.id())
    }

    /// Waits until this node leads. False when it stops.
    async fn until_leading(&self) -> bool {
        loop {
            let leader = view::leader(&self.desk.raft);
            if self.leads() {
                return !self.tasks.is_stopping();
            }
            tokio::select! {
                () = view::leader_changes(&self.desk.raft, leader) => {}
                () = self.tasks.stopping() => return false,
            }
        }
    }

    async fn expire_leases(self: Arc<Self>) {
        let (least, most) = (*EXPIRY_PAUSE.start(), *EXPIRY_PAUSE.end());
        while self.until_leading().await {
            let view = view::view(&self.desk.raft);
            let mut wait = least;
            if view.is_leader() {
                let lead = Lead {
                    term: view.term,
                    node: view.me,
                };
                let (leases, next) = self.desk.machine.leases.ended(lead, EXPIRED_MAX);
                if leases.is_empty() {
                    wait = next.map_or(most, |next| next.clamp(least, most));
                } else {
                    // Not now: the next round, or the next leader, proposes it again.
                    self.desk.propose_own(Action::LeaseExpire { leases }).await.ok();
                }
            }
            self.pause(wait).await;
        }
    }

    /// A new leader makes sure that the cluster has its tokens.
    async fn follow_leadership(self: Arc<Self>, config: Config, tokens: TokenSeeds) {
        let (mut led, mut settled, mut joint_since) = (None, false, None::<Instant>);
        let mut leader = None;
        loop {
            let look = if settled { LOOK_SETTLED } else { LOOK_UNSETTLED };
            tokio::select! {
                () = view::leader_changes(&self.desk.raft, leader) => {}
                () = tokio::time::sleep(look) => {}
                () = self.tasks.stopping() => return,
            }
            let view = view::view(&self.desk.raft);
            leader = view.leader;
            self.desk.mirrors.set_leads(view.is_leader());
            if view.leader.is_some() && led != Some((view.term, view.leader)) {
                self.desk.metrics.elections.inc();
                tracing::info!(raft.term = view.term, node.leader = view.leader, "leader");
                led = Some((view.term, view.leader));
            }
            if view.is_leader() && self.needs_seed(&view) {
                // Not now: the next look, or the next leader, finds that it is still needed.
                start::seed(&self.desk, &config, &tokens).await.ok();
            }
            // A change of the voters whose leader did not live to take its second step; who takes it now is not disturbed.
            joint_since = view.joint.then(|| joint_since.unwrap_or_else(Instant::now));
            if view.is_leader() && joint_since.is_some_and(|since| since.elapsed() > UNFINISHED_MIN) {
                self.desk.finish_change().await.ok();
            }
            settled = view.leader.is_some() && !self.needs_seed(&view);
        }
    }

    /// The leader has the log say which mirrors are lost, and which are back.
    async fn watch_mirrors(self: Arc<Self>) {
        while self.until_leading().await {
            tokio::select! {
                () = tokio::time::sleep(MIRRORS_EVERY) => {}
                () = self.desk.mirrors.some_are_lost() => {}
                () = self.tasks.stopping() => return,
            }
            if !self.leads() {
                continue;
            }
            for action in self.desk.mirrors.findings() {
                if let Action::MirrorIs { name, state, .. } = &action {
                    tracing::warn!(
                        mirror.name = name,
                        ?state,
                        "a synchronous mirror has changed its state"
                    );
                }
                // Not now: the next round, or the next leader, finds it again.
                self.desk.propose_own(action).await.ok();
            }
        }
    }

    fn needs_seed(&self, view: &view::RaftView) -> bool {
        let bound = |id: &u64| (self.desk.peers.trust().bound_disk)(*id).is_some();
        self.desk.machine.state().cluster_id.is_empty() || !view.members.keys().all(bound)
    }

    async fn flush_regularly(self: Arc<Self>, period: Duration) {
        let mut flushed = 0;
        while self.pause(period).await {
            let applied = self.desk.machine.progress_now().applied_end;
            if applied == flushed {
                continue;
            }
            let machine = Arc::clone(&self.desk.machine);
            let done = self
                .tasks
                .spawn_blocking("flush", move || machine.generation().db().flush())
                .await;
            match done {
                Ok(Ok(())) => flushed = applied,
                Ok(Err(error)) => tracing::error!(%error, "the state machine could not be flushed"),
                Err(_) => return,
            }
        }
    }

    /// The leader gives up history by age and by size; all members then do the same.
    async fn compact_when_due(self: Arc<Self>, store: StoreConfig) {
        while self.pause(Duration::from_secs(10)).await {
            if !self.leads() {
                continue;
            }
            let (machine, state) = (Arc::clone(&self.desk.machine), self.desk.machine.state());
            let minutes = self
                .tasks
                .spawn_blocking("minutes", move || machine.generation().db().minutes())
                .await;
            let Ok(minutes) = minutes else { return };
            let old_minute = state.now_ms.saturating_sub(store.history_max_age_s * 1000) / 60_000;
            let floor = minutes
                .iter()
                .rev()
                .find(|(minute, mark)| {
                    // A mark may be newer than the state, which was looked at first.
                    let since = state.history_bytes.saturating_sub(mark.history_bytes);
                    *minute < old_minute || since > store.history_bytes_max
                })
                .map_or(0, |(_, mark)| mark.revision);
            if floor > state.compacted {
                tracing::info!(store.revision = floor, "history before this revision is given up");
                self.desk
                    .propose_own(Action::AutoCompact { revision: floor })
                    .await
                    .ok();
            }
        }
    }

    async fn watch_disk(self: Arc<Self>, limits: LimitsConfig) {
        let mut fled = None::<Instant>;
        while self.pause(Duration::from_secs(1)).await {
            match free_bytes(&self.folder) {
                Ok(free) => {
                    let full = free < limits.disk_free_bytes_min;
                    self.store.set_disk_full(full);
                    if full && self.leads() && fled.is_none_or(|at| at.elapsed() > FLEE_AGAIN) {
                        fled = Some(Instant::now());
                        self.flee_full_disk().await;
                    }
                }
                Err(error) => tracing::warn!(%error, "the free room on the disk could not be read"),
            }
        }
    }
}

#[cfg(test)]
impl Upkeep {
    /// Of a node of which nobody takes care: only what a test asks for is done.
    fn over(node: &crate::raft::bare::Bare) -> Arc<Self> {
        Arc::new(Self {
            desk: Arc::clone(&node.desk),
            store: Store::over(node, &LimitsConfig::default()),
            tasks: node.tasks.clone(),
            folder: node.folder.path().to_owned(),
        })
    }
}

async fn pause(tasks: &Tasks, period: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(period) => true,
        () = tasks.stopping() => false,
    }
}

fn free_bytes(folder: &std::path::Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A node that ended for want of room would end again at once, since opening its files needs some: it waits
/// until there is. False when it was told to stop meanwhile.
pub(crate) async fn wait_for_room(folder: &std::path::Path, limits: &LimitsConfig, tasks: &Tasks) -> bool {
    let needed = limits.disk_free_bytes_min / 2;
    let mut said = false;
    loop {
        match free_bytes(folder) {
            Ok(free) if free < needed => {}
            // What cannot be measured does not keep a node from trying.
            Ok(_) | Err(_) => return true,
        }
        if !said {
            tracing::error!("the disk is full: this node starts when {needed} bytes are free");
            said = true;
        }
        if !pause(tasks, Duration::from_secs(1)).await {
            return false;
        }
    }
}
