//! Where a batch is applied, and what is kept of a snapshot that came from another member.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::*;
use crate::command::{Action, Actor, Command, Expect, Op, Proposal, Txn, encode_commands};
use crate::machine::small::{entry, opened};
use crate::raft::entry::log_id;

fn put() -> Action {
    Action::Put {
        key: Bytes::from_static(b"pets/1"),
        value: Bytes::from_static(b"a cat"),
        lease: 0,
        expect: Expect::Any,
    }
}

/// An adapter whose thread does nothing: what it is handed stays in the queue.
fn with_queue(folder: &Path) -> (MachineAdapter, mpsc::Receiver<Job>) {
    let (jobs, queue) = mpsc::channel(1);
    let adapter = MachineAdapter {
        machine: opened(folder),
        jobs,
        flushed: watch::Sender::new(u64::MAX).subscribe(),
        quick: true,
        _thread: Joined::spawn("apply", || ()).unwrap(),
    };
    (adapter, queue)
}

/// One entry with these commands.
fn batch(index: u64, actions: Vec<Action>) -> Batch {
    let commands = actions.into_iter().map(|action| Command {
        actor: Actor::System,
        action,
        once: None,
    });
    let commands: Vec<Command> = commands.collect();
    let proposal = Proposal::new(1, &encode_commands(&commands));
    let mut batch = Batch::default();
    let logged = Entry::new(log_id(1, 1, index), EntryPayload::Normal(proposal));
    batch.push((logged, None)).unwrap();
    batch
}

/// A transaction with this op in one of its branches.
fn txns(op: &Op) -> [Txn; 3] {
    let ops = || vec![op.clone()];
    let then = Txn {
        then: ops(),
        ..Txn::default()
    };
    let otherwise = Txn {
        otherwise: ops(),
        ..Txn::default()
    };
    let failed = Txn {
        failed: Some(ops()),
        ..Txn::default()
    };
    [then, otherwise, failed]
}

fn gets(key: &Bytes, count: usize) -> Action {
    let key = key.clone();
    Action::Txn(Txn {
        then: vec![Op::Get { key }; count],
        ..Txn::default()
    })
}

#[test]
fn only_what_looks_at_no_more_keys_than_it_names_is_applied_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let (mut adapter, mut queue) = with_queue(folder.path());
    let (key, prefix) = (Bytes::from_static(b"pets/1"), Bytes::from_static(b"pets/"));
    let mut little = vec![put(), Action::LeaseRenew { id: 1 }];
    little.extend(txns(&Op::Get { key: key.clone() }).map(Action::Txn));
    little.push(gets(&key, 8));
    let all_of = Op::GetPrefix {
        prefix: prefix.clone(),
        limit: 1,
    };
    let none_of = Op::DeletePrefix {
        prefix: prefix.clone(),
    };
    let mut much = vec![
        Action::DeletePrefix { prefix },
        Action::LeaseRevoke { id: 1 },
        Action::LeaseExpire { leases: vec![(1, 0)] },
        // A few bytes, and up to a MiB for each of them.
        gets(&key, 9),
    ];
    much.extend(txns(&all_of).map(Action::Txn));
    much.extend(txns(&none_of).map(Action::Txn));
    let little = little.into_iter().map(|action| (true, vec![action]));
    // One that comes after a put is no less work for it.
    let much = much.into_iter().map(|action| (false, vec![put(), action]));
    let mut applied_end = 0;
    for (index, (in_place, actions)) in (1..).zip(little.chain(much)) {
        let said = format!("{actions:?}");
        // Whatever the last one took here.
        adapter.quick = true;
        let done = adapter.run(batch(index, actions)).now_or_never();
        if in_place {
            done.expect("it waits for nobody").unwrap();
            applied_end = index + 1;
        } else {
            assert!(done.is_none(), "it waits for the thread: {said}");
        }
        assert_eq!(queue.try_recv().is_ok(), !in_place, "{said}");
        assert_eq!(adapter.machine.progress_now().applied_end, applied_end, "{said}");
    }
    // Without commands it is there to sweep.
    adapter.quick = true;
    assert!(adapter.run(batch(99, vec![])).now_or_never().is_none());
    assert!(queue.try_recv().is_ok());
    // After a slow batch the database may be stalling.
    adapter.quick = false;
    assert!(adapter.run(batch(100, vec![put()])).now_or_never().is_none());
    assert!(queue.try_recv().is_ok());
}

/// The names of what is in a snapshot beside its manifest, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != snapshot::MANIFEST).collect();
    names.sort();
    names
}

#[test]
fn a_received_snapshot_is_kept_as_its_manifest_says_without_reading_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let [leader, follower] = ["n1", "n2"].map(|name| opened(&folder.path().join(name)));
    leader.apply(vec![entry(1, 1, [put()])]).unwrap();
    let (meta, built) = leader.build_snapshot().unwrap();
    let mut manifest = snapshot::read_manifest(&built).unwrap();
    let incoming = follower.incoming_folder();
    snapshot::link_files(&manifest, &built, &incoming).unwrap();
    // As it is when a disk changes a table that was whole when it came.
    let table = manifest.files.iter_mut().find(|file| file.name.contains(".sst"));
    table.unwrap().crc32c ^= 1;
    let written = serde_json::to_vec(&manifest).unwrap();
    fs::write(incoming.join(snapshot::MANIFEST), written).unwrap();
    let data = SnapshotFolder(incoming);
    follower.install_received(meta.clone(), &data).unwrap();
    assert_eq!(follower.state(), leader.state());

    let (kept_meta, path) = follower.snapshots.current().unwrap();
    let kept = snapshot::read_manifest(&path).unwrap();
    assert!(kept_meta == meta && kept.meta == meta);
    assert_eq!(kept.generation, follower.generation().number);
    assert_eq!(kept.files, manifest.files);
    let expected: Vec<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names(&path), expected);
    // Nobody else gets what it became.
    let error = follower.build_snapshot().unwrap_err();
    assert!(error.to_string().contains("a table is damaged"), "{error}");
}
