//! The dead-leader shortcut: when a leader's process is gone, its sockets say so at once, and the best
//! follower need not wait for a timeout.
//!
//! Only who campaigns, and when, changes here; log and vote rules are untouched. It is safe as long as
//! no read relies on a lease for longer than `super::taken` keeps it, and no node closes its listener while it
//! still serves.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::message::{Ask, Told, transfer_request};
use crate::raft::desk::Desk;
use crate::raft::types::{LogId, Vote};
use crate::raft::view::{self, RaftView};

/// Right after a process died its listener may still accept for a moment.
const CONNECT_TRIES: u32 = 10;
const CONNECT_PAUSE: Duration = Duration::from_millis(3);
/// A survivor that answers later than this does not hold the others up.
const ANSWER: Duration = Duration::from_millis(20);

/// So often the survivors compare their logs before the ordinary election has to decide: what each has still to take
/// in from the dead leader may come between the looks of the two, and then each gives way to the other.
const LOOKS: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Of them, so many give way to one whose log is no longer than one's own: it may not know that the leader is gone.
const LOOKS_COURTEOUS: u32 = 3;

/// Called when an append stream from `leader` has ended. `may_lead` tells whether this node has all that it ever
/// acknowledged.
pub async fn on_stream_end(desk: Arc<Desk>, leader: u64, may_lead: impl Fn() -> bool) {
    for look in 0..LOOKS {
        if !may_lead() {
            return;
        }
        let view = view::view(&desk.raft);
        if view.leader != Some(leader) || !view.is_voter(view.me) {
            return;
        }
        let Some(member) = view.members.get(&leader) else {
            return;
        };
        let taken = desk.taken.last().await;
        // Streams end for many reasons; only a refused connection tells that nobody is there any more.
        if !is_gone(&member.peer_address).await {
            return;
        }
        let Some((vote, mine)) = desk.vote_and_last().await else {
            return;
        };
        let courteous = look < LOOKS_COURTEOUS;
        if !another_goes_first(&desk, &view, leader, mine.as_ref(), courteous).await {
            // The port may be refused on the way to a leader that lives, and whose requests still come.
            let Some(_quiet) = desk.taken.quiet_since(taken).await else {
                return;
            };
            return campaign(&desk, leader, vote, mine).await;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Whether a survivor has a longer log, or as long a one and a smaller number: it sees the same end.
async fn another_goes_first(
    desk: &Desk,
    view: &RaftView,
    leader: u64,
    mine: Option<&LogId>,
    courteous: bool,
) -> bool {
    for (id, member) in desk.others() {
        if id == leader || !view.is_voter(id) {
            continue;
        }
        let link = desk.peers.link(id, &member.peer_address);
        let told = tokio::time::timeout(ANSWER, link.ask(&Ask::LastLog)).await;
        if let Ok(Ok(Told::LastLog { last })) = told
            && (last.as_ref() > mine || (courteous && last.as_ref() == mine && id < view.me))
        {
            return true;
        }
    }
    false
}

/// While nothing is taken in, since its first voter is this node itself.
async fn campaign(desk: &Desk, leader: u64, vote: Vote, mine: Option<LogId>) {
    if view::leader(&desk.raft) != Some(leader) {
        return;
    }
    desk.metrics.failovers.inc();
    tracing::info!(
        node.leader = leader,
        "the leader's process is gone; this node campaigns at once"
    );
    let me = desk.peers.trust().identity.id();
    let request = transfer_request(vote, me, mine);
    if let Err(error) = desk.raft.handle_transfer_leader(request).await {
        tracing::warn!(%error, "the shortcut failed; the ordinary election follows");
    }
}

async fn is_gone(address: &str) -> bool {
    for _ in 0..CONNECT_TRIES {
        match tokio::time::timeout(ANSWER, TcpStream::connect(address)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return true,
            // The listener ended while the connection waited in it to be taken.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {}
            // Unreachable or silent: a cut network looks like this, and says nothing about the process.
            Ok(Err(_)) | Err(_) => return false,
            Ok(Ok(_)) => tokio::time::sleep(CONNECT_PAUSE).await,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use service::tasks::Tasks;

    use super::*;
    use crate::raft::bare::{Bare, DEADLINE, calm};
    use crate::raft::led::{FOLLOWER, LEADER, begin_to_lead};
    use crate::raft::network::sent::LATE;
    use crate::raft::network::taken::Taken;

    #[tokio::test]
    async fn whoever_has_just_answered_the_leader_does_not_campaign_yet() {
        let node = Bare::start(FOLLOWER, &calm()).await;
        // Nobody is there.
        begin_to_lead(&node.desk, "127.0.0.1:1").await;
        node.knows("its leader", |view| view.leader == Some(LEADER)).await;
        let began = Instant::now();
        node.desk.taken.note().await;
        on_stream_end(Arc::clone(&node.desk), LEADER, || true).await;
        let took = began.elapsed();
        assert_eq!(node.desk.metrics.failovers.get(), 1, "it gave up after {took:?}");
        assert!(took > LATE, "it campaigned after {took:?}");
        node.end().await;
    }

    /// Something is taken in so often that no vote would ever be without harm.
    async fn append_for_ever(taken: &Taken) {
        loop {
            taken.note().await;
            tokio::time::sleep(LATE / 2).await;
        }
    }

    #[tokio::test]
    async fn whoever_goes_on_answering_the_leader_does_not_campaign_and_does_not_wait_to() {
        let node = Bare::start(FOLLOWER, &calm()).await;
        // Nobody is reached there.
        begin_to_lead(&node.desk, "127.0.0.1:1").await;
        node.knows("its leader", |view| view.leader == Some(LEADER)).await;
        let ending = on_stream_end(Arc::clone(&node.desk), LEADER, || true);
        tokio::select! {
            biased;
            () = append_for_ever(&node.desk.taken) => unreachable!("it goes on"),
            ended = tokio::time::timeout(DEADLINE, ending) => ended.expect("it waits for the leader to fall silent"),
        }
        assert_eq!(node.desk.metrics.failovers.get(), 0);
        node.end().await;
    }

    #[tokio::test]
    async fn a_listener_that_ends_while_one_waits_in_it_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Tasks::new().spawn("asking", async move { is_gone(&address).await });
        // It has begun to connect, and is connected as far as the kernel cares.
        tokio::task::yield_now().await;
        drop(listener);
        assert!(asked.await.unwrap());
    }

    #[tokio::test]
    async fn a_listener_that_goes_on_listening_is_not_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_gone(&listener.local_addr().unwrap().to_string()).await);
    }
}
