//! A log whose disk hangs, for tests: its writer does nothing until it is let go, or so late that whoever waits for it has
//! failed.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::reclaim::Reclaimer;
use super::tail::Tail;
use super::writer::Writer;
use super::{Log, LogStore, QUEUE};
use crate::storage::closing::Joined;
use crate::storage::log_db::{LogDb, TailMark};

const HELD_MAX: Duration = Duration::from_secs(30);
const MEMTABLE: usize = 1 << 20;

/// Dropping what comes with it lets the writer go.
pub(crate) fn open(folder: &Path) -> (LogStore, SyncSender<()>) {
    let (release, held) = sync_channel(1);
    let reclaimer = Reclaimer::start(|_end| {}).unwrap();
    let (store, _failed) = begin(folder, reclaimer, move || {
        held.recv_timeout(HELD_MAX).ok();
    });
    (store, release)
}

/// An empty log whose writer begins behind `hold`.
pub(super) fn begin(
    folder: &Path,
    reclaimer: Reclaimer,
    hold: impl FnOnce() + Send + 'static,
) -> (LogStore, oneshot::Receiver<io::Error>) {
    let folder = folder.join("raft");
    std::fs::create_dir_all(&folder).unwrap();
    let log = Arc::new(Log {
        db: LogDb::open(&folder.join("db"), MEMTABLE).unwrap(),
        tail: Tail::new(0),
        flushed: watch::Sender::new(0),
        purged: AtomicU64::new(0),
        vote: Mutex::new(None),
        committed: Mutex::new(None),
    });
    let mark = TailMark::open(&folder.join("TAIL")).unwrap();
    let (queue, work) = mpsc::channel(QUEUE);
    let (broken, failed) = oneshot::channel();
    let writer = Writer::new(Arc::clone(&log), mark, work, broken, Arc::default(), reclaimer);
    let writer = Joined::spawn("log-writer", move || {
        hold();
        writer.run();
    });
    let store = LogStore {
        log,
        queue,
        committed: None,
        purged: None,
        _writer: Arc::new(writer.unwrap()),
    };
    (store, failed)
}
