//! Mirrors, as any node may be asked about them: their word goes to the leader, and reads wait there for them.
//! Invariant: a linearizable read shows nothing that a mirror which is waited for does not have.

use std::time::Duration;

use super::{LEADER_WAIT, ReadError, ReadPoint, Store};
use crate::command::{Action, OnLoss};
use crate::raft::network::message::{Ask, MirrorHeard, MirrorView, NotNow, Told};
use crate::raft::view;

const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// When too many reads wait at the leader already.
const CROWDED_PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HearError {
    #[error("no leader is known")]
    NoLeader,
    #[error("no such mirror is announced")]
    Unknown,
    #[error("another database was announced under this name")]
    Another,
    #[error("no such revision was ever made")]
    Future { present: u64 },
}

impl Store {
    /// What must go on while a mirror blocks: changes of mirrors, which are the way out, and leases, or everything
    /// that hangs on them would end meanwhile.
    pub(super) fn passes_mirrors(&self, action: &Action) -> bool {
        match action {
            Action::MirrorPut { .. } | Action::MirrorDelete { .. } => true,
            Action::LeaseRenew { .. } => {
                let mirrors = self.machine().mirrors();
                mirrors.required().any(|mirror| mirror.on_loss == OnLoss::Block)
            }
            _ => false,
        }
    }

    /// A question to whoever leads, until somebody does; it must be one that may be asked again.
    async fn ask_leader(&self, ask: impl Fn() -> Ask) -> Option<Told> {
        let desk = &self.inner.desk;
        let deadline = tokio::time::Instant::now() + LEADER_WAIT;
        loop {
            let leader = view::leader(&desk.raft);
            let asked = async {
                let leader = leader?;
                if leader == desk.peers.trust().identity.id() {
                    return Some(desk.answer(ask()).await);
                }
                let view = view::view(&desk.raft);
                let member = view.members.get(&leader)?;
                let link = desk.peers.link(leader, &member.peer_address);
                let question = ask();
                tokio::select! {
                    told = link.ask(&question) => told.ok(),
                    () = view::leader_changes(&desk.raft, Some(leader)) => None,
                }
            };
            let told = asked.await;
            let (told, pause) = match told {
                Some(Told::Mirror(MirrorHeard::NotLeader) | Told::Mirrored(Err(NotNow::NotLeader)))
                | None => (None, RETRY_PAUSE),
                Some(Told::Mirrored(Err(NotNow::Overloaded))) => (told, CROWDED_PAUSE),
                told => return told,
            };
            if tokio::time::Instant::now() + pause >= deadline {
                return told;
            }
            tokio::time::timeout(pause, view::leader_changes(&desk.raft, leader))
                .await
                .ok();
        }
    }

    pub async fn hear_mirror(
        &self,
        name: &str,
        incarnation: &str,
        revision: u64,
    ) -> Result<MirrorView, HearError> {
        let ask = || Ask::Mirror {
            name: name.to_owned(),
            incarnation: incarnation.to_owned(),
            revision,
        };
        match self.ask_leader(ask).await {
            Some(Told::Mirror(MirrorHeard::Heard(view))) => Ok(view),
            Some(Told::Mirror(MirrorHeard::Unknown)) => Err(HearError::Unknown),
            Some(Told::Mirror(MirrorHeard::Another)) => Err(HearError::Another),
            Some(Told::Mirror(MirrorHeard::Future { present })) => Err(HearError::Future { present }),
            _ => Err(HearError::NoLeader),
        }
    }

    /// All mirrors as the leader sees them.
    pub async fn mirrors(&self) -> Result<Vec<MirrorView>, ReadError> {
        match self.ask_leader(|| Ask::Mirrors).await {
            Some(Told::Mirrors(views)) => Ok(views),
            _ => Err(ReadError::NoLeader),
        }
    }

    /// Waits until what was read at `point` and is of this revision may be shown.
    pub async fn may_show(&self, point: &ReadPoint, revision: u64) -> Result<(), ReadError> {
        if point.mirrored.is_none_or(|mirrored| revision <= mirrored) {
            return Ok(());
        }
        match self.ask_leader(|| Ask::Mirrored(revision)).await {
            Some(Told::Mirrored(Ok(()))) => Ok(()),
            Some(_) => Err(ReadError::MirrorLost),
            None => Err(ReadError::NoLeader),
        }
    }
}
