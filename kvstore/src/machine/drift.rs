//! A member whose state has drifted from the others' notices it where they compare, and not before.

use std::sync::Arc;

use bytes::Bytes;

use super::agreement::Mark;
use super::host::Machine;
use super::small::{entry, opened};
use crate::command::{Action, Expect};

struct Member {
    machine: Arc<Machine>,
    next: u64,
    _folder: tempfile::TempDir,
}

impl Member {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            machine: opened(folder.path()),
            next: 1,
            _folder: folder,
        }
    }

    fn apply(&mut self, action: Action) {
        let item = entry(self.next, 1_000_000, [action]);
        self.next += 1;
        self.machine.apply(vec![item]).expect("it applies");
    }

    fn put(&mut self, value: &'static [u8]) {
        self.apply(Action::Put {
            key: Bytes::from_static(b"key"),
            value: Bytes::from_static(value),
            lease: 0,
            expect: Expect::Any,
        });
    }

    fn agree(&mut self, said: Option<Mark>) {
        self.apply(Action::Agree { said });
    }

    fn last(&self) -> Option<Mark> {
        self.machine.agreement.last()
    }
}

#[test]
fn members_that_applied_the_same_agree_and_one_that_drifted_doubts() {
    let (mut leader, mut same, mut drifted) = (Member::new(), Member::new(), Member::new());
    let doubts = [&same, &drifted].map(|member| member.machine.agreement.doubts());
    for member in [&mut leader, &mut same] {
        member.put(b"one");
    }
    drifted.put(b"two");
    for round in 0..2 {
        assert!(
            !doubts[1].has_changed().expect("the machine lives"),
            "in round {round}"
        );
        let said = leader.last();
        for member in [&mut leader, &mut same, &mut drifted] {
            member.agree(said);
        }
    }
    assert_eq!(same.last(), leader.last());
    assert_ne!(drifted.last(), leader.last());
    assert!(!doubts[0].has_changed().expect("the machine lives"));
    assert_eq!(*doubts[1].borrow(), leader.last());
}
