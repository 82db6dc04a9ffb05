//! Two members that have applied the same, in other batches and with other parts of history removed; then one of them with a
//! row changed by hand.

use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::command::{Action, Actor, Command, Expect, MirrorMode, OnLoss, Once, Proposal, encode_commands};
use crate::machine::gaps::Gap;
use crate::machine::host::{Content, Item, Machine};
use crate::machine::small::opened;
use crate::raft::start::root_rules;
use crate::storage::machine_db::{ANSWERS, HEADS, LEASES, MachineDb, encode, without_wal};
use crate::storage::rows::databases_in;

const LEASE: u64 = 5;
/// Of the last put.
const REVISION: u64 = 5;
const MINUTE_MS: u64 = 60_000;

fn put(key: &'static str, lease: u64) -> Action {
    Action::Put {
        key: Bytes::from(key),
        value: Bytes::from_static(b"value"),
        lease,
        expect: Expect::Any,
    }
}

/// One whose answer is kept.
fn once(key: &'static str) -> Command {
    Command {
        actor: Actor::System,
        action: put(key, 0),
        once: Some(Once {
            key: key.to_owned(),
            fingerprint: [1; 16],
            ttl_ms: 10 * MINUTE_MS,
            room_bytes: u64::MAX,
        }),
    }
}

fn plain(action: Action) -> Command {
    Command {
        actor: Actor::System,
        action,
        once: None,
    }
}

fn item(index: u64, content: Content) -> Item {
    Item {
        index,
        id: index.to_string().into_bytes(),
        content,
        awaited: false,
    }
}

fn proposal(at_ms: u64, commands: &[Command]) -> Content {
    Content::Proposal(Proposal::new(at_ms, &encode_commands(commands)).into())
}

/// Something for each part; what comes first is given up at the end.
fn entries() -> Vec<Item> {
    let begin = [
        Action::Seed {
            cluster_id: "cluster".to_owned(),
            tokens: vec![("root".to_owned(), [7; 32], root_rules())],
        },
        Action::BindMember {
            id: 1,
            disk: "disk".to_owned(),
        },
        Action::LeaseGrant {
            id: LEASE,
            ttl_ms: MINUTE_MS,
            pin: None,
        },
        Action::MirrorPut {
            name: "mirror".to_owned(),
            mode: MirrorMode::Async,
            on_loss: OnLoss::Degrade,
            incarnation: "first".to_owned(),
        },
    ];
    let compact = Action::Compact { revision: 4 };
    vec![
        item(1, proposal(1000, &begin.map(plain))),
        item(2, Content::Membership(b"membership".to_vec())),
        item(
            3,
            proposal(2000, &[plain(put("held", LEASE)), plain(put("free", 0))]),
        ),
        item(4, proposal(3000, &[once("early")])),
        item(5, proposal(2 * MINUTE_MS, &[plain(put("free", 0)), once("late")])),
        item(6, proposal(2 * MINUTE_MS, &[plain(compact)])),
    ]
}

struct Member {
    machine: Arc<Machine>,
    folder: TempDir,
}

impl Member {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = opened(folder.path());
        Self { machine, folder }
    }

    /// All entries in one batch, and nothing is removed.
    fn at_once() -> Self {
        let member = Self::new();
        member.machine.apply(entries()).unwrap();
        member.comes_from_a_backup();
        member
    }

    /// Each entry in a batch of its own, and all is removed that may be.
    fn one_by_one() -> Self {
        let member = Self::new();
        for entry in entries() {
            member.machine.apply(vec![entry]).unwrap();
        }
        let compacted = member.machine.state().compacted;
        let collected = member.with(|db| db.collect(compacted)).unwrap();
        assert_eq!(collected, compacted);
        member.comes_from_a_backup();
        member
    }

    /// As far as that shows in rows.
    fn comes_from_a_backup(&self) {
        let gap = Gap { last: 1, first: 2 };
        self.set(META, &keys::gap(gap.last), &encode(&gap));
    }

    fn with<T>(&self, work: impl FnOnce(&MachineDb) -> T) -> T {
        work(self.machine.generation().db())
    }

    fn set(&self, table: &str, key: &[u8], value: &[u8]) {
        self.with(|db| db.db.put_cf_opt(db.table(table), key, value, &without_wal()))
            .unwrap();
    }

    fn remove(&self, table: &str, key: &[u8]) {
        self.with(|db| db.db.delete_cf_opt(db.table(table), key, &without_wal()))
            .unwrap();
    }

    /// The last row of a part: what is before it may be each node's own.
    fn row_of(&self, part: Part) -> (&'static str, Box<[u8]>, Box<[u8]>) {
        let (table, _first) = part.place();
        let mut rows = self.with(|db| db.rows(table)).into_iter();
        let found = rows.rfind(|(key, _)| part_of(table, key).unwrap() == Some(part));
        let (key, value) = found.unwrap_or_else(|| panic!("there are no {part}"));
        (table, key, value)
    }

    /// As it is on its disk.
    fn stopped(&self) -> StoppedState {
        self.with(MachineDb::flush).unwrap();
        let [_log, state] = databases_in(self.folder.path()).unwrap();
        StoppedState::open(&state).unwrap()
    }

    fn digest(&self) -> Digest {
        self.stopped().digest().unwrap()
    }
}

