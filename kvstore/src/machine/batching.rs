//! Which entries share a batch differs between members and at a replay; the state must not.

use bytes::Bytes;

use super::adapter::applied_end;
use super::draft::{CHANGE_BYTES, WEIGHT_MAX};
use super::host::{Content, Item, Machine};
use super::shares::Shares;
use super::small::{self, opened};
use super::state::State;
use crate::command::{
    Access, Action, Actor, Command, Expect, Once, Op, Proposal, Rule, Txn, encode_commands,
};
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
        awaited: true,
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

#[test]
fn the_state_does_not_depend_on_who_waits_for_answers() {
    let applied = |awaited| {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = opened(folder.path());
        let items = entries().map(|item| Item { awaited, ..item });
        let replies = machine.apply(items.collect()).expect("it applies");
        let held: usize = replies.iter().map(Vec::len).sum();
        (held, machine.state(), machine.generation().db().rows(ANSWERS))
    };
    let (held, state, answers) = applied(true);
    assert!(held > 0 && !answers.is_empty());
    assert_eq!(applied(false), (0, state, answers));
}

/// Applies all of them, and tells after how many each batch ended.
fn batches(machine: &Machine, items: Vec<Item>) -> Vec<usize> {
    let mut items = items.into_iter();
    let mut ended = Vec::new();
    while !items.as_slice().is_empty() {
        let replies = machine.apply_some(&mut items).expect("it applies");
        ended.push(replies.len());
        // All that tells how far it has come tells the same.
        let (progress, state) = (machine.progress_now(), machine.state());
        assert_eq!(progress.applied_end, applied_end(machine.generation().db()));
        assert_eq!(progress.revision, state.revision);
        assert_eq!(state, machine.generation().db().state());
    }
    ended
}

/// Entries that put as many keys as an eighth of a batch may change, each under a prefix of its own; and behind a change
/// of the members others that delete them.
fn puts_and_deletes() -> Vec<Item> {
    const PREFIXES: u64 = 9;
    let keys = WEIGHT_MAX / CHANGE_BYTES / 8;
    let put = |prefix: u64, key: usize| Action::Put {
        key: Bytes::from(format!("{prefix}/{key}")),
        value: Bytes::new(),
        lease: 0,
        expect: Expect::Any,
    };
    let puts = (1..=PREFIXES).map(|prefix| {
        small::entry(
            prefix,
            1,
            (0..keys).map(|key| put(prefix, key)).collect::<Vec<_>>(),
        )
    });
    let members = Item {
        content: Content::Membership(b"members".to_vec()),
        ..small::entry(PREFIXES + 1, 1, [])
    };
    let deletes = (1..=PREFIXES).map(|prefix| {
        let prefix_of = Bytes::from(format!("{prefix}/"));
        let delete = Action::DeletePrefix { prefix: prefix_of };
        small::entry(PREFIXES + 1 + prefix, 1, [delete])
    });
    puts.chain([members]).chain(deletes).collect()
}

#[test]
fn a_batch_ends_between_two_entries_where_it_takes_much_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, other] = ["n1", "n2"].map(|name| opened(&folder.path().join(name)));
    let mut items = puts_and_deletes();
    let rest = items.split_off(8);
    assert_eq!(batches(&one, items), [8]);
    assert_eq!(one.generation().db().membership(), None);
    // The last puts, the members, and as many deletes as there is room for.
    assert_eq!(batches(&one, rest), [9, 2]);
    assert_eq!(one.generation().db().membership(), Some(b"members".to_vec()));
    for item in puts_and_deletes() {
        other.apply(vec![item]).expect("it applies");
    }
    assert_eq!(one.state(), other.state());
    assert_eq!((one.state().keys, one.progress_now()), (0, other.progress_now()));
}

#[test]
fn a_batch_ends_where_its_answers_are_large() {
    let folder = tempfile::tempdir().expect("a folder");
    let machine = opened(folder.path());
    let keys = ["a", "b", "c", "d"].map(Bytes::from);
    // Four of them, with what a row counts beside its value, are not yet too much for one answer.
    let value = Bytes::from(vec![7; (1 << 20) - 128]);
    let puts = keys.clone().map(|key| Action::Put {
        key,
        value: value.clone(),
        lease: 0,
        expect: Expect::Any,
    });
    machine.apply(vec![small::entry(1, 1, puts)]).expect("it applies");
    let all = Action::Txn(Txn {
        then: keys.map(|key| Op::Get { key }).to_vec(),
        ..Txn::default()
    });
    let reads = (2..42).map(|index| small::entry(index, 1, [all.clone()]));
    assert_eq!(batches(&machine, reads.collect()), [17, 17, 6]);
}
