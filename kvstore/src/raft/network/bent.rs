//! What a peer could send that is no message, and what a disk could hold that is no entry.
//! Invariant: every decoder of bytes from outside answers, whatever they are.

use bytes::{Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use openraft::raft::{AppendEntriesRequest, VoteRequest};

use super::frame::{FrameReader, append_frame};
use super::message::{self, Ask, Control, Controlled, MemberChange, SnapshotHead, Streamed, Told};
use super::{handshake, older};
use crate::bent::feed;
use crate::command::{Action, Actor, Command, Expect, Once, Proposal, count_commands, encode_commands};
use crate::machine::snapshot::Manifest;
use crate::raft::entry;
use crate::raft::types::{Entry, TypeConfig, Vote};

fn commands() -> Vec<u8> {
    let command = |number: u8| Command {
        actor: Actor::Token(number.into()),
        action: Action::Put {
            key: Bytes::from(vec![b'k', number]),
            value: Bytes::from(vec![number; 20]),
            lease: 0,
            expect: Expect::Any,
        },
        once: Some(Once {
            key: "once".to_owned(),
            fingerprint: [number; 16],
            ttl_ms: 1000,
            room_bytes: 1000,
        }),
    };
    encode_commands(&[command(1), command(2)])
}

fn append() -> AppendEntriesRequest<TypeConfig> {
    let entry = |index, payload| Entry::new(entry::log_id(2, 1, index), payload);
    AppendEntriesRequest {
        vote: Vote::new_committed(2, 1),
        prev_log_id: Some(entry::log_id(1, 3, 7)),
        entries: vec![
            entry(8, EntryPayload::Blank),
            entry(9, EntryPayload::Normal(Proposal::new(5, &commands()))),
        ],
        leader_commit: Some(entry::log_id(1, 3, 7)),
    }
}

/// The checksum made right, so that what lies behind it is reached.
fn believed(bytes: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= 4 {
        let checksum = crc32c::crc32c(&bytes[4..]).to_le_bytes();
        bytes[..4].copy_from_slice(&checksum);
    }
    bytes.into()
}

#[test]
fn entries() {
    let whole: Vec<Vec<u8>> = append()
        .entries
        .iter()
        .map(|entry| entry::encode(entry).to_vec())
        .collect();
    feed(&whole, |bytes| {
        drop(entry::decode(&Bytes::copy_from_slice(bytes)));
        if let Ok(entry) = entry::decode(&believed(bytes))
            && let EntryPayload::Normal(proposal) = entry.payload
        {
            drop(proposal.decode());
        }
    });
}

#[test]
fn appends() {
    let whole = [message::encode_append(&append()).to_vec()];
    feed(&whole, |bytes| {
        drop(message::decode_append(Bytes::copy_from_slice(bytes)));
    });
}

#[test]
fn lists_of_commands_are_counted_and_joined() {
    let whole = [commands(), encode_commands(&[])];
    feed(&whole, |bytes| {
        if count_commands(bytes).is_some() {
            drop(Proposal::merged(1, [bytes, bytes].into_iter()).decode());
        }
    });
}

#[test]
fn requests_and_answers() {
    let vote = || VoteRequest {
        vote: Vote::new(3, 2),
        last_log_id: Some(entry::log_id(1, 1, 4)),
        leadership_transfer: true,
    };
    let change = MemberChange::Add {
        id: 4,
        peer_address: "127.0.0.1:7104".to_owned(),
        client_address: "127.0.0.1:7004".to_owned(),
    };
    let whole = [
        message::encode(&Control::Append(message::encode_append(&append()))),
        message::encode(&Control::PreVote(vote())),
        message::encode(&Ask::Propose(commands().into())),
        message::encode(&Ask::Member(change)),
        message::encode(&Streamed::Conflict(entry::log_id(1, 1, 4))),
        message::encode(&Controlled::Failed("no".to_owned())),
        message::encode(&Told::LastLog { last: None }),
    ];
    feed(&whole, |bytes| {
        if let Ok(Control::Append(append)) = message::decode(bytes) {
            drop(message::decode_append(append));
        }
        drop(message::decode::<Ask>(bytes));
        drop(message::decode::<Streamed>(bytes));
        drop(message::decode::<Controlled>(bytes));
        drop(older::decode_told(bytes));
        handshake::decode_any(bytes);
    });
}

#[test]
fn heads_of_snapshots() {
    let manifest = serde_json::json!({
        "format": 1, "generation": 3, "files": [{"name": "1.sst", "bytes": 7, "crc32c": 9}],
        "meta": {"last_log_id": null, "last_membership": {"log_id": null, "membership": {"configs": [], "nodes": {}}},
            "snapshot_id": "1"},
    });
    let manifest = serde_json::to_vec(&manifest).expect("it is plain data");
    let head = SnapshotHead {
        vote: Vote::new(3, 2),
        meta: manifest.clone(),
        manifest: manifest.clone(),
    };
    feed(&[message::encode(&head), manifest], |bytes| {
        if let Ok(head) = message::decode::<SnapshotHead>(bytes) {
            drop(head.meta());
            drop(serde_json::from_slice::<Manifest>(&head.manifest));
        }
        drop(serde_json::from_slice::<Manifest>(bytes));
    });
}

#[test]
fn frames() {
    let mut whole = BytesMut::new();
    append_frame(&mut whole, &[b"hel", b"lo"]);
    append_frame(&mut whole, &[&commands()]);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a thread of one's own needs nothing");
    feed(&[whole.to_vec()], |bytes| {
        runtime.block_on(async {
            let mut reader = FrameReader::new(bytes);
            while let Ok(Some(_frame)) = reader.next().await {}
        });
    });
}
