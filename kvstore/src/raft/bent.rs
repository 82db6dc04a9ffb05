//! What a disk could hold in place of the small files of a node: who it is, how often it was started, and how far its
//! log once went.
//! Invariant: each is read or refused, and from what is read one can go on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::identity::{Identity, IdentityError};
use super::log::{count_start, read_starts};
use crate::bent::feed;
use crate::storage::log_db::{Marked, TailMark};

const ID: u64 = 3;

/// Over what is there: some file systems bring to disk at once what takes the place of an emptied file.
fn put(path: &Path, bytes: &[u8]) {
    let write = || {
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(path)?;
        file.set_len(bytes.len() as u64)?;
        file.write_all_at(bytes, 0)
    };
    write().expect("there is room for it");
}

#[test]
fn identities() {
    let folder = tempfile::tempdir().expect("there is a folder for it");
    let path = folder.path().join("identity.json");
    let made = Identity::load_or_create(folder.path(), ID).expect("it is made");
    made.adopt_cluster("0123456789abcdef").expect("it has none yet");
    let whole = fs::read(&path).expect("it was written");
    let read = |bytes: &[u8]| {
        put(&path, bytes);
        Identity::load_or_create(folder.path(), ID)
    };
    assert_eq!(read(&whole).expect("it is whole").disk(), made.disk());
    feed(&[whole], |bytes| {
        if let Ok(identity) = read(bytes) {
            assert!(identity.id() == ID && identity.starts() < u64::MAX);
        }
    });
}

#[test]
fn a_count_of_starts_that_leaves_no_room_for_this_one_is_damage() {
    let folder = tempfile::tempdir().expect("there is a folder for it");
    let text = format!(
        r#"{{"id": {ID}, "disk": "d", "cluster_id": null, "starts": {}}}"#,
        u64::MAX
    );
    fs::write(folder.path().join("identity.json"), text).expect("there is room for it");
    let refused = Identity::load_or_create(folder.path(), ID);
    assert!(
        matches!(refused, Err(IdentityError::Damaged(u64::MAX))),
        "{refused:?}"
    );
}

#[test]
fn counts_of_starts() {
    let folder = tempfile::tempdir().expect("there is a folder for it");
    // What says nothing is no older copy.
    fs::write(folder.path().join("STARTS"), "damaged").expect("there is room for it");
    count_start(folder.path(), 6).expect("it is counted");
    let whole = fs::read(folder.path().join("STARTS")).expect("it was written");
    assert_eq!(read_starts(&whole), Some(7));
    feed(&[whole], |bytes| {
        if let Some(starts) = read_starts(bytes) {
            assert_eq!(starts, 7, "its checksum holds");
        }
    });
}

const MARKED: Marked = Marked {
    end: 30,
    vote: (2, 1),
};

/// The checksum at its end made right.
fn believed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(28, 0);
    let checksum = crc32c::crc32c(&bytes[..24]).to_le_bytes();
    bytes[24..].copy_from_slice(&checksum);
    bytes
}

#[test]
fn marks_of_the_end_of_the_log() {
    let folder = tempfile::tempdir().expect("there is a folder for it");
    let path = folder.path().join("TAIL");
    let open = || TailMark::open(&path).expect("there is a file, whatever it says");
    open()
        .raise(Some(MARKED.end), Some(MARKED.vote))
        .expect("there is room for it");
    let whole = fs::read(&path).expect("it was written");
    // Of a log that ends at 9, to which an entry comes.
    let go_on = |bytes: &[u8]| {
        put(&path, bytes);
        let mut mark = open();
        let marked = mark.marked();
        let lost_up_to = mark.compare(9);
        assert_eq!(lost_up_to, Some(marked.end).filter(|end| *end > 9));
        mark.raise(Some(10), None).expect("there is room for it");
        assert_eq!(open().marked().end, lost_up_to.unwrap_or(10).max(10));
        marked
    };
    assert_eq!(go_on(&whole), MARKED);
    assert_eq!(believed(&whole), whole);
    feed(&[whole], |bytes| {
        let marked = go_on(bytes);
        assert!(
            [Marked::default(), MARKED].contains(&marked),
            "its checksum holds"
        );
        go_on(&believed(bytes));
    });
}
