//! What is left of a cluster whose majority is lost for good, made into a backup.
//! Invariant: nothing of what the survivors hold is changed: the work is done on a copy.
//! The longest log is taken as it is, behind a snapshot that the member had received but not installed yet. What was
//! acknowledged is in the log of a majority; so it is all there if enough of the members survive, and the end of it may be
//! missing if not (`survivor`). Entries that were never acknowledged may be taken along.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;

use super::Progress;
use super::copy::Copy;
use super::format::Head;
use super::make::{Source, write_to_file};
use super::survivor::Survivor;
use crate::machine::adapter::{applied_end, applied_of, membership_of};
use crate::machine::host::{Content, Item, Machine};
use crate::machine::replay;
use crate::raft::entry;
use crate::raft::identity::Identity;
use crate::raft::log::{self, starts_of};
use crate::raft::types::{LogId, StoredMembership};
use crate::storage::log_db::{LogDb, TailMark};

const READ_BYTES: usize = 8 << 20;

/// Looks into the folder of a member that does not run.
pub fn inspect(folder: &Path) -> anyhow::Result<Survivor> {
    let copy = Copy::of(folder)?;
    let (log, machine) = copy.open()?;
    let mut doubts = Vec::new();
    let identity = identity_of(&copy, &mut doubts);
    let told = identity.as_ref().and_then(Identity::cluster_id);
    let cluster_id = told.or_else(|| Some(machine.state().cluster_id).filter(|id| !id.is_empty()));
    if cluster_id.is_none() {
        doubts.push("it does not say which cluster it is of".to_owned());
    }
    if let Some(end) = lost_up_to(&copy, &log, &machine)? {
        let last = end - 1;
        doubts.push(format!(
            "its log once went on to entry {last}, and the end of it is lost"
        ));
    }
    if let Some(identity) = &identity {
        let starts = identity.starts();
        let counted = starts_of(&copy.path().join("raft"), starts)?;
        if counted < starts {
            doubts.push(format!(
                "its log was put back from an older copy: it knows of {counted} starts, and the node was started \
                 {starts} times"
            ));
        }
    }
    Ok(Survivor {
        folder: folder.to_owned(),
        id: identity.as_ref().map(Identity::id),
        cluster_id,
        last: last_of(&log, &machine)?.context("nothing was ever written here")?,
        applied: applied_end(machine.generation().db()).saturating_sub(1),
        voters: voters_of(&log, &machine)?,
        doubts,
        damage: copy.damage.clone(),
    })
}

/// Applies all that the member's log holds and writes a backup of that.
pub fn recover(from: &Survivor, to: &Path, progress: Progress<'_>) -> anyhow::Result<Head> {
    let copy = Copy::of(&from.folder)?;
    let (log, machine) = copy.open()?;
    each_batch(&log, &machine, |items| machine.apply(items).map(drop))?;
    let source = Source::of(&machine, &copy.path())?;
    write_to_file(source, to, progress)
}

fn last_of(log: &LogDb, machine: &Machine) -> anyhow::Result<Option<LogId>> {
    let applied = applied_of(machine.generation().db());
    // What ends before the state says nothing, be it of a later term: it was never acknowledged then.
    let begin = end_of(purged_of(log)?).max(end_of(applied));
    match log.last()?.filter(|(index, _)| *index >= begin) {
        Some((_, bytes)) if goes_on(log, machine)? => Ok(Some(entry::log_id_of(&entry::decode(&bytes)?))),
        _ => Ok(applied),
    }
}

/// Whether the log is that which the state has come from. Where the snapshot of a later leader was installed, the log may
/// still have what was never acknowledged in its place, and behind it.
fn goes_on(log: &LogDb, machine: &Machine) -> anyhow::Result<bool> {
    let Some(applied) = applied_of(machine.generation().db()) else {
        return Ok(true);
    };
    if applied.index < end_of(purged_of(log)?) {
        return Ok(true);
    }
    let entries = log.entries(applied.index, applied.index + 1, READ_BYTES)?;
    let Some((_, bytes)) = entries.first() else {
        return Ok(true);
    };
    // A damaged one is not missed, since the state has it.
    let entry = entry::decode(bytes);
    Ok(entry.map_or(true, |entry| entry::log_id_of(&entry) == applied))
}

fn purged_of(log: &LogDb) -> anyhow::Result<Option<LogId>> {
    log::purged_of(log).context("read where the log begins")
}

