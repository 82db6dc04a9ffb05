//! Whether the nodes hold the same when nobody runs any more: not the keys alone, whose hash nodes carry along and tell, but
//! all that they decide later entries by, read from their disks.
//! Invariant: states are compared where the same entries were applied, or it is a violation that they were not. No value is
//! told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use kvstore::{Digest, Part, StoppedState};
use kvstore_client::KvClient;
use kvstore_client::wire::cluster::Role;

use super::book::Book;
use super::exposed;
use super::ground::Ground;
use super::lives;
use crate::arena::{SERVERS, elsewhere, wait_for};

const SETTLED: Duration = Duration::from_secs(30);
/// What a leader proposes by itself may reach one follower more than the other when both stop. It does so every few
/// seconds, and they stop within one.
const TRIES: usize = 5;

/// Stops all nodes in good order, which brings their states to disk, if possible when all have applied the same entries,
/// and some node has entries behind its snapshot to be replayed.
/// By these leases and answers end, too, so that it does not matter how long the nodes have run behind them.
pub(super) async fn stop(ground: &mut Ground, book: &Book) -> anyhow::Result<()> {
    let mut tried = 0;
    loop {
        let settled = settled(ground).await;
        // Those that do not come to rest are stopped all the same: others look at what they leave.
        let leader = settled.as_ref().copied().unwrap_or_default();
        stop_all(ground, leader).await?;
        if let Err(error) = settled {
            book.violation(format!("in the end the nodes do not come to rest: {error:#}"));
            return Ok(());
        }
        tried += 1;
        if tried == TRIES || can_be_judged(ground).await? {
            return Ok(());
        }
        // Whoever leads then begins with an entry, and it is far too soon for another snapshot.
        for server in &mut ground.store.servers {
            server.start()?;
        }
    }
}

/// Who leads, once all nodes have applied the same.
async fn settled(ground: &Ground) -> anyhow::Result<usize> {
    ground.store.ready().await?;
    let nodes = (0..SERVERS).map(|index| ground.only(index));
    let nodes = nodes.collect::<anyhow::Result<Vec<_>>>()?;
    wait_for("all nodes to have applied the same", SETTLED, async || {
        let told = join_all(nodes.iter().map(KvClient::status)).await;
        let told = told.into_iter().collect::<Result<Vec<_>, _>>().ok()?;
        let is_same = told.iter().all(|node| node.applied == told[0].applied);
        let leader = told.iter().position(|node| node.role == Role::Leader);
        leader.filter(|_| is_same)
    })
    .await
}

/// The leader last: it would hand over to a follower that runs, which begins with an entry of its own.
async fn stop_all(ground: &mut Ground, leader: usize) -> anyhow::Result<()> {
    let servers = ground.store.servers.iter_mut().enumerate();
    let followers = servers.filter(|(index, _)| *index != leader);
    let stopped = join_all(followers.map(|(_, server)| lives::stop(server))).await;
    stopped.into_iter().collect::<anyhow::Result<()>>()?;
    lives::stop(ground.server(leader)).await
}

/// Whether nodes that have stopped have all applied the same, and some node more than its snapshot holds.
async fn can_be_judged(ground: &Ground) -> anyhow::Result<bool> {
    let nodes = exposed::nodes(ground);
    elsewhere(move || {
        let ids = nodes.iter().map(|node| Ok(opened(node)?.applied().to_owned()));
        let ids = ids.collect::<anyhow::Result<Vec<String>>>()?;
        let is_same = ids.iter().all(|id| *id == ids[0]);
        // One that cannot be replayed is for whoever judges that.
        let has_more = |node: &PathBuf| kvstore::Replay::of(node).is_ok_and(|replay| replay.entries() > 0);
        Ok(is_same && nodes.iter().any(has_more))
    })
    .await
}

/// Where nodes that have stopped differ, in words.
pub(super) async fn compare(ground: &Ground) -> anyhow::Result<Vec<String>> {
    let nodes = exposed::nodes(ground);
    elsewhere(move || differences(&nodes)).await
}

pub(super) struct Member {
    pub(super) name: String,
    state: StoppedState,
    digest: Digest,
}

impl Member {
    pub(super) fn in_folder(node: &Path) -> anyhow::Result<Self> {
        let name = node.file_name().unwrap_or_default();
        Self::new(name.to_string_lossy().into_owned(), opened(node)?)
    }

    pub(super) fn new(name: String, state: StoppedState) -> anyhow::Result<Self> {
        let digest = state.digest();
        let digest = digest.with_context(|| format!("read all of the state of {name}"))?;
        Ok(Self { name, state, digest })
    }

