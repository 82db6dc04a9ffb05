//! The parts that the rows of a state are compared by, and which row belongs to which.
//! Invariant: a row that nobody has thought of belongs to none, and is an error.

use std::fmt;
use std::io;

use crate::storage::machine_db::{ANSWERS, APPLIED, COLLECTED, HEADS, LEASES, MEMBERSHIP, META, STATE};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Living keys with their values.
    Keys,
    Leases,
    /// Which keys end with a lease.
    LeaseKeys,
    Answers,
    /// When a kept answer ends, and what it counts.
    AnswersByEnd,
    /// Which kept answer tells of a revision.
    AnswersByRevision,
    Tokens,
    Mirrors,
    MemberDisks,
    /// Where the store stood at the end of each minute.
    Minutes,
    Gaps,
    Membership,
    Counters,
}

/// What the keys of some rows of `meta` begin with.
const OF_META: [(&[u8], Part); 5] = [
    (b"token/", Part::Tokens),
    (b"mirror/", Part::Mirrors),
    (b"member/", Part::MemberDisks),
    (b"minute/", Part::Minutes),
    (b"gap/", Part::Gaps),
];

impl Part {
    pub const ALL: [Self; 13] = [
        Self::Keys,
        Self::Leases,
        Self::LeaseKeys,
        Self::Answers,
        Self::AnswersByEnd,
        Self::AnswersByRevision,
        Self::Tokens,
        Self::Mirrors,
        Self::MemberDisks,
        Self::Minutes,
        Self::Gaps,
        Self::Membership,
        Self::Counters,
    ];

    /// The table in which its rows stand behind each other, and what the first of them is not before.
    pub(super) fn place(self) -> (&'static str, &'static [u8]) {
        match self {
            Self::Keys => (HEADS, b""),
            Self::Leases => (LEASES, b"l"),
            Self::LeaseKeys => (LEASES, b"k"),
            Self::Answers => (ANSWERS, b"a"),
            Self::AnswersByEnd => (ANSWERS, b"x"),
            Self::AnswersByRevision => (ANSWERS, b"r"),
            Self::Membership => (META, MEMBERSHIP),
            Self::Counters => (META, STATE),
            Self::Tokens | Self::Mirrors | Self::MemberDisks | Self::Minutes | Self::Gaps => {
                let of_meta = OF_META.iter().find(|(_, part)| *part == self);
                (META, of_meta.expect("all of these stand in the list").0)
            }
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Keys => "keys",
            Self::Leases => "leases",
            Self::LeaseKeys => "keys of leases",
            Self::Answers => "kept answers",
            Self::AnswersByEnd => "ends of kept answers",
            Self::AnswersByRevision => "revisions of kept answers",
            Self::Tokens => "tokens",
            Self::Mirrors => "mirrors",
            Self::MemberDisks => "disks of members",
            Self::Minutes => "marks of minutes",
            Self::Gaps => "gaps between revisions",
            Self::Membership => "membership",
            Self::Counters => "counters",
        })
    }
}

/// The part that a row belongs to; `None` for one that is its node's own.
pub(super) fn part_of(table: &str, key: &[u8]) -> io::Result<Option<Part>> {
    let part = match (table, key) {
        (HEADS, _) => Some(Part::Keys),
        (LEASES, [b'l', ..]) => Some(Part::Leases),
        (LEASES, [b'k', ..]) => Some(Part::LeaseKeys),
        (ANSWERS, [b'a', ..]) => Some(Part::Answers),
        (ANSWERS, [b'x', ..]) => Some(Part::AnswersByEnd),
        (ANSWERS, [b'r', ..]) => Some(Part::AnswersByRevision),
        (META, STATE) => Some(Part::Counters),
        (META, MEMBERSHIP) => Some(Part::Membership),
        // What was applied last is what tells which states can be compared. How far history is removed that was given up
        // depends on when a node's collector gets its turn.
        (META, APPLIED | COLLECTED) => return Ok(None),
        (META, key) => {
            let known = OF_META.iter().find(|(first, _)| key.starts_with(first));
            known.map(|(_, part)| *part)
        }
        _ => None,
    };
    let unknown = || {
        io::Error::other(format!(
            "the table {table} has a row of a kind that is not compared"
        ))
    };
    part.map(Some).ok_or_else(unknown)
}
