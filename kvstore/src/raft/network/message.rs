//! What peers say to each other, as bytes. Entries travel as the bytes they have on disk.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::entry::RaftEntry;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::command::{MirrorMode, MirrorState, MirrorsWere, OnLoss, Reply};
use crate::machine::agreement::Mark;
use crate::raft::entry::{self, MalformedEntry};
use crate::raft::types::{LogId, SnapshotMeta, TypeConfig, Vote};

#[derive(Debug, thiserror::Error)]
pub enum MalformedMessage {
    #[error("a message of a peer is cut short")]
    Short,
    #[error("an entry of a peer does not decode")]
    Entry(#[from] MalformedEntry),
    #[error("a message of a peer does not decode")]
    Body(#[from] postcard::Error),
    #[error("entries of a peer do not follow each other")]
    Gap,
}

/// One request on a control connection, answered before the next.
#[derive(Debug, Serialize, Deserialize)]
pub enum Control {
    /// An append, encoded by [`encode_append`].
    Append(Bytes),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    TransferLeader {
        from: Vote,
        to: u64,
        last: Option<LogId>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Controlled {
    Appended(AppendEntriesResponse<TypeConfig>),
    Voted(VoteResponse<TypeConfig>),
    Transferred(Result<(), String>),
    /// The node cannot answer this now, for instance because it lost part of its log.
    Failed(String),
}

/// Answer to one append of a stream.
#[derive(Debug, Serialize, Deserialize)]
pub enum Streamed {
    Flushed(Option<LogId>),
    Conflict(LogId),
    HigherVote(Vote),
}

/// One question on an ask connection; many are under way at once.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    Probe,
    ReadIndex,
    /// Encoded commands of a follower's clients.
    Propose(Bytes),
    LastLog,
    Member(MemberChange),
    Standing,
    Health,
    /// One command that must pass also while a mirror blocks writes, and waits for none.
    ProposeUnheld(Bytes),
    /// A mirror tells how far it is.
    Mirror {
        name: String,
        incarnation: String,
        revision: u64,
    },
    Mirrors,
    /// Answered once every mirror that is waited for has this revision.
    Mirrored(u64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum MemberChange {
    Add {
        id: u64,
        peer_address: String,
        client_address: String,
    },
    Promote {
        id: u64,
    },
    Remove {
        id: u64,
    },
    Lead {
        to: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Told {
    Probe { empty: bool },
    ReadIndex(Result<Moment, NotNow>),
    Proposed(Result<Proposed, NotNow>),
    LastLog { last: Option<LogId> },
    Member(Result<(), MemberRefused>),
    Standing(Standing),
    Health(Health),
    Mirror(MirrorHeard),
    Mirrors(Vec<MirrorView>),
    Mirrored(Result<(), NotNow>),
}

/// What a read that begins now has to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// After the last entry.
    pub index: u64,
    /// Up to here it may show what it sees; beyond, every mirror must have it first. `None`: all of it.
    pub mirrored: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed {
    pub replies: Vec<Reply>,
    pub mirrors: MirrorsWere,
}

/// What becomes of a mirror's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorHeard {
    Heard(MirrorView),
    Unknown,
    /// Another database was announced under this name.
    Another,
    /// No such revision was ever made.
    Future {
        present: u64,
    },
    NotLeader,
}

/// A mirror as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorView {
    pub name: String,
    pub mode: MirrorMode,
    pub on_loss: OnLoss,
    pub state: MirrorState,
    pub acknowledged: Option<u64>,
    pub lag: Option<u64>,
    pub heard_ms_ago: Option<u64>,
}

/// Why a leader's work was not done here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotNow {
    /// Surely nothing happened; ask the leader.
    NotLeader,
    /// Surely nothing happened; try again later.
    Overloaded,
    /// It may have happened, or may still.
    Unknown,
    /// Surely nothing happened: a mirror is gone without which nothing is written.
    MirrorLost,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberRefused {
    NotLeader,
    NotFound,
    Exists,
    LastVoter,
    NotCaughtUp { lag: u64 },
    InProgress,
    Unreachable,
    DiskReused,
    Unknown,
}

/// How far a member says it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub last_log: Option<u64>,
    pub applied: Option<u64>,
    pub revision: u64,
}

/// What members look at in each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    /// What syncing the log takes, on average.
    pub sync_us: u64,
    pub marks: Vec<Mark>,
    /// It takes no writes that need room. A member of before does not say so.
    pub disk_full: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct SnapshotHead {
    pub vote: Vote,
    /// JSON, since the membership in it is a map of our own types.
    pub meta: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl SnapshotHead {
    pub fn meta(&self) -> serde_json::Result<SnapshotMeta> {
        serde_json::from_slice(&self.meta)
    }
}

pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_stdvec(message).expect("messages hold no map of unknown length, so they always encode")
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MalformedMessage> {
    Ok(postcard::from_bytes(bytes)?)
}

pub fn transfer_request(from: Vote, to: u64, last: Option<LogId>) -> TransferLeaderRequest<TypeConfig> {
    TransferLeaderRequest::new(from, to, last)
}

fn put_log_id(out: &mut BytesMut, id: Option<&LogId>) {
    match id {
        None => out.put_u8(0),
        Some(id) => {
            let (term, node, index) = entry::log_id_parts(id);
            out.put_u8(1);
            out.put_u64_le(term);
            out.put_u64_le(node);
            out.put_u64_le(index);
        }
    }
}

fn get_log_id(bytes: &mut Bytes) -> Result<Option<LogId>, MalformedMessage> {
    if !need(bytes, 1)?.get_u8().eq(&1) {
        return Ok(None);
    }
    let bytes = need(bytes, 24)?;
    let (term, node, index) = (bytes.get_u64_le(), bytes.get_u64_le(), bytes.get_u64_le());
    Ok(Some(entry::log_id(term, node, index)))
}

fn need(bytes: &mut Bytes, length: usize) -> Result<&mut Bytes, MalformedMessage> {
    if bytes.remaining() < length {
        Err(MalformedMessage::Short)
    } else {
        Ok(bytes)
    }
}

pub fn encode_append(request: &AppendEntriesRequest<TypeConfig>) -> Bytes {
    let mut out = BytesMut::new();
    put_append(&mut out, request);
    out.freeze()
}

/// Puts it behind what is there, so that its entries are copied once.
pub fn put_append(out: &mut BytesMut, request: &AppendEntriesRequest<TypeConfig>) {
    out.put_u64_le(request.vote.leader_id.term);
    out.put_u64_le(request.vote.leader_id.node_id);
    out.put_u8(u8::from(request.vote.committed));
    put_log_id(out, request.prev_log_id.as_ref());
    put_log_id(out, request.leader_commit.as_ref());
    for entry in &request.entries {
        entry::put_with_length(out, entry);
    }
}

/// Whether each entry follows the one before it, the first the one that the follower must have. openraft neither
/// makes sure of that where it sends (a log purged meanwhile begins later than it asked for) nor where it
/// receives: entries after a gap would count as replicated, and those in the gap be lost.
pub fn is_contiguous(request: &AppendEntriesRequest<TypeConfig>) -> bool {
    // Nothing follows the last index there is, whoever claims to have it.
    let Some(first) = request
        .prev_log_id
        .map_or(Some(0), |prev| prev.index.checked_add(1))
    else {
        return request.entries.is_empty();
    };
    let indexes = request.entries.iter().map(|entry| entry.log_id().index);
    indexes.eq((first..).take(request.entries.len()))
}

/// The entries share the frame's memory.
pub fn decode_append(mut bytes: Bytes) -> Result<AppendEntriesRequest<TypeConfig>, MalformedMessage> {
    let head = need(&mut bytes, 17)?;
    let (term, node, committed) = (head.get_u64_le(), head.get_u64_le(), head.get_u8() == 1);
    let vote = if committed {
        Vote::new_committed(term, node)
    } else {
        Vote::new(term, node)
    };
    let prev_log_id = get_log_id(&mut bytes)?;
    let leader_commit = get_log_id(&mut bytes)?;
    let mut entries = Vec::new();
    while bytes.has_remaining() {
        let length = need(&mut bytes, 4)?.get_u32_le() as usize;
        entries.push(entry::decode(&need(&mut bytes, length)?.split_to(length))?);
    }
    let request = AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    };
    if !is_contiguous(&request) {
        return Err(MalformedMessage::Gap);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;

    use super::*;
    use crate::command::Proposal;
    use crate::raft::types::Entry;

    #[test]
    fn an_append_survives_the_wire() {
        let entries = vec![
            Entry::new(entry::log_id(2, 1, 8), EntryPayload::Blank),
            Entry::new(
                entry::log_id(2, 1, 9),
                EntryPayload::Normal(Proposal::new(5, b"x")),
            ),
        ];
        let request = AppendEntriesRequest {
            vote: Vote::new_committed(2, 1),
            prev_log_id: Some(entry::log_id(1, 3, 7)),
            entries,
            leader_commit: None,
        };
        let encoded = encode_append(&request);
        let mut put = BytesMut::from("before");
        put_append(&mut put, &request);
        assert_eq!(put[6..], encoded);
        let decoded = decode_append(encoded.clone()).expect("it is whole");
        assert_eq!(format!("{request:?}"), format!("{decoded:?}"));
        for end in 0..encoded.len() {
            let cut = decode_append(encoded.slice(..end));
            assert!(
                cut.is_err() || cut.is_ok_and(|cut| cut.entries.len() < 2),
                "cut at {end}"
            );
        }
    }

    #[test]
    fn entries_with_a_gap_are_refused() {
        let request = |prev: Option<u64>, indexes: &[u64]| AppendEntriesRequest::<TypeConfig> {
            vote: Vote::new_committed(2, 1),
            prev_log_id: prev.map(|index| entry::log_id(1, 1, index)),
            entries: indexes
                .iter()
                .map(|index| Entry::new(entry::log_id(1, 1, *index), EntryPayload::Blank))
                .collect(),
            leader_commit: None,
        };
        for (prev, indexes) in [(None, &[0, 1][..]), (Some(7), &[8, 9, 10]), (Some(7), &[])] {
            assert!(decode_append(encode_append(&request(prev, indexes))).is_ok());
        }
        for (prev, indexes) in [
            (None, &[1][..]),
            (Some(7), &[9]),
            (Some(7), &[8, 10]),
            (Some(7), &[7, 8]),
        ] {
            let refused = decode_append(encode_append(&request(prev, indexes)));
            assert!(
                matches!(refused, Err(MalformedMessage::Gap)),
                "{prev:?} {indexes:?}"
            );
        }
    }

    #[test]
    fn votes_and_answers_survive_the_wire() {
        let vote = VoteRequest {
            vote: Vote::new(3, 2),
            last_log_id: Some(entry::log_id(1, 1, 4)),
            leadership_transfer: true,
        };
        let Control::Vote(back) = decode(&encode(&Control::Vote(vote.clone()))).expect("it decodes") else {
            panic!("another kind")
        };
        assert_eq!(back, vote);
        let told = Told::ReadIndex(Err(NotNow::NotLeader));
        assert_eq!(
            format!("{told:?}"),
            format!("{:?}", decode::<Told>(&encode(&told)).expect("it decodes"))
        );
    }
}
