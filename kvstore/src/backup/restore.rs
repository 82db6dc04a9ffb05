//! A new cluster out of a backup: the folders of its nodes, as if all had just installed the same snapshot.
//! Invariant: the cluster is a new one: it has an id, and its nodes have disks, that no member of the old one knows.
//! A folder that is there is never touched; one that has its name is complete.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use service::time::now_ms;

use super::Progress;
use super::format::{Head, Reader};
use super::work::Work;
use crate::machine::gaps::continues_at;
use crate::machine::host::{Machine, MachineSettings};
use crate::raft::entry::log_id_parts;
use crate::raft::identity::{Identity, random_name};
use crate::raft::types::{LogId, Member, Membership, SnapshotMeta, StoredMembership, Vote};
use crate::storage::damage::Damage;
use crate::storage::files;
use crate::storage::log_db::{LogBatch, LogDb, TailMark};
use crate::storage::machine_db::{MachineDb, MachineMemory};

/// One node of the cluster that is made.
#[derive(Clone, Debug)]
pub struct NewNode {
    pub id: u64,
    pub peer_address: String,
    pub client_address: String,
    /// Where its folder is to be; none when it is made on another machine.
    pub folder: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct NewCluster {
    /// What another machine has told that made part of it already; drawn otherwise.
    pub beginning: Option<Beginning>,
    pub voters: Vec<NewNode>,
}

/// What all nodes of the new cluster must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    pub cluster_id: String,
    /// Its revision before its first write.
    pub continues_at: u64,
}

/// Makes the folders; answers what the backup was of, and how the new cluster begins.
pub fn restore(file: &Path, new: &NewCluster, progress: Progress<'_>) -> anyhow::Result<(Head, Beginning)> {
    let here: Vec<(&NewNode, &PathBuf)> = new
        .voters
        .iter()
        .filter_map(|node| Some((node, node.folder.as_ref()?)))
        .collect();
    ensure!(
        !here.is_empty(),
        "no node of the new cluster belongs to this machine"
    );
    for (node, folder) in &here {
        ensure!(
            !folder.exists(),
            "{} is there already: node {} is restored only into a folder that does not exist",
            folder.display(),
            node.id
        );
    }
    let head = Reader::open(file)?.head;
    let beginning = new.beginning.clone().unwrap_or_else(|| Beginning {
        cluster_id: random_name(),
        continues_at: continues_at(head.revision, now_ms() * 1000),
    });
    ensure!(
        beginning.continues_at > head.revision,
        "a cluster cannot go on at revision {}: the backup goes to {}",
        beginning.continues_at,
        head.revision
    );
    let works = here.iter().map(|(_, folder)| Work::beside(folder, "restoring"));
    let works: Vec<Work> = works.collect::<anyhow::Result<_>>()?;
    let parts = here.len() as u64;
    for (part, ((node, _), work)) in (0..).zip(here.iter().zip(&works)) {
        let mut within = |done, all| progress(part * all + done, parts * all);
        prepare(file, new, node.id, &work.path(), &beginning, &mut within)
            .with_context(|| format!("make the folder of node {}", node.id))?;
    }
    for ((_, folder), work) in here.iter().zip(&works) {
        fs::rename(work.path(), folder).with_context(|| format!("name {}", folder.display()))?;
        files::sync_folder(folder.parent().context("a node's folder lies in another")?)?;
    }
    Ok((head, beginning))
}

/// The folder of the state, and around it that of the node, into which only its owner may look: everything is in it.
fn state_of(node: &Path) -> anyhow::Result<PathBuf> {
    let state = node.join("sm").join("1");
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(&state)
        .with_context(|| format!("make {}", state.display()))?;
    Ok(state)
}

fn prepare(
    file: &Path,
    new: &NewCluster,
    id: u64,
    folder: &Path,
    beginning: &Beginning,
    progress: Progress<'_>,
) -> anyhow::Result<()> {
    let state = state_of(folder)?;
    let head = Reader::open(file)?.read(|described| File::create(state.join(&described.name)), progress)?;
    let membership = membership(new, head.last_log)?;
    {
        let memory = MachineMemory {
            memtable_bytes: 1 << 20,
            cache_bytes: 8 << 20,
            records: 0,
        };
        let db = MachineDb::open(&state, memory, Damage::watch_over(folder)?).context("open the state")?;
        ensure!(
            format!("{:032x}", db.state().hash) == head.hash,
            "the state in the backup is not the one that its head tells of"
        );
        db.begin_anew(&serde_json::to_vec(&membership)?, beginning.continues_at)?;
    }
    keep_snapshot(folder, head.last_log, membership)?;
    begin_log(&folder.join("raft"), head.last_log)?;
    Identity::load_or_create(folder, id)?.adopt_cluster(&beginning.cluster_id)?;
    Ok(())
}

