//! Pins: leases that keep readable what walks over pages read, however far compaction goes meanwhile.
//!
//! One for each walk would make every first page a write, and whoever reads no further would leave a lease behind. So all
//! walks that begin on this node within a second share one, and those that wait for a new one wait for the same.
//! Invariant: what is shared protects what the walk reads, and is known here to live. Nobody ends a pin, since nobody
//! knows who else walks under it: it ends by itself when no page has renewed it for a minute.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use service::config::LimitsConfig;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::leases::{self, new_id};
use crate::command::{Action, Actor, Answer, Command};
use crate::store::{Store, fair_part};

/// Not longer, since for each walk a pin keeps what was written before it began, too.
const SHARED_FOR: Duration = Duration::from_secs(1);
/// Also whoever is the last to share it may rest for a minute.
const TTL_MS: u64 = 61_000;
/// How long a first page waits for its pin before it goes on without one.
const WAIT: Duration = Duration::from_secs(1);
/// First pages that wait at the same time; more wait until they may.
const WAITING_MAX: usize = 1024;
/// Made within [`SHARED_FOR`], of the present and of the past alike. One will do, but for walks that began earlier and
/// whose first page took longer, and for those over several pasts.
const LATELY_MAX: usize = 4;
/// Pins take this part of the room for leases at most: a walk can do without, who asks for a lease cannot.
const PART: usize = 4;
/// Who owns the leases of the nodes themselves.
const OWN: &str = "";

const POISON: &str = "no holder of the pins panics";

pub(super) struct Pins {
    maker: Arc<Maker>,
    wanted: mpsc::Sender<Wanted>,
}

struct Wanted {
    revision: u64,
    of_past: bool,
    answer: oneshot::Sender<Option<u64>>,
}

struct Made {
    id: u64,
    revision: u64,
    of_past: bool,
    /// From then on others have a newer one, of which more time is left.
    until: Instant,
}

impl Made {
    fn is_recent(&self) -> bool {
        Instant::now() < self.until
    }

    /// Walks of the present do not keep up a past that somebody else wants, however long they go on.
    fn serves(&self, revision: u64) -> bool {
        self.revision == revision || (self.revision < revision && !self.of_past)
    }
}

impl Pins {
    pub(super) fn start(store: &Store, limits: &LimitsConfig) -> Self {
        Self::with_times(store, limits, SHARED_FOR, WAIT)
    }

    fn with_times(store: &Store, limits: &LimitsConfig, shared_for: Duration, wait: Duration) -> Self {
        let maker = Arc::new(Maker {
            store: store.clone(),
            leases_max: limits.leases_max,
            shared_for,
            wait,
            made: Mutex::default(),
        });
        let (wanted, queue) = mpsc::channel(WAITING_MAX);
        let (making, tasks) = (Arc::clone(&maker), store.edge().clone());
        store.edge().spawn("range-pins", async move {
            tokio::select! {
                () = making.run(queue) => {}
                () = tasks.stopping() => {}
            }
        });
        Self { maker, wanted }
    }

    /// The lease under which what was read at `revision` stays readable; `of_past` where that was asked for, and is not
    /// the present. 0 when there is none to be had, in which case the walk takes its chances.
    pub(super) async fn take(&self, revision: u64, of_past: bool) -> u64 {
        let pin = match self.maker.shared(revision) {
            None if self.maker.is_led() => self.wait_for(revision, of_past).await,
            shared => shared,
        };
        pin.unwrap_or_else(|| {
            tracing::debug!(revision, "a page walk goes on without a pin");
            0
        })
    }

    async fn wait_for(&self, revision: u64, of_past: bool) -> Option<u64> {
        let (answer, answered) = oneshot::channel();
        let wanted = Wanted {
            revision,
            of_past,
            answer,
        };
        let waiting = async {
            self.wanted.send(wanted).await.ok()?;
            answered.await.ok()?
        };
        timeout(self.maker.wait, waiting).await.ok()?
    }

    /// One that keeps what was read at `revision` readable. Those of tokens do not count, whose owners end them.
    pub(super) fn living(&self, revision: u64) -> Option<u64> {
        self.maker.store.machine().leases.pin_of(OWN, revision)
    }

