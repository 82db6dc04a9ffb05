//! What a command weighs: how much room it takes in a queue and in the log, and how much its answer may need.

use crate::command::{Action, Command, Op};
use crate::raft::network::frame::FRAME_BYTES_MAX;

/// What a batch may answer must fit into one frame between nodes; a transaction that reads may answer so much.
const READING_ANSWER_BYTES_MAX: usize = 4 << 20;
pub(super) const BATCH_READING_MAX: usize = 6;
/// All other answers of a batch are less together.
const OTHER_ANSWERS_BYTES_MAX: usize = 4 << 20;

const _: () =
    assert!(BATCH_READING_MAX * READING_ANSWER_BYTES_MAX + OTHER_ANSWERS_BYTES_MAX <= FRAME_BYTES_MAX);

/// Roughly the bytes that a command takes up in the queue and in the log.
pub(super) fn weight(command: &Command) -> usize {
    let of_op = |op: &Op| match op {
        Op::Put { key, value, .. } => key.len() + value.len() + 16,
        Op::Delete { key } | Op::Get { key } | Op::Add { key, .. } => key.len() + 32,
        Op::DeletePrefix { prefix } | Op::GetPrefix { prefix, .. } => prefix.len() + 16,
    };
    64 + match &command.action {
        Action::Put { key, value, .. } => key.len() + value.len(),
        Action::Create { prefix, value, .. } => prefix.len() + value.len(),
        Action::Txn(txn) => txn.conditions.len() * 48 + txn.ops().map(of_op).sum::<usize>(),
        _ => 64,
    }
}

/// Whether its answer may be large.
pub(super) fn reads(command: &Command) -> bool {
    match &command.action {
        Action::Txn(txn) => txn
            .ops()
            .any(|op| matches!(op, Op::Get { .. } | Op::GetPrefix { .. })),
        _ => false,
    }
}
