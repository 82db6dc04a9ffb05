//! What a leader may say of the mirrors, by what it has applied and by what they have told it.

use bytes::Bytes;

use super::*;
use crate::command::{Actor, Command, Expect, Proposal, encode_commands};
use crate::machine::host::{Content, Item};
use crate::machine::small::opened;
use crate::raft::entry::log_id;

const LEAD: Lead = Lead { term: 2, node: 1 };

struct Leader {
    desk: MirrorDesk,
    machine: Arc<Machine>,
    next: u64,
    _folder: tempfile::TempDir,
}

impl Leader {
    /// One that waits for a mirror, since revision 0.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = opened(folder.path());
        let mut leader = Self {
            desk: MirrorDesk::new(Arc::clone(&machine)),
            machine,
            next: 1,
            _folder: folder,
        };
        assert_eq!(leader.mirrored(), None, "nobody is waited for");
        leader.act(Action::MirrorPut {
            name: "m".to_owned(),
            mode: MirrorMode::Sync,
            on_loss: OnLoss::Block,
            incarnation: "a".to_owned(),
        });
        leader.act(Action::MirrorIs {
            name: "m".to_owned(),
            incarnation: "a".to_owned(),
            state: MirrorState::Ok,
        });
        leader
    }

    fn apply(&mut self, content: Content) {
        let id = log_id(LEAD.term, LEAD.node, self.next);
        let item = Item {
            index: self.next,
            id: serde_json::to_vec(&id).unwrap(),
            content,
            awaited: true,
        };
        self.next += 1;
        self.machine.apply(vec![item]).unwrap();
    }

    fn act(&mut self, action: Action) {
        let command = Command {
            actor: Actor::System,
            action,
            once: None,
        };
        let proposal = Proposal::new(1_000_000, &encode_commands(&[command]));
        self.apply(Content::Proposal(proposal.into()));
    }

    fn begin(&mut self, lead: Lead) {
        self.apply(Content::Nothing { lead });
    }

    /// Each makes a revision.
    fn put(&mut self) {
        self.act(Action::Put {
            key: Bytes::from_static(b"key"),
            value: Bytes::from_static(b"value"),
            lease: 0,
            expect: Expect::Any,
        });
    }

    async fn hear(&self, revision: u64) {
        let heard = self.desk.hear(LEAD.term, "m", "a", revision).await;
        assert!(matches!(heard, MirrorHeard::Heard(_)), "{heard:?}");
    }

    fn mirrored(&self) -> Option<u64> {
        self.desk.mirrored(|| LEAD)
    }
}

#[tokio::test]
async fn what_the_mirrors_have_may_be_shown_once_the_leader_has_begun() {
    let mut leader = Leader::new();
    for _ in 0..3 {
        leader.put();
    }
    leader.hear(3).await;
    assert_eq!(
        leader.mirrored(),
        Some(0),
        "earlier leaders may have gone further"
    );
    // One of the same term, over which this one took the lead.
    leader.begin(Lead { node: 0, ..LEAD });
    leader.put();
    assert_eq!(leader.mirrored(), Some(0));
    leader.begin(LEAD);
    assert_eq!(
        leader.mirrored(),
        Some(0),
        "the mirror lacks what came before, which may have been acknowledged"
    );
    leader.hear(4).await;
    assert_eq!(leader.mirrored(), Some(4));
    // What comes now is acknowledged only when the mirror has it, however much of it is applied.
    leader.put();
    assert_eq!(leader.mirrored(), Some(4));
    leader.hear(5).await;
    assert_eq!(leader.mirrored(), Some(5));
}

#[tokio::test]
async fn the_next_lead_of_the_same_node_begins_with_nothing_heard() {
    let mut leader = Leader::new();
    leader.put();
    leader.begin(LEAD);
    leader.hear(1).await;
    assert_eq!(leader.mirrored(), Some(1));
    // What was told to the lead before may have been outdone since.
    let next = Lead { term: 3, ..LEAD };
    assert_eq!(leader.desk.mirrored(|| next), Some(0));
    leader.begin(next);
    assert_eq!(leader.desk.mirrored(|| next), Some(0), "it has heard nobody");
}