fn differing(one: &Digest, other: &Digest) -> Vec<Part> {
    let all = Part::ALL.into_iter();
    all.filter(|part| one.parts.get(part) != other.parts.get(part))
        .collect()
}

#[test]
fn members_that_applied_the_same_are_alike_whatever_their_batches_and_collectors() {
    let [one, other] = [Member::at_once(), Member::one_by_one()];
    // Or it would be no wonder.
    for table in A_NODES_OWN.into_iter().chain([ANSWERS, META]) {
        let [ones, others] = [&one, &other].map(|member| member.with(|db| db.rows(table)));
        assert_ne!(ones, others, "{table}");
    }
    let (one, other) = (one.stopped(), other.stopped());
    assert_eq!((one.applied(), other.applied()), ("6", "6"));
    let digests = [one.digest().unwrap(), other.digest().unwrap()];
    assert_eq!(digests[0], digests[1]);
    assert!(digests[0].parts.keys().eq(&Part::ALL), "{digests:?}");
    assert_eq!(digests[0].contradictions, [""; 0]);
    for part in Part::ALL {
        assert_eq!(one.first_difference(&other, part).unwrap(), None, "{part}");
    }
}

/// Of what is asked for by revision, one member has no row left, and the other has only such as it may remove.
#[test]
fn a_part_that_is_given_up_whole_is_alike_wherever_it_is_removed() {
    let members = [Member::at_once(), Member::one_by_one()];
    for member in &members {
        let compact = plain(Action::Compact { revision: REVISION });
        let item = item(7, proposal(2 * MINUTE_MS, &[compact]));
        member.machine.apply(vec![item]).unwrap();
    }
    assert_eq!(members[1].with(|db| db.collect(REVISION)).unwrap(), REVISION);
    let left = members.each_ref().map(|member| {
        let rows = member.with(|db| db.rows(ANSWERS)).into_iter();
        rows.filter(|(key, _)| key.starts_with(b"r")).count()
    });
    assert_eq!(left, [2, 0]);
    assert_eq!(members[0].digest(), members[1].digest());
}

#[test]
fn each_part_matters_and_its_first_differing_key_is_told() {
    let (sound, member) = (Member::at_once(), Member::at_once());
    let sound = sound.stopped();
    let sound_digest = sound.digest().unwrap();
    for part in Part::ALL {
        let (table, key, value) = member.row_of(part);
        let name = if part == Part::Counters {
            let counted = State {
                tokens_made: 9,
                ..member.with(MachineDb::state)
            };
            member.set(table, &key, &encode(&counted));
            "tokens_made".to_owned()
        } else {
            member.remove(table, &key);
            shown(&key)
        };
        let changed = member.stopped();
        assert_eq!(differing(&changed.digest().unwrap(), &sound_digest), [part]);
        assert_eq!(changed.first_difference(&sound, part).unwrap(), Some(name));
        member.set(table, &key, &value);
        assert_eq!(member.digest(), sound_digest, "{part}");
    }
}

#[test]
fn values_count_as_they_are_and_not_as_they_are_carried_along() {
    let member = Member::at_once();
    let sound = member.digest();
    let at = keys::version(b"late", REVISION);
    let record = member.with(|db| db.record_at(b"late", REVISION)).unwrap();
    let other = Record {
        value: Bytes::from_static(b"other"),
        ..record
    };
    member.set(VERSIONS, &at, &encode(&other));
    let changed = member.digest();
    assert_eq!(differing(&changed, &sound), [Part::Keys]);
    let told = changed.contradictions.join("\n");
    assert!(told.contains("the head of the key late is not"), "{told}");
    assert!(told.contains("the hash that is carried along"), "{told}");
    member.remove(VERSIONS, &at);
    let told = member.stopped().digest().unwrap_err().to_string();
    assert_eq!(told, "the key late has no value");
}

#[test]
fn what_stands_in_two_places_must_be_the_same_in_both() {
    let told = [
        (LEASES, keys::lease_key(LEASE, b"held"), "leases have other keys"),
        (
            ANSWERS,
            keys::kept_expiry(12 * MINUTE_MS, "", "late"),
            "kept answers end at other times",
        ),
        (ANSWERS, keys::kept("", "late"), "as many bytes of kept answers"),
        (HEADS, b"late".to_vec(), "as many keys are counted"),
    ];
    for (table, key, said) in told {
        let member = Member::at_once();
        member.remove(table, &key);
        let told = member.digest().contradictions.join("\n");
        assert!(told.contains(said), "{told}");
    }
}

#[test]
fn a_row_of_a_kind_that_nobody_compares_is_an_error() {
    for table in [LEASES, ANSWERS, META] {
        let member = Member::at_once();
        member.set(table, b"novelty", b"");
        let told = member.stopped().digest().unwrap_err().to_string();
        assert!(told.contains(table) && told.contains("not compared"), "{told}");
    }
}
