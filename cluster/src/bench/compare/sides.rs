//! The sides that are compared, and one measurement of one of them by a generator in a process of its own.
//! Invariant: what servers used is measured around the generator's whole run and what it leaves them to do, and only
//! theirs is counted, so that every debt is charged to the side and the round that made it; and the first client asks
//! the leader of either side, or of neither, or a lone one would measure where elections have ended.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::super::drive::{Order, Seen, Target};
use super::cases::Case;
use super::report::Round;
use crate::arena::{Etcd, Server, Start, Store, Usage};

/// How long servers may take for what is left to do.
const SETTLE_MAX: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(500);
/// How long a side may take to say who leads it; an election takes less, also on a busy machine.
const LEADER_DEADLINE: Duration = Duration::from_secs(10);
/// Of one processor, what all servers together take while nobody asks them for anything, and a little more.
const IDLE_SHARE: f64 = 0.25;
/// What they send to their disks meanwhile is far less. A disk that is slow lets those that merge tables take little of
/// the processors.
const IDLE_BYTES_PER_S: f64 = 2e6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Menagerie,
    Etcd,
    /// A server that does nothing behind the same HTTP.
    Ceiling,
}

impl Side {
    /// All of them, in the order of one round: each begins one of three, since who comes after another finds the
    /// machine as that has left it.
    pub(super) fn in_turn(round: u32) -> [Self; 3] {
        let mut sides = [Self::Menagerie, Self::Etcd, Self::Ceiling];
        let turns = round as usize % sides.len();
        sides.rotate_left(turns);
        sides
    }
}

pub(super) struct Sides {
    pub(super) store: Store,
    pub(super) etcd: Option<Etcd>,
    pub(super) ceiling: Ceiling,
}

/// The server that does nothing.
pub(super) struct Ceiling {
    server: Server,
    address: String,
}

impl Ceiling {
    pub(super) async fn start(folder: &std::path::Path) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        let address = listener.local_addr().context("find a free port")?.to_string();
        drop(listener);
        let mut server = Server::new(Start {
            name: "no-op".to_owned(),
            program: std::env::current_exe().context("find this program's own file")?,
            arguments: ["bench", "no-op", "--address", &address]
                .map(str::to_owned)
                .to_vec(),
            environment: Vec::new(),
            namespace: None,
            log: folder.join("no-op.log"),
        });
        server.start()?;
        let deadline = Duration::from_secs(20);
        crate::arena::wait_for("the server that does nothing", deadline, async || {
            tokio::net::TcpStream::connect(&address).await.ok()
        })
        .await?;
        Ok(Self { server, address })
    }
}

impl Sides {
    pub(super) fn target(&self, side: Side) -> Option<Target> {
        Some(match side {
            Side::Menagerie => Target::Store {
                endpoints: self.store.endpoints(),
                token: self.store.token().to_owned(),
            },
            Side::Etcd => Target::Etcd {
                endpoints: self.etcd.as_ref()?.endpoints.clone(),
            },
            Side::Ceiling => Target::Store {
                endpoints: vec![self.ceiling.address.clone()],
                token: "none".to_owned(),
            },
        })
    }

    /// The same, but the first to be asked is the leader in the first round, and in each later one the next behind it;
    /// answers the leader's place as well, where there is one.
    async fn aim(&self, side: Side, round: u32) -> anyhow::Result<Option<(Target, Option<usize>)>> {
        let Some(mut target) = self.target(side) else {
            return Ok(None);
        };
        let leader = match (side, &self.etcd) {
            (Side::Menagerie, _) => self.store.ready_within(LEADER_DEADLINE).await?,
            (Side::Etcd, Some(etcd)) => etcd.ready_within(LEADER_DEADLINE).await?,
            _ => return Ok(Some((target, None))),
        };
        let leader_at = endpoints_from(target.endpoints_mut(), leader, round);
        Ok(Some((target, Some(leader_at))))
    }

    fn usage(&self, side: Side) -> Usage {
        match side {
            Side::Menagerie => Usage::of(self.store.pids()),
            Side::Etcd => Usage::of(self.etcd.iter().flat_map(Etcd::pids)),
            Side::Ceiling => Usage::of(self.ceiling.server.pid()),
        }
    }

    /// Waits until all have done what was left to do by itself, such as merging tables: what comes next is not measured
    /// with the debts of what was before it, whoever made them. They are charged to whoever did: `measure` counts what
    /// is used until this ends, which is half a second after the last of it.
    pub(super) async fn settle(&self) {
        let etcd = self.etcd.iter().flat_map(Etcd::pids);
        let pids: Vec<u32> = self.store.pids().into_iter().chain(etcd).collect();
        idle(|| Usage::of(pids.iter().copied()), LOOK).await;
    }

    /// What each server of a side holds in memory now: all, and of that what is mapped from no file.
    pub(super) fn memory_bytes(&self, side: Side) -> [u64; 2] {
        let usage = self.usage(side);
        let bytes = [usage.resident_bytes, usage.anonymous_bytes];
        bytes.map(|bytes| bytes / crate::arena::SERVERS as u64)
    }

    /// `None` where there is nobody to ask. All are idle before, and again afterwards.
    pub(super) async fn measure(
        &self,
        side: Side,
        case: &Case,
        round: u32,
        seconds: f64,
    ) -> anyhow::Result<Option<Round>> {
        // At each measurement, since the one before may have changed who leads.
        let aim = self.aim(side, round).await;
        let aim = aim.with_context(|| format!("find out who leads {side:?} before {}", case.name))?;
        let Some((target, leader_at)) = aim else {
            return Ok(None);
        };
        let order = Order {
            target,
            work: case.work,
            clients: case.clients,
            seconds,
            rate: case.rate,
            keys: case.stage.keys(),
            seed: case.seed(round),
        };
        let used = used(|| self.usage(side), generate(&order), self.settle()).await;
        let (seen, usage) = used.with_context(|| format!("measure {} of {side:?}", case.name))?;
        if seen.figures.operations == 0 {
            bail!(
                "{}: of the operations of {side:?} that began within {seconds} s not one succeeded: {:?}",
                case.name,
                seen.errors
            );
        }
        Ok(Some(Round {
            leader_at,
            seen,
            usage,
        }))
    }
}

