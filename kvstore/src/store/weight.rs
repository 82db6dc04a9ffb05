//! What a command weighs: how much room it takes in a queue and in the log, and how much its answer may need.
//! Invariant: what clients may send fits into a frame between nodes, also with all that may go before it.

use service::config::REQUEST_BYTES_MAX;

use super::WriteError;
use crate::command::{Action, Command, Op, encoded_bytes};
use crate::raft::intake::COMMANDS_BYTES_MAX;
use crate::raft::network::frame::FRAME_BYTES_MAX;

/// What a batch may answer must fit into one frame between nodes; a transaction that reads may answer so much.
const READING_ANSWER_BYTES_MAX: usize = 4 << 20;
pub(super) const BATCH_READING_MAX: usize = 6;
/// All other answers of a batch are less together.
const OTHER_ANSWERS_BYTES_MAX: usize = 4 << 20;
/// One of them: a key at most, or a few numbers for each part of a transaction.
const OTHER_ANSWER_BYTES_MAX: usize = OTHER_ANSWERS_BYTES_MAX / BATCH_COMMANDS_MAX;

const _: () =
    assert!(BATCH_READING_MAX * READING_ANSWER_BYTES_MAX + OTHER_ANSWERS_BYTES_MAX <= FRAME_BYTES_MAX);

/// A batch of so many commands, or one that weighs so much, takes in no further one.
pub(super) const BATCH_COMMANDS_MAX: usize = 1024;
pub(super) const BATCH_BYTES_MAX: usize = 1 << 20;
/// The largest request weighs less: with its key, and with what parts of a transaction weigh beyond their JSON.
const WEIGHT_MAX: usize = REQUEST_BYTES_MAX + (1 << 20);

const _: () = assert!(BATCH_BYTES_MAX + WEIGHT_MAX <= COMMANDS_BYTES_MAX);

/// What a command needs in the queue beside its encoding.
const QUEUED_BYTES: usize = 64;
/// The same of each part of a transaction.
const PART_BYTES: usize = 32;

/// Roughly the bytes that a command takes up in the queue, and no less than in the log. Refuses what could not be sent
/// between nodes.
pub(super) fn weigh(command: &Command) -> Result<usize, WriteError> {
    let parts = match &command.action {
        Action::Txn(txn) => txn.conditions.len() + txn.ops().count(),
        _ => 0,
    };
    let weight = QUEUED_BYTES + parts * PART_BYTES + encoded_bytes(command);
    if weight > WEIGHT_MAX {
        return Err(WriteError::TooLarge);
    }
    Ok(weight)
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

/// Roughly the most that its answer may take.
pub(super) fn answer_bytes_max(command: &Command) -> u64 {
    let bytes_max = if reads(command) {
        READING_ANSWER_BYTES_MAX
    } else {
        OTHER_ANSWER_BYTES_MAX
    };
    bytes_max as u64
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::command::{Access, Actor, Condition, Once, Order, Rule, Test, Txn, encode_commands};

    fn command(action: Action) -> Command {
        Command {
            actor: Actor::Token(u64::MAX),
            action,
            once: None,
        }
    }

    fn txn(conditions: Vec<Condition>, then: Vec<Op>) -> Command {
        command(Action::Txn(Txn {
            conditions,
            then,
            ..Txn::default()
        }))
    }

    fn bytes(count: usize) -> Bytes {
        vec![b'x'; count].into()
    }

    /// Whatever of it is long.
    #[test]
    fn a_command_weighs_no_less_than_what_is_sent_of_it() {
        const LONG: usize = 100_000;
        let compared = Condition {
            key: bytes(LONG),
            test: Test::Value(bytes(LONG)),
            order: Order::Equal,
        };
        let put = Op::Put {
            key: bytes(1),
            value: bytes(LONG),
            lease: u64::MAX,
        };
        let rule = Rule {
            prefix: bytes(LONG),
            access: Access::Read,
        };
        let kept = Once {
            key: "x".repeat(LONG),
            fingerprint: [7; 16],
            ttl_ms: u64::MAX,
            room_bytes: u64::MAX,
        };
        let commands = [
            txn(vec![compared; 3], vec![]),
            txn(vec![], vec![put; 3]),
            command(Action::TokenPut {
                name: "name".to_owned(),
                hash: [7; 32],
                rules: vec![rule; 3],
            }),
            Command {
                once: Some(kept),
                ..command(Action::LeaseRenew { id: u64::MAX })
            },
        ];
        let mut together = 0;
        for command in &commands {
            let weight = weigh(command).unwrap();
            assert!(weight >= encode_commands(std::slice::from_ref(command)).len());
            together += weight;
        }
        assert!(together >= encode_commands(&commands).len());
    }

    /// As many as may be configured of what JSON says in the fewest letters.
    #[test]
    fn whatever_a_request_may_hold_is_light_enough_and_more_is_not() {
        const OPS: usize = 30_000;
        let json = OPS * r#"{"get":{"key":"x"}},"#.len();
        let mut ops = vec![Op::Get { key: bytes(1) }; OPS];
        ops.push(Op::Put {
            key: bytes(4 << 10),
            value: bytes(REQUEST_BYTES_MAX - json),
            lease: u64::MAX,
        });
        assert!(weigh(&txn(vec![], ops)).is_ok());
        let put = |value_bytes| {
            command(Action::Create {
                prefix: bytes(4 << 10),
                seed: u64::MAX,
                value: bytes(value_bytes),
                lease: u64::MAX,
            })
        };
        assert!(weigh(&put(REQUEST_BYTES_MAX)).is_ok());
        assert_eq!(weigh(&put(WEIGHT_MAX)), Err(WriteError::TooLarge));
    }
}
