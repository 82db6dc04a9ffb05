//! Which entries share a batch differs between members and at a replay; the state must not.

use bytes::Bytes;

use super::host::{Content, Item};
use super::shares::Shares;
use super::small::{self, opened};
use super::state::State;
use crate::command::{Access, Action, Actor, Command, Expect, Once, Proposal, Rule, encode_commands};
use crate::raft::entry::log_id;
use crate::storage::machine_db::ANSWERS;

/// Begins with two tokens, whose numbers are 1 and 2.
fn seed() -> Item {
    let root = Rule {
        prefix: Bytes::new(),
        access: Access::Root,
    };
    let tokens = ["one", "two"].map(|name| (name.to_owned(), [0_u8; 32], vec![root.clone()]));
    let seed = Action::Seed {
        cluster_id: "a cluster".to_owned(),
        tokens: tokens.into(),
    };
    small::entry(0, 1_000_000, [seed])
}

pub(super) fn entries() -> impl Iterator<Item = Item> {
    std::iter::once(seed()).chain((1..=120).map(entry))
}

fn entry(index: u64) -> Item {
    // Time leaps so that kept answers end all the while; keys and idempotency keys come back.
    let at_ms = 1_000_000 + index * 400;
    let put = Action::Put {
        key: Bytes::from(format!("key/{}", index % 7)),
        value: Bytes::from(vec![7; 9]),
        lease: 0,
        expect: Expect::Any,
    };
    // Each idempotency key is always used by the same owner.
    let number = index % 11;
    let actor = match number % 3 {
        0 => Actor::System,
        token => Actor::Token(token),
    };
    let once = Once {
        key: format!("once/{number}"),
        fingerprint: [0; 16],
        ttl_ms: 300 + (index % 5) * 1500,
        room_bytes: 2_000,
    };
    let grant = Action::LeaseGrant {
        id: index,
        ttl_ms: 1000,
        pin: None,
    };
    let commands = [
        Command {
            actor,
            action: put,
            once: Some(once),
        },
        Command {
            actor: Actor::System,
            action: grant,
            once: None,
        },
        Command {
            actor: Actor::System,
            action: Action::LeaseRenew { id: index / 2 },
            once: None,
        },
    ];
    let id = serde_json::to_vec(&log_id(1, 1, index)).expect("a log id is plain data");
    Item {
        index,
        id,
        content: Content::Proposal(Proposal::new(at_ms, &encode_commands(&commands)).into()),
    }
}

/// The state after all entries, and their replies. `older` has what is stored meanwhile be as nodes of before left it.
fn applied_in(batch: usize, older: bool) -> (State, Vec<Vec<crate::command::Reply>>) {
    let folder = tempfile::tempdir().expect("a folder");
    let machine = opened(folder.path());
    let mut replies = Vec::new();
    let mut items = entries().peekable();
    while items.peek().is_some() {
        replies.extend(
            machine
                .apply(items.by_ref().take(batch).collect())
                .expect("it applies"),
        );
        let shares = machine.shares();
        assert_eq!(shares.total(), machine.state().answers_bytes);
        assert_eq!(shares, machine.generation().db().shares());
        if older {
            machine.generation().db().make_older();
        }
    }
    let state = machine.state();
    // A while later nothing is left of the answers, and nothing of what tells when they end.
    for index in 1..=2 {
        let nothing = Proposal::new(state.now_ms + index * 10_000, &encode_commands(&[]));
        let item = Item {
            content: Content::Proposal(nothing.into()),
            ..entry(1000 + index)
        };
        machine.apply(vec![item]).expect("it applies");
    }
    assert_eq!(machine.state().answers_bytes, 0);
    assert_eq!(machine.shares(), Shares::default());
    let answers = machine.generation().db().rows(ANSWERS);
    assert!(answers.iter().all(|(at, _)| at.starts_with(b"r")), "{answers:?}");
    (state, replies)
}

#[test]
fn the_state_does_not_depend_on_the_batches() {
    let one_by_one = applied_in(1, false);
    assert!(one_by_one.0.answers_bytes > 0, "answers are kept in this test");
    assert!(
        one_by_one.1.iter().flatten().any(|reply| reply.replayed),
        "and replayed"
    );
    for batch in [2, 3, 10, 120] {
        assert_eq!(applied_in(batch, false), one_by_one, "in batches of {batch}");
    }
    assert_eq!(applied_in(3, true), one_by_one, "after an upgrade");
}