fn end_of(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

/// Who it is. Whoever has lost only that may still be the one with the longest log.
fn identity_of(copy: &Copy, doubts: &mut Vec<String>) -> Option<Identity> {
    let found = Identity::of(&copy.path()).map_err(anyhow::Error::new);
    let found = found.and_then(|found| found.context("identity.json is missing"));
    match found.context("it does not say which node it is of") {
        Ok(identity) => Some(identity),
        Err(error) => {
            doubts.push(format!("{error:#}"));
            None
        }
    }
}

/// Where the log once ended, as its mark or the state knows, if it does not go so far any more. A snapshot from another
/// member may be ahead of the log until that is purged.
fn lost_up_to(copy: &Copy, log: &LogDb, machine: &Machine) -> anyhow::Result<Option<u64>> {
    let end = log.last()?.map_or(0, |(last, _)| last + 1);
    let end = end.max(end_of(purged_of(log)?));
    let mark = TailMark::open(&copy.path().join("raft").join("TAIL"))?;
    let marked = mark.marked().end;
    let applied = applied_end(machine.generation().db());
    let by_mark = Some(marked).filter(|marked| *marked > end);
    let by_state = Some(applied).filter(|applied| *applied > end.max(end_of(machine.snapshot_end())));
    Ok(by_mark.max(by_state))
}

/// A change of the voters counts from the moment it is in the log.
fn voters_of(log: &LogDb, machine: &Machine) -> anyhow::Result<Vec<BTreeSet<u64>>> {
    let mut membership = membership_of(machine.generation().db());
    each_batch(log, machine, |items| {
        for item in items {
            if let Content::Membership(encoded) = item.content {
                let changed: StoredMembership = serde_json::from_slice(&encoded)?;
                membership = changed;
            }
        }
        Ok(())
    })?;
    Ok(membership.get_joint_config().clone())
}

/// Hands on all that the log has behind the state, and refuses one that leaves something out.
fn each_batch(
    log: &LogDb,
    machine: &Machine,
    take: impl FnMut(Vec<Item>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if goes_on(log, machine)? {
        let from = applied_end(machine.generation().db());
        replay::each_batch(log, from..u64::MAX, take).context("this member cannot be used")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::PathBuf;

    use bytes::Bytes;

    use super::*;
    use crate::command::{Action, Expect};
    use crate::machine::small::{self, opened};
    use crate::raft::entry::log_id;
    use crate::raft::types::{Member, Membership, SnapshotMeta};
    use crate::storage::damage::advise;
    use crate::storage::log_db::LogBatch;

    fn of_voters(sets: &[BTreeSet<u64>]) -> Membership {
        let voters = sets.iter().flatten();
        let members: BTreeMap<u64, Member> = voters.map(|id| (*id, Member::default())).collect();
        Membership::new(sets.to_vec(), members).unwrap()
    }

    /// The folder of node 2, which has applied nothing of its log. That begins with three voters and ends with this.
    fn member(folder: &Path, last: Option<Membership>) -> PathBuf {
        let node = folder.join("n2");
        let raft = node.join("raft");
        fs::create_dir_all(&raft).unwrap();
        let identity = Identity::load_or_create(&node, 2).unwrap();
        identity.adopt_cluster("one").unwrap();
        drop(opened(&node));
        let log = LogDb::open(&raft.join("db"), 1 << 20).unwrap();
        let mut batch = LogBatch::default();
        let first = of_voters(&[BTreeSet::from([1, 2, 3])]);
        for (index, membership) in (0..).zip([Some(first), None, None, last]) {
            let entry = entry::without_proposal(log_id(1, 1, index), membership);
            log.put_entry(&mut batch, index, &entry::encode(&entry));
        }
        log.commit(batch).unwrap();
        mark_end(&node, 4);
        node
    }

    /// As if the node had ended after a leader's snapshot was kept there, and before it was installed.
    fn receive(node: &Path, last: LogId) {
        let folder = tempfile::tempdir().unwrap();
        let (leader, here) = (opened(folder.path()), opened(node));
        let put = Action::Put {
            key: Bytes::from_static(b"key"),
            value: Bytes::from_static(b"value"),
            lease: 0,
            expect: Expect::Any,
        };
        let entry = Item {
            id: serde_json::to_vec(&last).unwrap(),
            ..small::entry(last.index, 1, [put])
        };
        leader.apply(vec![entry]).unwrap();
        let beside = here.snapshots.beside(last.index).unwrap();
        leader.generation().db().checkpoint(&beside).unwrap();
        let meta = SnapshotMeta {
            last_log_id: Some(last),
            last_membership: StoredMembership::default(),
        };
        here.snapshots.adopt(&beside, meta, 2).unwrap();
    }

    fn mark_end(node: &Path, end: u64) {
        let mut mark = TailMark::open(&node.join("raft").join("TAIL")).unwrap();
        mark.raise(Some(end), None).unwrap();
    }

    #[test]
    fn a_folder_tells_whose_it_is_and_who_votes() {
        let folder = tempfile::tempdir().unwrap();
        let told = inspect(&member(folder.path(), None)).unwrap();
        assert_eq!((told.id, told.cluster_id.as_deref()), (Some(2), Some("one")));
        assert_eq!((told.term(), told.index()), (1, 3));
        assert_eq!(told.voters, [BTreeSet::from([1_u64, 2, 3])]);
        assert!(told.doubts.is_empty() && told.damage.is_none(), "{told:?}");

        let folder = tempfile::tempdir().unwrap();
        let sets = [BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])];
        let told = inspect(&member(folder.path(), Some(of_voters(&sets)))).unwrap();
        assert_eq!(told.voters, sets, "a change that was under way");
    }

    /// Why it does not count.
    fn doubt(node: &Path) -> String {
        let told = inspect(node).unwrap();
        assert_eq!(told.index(), 3);
        let [doubt] = told.doubts.as_slice() else {
            panic!("{told:?}")
        };
        doubt.clone()
    }

    #[test]
    fn a_log_whose_end_is_lost_is_in_doubt() {
        let folder = tempfile::tempdir().unwrap();
        let node = member(folder.path(), None);
        mark_end(&node, 9);
        let said = doubt(&node);
        assert!(said.contains("went on to entry 8"), "{said}");
        // Looking has not taken the mark for done.
        assert_eq!(doubt(&node), said);
    }

    #[test]
    fn a_log_that_ends_before_the_state_is_in_doubt() {
        let folder = tempfile::tempdir().unwrap();
        let node = member(folder.path(), None);
        let machine = opened(&node);
        machine.apply(vec![small::entry(7, 1, [])]).unwrap();
        machine.generation().db().flush().unwrap();
        drop(machine);
        let told = inspect(&node).unwrap();
        assert_eq!(told.index(), 7);
        assert!(told.doubts[0].contains("went on to entry 7"), "{told:?}");
    }

    /// The log ends with entry 3 of term 1: before the snapshot, which may be of an earlier term, or behind it, where it may
    /// have something else in its place.
    #[test]
    fn a_snapshot_that_was_received_counts_before_it_is_installed() {
        for (last, end) in [
            (log_id(2, 1, 1000), log_id(2, 1, 1000)),
            (log_id(0, 1, 1000), log_id(0, 1, 1000)),
            (log_id(1, 1, 2), log_id(1, 1, 3)),
            (log_id(2, 1, 2), log_id(2, 1, 2)),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let node = member(folder.path(), None);
            receive(&node, last);
            let told = inspect(&node).unwrap();
            assert_eq!(told.last, end, "behind {last}");
            assert!(told.doubts.is_empty(), "{told:?}");
            let file = folder.path().join("all.mng");
            let head = recover(&told, &file, &mut |_done, _all| ()).unwrap();
            assert_eq!((head.last_log, head.keys), (end, 1));
        }
    }

    /// What was given up may be on the disk still, but nothing counts on it.
    #[test]
    fn a_log_begins_where_it_was_given_up() {
        let purge = |node: &Path, last| {
            let log = LogDb::open(&node.join("raft").join("db"), 1 << 20).unwrap();
            let mut batch = LogBatch::default();
            let purged = serde_json::to_vec(&log_id(1, 1, last)).unwrap();
            log.put_meta(&mut batch, "purged", &purged);
            log.commit(batch).unwrap();
        };
        let folder = tempfile::tempdir().unwrap();
        let node = member(folder.path(), None);
        purge(&node, 1);
        let refused = format!("{:#}", inspect(&node).unwrap_err());
        assert!(refused.contains("the log begins at 2"), "{refused}");
        let machine = opened(&node);
        machine.apply(vec![small::entry(1, 1, [])]).unwrap();
        machine.generation().db().flush().unwrap();
        drop(machine);
        assert_eq!(inspect(&node).unwrap().index(), 3);
        purge(&node, 3);
        let told = inspect(&node).unwrap();
        assert_eq!(told.index(), 1, "all of the log was given up: {told:?}");
    }

    #[test]
    fn a_log_that_was_put_back_is_in_doubt() {
        let folder = tempfile::tempdir().unwrap();
        let node = member(folder.path(), None);
        Identity::load_or_create(&node, 2).unwrap().count_start().unwrap();
        let said = doubt(&node);
        assert!(said.contains("put back from an older copy"), "{said}");
    }

    #[test]
    fn a_folder_that_does_not_say_whose_it_is_can_be_looked_into() {
        let folder = tempfile::tempdir().unwrap();
        let node = member(folder.path(), None);
        for content in [Some("{"), None] {
            match content {
                Some(content) => fs::write(node.join("identity.json"), content).unwrap(),
                None => fs::remove_file(node.join("identity.json")).unwrap(),
            }
            let told = inspect(&node).unwrap();
            assert_eq!((told.id, told.cluster_id.as_deref()), (None, None));
            assert!(told.doubts[0].contains("which node"), "{told:?}");
            assert!(told.doubts[1].contains("which cluster"), "{told:?}");
        }
    }

    #[test]
    fn a_mark_of_damage_is_told_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let node = member(folder.path(), None);
        fs::write(node.join("DAMAGED"), advise("tables", &"a wrong bit")).unwrap();
        let told = inspect(&node).unwrap();
        assert_eq!(told.damage.as_deref(), Some("tables are damaged (a wrong bit)."));
        let file = folder.path().join("all.mng");
        let head = recover(&told, &file, &mut |_done, _all| ()).unwrap();
        assert_eq!(head.last_log, told.last);
        assert!(node.join("DAMAGED").exists() && !folder.path().join("n2.recovering").exists());
    }
}