fn membership(new: &NewCluster, last: LogId) -> anyhow::Result<StoredMembership> {
    let members = new.voters.iter().map(|node| {
        let member = Member {
            peer_address: node.peer_address.clone(),
            client_address: node.client_address.clone(),
        };
        (node.id, member)
    });
    let members: std::collections::BTreeMap<u64, Member> = members.collect();
    let voters: std::collections::BTreeSet<u64> = members.keys().copied().collect();
    let membership =
        Membership::new(vec![voters], members).context("make the membership of the new cluster")?;
    Ok(StoredMembership::new(Some(last), membership))
}

/// What the log does not have any more must be in a snapshot, for members that are still empty.
fn keep_snapshot(folder: &Path, last: LogId, membership: StoredMembership) -> anyhow::Result<()> {
    let settings = MachineSettings {
        memtable_bytes: 1 << 20,
        cache_bytes: 8 << 20,
        ring_bytes: 1 << 20,
        records_bytes: 0,
        heads_bytes: 1 << 20,
    };
    let machine = Machine::open(folder, settings, Arc::default())?;
    let beside = machine.snapshots.beside(last.index)?;
    machine.generation().db().checkpoint(&beside)?;
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: membership,
    };
    machine.snapshots.adopt(&beside, meta, 1)?;
    Ok(())
}

/// A log that was purged up to there. The vote is of the same term, so that whoever leads next has a later one.
fn begin_log(folder: &Path, last: LogId) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let db = LogDb::open(&folder.join("db"), 1 << 20)?;
    let (term, node, index) = log_id_parts(&last);
    let mut batch = LogBatch::default();
    db.put_meta(&mut batch, "purged", &serde_json::to_vec(&last)?);
    db.put_meta(&mut batch, "committed", &serde_json::to_vec(&last)?);
    db.put_meta(&mut batch, "vote", &serde_json::to_vec(&Vote::new(term, node))?);
    db.commit(batch)?;
    TailMark::open(&folder.join("TAIL"))?.raise(Some(index + 1), Some((term, node)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::{Source, write_to_file};
    use super::*;
    use crate::command::Action;
    use crate::machine::small::{entry, opened};
    use crate::raft::start::root_rules;

    /// A cluster of one node, whose folder is to be this.
    fn alone(folder: &Path) -> NewCluster {
        let node = NewNode {
            id: 1,
            peer_address: "127.0.0.1:7101".to_owned(),
            client_address: "127.0.0.1:7001".to_owned(),
            folder: Some(folder.to_owned()),
        };
        NewCluster {
            beginning: None,
            voters: vec![node],
        }
    }

    #[test]
    fn a_token_that_was_made_in_the_old_cluster_is_none_in_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new, file] = ["old", "new", "all.mng"].map(|name| folder.path().join(name));
        fs::create_dir(&old).unwrap();
        let machine = opened(&old);
        let token = Action::TokenPut {
            name: "guest".to_owned(),
            hash: [7; 32],
            rules: root_rules(),
        };
        machine.apply(vec![entry(1, 1, [token])]).unwrap();
        assert_eq!(machine.tokens().by_name.len(), 1);
        let source = Source::of(&machine, &old).unwrap();
        write_to_file(source, &file, &mut |_done, _all| ()).unwrap();

        restore(&file, &alone(&new), &mut |_done, _all| ()).unwrap();
        assert!(!folder.path().join("new.restoring").exists());
        let machine = opened(&new);
        assert!(machine.tokens().by_name.is_empty());
        assert_eq!(machine.state().tokens_made, 1, "no number is given twice");
    }

    #[test]
    fn what_has_the_name_of_a_folder_that_is_not_whole_yet_stays() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new, other, file] =
            ["old", "new", "new.restoring", "all.mng"].map(|name| folder.path().join(name));
        for made in [&old, &other] {
            fs::create_dir(made).unwrap();
        }
        fs::write(other.join("notes"), "somebody else's").unwrap();
        let machine = opened(&old);
        machine.apply(vec![entry(1, 1, [])]).unwrap();
        let source = Source::of(&machine, &old).unwrap();
        write_to_file(source, &file, &mut |_done, _all| ()).unwrap();
        let refused = restore(&file, &alone(&new), &mut |_done, _all| ()).unwrap_err();
        assert!(refused.to_string().contains("move it away"), "{refused:#}");
        assert!(other.join("notes").exists() && !new.exists());
    }

    #[test]
    fn only_its_owner_looks_into_the_folder_of_a_node() {
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path().join("n1.restoring");
        let state = state_of(&node).unwrap();
        for made in [&node, &state] {
            let mode = fs::metadata(made).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", made.display());
        }
    }
}