    pub(super) fn contradictions(&self) -> impl Iterator<Item = String> {
        let contradictions = self.digest.contradictions.iter();
        contradictions.map(|said| format!("the state of {} contradicts itself: {said}", self.name))
    }

    pub(super) fn differences(&self, other: &Self) -> anyhow::Result<Vec<String>> {
        let names = format!("{} and {}", self.name, other.name);
        let applied = [self.state.applied(), other.state.applied()];
        if applied[0] != applied[1] {
            return Ok(vec![format!(
                "{names} have not stopped at the same entry, so that they could not be compared: {applied:?}"
            )]);
        }
        let mut found = Vec::new();
        for part in Part::ALL {
            if self.digest.parts.get(&part) != other.digest.parts.get(&part) {
                let key = self.state.first_difference(&other.state, part)?;
                found.push(format!(
                    "{names} do not have the same {part}, which differ first at {}",
                    key.as_deref().unwrap_or("no key")
                ));
            }
        }
        Ok(found)
    }
}

fn opened(node: &Path) -> anyhow::Result<StoppedState> {
    let databases = kvstore::databases_in(node);
    let [_log, state] = databases.with_context(|| format!("look for the databases of {}", node.display()))?;
    StoppedState::open(&state).with_context(|| format!("open {}", state.display()))
}

fn differences(nodes: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let members = nodes.iter().map(|node| Member::in_folder(node));
    let members = members.collect::<anyhow::Result<Vec<_>>>()?;
    let mut found: Vec<String> = members.iter().flat_map(Member::contradictions).collect();
    let (first, others) = members.split_first().context("there are no nodes")?;
    for other in others {
        found.extend(first.differences(other)?);
    }
    Ok(found)
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use kvstore::command::{Action, Actor, Command, Expect, Once, Proposal, encode_commands};
    use kvstore::machine::host::{Content, Item, Machine, MachineSettings};
    use kvstore::raft::entry::log_id;

    use super::*;

    const SETTINGS: MachineSettings = MachineSettings {
        memtable_bytes: 1 << 20,
        cache_bytes: 1 << 20,
        records_bytes: 0,
        ring_bytes: 1 << 20,
        heads_bytes: 1 << 20,
    };

    /// A node that has written the same key as all others, and kept the answer under a key of its own.
    pub(in crate::chaos) fn stopped(folder: &Path, name: &str, index: u64, kept: &str) -> PathBuf {
        let node = folder.join(name);
        std::fs::create_dir(&node).unwrap();
        let machine = Machine::open(&node, SETTINGS, Arc::default()).unwrap();
        let put = Command {
            actor: Actor::System,
            action: Action::Put {
                key: Bytes::from_static(b"key"),
                value: Bytes::from_static(b"a secret"),
                lease: 0,
                expect: Expect::Any,
            },
            once: Some(Once {
                key: kept.to_owned(),
                fingerprint: [0; 16],
                ttl_ms: 60_000,
                room_bytes: u64::MAX,
            }),
        };
        let proposal = Proposal::new(1, &encode_commands(&[put]));
        let item = Item {
            index,
            id: serde_json::to_vec(&log_id(1, 1, index)).unwrap(),
            content: Content::Proposal(proposal.into()),
            awaited: false,
        };
        machine.apply(vec![item]).unwrap();
        // What is in memory goes to disk when the database is closed.
        node
    }

    #[test]
    fn a_member_that_differs_is_named_with_what_it_has_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let node = |name, kept| stopped(folder.path(), name, 7, kept);
        let [one, same, other] =
            [("n1", "once"), ("n2", "once"), ("n3", "else")].map(|(name, kept)| node(name, kept));
        assert_eq!(differences(&[one.clone(), same]).unwrap(), [""; 0]);
        let found = differences(&[one, other]).unwrap();
        let told = |part: &str| {
            let begin = format!("n1 and n3 do not have the same {part}, ");
            found.iter().filter(|fault| fault.starts_with(&begin)).count()
        };
        assert_eq!(
            (told("kept answers"), told("keys"), told("counters")),
            (1, 0, 0),
            "{found:?}"
        );
        let all = found.join("\n");
        assert!(all.contains(r"differ first at a\x00else"), "{all}");
        assert!(!all.contains("secret"), "{all}");
    }

    #[test]
    fn members_that_have_not_applied_the_same_are_not_compared_and_that_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let one = stopped(folder.path(), "n1", 7, "once");
        let later = stopped(folder.path(), "n2", 8, "else");
        let found = differences(&[one, later]).unwrap();
        assert!(
            found.len() == 1 && found[0].contains("could not be compared"),
            "{found:?}"
        );
    }
}
