//! The log store against openraft's own suite, and against damage.

use std::sync::Mutex;
use std::time::Duration;

use openraft::EntryPayload;
use openraft::StorageError;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::*;
use crate::command::Proposal;
use crate::machine::adapter::MachineAdapter;
use crate::machine::small::opened;
use crate::raft::entry::log_id;
use crate::storage::log_db::LogBatch;

const MEMTABLE: usize = 1 << 20;

type Ended = oneshot::Receiver<io::Error>;

fn open(folder: &Path) -> (LogStore, Opened, Ended) {
    LogStore::open(&folder.join("raft"), (None, 0), MEMTABLE, Arc::default()).expect("the log opens")
}

fn entry(index: u64) -> Entry {
    Entry::new(
        log_id(1, 1, index),
        EntryPayload::Normal(Proposal::new(index, b"payload")),
    )
}

/// The suite drops what it was given, and threads of ours then close the databases.
#[derive(Default)]
struct Builder {
    opened: Arc<Mutex<Vec<Closed>>>,
}

impl StoreBuilder<TypeConfig, LogStore, MachineAdapter, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, MachineAdapter), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, ..) = open(folder.path());
        // The suite applies entries that it never appended, so nothing is to be waited for.
        let flushed = watch::Sender::new(u64::MAX);
        let machine = opened(folder.path());
        let closed = [store.closed(), machine.generation().db().closing.closed()];
        self.opened.lock().expect("no holder panics").extend(closed);
        let adapter = MachineAdapter::start(machine, flushed.subscribe()).expect("the apply thread starts");
        Ok((folder, store, adapter))
    }
}

#[tokio::test]
async fn openrafts_own_suite_passes() {
    let builder = Builder::default();
    let opened = Arc::clone(&builder.opened);
    Suite::test_all(builder).await.expect("the suite passes");
    let opened = std::mem::take(&mut *opened.lock().expect("no holder panics"));
    assert!(!opened.is_empty());
    for closed in opened {
        tokio::time::timeout(Duration::from_secs(10), closed.wait())
            .await
            .expect("every database is closed once nobody uses it");
    }
}

#[tokio::test]
async fn a_reopened_log_has_everything_that_was_called_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut store, opened, ended) = open(folder.path());
    assert_eq!((opened.end, opened.lost_up_to), (0, None));
    store.blocking_append((0..50).map(entry)).await.expect("appended");
    assert_eq!(*store.flushed().borrow(), 50);
    close(store, ended).await;
    let (mut store, opened, ended) = open(folder.path());
    assert_eq!((opened.end, opened.lost_up_to), (50, None));
    let entries = store.try_get_log_entries(0..100).await.expect("read");
    assert_eq!(entries.len(), 50);
    store.purge(log_id(1, 1, 19)).await.expect("purged");
    store.truncate_after(Some(log_id(1, 1, 39))).await.expect("cut");
    assert_eq!(*store.flushed().borrow(), 40);
    store.blocking_append([entry(40)]).await.expect("appended");
    close(store, ended).await;
    let (mut store, opened, _ended) = open(folder.path());
    assert_eq!(
        (opened.end, opened.lost_up_to),
        (41, None),
        "a cut that was asked for is no damage"
    );
    let state = store.get_log_state().await.expect("state");
    assert_eq!(state.last_purged_log_id.map(|id| id.index), Some(19));
    assert_eq!(state.last_log_id.map(|id| id.index), Some(40));
    assert_eq!(store.try_get_log_entries(20..99).await.expect("read").len(), 21);
}

/// What is given up anyway must not be written once more first.
#[tokio::test]
async fn tables_of_entries_are_moved_and_never_rewritten() {
    const KEPT: u64 = 40;
    let folder = tempfile::tempdir().expect("a folder");
    let (mut store, _, ended) = open(folder.path());
    let large = |index| {
        let proposal = Proposal::new(index, &vec![7; 64 << 10]);
        Entry::new(log_id(1, 1, index), EntryPayload::Normal(proposal))
    };
    for begin in (0..400).step_by(4) {
        let entries = (begin..begin + 4).map(large);
        store.blocking_append(entries).await.expect("appended");
        if let Some(last) = begin.checked_sub(KEPT) {
            store.purge(log_id(1, 1, last)).await.expect("purged");
        }
    }
    close(store, ended).await;
    // Where the database tells of its own work.
    let told = std::fs::read_to_string(folder.path().join("raft/db/LOG")).expect("its report");
    let told_of = |event: &str| {
        let lines = told.lines().filter(|line| line.contains(event));
        lines.filter(|line| line.contains("\"cf_name\": \"log\"")).count()
    };
    assert!(told_of("\"event\": \"table_file_creation\"") > 8);
    assert_eq!(told_of("\"event\": \"compaction_started\""), 0);
    let (mut store, _, _ended) = open(folder.path());
    let left = store.try_get_log_entries(0..999).await.expect("read");
    let indexes = left.iter().map(|entry| entry.log_id().index);
    assert!(indexes.eq(400 - 4 - KEPT + 1..400));
}

