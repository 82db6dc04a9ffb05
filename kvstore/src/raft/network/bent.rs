//! What a peer could send that is no message, and what a disk could hold that is no entry.
//! Invariant: every decoder of bytes from outside answers, whatever they are. What is bent was whole, so that it is
//! nearly right.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use openraft::raft::{AppendEntriesRequest, VoteRequest, VoteResponse};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{FrameReader, append_frame};
use super::message::{
    self, Ask, Control, Controlled, Health, MemberChange, Moment, Proposed, SnapshotHead, Streamed, Told,
};
use super::{handshake, older};
use crate::bent::feed;
use crate::command::{
    Action, Actor, Answer, Command, Expect, MirrorsWere, Once, Proposal, Reply, count_commands,
    encode_commands,
};
use crate::machine::agreement::Mark;
use crate::machine::snapshot::{Manifest, ManifestFile};
use crate::raft::entry;
use crate::raft::types::{Entry, Member, Membership, SnapshotMeta, StoredMembership, TypeConfig, Vote};

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

/// A change of the voters that is under way, beside a learner.
fn membership() -> Membership {
    let member = |id: u64| Member {
        peer_address: format!("127.0.0.1:710{id}"),
        client_address: format!("n{id}.example:7001"),
    };
    let nodes: BTreeMap<u64, Member> = (1..=4).map(|id| (id, member(id))).collect();
    let voters = vec![BTreeSet::from([1, 2]), BTreeSet::from([1, 2, 3])];
    Membership::new(voters, nodes).expect("each voter is a node")
}

/// As whoever learns of it does.
fn look_at(membership: &Membership) {
    drop(membership.to_string());
    let voters = membership.voter_ids();
    voters.for_each(|id| drop(membership.get_node(&id).cloned()));
}

