//! Whether what each node holds in the end is what its log leads to: members that are alike may all be wrong in the same way,
//! by what one process has done otherwise than another would.
//! Invariant: each node is judged by a state that is made here, of its snapshot and all of its log behind that; where no node
//! had anything behind its snapshot, nothing was judged, which is a violation too. The nodes' files are only read.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kvstore::Replay;

use super::alike::Member;
use super::book::Book;
use super::exposed;
use super::ground::Ground;
use crate::arena::elsewhere;

const REPLAYED: &str = "replayed entries";

/// Where nodes that have stopped are not what their logs lead to, in words.
pub(super) async fn compare(ground: &Ground, book: &Book) -> anyhow::Result<Vec<String>> {
    let (nodes, scratch) = (exposed::nodes(ground), ground.folder().join("replay"));
    let (entries, mut found) = elsewhere(move || differences(&nodes, &scratch)).await?;
    book.count_all(REPLAYED, entries);
    if entries == 0 {
        found.push(format!("there were no {REPLAYED}, so nothing was tried"));
    }
    Ok(found)
}

/// How many entries were replayed, and the differences. A node that cannot be replayed keeps no other from being.
fn differences(nodes: &[PathBuf], scratch: &Path) -> anyhow::Result<(u64, Vec<String>)> {
    let (mut entries, mut found) = (0, Vec::new());
    for node in nodes {
        std::fs::create_dir(scratch).context("make a folder for what a log leads to")?;
        let judged = judge(node, scratch);
        std::fs::remove_dir_all(scratch).context("remove what a log has led to")?;
        match judged {
            Ok((many, differences)) => {
                entries += many;
                found.extend(differences);
            }
            Err(error) => found.push(format!(
                "the log of {} cannot be replayed: {error:#}",
                node.display()
            )),
        }
    }
    Ok((entries, found))
}

fn judge(node: &Path, scratch: &Path) -> anyhow::Result<(u64, Vec<String>)> {
    let replay = Replay::of(node)?;
    let member = Member::in_folder(node)?;
    let led_to = replay.carry_out(scratch)?;
    let led_to = Member::new(format!("a replay of the log of {}", member.name), led_to)?;
    let mut found = member.differences(&led_to)?;
    found.extend(led_to.contradictions());
    Ok((replay.entries(), found))
}

#[cfg(test)]
mod tests {
    use kvstore::machine::snapshot::{MANIFEST, Manifest, describe};
    use kvstore::raft::entry::log_id;
    use kvstore::raft::types::{SnapshotMeta, StoredMembership};

    use super::*;
    use crate::chaos::alike::tests::stopped;

    /// Where nothing is behind it, the log leads to what the snapshot holds.
    fn with_snapshot(folder: &Path, name: &str, kept: [&str; 2]) -> PathBuf {
        let node = stopped(folder, name, 7, kept[0]);
        let held = stopped(folder, &format!("{name}-held"), 7, kept[1]);
        let snapshot = node.join("snapshots").join("7");
        std::fs::rename(held.join("sm").join("1"), &snapshot).unwrap();
        let manifest = Manifest {
            format: 1,
            meta: SnapshotMeta {
                last_log_id: Some(log_id(1, 1, 7)),
                last_membership: StoredMembership::default(),
            },
            generation: 1,
            files: describe(&snapshot).unwrap(),
        };
        std::fs::write(snapshot.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        node
    }

    #[test]
    fn a_node_that_has_something_else_than_its_log_leads_to_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = folder.path().join("replay");
        let same = with_snapshot(folder.path(), "n1", ["once", "once"]);
        let other = with_snapshot(folder.path(), "n2", ["once", "else"]);
        assert_eq!(
            differences(std::slice::from_ref(&same), &scratch).unwrap(),
            (0, Vec::new())
        );
        let (_entries, found) = differences(&[same, other], &scratch).unwrap();
        let all = found.join("\n");
        let said =
            "n2 and a replay of the log of n2 do not have the same kept answers, which differ first at ";
        assert!(all.contains(said) && all.contains(r"a\x00else"), "{all}");
        assert!(!all.contains("n1") && !all.contains("secret"), "{all}");
        assert!(!scratch.exists());
    }

    #[test]
    fn a_node_that_cannot_be_replayed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let node = stopped(folder.path(), "n3", 7, "once");
        let (entries, found) = differences(&[node], &folder.path().join("replay")).unwrap();
        assert!(
            entries == 0 && found.len() == 1 && found[0].contains("n3 cannot be replayed: open the log"),
            "{found:?}"
        );
    }
}