/// The process ended when a purge was on the disk, and before the files of what was purged went.
#[tokio::test]
async fn what_was_purged_before_a_restart_gives_back_its_room() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(folder.path().join("raft")).expect("made");
    let open_db = || LogDb::open(&folder.path().join("raft/db"), MEMTABLE).expect("opens");
    let db = open_db();
    for begin in [0, 10, 20, 30] {
        db.put_file(begin..begin + 10, |index| entry::encode(&entry(index)));
    }
    let mut batch = LogBatch::default();
    let purged = serde_json::to_vec(&log_id(1, 1, 24)).expect("a log id encodes");
    db.put_meta(&mut batch, "purged", &purged);
    db.commit(batch).expect("written");
    assert_eq!(db.files(), 4);
    drop(db);
    let (store, opened, ended) = open(folder.path());
    assert_eq!((opened.end, opened.lost_up_to), (40, None));
    close(store, ended).await;
    assert_eq!(open_db().files(), 2);
}

/// A log of 30 entries from which a disk forgot some that it once had synced.
async fn forgetful(folder: &Path, from: u64, to: u64) {
    let (mut store, _, ended) = open(folder);
    store.blocking_append((0..30).map(entry)).await.expect("appended");
    close(store, ended).await;
    let db = LogDb::open(&folder.join("raft/db"), MEMTABLE).expect("opens");
    let mut batch = LogBatch::default();
    db.remove(&mut batch, from, to);
    db.commit(batch).expect("removed");
}

#[tokio::test]
async fn a_log_that_lost_its_end_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    forgetful(folder.path(), 25, u64::MAX).await;
    let (mut store, opened, ended) = open(folder.path());
    assert_eq!((opened.end, opened.lost_up_to), (25, Some(30)));
    // A part of it has come back when the node starts once more.
    store
        .blocking_append([entry(25), entry(26)])
        .await
        .expect("appended");
    store.truncate_after(Some(log_id(1, 1, 25))).await.expect("cut");
    store.save_vote(&Vote::new(3, 2)).await.expect("saved");
    close(store, ended).await;
    let (mut store, opened, ended) = open(folder.path());
    assert_eq!((opened.end, opened.lost_up_to), (26, Some(30)));
    store
        .blocking_append((26..30).map(entry))
        .await
        .expect("appended");
    // Now it has had everything, and a cut that is asked for is none again.
    store.truncate_after(Some(log_id(1, 1, 27))).await.expect("cut");
    close(store, ended).await;
    let (_, opened, _) = open(folder.path());
    assert_eq!((opened.end, opened.lost_up_to), (28, None));
}

#[tokio::test]
async fn a_log_that_was_put_back_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |starts| {
        LogStore::open(
            &folder.path().join("raft"),
            (None, starts),
            MEMTABLE,
            Arc::default(),
        )
    };
    let (store, _, ended) = start(0).expect("the first start");
    close(store, ended).await;
    // It ended before its identity knew of that start; then it was started twice.
    for starts in [0, 1] {
        let (store, _, ended) = start(starts).expect("one start more or as many");
        close(store, ended).await;
    }
    let error = start(4).err().expect("the log knows of fewer starts");
    assert!(error.to_string().contains("put back"), "{error}");
    // A damaged count is no older copy.
    std::fs::write(folder.path().join("raft/STARTS"), "9 00000000").expect("written");
    start(4).expect("it says nothing");
}

#[tokio::test]
async fn an_entry_missing_in_the_middle_stops_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    forgetful(folder.path(), 10, 11).await;
    let error = LogStore::open(&folder.path().join("raft"), (None, 0), MEMTABLE, Arc::default())
        .err()
        .expect("refused");
    assert!(error.to_string().contains("no entry 10"), "{error}");
    assert!(
        error.to_string().contains("member replace"),
        "it says what to do: {error}"
    );
}

#[tokio::test]
async fn a_purge_that_was_interrupted_after_a_snapshot_is_finished() {
    let folder = tempfile::tempdir().expect("a folder");
    forgetful(folder.path(), 10, 20).await;
    let open_at = |index| {
        let snapshot = Some(log_id(1, 1, index));
        LogStore::open(
            &folder.path().join("raft"),
            (snapshot, 0),
            MEMTABLE,
            Arc::default(),
        )
    };
    let short = open_at(18)
        .err()
        .expect("entry 19 is missing after this snapshot");
    assert!(short.to_string().contains("no entry 10"), "{short}");
    let (mut store, opened, _ended) = open_at(21).expect("the snapshot covers the gap");
    assert_eq!((opened.end, opened.lost_up_to), (30, None));
    let state = store.get_log_state().await.expect("state");
    assert_eq!(state.last_purged_log_id.map(|id| id.index), Some(21));
    assert_eq!(store.try_get_log_entries(0..99).await.expect("read").len(), 8);
}

