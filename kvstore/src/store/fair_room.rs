//! How much of the room for kept answers a command is given when it leaves this node: one whose token holds much of it
//! already leaves the last quarter to those of the others. Otherwise one token could stop the keyed writes of all.
//!
//! It goes along in the command, so all members come to the same whatever their version, and applying knows nothing
//! of shares. Invariant: the commands that one token has under way are not each given all that is left. How much it
//! holds is this node's own view, which may be a little behind.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex};

use super::weight::answer_bytes_max;
use crate::command::{Actor, Command};
use crate::machine::host::Machine;

/// So many nodes may have as much under way for a token as this one has.
const NODES: u64 = 5;
const POISON: &str = "no holder of what is under way panics";

pub(super) struct FairRoom {
    machine: Arc<Machine>,
    /// The most that the answers under way may take, by the numbers of tokens.
    under_way: Mutex<BTreeMap<u64, u64>>,
}

/// What one command was given; it counts as under way until this is dropped.
pub(super) struct Given {
    room: Arc<FairRoom>,
    token: u64,
    bytes: u64,
}

impl FairRoom {
    pub(super) fn new(machine: Arc<Machine>) -> Self {
        Self {
            machine,
            under_way: Mutex::default(),
        }
    }

    /// Leaves a command that has a key as much of the room it names as its token may use.
    pub(super) fn give(self: &Arc<Self>, command: &mut Command) -> Option<Given> {
        let bytes = answer_bytes_max(command);
        let Actor::Token(token) = command.actor else {
            return None;
        };
        let once = command.once.as_mut()?;
        let tokens = self.machine.tokens();
        // One that is gone is refused where the command is applied, and nothing is kept for it.
        let owner = tokens.by_number(token)?;
        let holds = self.machine.share_of(&owner.name);
        let mut under_way = self.under_way.lock().expect(POISON);
        let others = under_way.entry(token).or_default();
        once.room_bytes = part(once.room_bytes, holds, *others);
        *others += bytes;
        Some(Given {
            room: Arc::clone(self),
            token,
            bytes,
        })
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let mut under_way = self.room.under_way.lock().expect(POISON);
        if let Entry::Occupied(mut bytes) = under_way.entry(self.token) {
            *bytes.get_mut() -= self.bytes;
            if *bytes.get() == 0 {
                bytes.remove();
            }
        }
    }
}

/// What of the whole room is for one who holds so much, and has so much under way from here.
fn part(whole: u64, holds: u64, under_way: u64) -> u64 {
    fair_part(whole, holds.saturating_add(under_way.saturating_mul(NODES)))
}

/// What of something that all share is for one who holds so much of it: who has more than a quarter leaves the last one
/// to the others, so that it cannot stop them.
pub fn fair_part(whole: u64, holds: u64) -> u64 {
    let quarter = whole / 4;
    if holds > quarter { whole - quarter } else { whole }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::command::{Access, Action, Once, Op, Proposal, Rule, Txn, encode_commands};
    use crate::machine::host::{Content, Item};
    use crate::machine::small::{entry, opened};

    const WHOLE: u64 = 256 << 20;

    /// A store with two tokens, whose numbers are 1 and 2.
    fn room(folder: &std::path::Path) -> Arc<FairRoom> {
        let root = Rule {
            prefix: Bytes::new(),
            access: Access::Root,
        };
        let tokens = ["one", "two"].map(|name| (name.to_owned(), [0_u8; 32], vec![root.clone()]));
        let seed = Action::Seed {
            cluster_id: "a cluster".to_owned(),
            tokens: tokens.into(),
        };
        let machine = opened(folder);
        machine.apply(vec![entry(1, 1, [seed])]).expect("it applies");
        Arc::new(FairRoom::new(machine))
    }

    fn keyed(token: u64, ops: Vec<Op>, room_bytes: u64) -> Command {
        Command {
            actor: Actor::Token(token),
            action: Action::Txn(Txn {
                then: ops,
                ..Txn::default()
            }),
            once: Some(Once {
                key: "once".to_owned(),
                fingerprint: [0; 16],
                ttl_ms: 60_000,
                room_bytes,
            }),
        }
    }

    fn reading() -> Vec<Op> {
        let key = Bytes::from_static(b"pets/1");
        vec![Op::Get { key }]
    }

    fn given(room: &Arc<FairRoom>, mut command: Command) -> (u64, Option<Given>) {
        let given = room.give(&mut command);
        (command.once.expect("it has a key").room_bytes, given)
    }

    /// What so many commands of the first token are given that leave together.
    fn together(room: &Arc<FairRoom>, count: usize, ops: Vec<Op>) -> Vec<(u64, Option<Given>)> {
        let commands = vec![keyed(1, ops, WHOLE); count].into_iter();
        commands.map(|command| given(room, command)).collect()
    }

    #[test]
    fn what_leaves_together_is_not_each_given_the_whole_room() {
        let folder = tempfile::tempdir().unwrap();
        let room = room(folder.path());
        let sent = together(&room, 6, reading());
        let rooms: Vec<u64> = sent.iter().map(|(bytes, _)| *bytes).collect();
        let most = WHOLE / 4 * 3;
        assert_eq!(rooms, [WHOLE, WHOLE, WHOLE, WHOLE, most, most]);
        // Another token is not in its way, nor is what was answered.
        assert_eq!(given(&room, keyed(2, reading(), WHOLE)).0, WHOLE);
        drop(sent);
        assert_eq!(given(&room, keyed(1, reading(), WHOLE)).0, WHOLE);
        assert!(room.under_way.lock().unwrap().is_empty());
        // Short answers are little until they are very many.
        let sent = together(&room, 1024, vec![]);
        assert!(sent.iter().all(|(bytes, _)| *bytes == WHOLE));
    }

    #[test]
    fn who_holds_more_than_a_quarter_leaves_the_last_one_to_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let room = room(folder.path());
        let proposal = Proposal::new(1, &encode_commands(&[keyed(1, vec![], WHOLE)]));
        let kept = Item {
            content: Content::Proposal(proposal.into()),
            ..entry(2, 1, [])
        };
        room.machine.apply(vec![kept]).expect("it applies");
        let holds = room.machine.share_of("one");
        assert_eq!(holds, room.machine.state().answers_bytes);
        assert!(holds > 0);
        for (token, whole, expected) in [
            (1, holds * 4, holds * 4),
            (1, holds * 4 - 4, holds * 3 - 3),
            (2, holds * 4 - 4, holds * 4 - 4),
        ] {
            let (bytes, _) = given(&room, keyed(token, vec![], whole));
            assert_eq!(bytes, expected, "token {token} of {whole}");
        }
    }

    #[test]
    fn without_a_key_nothing_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let room = room(folder.path());
        let mut command = Command {
            once: None,
            ..keyed(1, reading(), WHOLE)
        };
        assert!(room.give(&mut command).is_none());
        assert!(room.under_way.lock().unwrap().is_empty());
    }
}
