//! Files that no store wrote, whose checksums may be right all the same.
//! Invariant: each is read or refused; what is read of one that never ends is bounded.

use std::io::{self, Read};

use bytes::Bytes;
use kvstore_client::wire::mirror::KeptAnswer;
use sha2::{Digest as _, Sha256};

use super::assemble::kept;
use super::format::{BEGIN, END, Head, Reader, verify};
use crate::bent::feed;
use crate::command::{Answer, MirrorsWere, Reply};
use crate::machine::snapshot::ManifestFile;
use crate::raft::entry;

const CONTENT: [&[u8]; 2] = [b"the first file", b"and another one"];

fn head() -> Vec<u8> {
    let file = |(number, content): (usize, &&[u8])| ManifestFile {
        name: format!("{number}.sst"),
        bytes: content.len() as u64,
        crc32c: crc32c::crc32c(content),
    };
    let head = Head {
        cluster_id: "0123456789abcdef".to_owned(),
        revision: 7,
        keys: 2,
        hash: "00".repeat(16),
        last_log: entry::log_id(2, 1, 9),
        made_ms: 1_700_000_000_000,
        version: "0.1.0".to_owned(),
        files: CONTENT.iter().enumerate().map(file).collect(),
    };
    serde_json::to_vec(&head).expect("it is plain data")
}

/// A backup with this head, around which everything is right.
fn around(head: &[u8]) -> Vec<u8> {
    let mut file = BEGIN.to_vec();
    let length = u32::try_from(head.len()).expect("it is short");
    file.extend(length.to_le_bytes());
    file.extend(head);
    file.extend(crc32c::crc32c(head).to_le_bytes());
    file.extend(CONTENT.concat());
    let all = Sha256::digest(&file);
    file.extend(all);
    file.extend(END);
    file
}

fn read(from: impl Read) -> anyhow::Result<Head> {
    let reader = Reader::begin(from, 0)?;
    // What is told of a backup before it is read.
    reader.head.files_bytes();
    reader.read(|_file| Ok(io::sink()), &mut |_done, _all| ())
}

#[test]
fn files() {
    let whole = around(&head());
    assert_eq!(read(&whole[..]).expect("it is whole").revision, 7);
    feed(&[whole], |bytes| drop(read(bytes)));
}

#[test]
fn files_that_nobody_wants_to_know_of_any_longer() {
    let file = tempfile::NamedTempFile::new().expect("there is a folder for it");
    std::fs::write(file.path(), around(&head())).expect("there is room for it");
    let read = |is_wanted: &dyn Fn() -> bool| verify(file.path(), is_wanted, &mut |_done, _all| ());
    assert_eq!(read(&|| true).expect("it is whole").revision, 7);
    let ended = read(&|| false).expect_err("it is not read to its end");
    assert!(format!("{ended:#}").contains("nobody waits"), "{ended:#}");
}

#[test]
fn heads_behind_the_right_checksums() {
    feed(&[head()], |head| drop(read(&around(head)[..])));
}

#[test]
fn sizes_that_are_more_than_there_can_be() {
    let text = String::from_utf8(head()).expect("it is JSON");
    let vast = format!("\"bytes\":{}", u64::MAX);
    let mut told = text;
    for content in CONTENT {
        told = told.replace(&format!("\"bytes\":{}", content.len()), &vast);
    }
    let refused = read(&around(told.as_bytes())[..]).expect_err("it is too much");
    assert!(refused.to_string().contains("more bytes"), "{refused:#}");
}

#[test]
fn an_end_that_never_comes() {
    let mut rest = io::repeat(b'x').take(1 << 20);
    assert!(read((&around(&head())[..]).chain(&mut rest)).is_err());
    assert!(
        rest.limit() > (1 << 20) - 100,
        "more of it was read than tells that it is there"
    );
}

#[test]
fn kept_answers_of_a_mirror() {
    let reply = Reply {
        revision: 7,
        replayed: false,
        answer: Answer::Put {
            key: Bytes::from_static(b"key"),
            version: 1,
            created: true,
        },
        mirrors: MirrorsWere::None,
    };
    let answer = |reply: &[u8]| KeptAnswer {
        owner: "token".to_owned(),
        key: "once".to_owned(),
        revision: 7,
        expires_ms: 1,
        left_ms: None,
        fingerprint: Bytes::from_static(&[7; 16]),
        reply: Bytes::copy_from_slice(reply),
    };
    let whole = postcard::to_stdvec(&reply).expect("it is plain data");
    assert!(kept(answer(&whole)).is_ok());
    feed(&[whole.clone(), vec![7; 16]], |bytes| {
        drop(kept(answer(bytes)));
        drop(kept(KeptAnswer {
            fingerprint: Bytes::copy_from_slice(bytes),
            ..answer(&whole)
        }));
    });
}