/// A snapshot of another member was installed, and the process ended before the log was purged for it. What is left of
/// the log came from a leader of a later term.
#[tokio::test]
async fn a_log_that_ends_before_the_snapshot_begins_behind_it() {
    let of = |term, index| entry::without_proposal(log_id(term, 1, index), None);
    // Also where the log has lost what it once had, which must still be noticed.
    for (end, lost_up_to) in [(100, None), (90, Some(100))] {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, _, ended) = open(folder.path());
        let entries = (50..100).map(|index| of(3, index));
        store.blocking_append(entries).await.expect("appended");
        store.purge(log_id(1, 1, 49)).await.expect("purged");
        close(store, ended).await;
        let db = LogDb::open(&folder.path().join("raft/db"), MEMTABLE).expect("opens");
        let mut batch = LogBatch::default();
        db.remove(&mut batch, end, u64::MAX);
        db.commit(batch).expect("removed");
        drop(db);
        let snapshot = Some(log_id(2, 1, 200));
        let reopen = || {
            let raft = folder.path().join("raft");
            LogStore::open(&raft, (snapshot, 0), MEMTABLE, Arc::default()).expect("the log opens")
        };
        let (mut store, opened, ended) = reopen();
        assert_eq!((opened.end, opened.lost_up_to), (201, lost_up_to));
        let state = store.get_log_state().await.expect("state");
        assert_eq!(
            (state.last_purged_log_id, state.last_log_id),
            (snapshot, snapshot)
        );
        let entries = (201..205).map(|index| of(4, index));
        store.blocking_append(entries).await.expect("appended");
        close(store, ended).await;
        let (mut store, opened, _ended) = reopen();
        assert_eq!((opened.end, opened.lost_up_to), (205, None));
        let state = store.get_log_state().await.expect("state");
        assert_eq!(state.last_log_id, Some(log_id(4, 1, 204)));
        assert_eq!(store.try_get_log_entries(0..999).await.expect("read").len(), 4);
    }
}

#[tokio::test]
async fn a_vote_that_the_log_lost_is_remembered() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut store, _, ended) = open(folder.path());
    store.save_vote(&Vote::new(3, 2)).await.expect("saved");
    close(store, ended).await;
    let db = LogDb::open(&folder.path().join("raft/db"), MEMTABLE).expect("opens");
    let mut batch = LogBatch::default();
    let older = serde_json::to_vec(&Vote::new_committed(2, 1)).expect("a vote encodes");
    db.put_meta(&mut batch, "vote", &older);
    db.commit(batch).expect("written");
    drop(db);
    let (mut store, ..) = open(folder.path());
    assert_eq!(store.read_vote().await.expect("read"), Some(Vote::new(3, 2)));
}

/// Many large files are given up at once after a snapshot, which may take long.
#[tokio::test]
async fn entries_get_to_the_disk_while_the_room_of_others_is_given_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (release, held) = std::sync::mpsc::sync_channel::<()>(1);
    let reclaimer = Reclaimer::start(move |_end| {
        held.recv_timeout(Duration::from_secs(20)).ok();
    })
    .expect("its thread starts");
    let (mut store, ended) = held::begin(folder.path(), reclaimer, || {});
    store.blocking_append((0..10).map(entry)).await.expect("appended");
    store.purge(log_id(1, 1, 4)).await.expect("purged");
    for index in 10..13 {
        let appending = store.blocking_append([entry(index)]);
        let appended = tokio::time::timeout(Duration::from_secs(10), appending).await;
        appended.expect("nothing holds it up").expect("appended");
    }
    drop(release);
    close(store, ended).await;
}

/// What is read while the writer drops what it has synced: the range begins on disk and ends in the tail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_across_the_beginning_of_the_tail_leaves_nothing_out() {
    const ENTRIES: u64 = 1500;
    let folder = tempfile::tempdir().expect("a folder");
    let (mut store, ..) = open(folder.path());
    let large = |index| {
        let proposal = Proposal::new(index, &vec![7; 64 << 10]);
        Entry::new(log_id(1, 1, index), EntryPayload::Normal(proposal))
    };
    let log = Arc::clone(&store.log);
    let reading = std::thread::spawn(move || {
        let mut reads = 0;
        loop {
            let (first, end) = (log.tail.first(), *log.flushed.borrow());
            if end == ENTRIES {
                return reads;
            }
            // The writer drops about so many entries while this is read.
            for before in [1, 8, 64] {
                let from = first.saturating_sub(before);
                let to = end.min(first + 64);
                let read = log.read(from, to, usize::MAX).expect("read");
                let indexes: Vec<u64> = read.iter().map(|entry| entry.log_id().index).collect();
                assert_eq!(indexes, (from..to).collect::<Vec<u64>>(), "{from}..{to}");
                reads += 1;
            }
        }
    });
    for index in (0..ENTRIES).step_by(4) {
        store
            .blocking_append((index..ENTRIES.min(index + 4)).map(large))
            .await
            .expect("appended");
    }
    assert!(reading.join().expect("nothing is left out") > 100);
}

/// Waits for the writer thread to let go of the database.
async fn close(store: LogStore, ended: Ended) {
    drop(store);
    assert!(ended.await.is_err(), "the writer ended without a failure");
}
