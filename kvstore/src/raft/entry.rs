//! The bytes of one log entry, the same on disk and between peers, with a checksum over all of it.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::entry::RaftEntry;
use openraft::{EntryPayload, Membership};

use super::types::{Entry, LogId, Member, TypeConfig};
use crate::command::Proposal;

const FORMAT: u8 = 1;
const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;
/// Checksum, format, kind, term, node, index.
const HEADER: usize = 4 + 1 + 1 + 8 + 8 + 8;

pub type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;

#[derive(Debug, thiserror::Error)]
pub enum MalformedEntry {
    #[error("a log entry is cut short")]
    Short,
    #[error("a log entry's checksum does not match: the disk or the network damaged it")]
    Checksum,
    #[error("a log entry has format {0} or kind {1}, which this version cannot read")]
    Format(u8, u8),
    #[error("a membership entry does not decode")]
    Membership(#[from] serde_json::Error),
}

pub fn log_id(term: u64, node: u64, index: u64) -> LogId {
    use openraft::vote::RaftLeaderId;
    LogId::new(LeaderId::new(term, node).to_committed(), index)
}

pub fn log_id_parts(id: &LogId) -> (u64, u64, u64) {
    let leader = id.committed_leader_id();
    (leader.term, leader.node_id, id.index)
}

pub fn log_id_of(entry: &Entry) -> LogId {
    entry.log_id()
}

/// An entry as leaders begin with, or one that changes the members.
#[cfg(test)]
pub(crate) fn without_proposal(id: LogId, members: Option<Membership<u64, Member>>) -> Entry {
    let payload = match members {
        Some(members) => EntryPayload::Membership(members),
        None => EntryPayload::Blank,
    };
    Entry::new(id, payload)
}

#[cfg(test)]
pub(crate) fn with_proposal(id: LogId, proposal: Proposal) -> Entry {
    Entry::new(id, EntryPayload::Normal(proposal))
}

pub fn encode(entry: &Entry) -> Bytes {
    let mut out = BytesMut::new();
    put(&mut out, entry);
    out.freeze()
}

/// Puts an entry behind what is there, with its length in front.
pub fn put_with_length(out: &mut BytesMut, entry: &Entry) {
    let at = out.len();
    out.put_u32_le(0);
    put(out, entry);
    let length = u32::try_from(out.len() - at - 4).expect("an entry is far smaller than 4 GiB");
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

fn put(out: &mut BytesMut, entry: &Entry) {
    let membership;
    let (kind, payload): (u8, &[u8]) = match &entry.payload {
        EntryPayload::Blank => (BLANK, &[]),
        EntryPayload::Normal(proposal) => (NORMAL, &proposal.0),
        EntryPayload::Membership(value) => {
            membership = serde_json::to_vec(value).expect("a membership is plain data");
            (MEMBERSHIP, &membership)
        }
    };
    let (term, node, index) = log_id_parts(&entry.log_id());
    let at = out.len();
    out.reserve(HEADER + payload.len());
    out.put_u32_le(0);
    out.put_u8(FORMAT);
    out.put_u8(kind);
    out.put_u64_le(term);
    out.put_u64_le(node);
    out.put_u64_le(index);
    out.put_slice(payload);
    let checksum = crc32c::crc32c(&out[at + 4..]);
    out[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
}

pub fn decode(bytes: &Bytes) -> Result<Entry, MalformedEntry> {
    let header = bytes.get(..HEADER).ok_or(MalformedEntry::Short)?;
    if crc32c::crc32c(&bytes[4..]).to_le_bytes() != header[..4] {
        return Err(MalformedEntry::Checksum);
    }
    let number =
        |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes of the header"));
    let payload = match (header[4], header[5]) {
        (FORMAT, BLANK) => EntryPayload::Blank,
        (FORMAT, NORMAL) => EntryPayload::Normal(Proposal(bytes.slice(HEADER..))),
        (FORMAT, MEMBERSHIP) => {
            let membership: Membership<u64, Member> = serde_json::from_slice(&bytes[HEADER..])?;
            EntryPayload::Membership(membership)
        }
        (format, kind) => return Err(MalformedEntry::Format(format, kind)),
    };
    Ok(Entry::new(log_id(number(6), number(14), number(22)), payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As entries were written once, and must be for ever.
    #[test]
    fn an_entry_is_the_same_bytes_wherever_it_is_put() {
        let body = |kind: u8, payload: &[u8]| {
            let header = [[3_u64, 2, 9].map(u64::to_le_bytes).concat(), payload.to_vec()].concat();
            let covered = [vec![1, kind], header].concat();
            [crc32c::crc32c(&covered).to_le_bytes().to_vec(), covered].concat()
        };
        let entry = |payload| Entry::new(log_id(3, 2, 9), payload);
        let membership: Membership<u64, Member> = Membership::default();
        let json = serde_json::to_vec(&membership).expect("a membership is plain data");
        let proposal = Proposal::new(7, b"commands");
        let all = [
            (entry(EntryPayload::Blank), body(0, b"")),
            (
                entry(EntryPayload::Normal(proposal.clone())),
                body(1, &proposal.0),
            ),
            (entry(EntryPayload::Membership(membership)), body(2, &json)),
        ];
        let (mut out, mut expected) = (BytesMut::from("before"), b"before".to_vec());
        for (entry, bytes) in &all {
            assert_eq!(encode(entry), bytes);
            put_with_length(&mut out, entry);
            expected.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
            expected.extend(bytes);
        }
        assert_eq!(out, expected);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let proposal = Proposal::new(7, b"commands");
        let entry = Entry::new(log_id(3, 2, 9), EntryPayload::Normal(proposal));
        let encoded = encode(&entry);
        assert_eq!(decode(&encoded).expect("it is whole").log_id(), entry.log_id());
        for bit in 0..encoded.len() * 8 {
            let mut damaged = encoded.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged.into()).is_err(), "bit {bit}");
        }
        assert!(decode(&encoded.slice(..12)).is_err());
    }
}