    /// Nobody waits for this: a pin that is not renewed ends by itself.
    pub(super) fn renew(&self, pin: u64) {
        if pin == 0 {
            return;
        }
        let store = self.maker.store.clone();
        self.maker.store.edge().spawn("range-pin", async move {
            if store.write(own(Action::LeaseRenew { id: pin })).await.is_err() {
                tracing::debug!("a page walk's pin was not renewed");
            }
        });
    }
}

/// Whether there may be one more pin. The nodes' own serve the walks of all, so no share of theirs is too large.
pub(super) fn has_room(store: &Store, owner: &str, leases_max: usize) -> bool {
    let leases = &store.machine().leases;
    let held = if owner == OWN { 0 } else { leases.pins_of(owner) };
    (leases.pins_len() as u64) < fair_part((leases_max / PART) as u64, held as u64)
}

fn own(action: Action) -> Command {
    Command {
        actor: Actor::System,
        action,
        once: None,
    }
}

/// Makes one pin at a time.
struct Maker {
    store: Store,
    leases_max: usize,
    shared_for: Duration,
    wait: Duration,
    made: Mutex<Vec<Made>>,
}

impl Maker {
    async fn run(&self, mut queue: mpsc::Receiver<Wanted>) {
        let mut waiting: Vec<Wanted> = Vec::new();
        while queue.recv_many(&mut waiting, WAITING_MAX).await > 0 {
            // What protects the oldest of them serves the others too.
            waiting.sort_by_key(|wanted| wanted.revision);
            for wanted in waiting.drain(..) {
                self.serve(wanted).await;
            }
        }
    }

    async fn serve(&self, wanted: Wanted) {
        // Who has left needs none.
        if wanted.answer.is_closed() {
            return;
        }
        let shared = self.shared(wanted.revision);
        if shared.is_some() {
            wanted.answer.send(shared).ok();
            return;
        }
        let made = self.make(wanted.revision, wanted.of_past).await;
        wanted.answer.send(made).ok();
        if let Some(pin) = made {
            self.arrives(pin).await;
        }
    }

    /// What was made lately, and is here: a pin that somebody has ended is none to share.
    fn shared(&self, revision: u64) -> Option<u64> {
        let leases = &self.store.machine().leases;
        let mut made = self.made.lock().expect(POISON);
        made.retain(Made::is_recent);
        let newest = made
            .iter()
            .rfind(|pin| pin.serves(revision) && leases.has_pin(pin.id));
        newest.map(|pin| pin.id)
    }

    /// A node that is cut off goes on naming the leader it last heard, and nothing comes of what it proposes to it.
    fn is_led(&self) -> bool {
        self.store.leader_client_address().is_some() && self.store.is_in_touch()
    }

    fn may_make(&self, of_past: bool) -> bool {
        let made = self.made.lock().expect(POISON);
        let alike = made
            .iter()
            .filter(|pin| pin.of_past == of_past && pin.is_recent());
        alike.count() < LATELY_MAX
            && leases::has_room(&self.store, OWN, self.leases_max)
            && has_room(&self.store, OWN, self.leases_max)
    }

    async fn make(&self, revision: u64, of_past: bool) -> Option<u64> {
        if !self.is_led() || !self.may_make(of_past) {
            return None;
        }
        // From before it is proposed, so that its own time begins no sooner.
        let until = Instant::now() + self.shared_for;
        let grant = Action::LeaseGrant {
            id: new_id(),
            ttl_ms: TTL_MS,
            pin: Some(revision),
        };
        let granted = timeout(self.wait, self.store.write(own(grant))).await;
        let Answer::Lease { id, .. } = granted.ok()?.ok()?.answer else {
            return None;
        };
        self.made.lock().expect(POISON).push(Made {
            id,
            revision,
            of_past,
            until,
        });
        Some(id)
    }