/// What a work comes to, and what is used for it: until it is done, and until all that it leaves to do is. Of idle time
/// that is as much on each side as it takes to see that there is no more, which is too little to be worth guessing.
async fn used<T>(
    usage: impl Fn() -> Usage,
    work: impl Future<Output = anyhow::Result<T>>,
    settle: impl Future<Output = ()>,
) -> anyhow::Result<(T, Usage)> {
    let before = usage();
    let done = work.await?;
    settle.await;
    Ok((done, usage().since(before)))
}

/// Waits until from one look to the next nothing is used any more, or it has lasted too long.
async fn idle(usage: impl Fn() -> Usage, look: Duration) {
    let end = Instant::now() + SETTLE_MAX;
    let mut before = usage();
    while Instant::now() < end {
        tokio::time::sleep(look).await;
        let now = usage();
        if is_idle(now.since(before), look) {
            return;
        }
        before = now;
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "half a second writes far less than 2^52 bytes"
)]
fn is_idle(used: Usage, time: Duration) -> bool {
    let seconds = time.as_secs_f64();
    used.cpu_s < IDLE_SHARE * seconds && (used.written_bytes as f64) < IDLE_BYTES_PER_S * seconds
}

/// Turns them until the leader stands first or, in later rounds, the next behind it; answers where the leader is then.
fn endpoints_from(endpoints: &mut [String], leader: usize, round: u32) -> usize {
    let first = (leader + round as usize) % endpoints.len();
    endpoints.rotate_left(first);
    (leader + endpoints.len() - first) % endpoints.len()
}

/// Runs the generator in a process of its own.
pub(super) async fn generate(order: &Order) -> anyhow::Result<Seen> {
    let program = std::env::current_exe().context("find this program's own file")?;
    let mut child = Command::new(program)
        .args(["--json", "bench", "drive"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start the generator")?;
    let mut input = child.stdin.take().context("speak to the generator")?;
    let text = serde_json::to_vec(order).context("write the order")?;
    input.write_all(&text).await.context("speak to the generator")?;
    drop(input);
    let output = child.wait_with_output().await.context("wait for the generator")?;
    if !output.status.success() {
        bail!(
            "the generator failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    serde_json::from_slice(&output.stdout).context("read what the generator has seen")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::{Side, endpoints_from, idle, is_idle, used};
    use crate::arena::Usage;

    const MEBIBYTE: u64 = 1 << 20;

    #[test]
    fn every_side_is_first_second_and_last_in_turn() {
        let orders = [0, 1, 2].map(Side::in_turn);
        for side in Side::in_turn(0) {
            let mut places = orders.map(|order| order.iter().position(|other| *other == side).unwrap());
            places.sort_unstable();
            assert_eq!(places, [0, 1, 2], "{side:?}");
        }
        assert_eq!(Side::in_turn(3), Side::in_turn(0));
    }

    /// A side whose writes are only logged while it is asked, and go to their tables afterwards, a piece at each look.
    #[tokio::test]
    async fn what_a_round_leaves_to_do_is_of_the_round() {
        let (written, owed) = (Cell::new(0), Cell::new(0));
        let pay = || {
            let piece = owed.get().min(4 * MEBIBYTE);
            owed.set(owed.get() - piece);
            written.set(written.get() + piece);
            Usage {
                written_bytes: written.get(),
                ..Usage::default()
            }
        };
        // A debt of a round before is of that one.
        owed.set(7 * MEBIBYTE);
        idle(pay, Duration::from_millis(1)).await;
        let usage = || Usage {
            written_bytes: written.get(),
            ..Usage::default()
        };
        let work = async {
            written.set(written.get() + MEBIBYTE);
            owed.set(10 * MEBIBYTE);
            Ok("done")
        };
        let settle = idle(pay, Duration::from_millis(1));
        let (done, used) = used(usage, work, settle).await.unwrap();
        assert_eq!((done, used.written_bytes), ("done", 11 * MEBIBYTE));
    }

    #[test]
    fn who_takes_a_processor_or_writes_much_is_not_idle() {
        let is_idle = |cpu_s, written_bytes| {
            let used = Usage {
                cpu_s,
                written_bytes,
                ..Usage::default()
            };
            is_idle(used, Duration::from_millis(500))
        };
        assert!(is_idle(0.1, 4096));
        assert!(!is_idle(0.2, 4096) && !is_idle(0.1, 2 * MEBIBYTE));
    }

    /// Whoever leads: so that of two sides with different leaders both are asked alike.
    #[test]
    fn the_first_client_asks_the_leader_and_in_later_rounds_the_others() {
        let known = ["a", "b", "c"].map(str::to_owned);
        for leader in 0..known.len() {
            let mut firsts = BTreeSet::new();
            for round in 0..6 {
                let mut endpoints = known.clone();
                let leader_at = endpoints_from(&mut endpoints, leader, round);
                assert_eq!(endpoints[leader_at], known[leader], "{leader} {round}");
                assert_eq!(leader_at, [0, 2, 1][round as usize % 3], "{leader} {round}");
                firsts.insert(endpoints[0].clone());
            }
            assert_eq!(firsts.len(), known.len(), "{leader}");
        }
    }
}
