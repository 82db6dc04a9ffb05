//! Whether a folder is what this node left: a node that has forgotten what it voted or acknowledged must not start.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, ensure};
use service::private;

use crate::machine::adapter;
use crate::machine::host::Machine;
use crate::raft::entry::log_id_parts;
use crate::raft::identity::Identity;
use crate::raft::log::Opened;
use crate::raft::types::LogId;

/// Two processes on one folder would each believe to be this node. It is for its owner alone: all that the store holds is
/// in it. Its name is on the disk before anything in it is acknowledged.
pub(crate) fn lock(folder: &Path) -> anyhow::Result<File> {
    private::make_folder(folder).with_context(|| format!("make {}", folder.display()))?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join("LOCK"))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another process uses {}", folder.display()))?;
    Ok(file)
}

fn advice(folder: &Path) -> String {
    format!(
        "remove the node from the cluster, empty {} and let it join under a new id",
        folder.display()
    )
}

/// Asked before the log is opened, which would make one.
pub(super) fn has_its_log(folder: &Path, identity: &Identity, machine: &Machine) -> anyhow::Result<()> {
    let applied = machine.progress_now().applied_end;
    let has_belonged = applied > 0 || identity.cluster_id().is_some();
    ensure!(
        !has_belonged || folder.join("raft/db/CURRENT").exists(),
        "the log of this node is gone, and with it its votes and what it acknowledged (its state has {applied} entries): {}",
        advice(folder)
    );
    Ok(())
}

/// What was applied was in this log first, and what a leader sent was voted for: a log that knows less is an old copy.
pub(super) fn log_is_no_older(
    folder: &Path,
    machine: &Machine,
    opened: &Opened,
    snapshot: Option<&LogId>,
) -> anyhow::Result<()> {
    let applied = adapter::applied_of(machine.generation().db());
    let (term, _, last) = applied.as_ref().map_or((0, 0, 0), log_id_parts);
    let end = applied.map_or(0, |_| last + 1);
    let known = opened.end.max(snapshot.map_or(0, |id| id.index + 1));
    // A log that knows what it lost gets it again before it votes.
    ensure!(
        opened.lost_up_to.is_some() || (end <= known && term <= opened.vote_term),
        "the log of this node is older than its state (it has {known} entries and a vote of term {}, while {end} entries \
         up to term {term} were applied), so what it acknowledged may be gone: {}",
        opened.vote_term,
        advice(folder)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_nodes_folder_is_its_owners_alone_wherever_it_lies() {
        let around = tempfile::tempdir().unwrap();
        fs::set_permissions(around.path(), Permissions::from_mode(0o755)).unwrap();
        let node = around.path().join("n1");
        let mode = || fs::metadata(&node).unwrap().permissions().mode() & 0o777;
        drop(lock(&node).unwrap());
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&node, Permissions::from_mode(0o755)).unwrap();
        drop(lock(&node).unwrap());
        assert_eq!(mode(), 0o700, "one that was there already");
    }
}