/// With an entry of each kind.
fn append() -> AppendEntriesRequest<TypeConfig> {
    let entry = |index, payload| Entry::new(entry::log_id(2, 1, index), payload);
    AppendEntriesRequest {
        vote: Vote::new_committed(2, 1),
        prev_log_id: Some(entry::log_id(1, 3, 7)),
        entries: vec![
            entry(8, EntryPayload::Blank),
            entry(9, EntryPayload::Normal(Proposal::new(5, &commands()))),
            entry(10, EntryPayload::Membership(membership())),
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
    let whole = append().entries;
    let whole: Vec<Vec<u8>> = whole.iter().map(|entry| entry::encode(entry).to_vec()).collect();
    for bytes in &whole {
        let read = entry::decode(&Bytes::copy_from_slice(bytes));
        if let EntryPayload::Normal(proposal) = read.expect("it is whole").payload {
            assert_eq!(proposal.decode().expect("so are its commands").1.len(), 2);
        }
    }
    feed(&whole, |bytes| {
        drop(entry::decode(&Bytes::copy_from_slice(bytes)));
        match entry::decode(&believed(bytes)).map(|entry| entry.payload) {
            Ok(EntryPayload::Normal(proposal)) => drop(proposal.decode()),
            Ok(EntryPayload::Membership(membership)) => look_at(&membership),
            Ok(EntryPayload::Blank) | Err(_) => {}
        }
    });
}

#[test]
fn appends() {
    let whole = message::encode_append(&append());
    let read = message::decode_append(whole.clone()).expect("it is whole");
    assert_eq!(read.entries.len(), 3);
    feed(&[whole.to_vec()], |bytes| {
        drop(message::decode_append(Bytes::copy_from_slice(bytes)));
    });
}

#[test]
fn lists_of_commands_are_counted_and_joined() {
    let whole = [commands(), encode_commands(&[])];
    assert_eq!(
        whole.each_ref().map(|list| count_commands(list)),
        [Some(2), Some(0)]
    );
    feed(&whole, |bytes| {
        if count_commands(bytes).is_some() {
            drop(Proposal::merged(1, [bytes, bytes].into_iter()).decode());
        }
    });
}

/// As bytes, of which each is the message that it was.
fn encoded<T: Serialize + DeserializeOwned>(messages: &[T]) -> Vec<Vec<u8>> {
    let encode = |one: &T| {
        let bytes = message::encode(one);
        let read: T = message::decode(&bytes).expect("it is whole");
        assert_eq!(message::encode(&read), bytes);
        bytes
    };
    messages.iter().map(encode).collect()
}

fn requests() -> Vec<Vec<u8>> {
    let vote = VoteRequest {
        vote: Vote::new(3, 2),
        last_log_id: Some(entry::log_id(1, 1, 4)),
        leadership_transfer: true,
    };
    let hand_over = Control::TransferLeader {
        from: Vote::new_committed(2, 1),
        to: 3,
        last: Some(entry::log_id(2, 1, 9)),
    };
    let change = MemberChange::Add {
        id: 4,
        peer_address: "127.0.0.1:7104".to_owned(),
        client_address: "127.0.0.1:7004".to_owned(),
    };
    let mirror = Ask::Mirror {
        name: "mirror-sync".to_owned(),
        incarnation: "0123456789abcdef".to_owned(),
        revision: 7,
    };
    let append = Control::Append(message::encode_append(&append()));
    let controls = encoded(&[append, Control::PreVote(vote), hand_over]);
    let asks = encoded(&[Ask::Propose(commands().into()), Ask::Member(change), mirror]);
    [controls, asks].concat()
}

fn answers() -> Vec<Vec<u8>> {
    let reply = Reply {
        revision: 3,
        replayed: false,
        answer: Answer::Done,
        mirrors: MirrorsWere::None,
    };
    let proposed = Proposed {
        replies: vec![reply],
        mirrors: MirrorsWere::None,
    };
    let moment = Moment {
        index: 7,
        mirrored: Some(5),
    };
    let health = Health {
        sync_us: 700,
        marks: vec![Mark { revision: 1, hash: 2 }],
        disk_full: true,
    };
    let voted = VoteResponse::<TypeConfig>::new(Vote::new(3, 2), Some(entry::log_id(1, 1, 4)), true);
    let streamed = encoded(&[
        Streamed::Conflict(entry::log_id(1, 1, 4)),
        Streamed::HigherVote(Vote::new(3, 2)),
    ]);
    let controlled = encoded(&[Controlled::Failed("no".to_owned()), Controlled::Voted(voted)]);
    let told = encoded(&[
        Told::LastLog { last: None },
        Told::ReadIndex(Ok(moment)),
        Told::Proposed(Ok(proposed)),
        Told::Health(health),
    ]);
    [streamed, controlled, told].concat()
}

#[test]
fn requests_and_answers() {
    feed(&[requests(), answers()].concat(), |bytes| {
        if let Ok(Control::Append(append)) = message::decode(bytes) {
            drop(message::decode_append(append));
        }
        drop(message::decode::<Ask>(bytes));
        drop(message::decode::<Streamed>(bytes));
        drop(message::decode::<Controlled>(bytes));
        drop(older::decode_told(bytes));
    });
}

#[test]
fn handshakes() {
    let whole = handshake::whole();
    assert!(whole.iter().all(|bytes| handshake::is_any(bytes)));
    feed(&whole, |bytes| {
        handshake::is_any(bytes);
    });
}

/// With these as what it says in JSON.
fn head(meta: &[u8], manifest: &[u8]) -> SnapshotHead {
    SnapshotHead {
        vote: Vote::new(3, 2),
        meta: meta.to_vec(),
        manifest: manifest.to_vec(),
    }
}

/// Answers whether all of it is understood.
fn read_head(head: &SnapshotHead) -> bool {
    let (meta, manifest) = (head.meta(), serde_json::from_slice::<Manifest>(&head.manifest));
    if let Ok(meta) = &meta {
        look_at(meta.last_membership.membership());
    }
    meta.is_ok() && manifest.is_ok()
}

#[test]
fn heads_of_snapshots() {
    let meta = SnapshotMeta {
        last_log_id: Some(entry::log_id(2, 1, 10)),
        last_membership: StoredMembership::new(Some(entry::log_id(2, 1, 10)), membership()),
    };
    let manifest = Manifest {
        format: 1,
        meta: meta.clone(),
        generation: 3,
        files: vec![ManifestFile {
            name: "1.sst".to_owned(),
            bytes: 7,
            crc32c: 9,
        }],
    };
    let meta = serde_json::to_vec(&meta).expect("it is plain data");
    let manifest = serde_json::to_vec(&manifest).expect("it is plain data");
    let whole = head(&meta, &manifest);
    assert!(read_head(&whole));
    feed(&[encoded(&[whole]), vec![meta, manifest]].concat(), |bytes| {
        if let Ok(head) = message::decode::<SnapshotHead>(bytes) {
            read_head(&head);
        }
        read_head(&head(bytes, bytes));
    });
}

#[test]
fn frames() {
    let mut whole = BytesMut::new();
    append_frame(&mut whole, &[b"hel", b"lo"]).expect("it fits");
    append_frame(&mut whole, &[&commands()]).expect("it fits");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a thread of one's own needs nothing");
    let read = |bytes: &[u8]| {
        runtime.block_on(async {
            let (mut reader, mut count) = (FrameReader::new(bytes), 0);
            while let Ok(Some(_frame)) = reader.next().await {
                count += 1;
            }
            count
        })
    };
    assert_eq!(read(&whole), 2);
    feed(&[whole.to_vec()], |bytes| {
        read(bytes);
    });
}
