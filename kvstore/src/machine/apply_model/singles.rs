//! Puts and deletes of one key, which are written without a map around them.
//!
//! Invariant: they leave what a transaction leaves that does nothing else, and look the key up once.

use std::sync::Arc;

use bytes::Bytes;

use super::ranges::{Counting, base_of};
use crate::command::{Action, Actor, Answer, Command, Expect, Op, Refusal, Txn};
use crate::machine::apply::apply;
use crate::machine::draft::Draft;
use crate::machine::state::State;

fn base() -> Counting {
    base_of(4, &Bytes::from_static(b"before"))
}

fn put(key: &'static str, lease: u64, expect: Expect) -> Action {
    Action::Put {
        key: key.into(),
        value: Bytes::from_static(b"a value"),
        lease,
        expect,
    }
}

fn delete(key: &'static str, expect: Expect) -> Action {
    let key = key.into();
    Action::Delete { key, expect }
}

/// As a transaction, which cannot say what it expects.
fn as_txn(action: &Action) -> Action {
    let op = match action.clone() {
        Action::Put {
            key, value, lease, ..
        } => Op::Put { key, value, lease },
        Action::Delete { key, .. } => Op::Delete { key },
        other => return other,
    };
    Action::Txn(Txn {
        then: vec![op],
        ..Txn::default()
    })
}

/// The state after all of it in one batch, all that it changes, and the answers.
fn applied(base: &Counting, actions: &[Action]) -> (State, String, Vec<Answer>) {
    let state = State {
        revision: 1,
        keys: 4,
        ..State::default()
    };
    let mut draft = Draft::new(base, state, Arc::default());
    let command = |action: &Action| Command {
        actor: Actor::System,
        action: action.clone(),
        once: None,
    };
    let commands: Vec<Command> = actions.iter().map(command).collect();
    let mut answers = Vec::new();
    apply(&mut draft, 90_000, &commands, |reply| answers.push(reply.answer));
    (draft.state, format!("{:#?}", draft.effects), answers)
}

#[test]
fn one_key_alone_leaves_what_a_transaction_leaves() {
    let any = Expect::Any;
    let grant = Action::LeaseGrant {
        id: 7,
        ttl_ms: 1000,
        pin: None,
    };
    let actions = [
        grant,
        put("k000000000", 0, any),
        put("k000000000", 7, any),
        put("k000000000", 0, any),
        put("new", 7, any),
        delete("new", any),
        delete("new", any),
        put("new", 7, any),
        delete("k000000001", any),
        delete("absent", any),
        // Nothing of it is written: there is no such lease.
        put("refused", 8, any),
    ];
    let txns: Vec<Action> = actions.iter().map(as_txn).collect();
    let (state, effects, answers) = applied(&base(), &actions);
    let (state_of_txns, effects_of_txns, _) = applied(&base(), &txns);
    assert_eq!(effects, effects_of_txns);
    assert_eq!(state, state_of_txns);
    assert_eq!((state.revision, state.keys), (1 + 7, 4));
    let versions = answers.iter().filter_map(|answer| match answer {
        Answer::Put { version, created, .. } => Some((*version, *created)),
        _ => None,
    });
    let expected = [(2, false), (3, false), (4, false), (1, true), (1, true)];
    assert_eq!(versions.collect::<Vec<_>>(), expected);
}

#[test]
fn one_key_alone_is_looked_up_once() {
    let base = base();
    let refused = Answer::Refused(Refusal::Precondition { modified: 1 });
    let actions = [
        put("k000000000", 0, Expect::Any),
        put("absent", 0, Expect::Absent),
        put("k000000001", 0, Expect::Modified(1)),
        put("k000000002", 0, Expect::Absent),
        delete("k000000003", Expect::Modified(1)),
    ];
    for action in &actions {
        base.heads.set(0);
        let (.., answers) = applied(&base, std::slice::from_ref(action));
        assert_eq!(base.heads.get(), 1, "{action:?}");
        assert_eq!(
            answers[0] == refused,
            *action == actions[3],
            "{action:?}: {answers:?}"
        );
    }
}
