//! What one log entry holds, and what applying it answers.
//!
//! A [`Proposal`] is encoded once, on the node that took the requests; the same bytes go to the log,
//! to the followers and to the state machine. Formats are versioned: variants and fields are only
//! ever appended. These are not the wire types of the HTTP edge, which may change on their own.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::machine::agreement::Mark;

mod proposal;

pub use proposal::{
    MalformedProposal, Proposal, count_commands, decode_commands, encode_commands, encoded_bytes,
};

/// One client's wish: who, what, and under which idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    pub actor: Actor,
    pub action: Action,
    pub once: Option<Once>,
}

/// On whose behalf a command runs. Rules are looked up when it is applied, so that a change of rules
/// is ordered with the writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    /// The node itself: lease expiry, compaction, bookkeeping of members.
    System,
    /// The token with this number. Numbers are never reused, so a replaced token is refused.
    Token(u64),
}

/// The same key and fingerprint again gets the first answer again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    pub key: String,
    pub fingerprint: [u8; 16],
    pub ttl_ms: u64,
    /// How many bytes of kept answers the proposing node allows; in the entry, so that all agree.
    pub room_bytes: u64,
}

impl Once {
    /// For so long one node may hold a copy back; the other half is the caller's, to give others to other nodes.
    pub fn half(&self) -> Duration {
        Duration::from_millis(self.ttl_ms / 2)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    Put {
        key: Bytes,
        value: Bytes,
        lease: u64,
        expect: Expect,
    },
    Delete {
        key: Bytes,
        expect: Expect,
    },
    DeletePrefix {
        prefix: Bytes,
    },
    /// Stores under `prefix` + 16 hex digits that begin the search for a free key at `seed`.
    Create {
        prefix: Bytes,
        seed: u64,
        value: Bytes,
        lease: u64,
    },
    Txn(Txn),
    LeaseGrant {
        id: u64,
        ttl_ms: u64,
        pin: Option<u64>,
    },
    LeaseRenew {
        id: u64,
    },
    LeaseRevoke {
        id: u64,
    },
    /// Each with the renewal that the leader saw when the time ran out.
    LeaseExpire {
        leases: Vec<(u64, u64)>,
    },
    Compact {
        revision: u64,
    },
    /// As [`Action::Compact`], but asked for by the leader's own policy: stale wishes are no error.
    AutoCompact {
        revision: u64,
    },
    TokenPut {
        name: String,
        hash: [u8; 32],
        rules: Vec<Rule>,
    },
    TokenDelete {
        name: String,
    },
    /// The first entry of a cluster's life: who it is, and the tokens it starts with.
    Seed {
        cluster_id: String,
        tokens: Vec<(String, [u8; 32], Vec<Rule>)>,
    },
    /// Ties a member's number to the disk that first spoke under it.
    BindMember {
        id: u64,
        disk: String,
    },
    /// Marks a place of the log at which all members have the same state, and says what the leader had at an
    /// earlier one.
    Agree {
        said: Option<Mark>,
    },
    MirrorPut {
        name: String,
        mode: MirrorMode,
        on_loss: OnLoss,
        /// Names the mirror's database; another one has to catch up first.
        incarnation: String,
    },
    MirrorDelete {
        name: String,
    },
    /// What the leader has found of a mirror; of another incarnation it means nothing.
    MirrorIs {
        name: String,
        incarnation: String,
        state: MirrorState,
    },
}

impl Action {
    /// Whether it needs room on the disk. What frees room must pass, or nobody could help.
    pub fn grows(&self) -> bool {
        match self {
            Self::Put { .. } | Self::Create { .. } | Self::LeaseGrant { .. } | Self::TokenPut { .. } => true,
            Self::Txn(txn) => txn.ops().any(|op| matches!(op, Op::Put { .. } | Op::Add { .. })),
            _ => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorMode {
    /// A write is acknowledged once it is on the mirror's disk.
    Sync,
    Async,
}

/// What becomes of writes while a synchronous mirror is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnLoss {
    Degrade,
    Block,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorState {
    /// It has never had everything since it was announced: nobody waits for it.
    CatchingUp,
    Ok,
    /// It was lost, and nobody waits for it until it has everything again.
    Degraded,
}

/// What must hold of the key for a single put or delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    Any,
    Absent,
    Modified(u64),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    pub conditions: Vec<Condition>,
    pub then: Vec<Op>,
    pub otherwise: Vec<Op>,
    /// Run when an op of `then` fails; where it is missing, `otherwise` is.
    pub failed: Option<Vec<Op>>,
}

impl Txn {
    /// All that it may do, whichever way it goes.
    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        let failed = self.failed.iter().flatten();
        self.then.iter().chain(&self.otherwise).chain(failed)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    pub key: Bytes,
    pub test: Test,
    pub order: Order,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Test {
    Version(u64),
    Created(u64),
    Modified(u64),
    Lease(u64),
    Int(i64),
    Value(Bytes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    Put {
        key: Bytes,
        value: Bytes,
        lease: u64,
    },
    Delete {
        key: Bytes,
    },
    DeletePrefix {
        prefix: Bytes,
    },
    Get {
        key: Bytes,
    },
    GetPrefix {
        prefix: Bytes,
        limit: u32,
    },
    Add {
        key: Bytes,
        by: i64,
        min: Option<i64>,
        max: Option<i64>,
    },
}

/// A token may read, or read and write, every key that begins with `prefix`; `admin` on the empty
/// prefix is root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub prefix: Bytes,
    pub access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Access {
    Read,
    Write,
    Root,
}

/// What applying a command answers; `revision` is the store's after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    pub revision: u64,
    pub replayed: bool,
    pub answer: Answer,
    /// How the mirrors stood when it was released: of this answer, so neither stored nor kept.
    #[serde(skip)]
    pub mirrors: MirrorsWere,
}

/// Whether the synchronous mirrors have what an answer tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorsWere {
    /// There is none.
    #[default]
    None,
    Ok,
    Degraded,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Put {
        key: Bytes,
        version: u64,
        created: bool,
    },
    Deleted {
        count: u64,
    },
    Txn {
        branch: Branch,
        failed_op: Option<u32>,
        results: Vec<OpResult>,
    },
    Lease {
        id: u64,
        ttl_ms: u64,
    },
    Compacted {
        revision: u64,
    },
    Token {
        name: String,
    },
    Done,
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Branch {
    Then,
    Else,
    Failed,
    /// The branch that should have caught a failure failed itself: nothing was written.
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpResult {
    Put { version: u64 },
    Deleted { count: u64 },
    Got { rows: Vec<(Bytes, Record)>, count: u64 },
    Added { value: i64 },
}

/// The command was decided against, for good, by the state it met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    Unauthorized,
    Forbidden {
        key: Bytes,
    },
    RootOnly,
    /// A precondition did not hold; the key's present revision, 0 when absent.
    Precondition {
        modified: u64,
    },
    LeaseNotFound {
        id: u64,
    },
    NotYourLease {
        id: u64,
    },
    KeyReused,
    AnswersFull,
    AnswerTooLarge,
    FutureRevision {
        present: u64,
    },
    AlreadyCompacted {
        revision: u64,
    },
    TokenNotFound,
    LastRoot,
    DiskMismatch,
    MirrorNotFound,
    TooManyMirrors,
}

/// One key's state at one revision. `version` 0 marks a deletion in the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub created: u64,
    pub modified: u64,
    pub version: u64,
    pub lease: u64,
    pub value: Bytes,
}

impl Record {
    pub fn tombstone(revision: u64) -> Self {
        Self {
            created: 0,
            modified: revision,
            version: 0,
            lease: 0,
            value: Bytes::new(),
        }
    }

    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }
}
