//! Nodes that have applied what their log holds, and such as have not.

use std::collections::BTreeMap;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::command::{Action, Actor, Command, Expect, Once, Proposal, encode_commands};
use crate::machine::small::opened;
use crate::raft::entry::{log_id, with_proposal, without_proposal};
use crate::raft::types::{Entry, Membership, SnapshotMeta, StoredMembership};
use crate::storage::alike::Part;
use crate::storage::log_db::LogBatch;

const END: u64 = 12;
/// How many entries the snapshot holds, where there is one.
const HELD: u64 = 7;

fn put(id: LogId, value: &str) -> Entry {
    let index = id.index;
    let put = Command {
        actor: Actor::System,
        action: Action::Put {
            key: Bytes::from(format!("key/{index:02}")),
            value: Bytes::copy_from_slice(value.as_bytes()),
            lease: 0,
            expect: Expect::Any,
        },
        once: Some(Once {
            key: format!("once/{index:02}"),
            fingerprint: [0; 16],
            ttl_ms: 60_000,
            room_bytes: u64::MAX,
        }),
    };
    let proposal = Proposal::new(1_000_000 + index, &encode_commands(&[put]));
    with_proposal(id, proposal)
}

/// As a cluster begins: with its members, and what its first leader begins with.
fn entry(index: u64) -> Entry {
    match index {
        0 => without_proposal(log_id(0, 0, 0), Some(Membership::default())),
        1 => without_proposal(log_id(1, 1, 1), None),
        _ => put(log_id(1, 1, index), "value"),
    }
}

struct Node {
    folder: TempDir,
    machine: Arc<Machine>,
}

impl Node {
    /// Has applied these, and has a snapshot behind so many of them, unless that is none.
    fn new(entries: impl Iterator<Item = Entry>, snapshot: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = opened(folder.path());
        let node = Self { folder, machine };
        for (held, entry) in (1..).zip(entries) {
            node.machine.apply(vec![item_of(entry).unwrap()]).unwrap();
            if held == snapshot {
                node.take_snapshot(log_id(1, 1, held - 1));
            }
        }
        node
    }

    fn take_snapshot(&self, last: LogId) {
        let snapshots = &self.machine.snapshots;
        let beside = snapshots.beside(last.index).unwrap();
        self.machine.generation().db().checkpoint(&beside).unwrap();
        let meta = SnapshotMeta {
            last_log_id: Some(last),
            last_membership: StoredMembership::default(),
        };
        snapshots.adopt(&beside, meta, 1).unwrap();
    }

    /// As it is when it has stopped: with a log of these entries, of which so many were given up.
    fn stopped(self, log: impl Iterator<Item = Entry>, purged: u64) -> TempDir {
        let db = LogDb::open(&self.folder.path().join("raft/db"), 1 << 20).unwrap();
        let mut batch = LogBatch::default();
        for entry in log {
            let index = entry::log_id_of(&entry).index;
            db.put_entry(&mut batch, index, &entry::encode(&entry));
        }
        if let Some(last) = purged.checked_sub(1) {
            let last = serde_json::to_vec(&log_id(1, 1, last)).unwrap();
            db.put_meta(&mut batch, "purged", &last);
        }
        db.commit(batch).unwrap();
        self.machine.generation().db().flush().unwrap();
        self.folder
    }
}

fn state_of(node: &TempDir) -> StoppedState {
    let [_log, state] = databases_in(node.path()).unwrap();
    StoppedState::open(&state).unwrap()
}