    /// The leader answers what it has applied, and this node applies it a little later.
    async fn arrives(&self, pin: u64) {
        let machine = self.store.machine();
        let mut progress = machine.progress();
        let here = progress.wait_for(|_progress| machine.leases.has_pin(pin));
        // Where it is late, whoever comes has another one made.
        timeout(self.wait, here).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;
    use crate::command::Expect;
    use crate::raft::bare::{Bare, DEADLINE, calm};
    use crate::raft::led::{FOLLOWER, begin_to_lead};
    use crate::raft::view::leader_changes;

    /// Of a node that leads and has made six revisions.
    async fn pins(leases_max: usize) -> (Bare, Pins) {
        let node = Bare::cluster(1).await.remove(0);
        for _ in 0..6 {
            let put = Action::Put {
                key: Bytes::from_static(b"key"),
                value: Bytes::from_static(b"value"),
                lease: 0,
                expect: Expect::Any,
            };
            node.desk.propose_own(put).await.unwrap();
        }
        let pins = over(&node, leases_max);
        (node, pins)
    }

    fn over(node: &Bare, leases_max: usize) -> Pins {
        let limits = LimitsConfig {
            leases_max,
            ..LimitsConfig::default()
        };
        // The machine may be busy.
        Pins::with_times(&Store::over(node, &limits), &limits, DEADLINE, DEADLINE)
    }

    /// As if the time in which they are shared had gone by.
    fn pass(pins: &Pins) {
        for made in &mut *pins.maker.made.lock().unwrap() {
            made.until = Instant::now();
        }
    }

    #[tokio::test]
    async fn walks_that_begin_at_the_same_time_share_one_pin() {
        let (node, pins) = pins(100).await;
        let leases = &node.desk.machine.leases;
        let taken = join_all((0..50).map(|n| pins.take(6 - n % 4, false))).await;
        assert!(
            taken[0] != 0 && taken.iter().all(|pin| *pin == taken[0]),
            "{taken:?}"
        );
        // The oldest of them counts.
        assert_eq!((leases.len(), leases.pins(3), leases.pins(2)), (1, true, false));
        assert_eq!(pins.take(6, false).await, taken[0]);
        // It does not serve a walk that began earlier, and was read for longer.
        let earlier = pins.take(2, false).await;
        assert!(leases.pins(2) && ![0, taken[0]].contains(&earlier));
        pass(&pins);
        let later = pins.take(6, false).await;
        assert!(![0, taken[0], earlier].contains(&later));
        // Somebody has ended it.
        let end = Action::LeaseRevoke { id: later };
        node.desk.propose_own(end).await.unwrap();
        let another = pins.take(6, false).await;
        assert!(![0, taken[0], earlier, later].contains(&another));
        assert_eq!(leases.len(), 3, "nobody ends any");
        node.end().await;
    }

    #[tokio::test]
    async fn a_past_is_shared_by_those_alone_who_read_it() {
        let (node, pins) = pins(100).await;
        let mut taken = Vec::new();
        for revision in 1..5 {
            let pin = pins.take(revision, true).await;
            assert!(
                pin != 0 && !taken.contains(&pin),
                "{revision}: {pin} after {taken:?}"
            );
            assert_eq!(pins.take(revision, true).await, pin);
            taken.push(pin);
        }
        assert_eq!(pins.take(5, true).await, 0, "they are enough for a second");
        let present = pins.take(5, false).await;
        assert!(present != 0 && !taken.contains(&present));
        assert_eq!(pins.take(6, true).await, present, "it keeps no more than that");
        node.end().await;
    }

    #[tokio::test]
    async fn nobody_waits_for_a_leader_that_is_lost() {
        let mut config = calm();
        // Nobody else is to lead.
        (config.store.election_min_ms, config.store.election_max_ms) = (60_000, 90_000);
        let follower = Bare::start(FOLLOWER, &config).await;
        let pins = over(&follower, 100);
        assert_eq!(pins.take(0, false).now_or_never(), Some(0));
        begin_to_lead(&follower.desk, "127.0.0.1:1").await;
        leader_changes(&follower.desk.raft, None).await;
        assert!(pins.maker.store.leader_client_address().is_some());
        assert_eq!(
            pins.take(0, false).now_or_never(),
            Some(0),
            "named, but not heard"
        );
        follower.end().await;
    }

    #[tokio::test]
    async fn pins_leave_most_of_the_room_for_leases_to_others() {
        let (node, pins) = pins(16).await;
        for n in 0..6 {
            assert_eq!(pins.take(6, false).await != 0, n < 4, "{n}");
            pass(&pins);
        }
        assert_eq!(node.desk.machine.leases.len(), 4);
        node.end().await;
    }
}