/// How many entries were replayed, and the parts that differ, each with its first key.
fn replayed(node: &TempDir) -> anyhow::Result<(u64, Vec<(Part, String)>)> {
    let scratch = tempfile::tempdir()?;
    let replay = Replay::of(node.path())?;
    let (led_to, has) = (replay.carry_out(scratch.path())?, state_of(node));
    let digests = [led_to.digest()?, has.digest()?];
    let mut differing = Vec::new();
    for part in Part::ALL {
        if digests[0].parts.get(&part) != digests[1].parts.get(&part) {
            let key = led_to.first_difference(&has, part)?;
            differing.push((part, key.unwrap_or_default()));
        }
    }
    anyhow::ensure!(led_to.applied() == has.applied(), "it ends with another entry");
    Ok((replay.entries(), differing))
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn a_node_has_what_its_log_leads_to_and_is_left_as_it_is() {
    // From the whole log, from a snapshot with the log from before it, from one with the log behind it, and with nothing
    // behind it.
    for (snapshot, purged, entries) in [
        (0, 0, END),
        (HELD, 4, END - HELD),
        (HELD, HELD, END - HELD),
        (END, 4, 0),
    ] {
        let node = Node::new((0..END).map(entry), snapshot);
        let node = node.stopped((purged..END).map(entry), purged);
        let before = files(node.path());
        let found = replayed(&node).unwrap();
        assert_eq!(found, (entries, Vec::new()), "{snapshot} {purged}");
        assert!(files(node.path()) == before, "it was changed");
        let parts = state_of(&node).digest().unwrap().parts;
        assert!(parts.contains_key(&Part::Answers) && parts.contains_key(&Part::Membership));
    }
}

#[test]
fn a_node_that_has_nothing_yet_has_nothing_to_be_replayed() {
    let node = Node::new(std::iter::empty(), 0).stopped(std::iter::empty(), 0);
    assert_eq!(replayed(&node).unwrap(), (0, Vec::new()));
}

#[test]
fn a_state_that_its_log_does_not_lead_to_is_found_by_its_first_key() {
    let other = |index| match index {
        9 => put(log_id(1, 1, 9), "other"),
        index => entry(index),
    };
    let nothing = |index| match index {
        9 => without_proposal(log_id(1, 1, 9), None),
        index => entry(index),
    };
    for snapshot in [0, HELD] {
        // The node applies something else than its log has, and something that its log does not have.
        let drifted = Node::new((0..END).map(other), snapshot).stopped((0..END).map(entry), 0);
        let of_its_own = Node::new((0..END).map(entry), snapshot).stopped((0..END).map(nothing), 0);
        let (entries, found) = replayed(&drifted).unwrap();
        assert_eq!(entries, END - snapshot);
        assert_eq!(found[0], (Part::Keys, "key/09".to_owned()), "{found:?}");
        assert!(found.iter().all(|(part, _)| *part != Part::Answers), "{found:?}");
        let (_entries, found) = replayed(&of_its_own).unwrap();
        assert_eq!(found[0], (Part::Keys, "key/09".to_owned()), "{found:?}");
        let answers = found.iter().find(|(part, _)| *part == Part::Answers);
        assert!(
            answers.is_some_and(|(_, key)| key.ends_with("once/09")),
            "{found:?}"
        );
    }
}

/// What a snapshot holds is taken as it is.
#[test]
fn what_was_wrong_before_the_snapshot_is_not_found() {
    let other = |index| match index {
        5 => put(log_id(1, 1, 5), "other"),
        index => entry(index),
    };
    let node = Node::new((0..END).map(other), HELD).stopped((0..END).map(entry), 0);
    assert_eq!(replayed(&node).unwrap().1, []);
    let node = Node::new((0..END).map(other), 0).stopped((0..END).map(entry), 0);
    assert_eq!(replayed(&node).unwrap().1[0], (Part::Keys, "key/05".to_owned()));
}

#[test]
fn a_log_that_does_not_reach_is_an_error() {
    let gap = |index: &u64| *index != 9;
    for (snapshot, log, purged, said) in [
        (
            0,
            (0..END).filter(gap).collect::<Vec<u64>>(),
            0,
            "the log has no entry 9",
        ),
        (HELD, (0..END).filter(gap).collect(), 0, "the log has no entry 9"),
        (HELD, (8..END).collect(), 8, "the log begins at 8"),
        (0, (4..END).collect(), 4, "the log begins at 4"),
        // What was given up does not count, though it is there.
        (0, (0..END).collect(), 4, "the log begins at 4"),
        (HELD, (0..END - 1).collect(), 0, "nor the log has entry 11"),
        // As where the end of a log was damaged.
        (HELD, Vec::new(), END, "nor the log has entry 7"),
        (0, Vec::new(), 0, "nor the log has entry 0"),
    ] {
        let node = Node::new((0..END).map(entry), snapshot);
        let node = node.stopped(log.into_iter().map(entry), purged);
        let told = format!("{:#}", replayed(&node).unwrap_err());
        assert!(told.contains(said), "{told}");
    }
}

#[test]
fn a_snapshot_that_was_not_installed_is_no_base() {
    let node = Node::new((0..END).map(entry), 0);
    node.take_snapshot(log_id(1, 1, END));
    let node = node.stopped((0..END).map(entry), 0);
    let told = replayed(&node).unwrap_err().to_string();
    assert!(told.contains("never installed"), "{told}");
}

#[test]
fn a_snapshot_that_does_not_hold_what_it_says_is_no_base() {
    let node = Node::new((0..END).map(entry), 0);
    node.take_snapshot(log_id(1, 1, 5));
    let node = node.stopped((0..END).map(entry), 0);
    let told = replayed(&node).unwrap_err().to_string();
    assert_eq!(told, "the snapshot holds 12 entries and says that it holds 6");
}

#[test]
fn a_log_that_ends_with_an_entry_of_another_leader_is_told() {
    let other = |index| match index {
        11 => put(log_id(2, 2, 11), "value"),
        index => entry(index),
    };
    let node = Node::new((0..END).map(entry), HELD).stopped((0..END).map(other), 0);
    let told = replayed(&node).unwrap_err().to_string();
    assert!(told.contains("another entry"), "{told}");
}
