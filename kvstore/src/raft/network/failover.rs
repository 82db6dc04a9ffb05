//! The dead-leader shortcut: when a leader's process is gone, its sockets say so at once, and the best
//! follower need not wait for a timeout.
//!
//! Only who campaigns, and when, changes here; log and vote rules are untouched. It is safe as long as
//! no read relies on a lease, and no node closes its listener while it still serves.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::message::{Ask, Told, transfer_request};
use crate::raft::desk::Desk;
use crate::raft::view;

/// Right after a process died its listener may still accept for a moment.
const CONNECT_TRIES: u32 = 10;
const CONNECT_PAUSE: Duration = Duration::from_millis(3);
/// A survivor that answers later than this does not hold the others up.
const ANSWER: Duration = Duration::from_millis(20);

/// Called when an append stream from `leader` has ended.
pub async fn on_stream_end(desk: Arc<Desk>, leader: u64) {
    let view = view::view(&desk.raft);
    if view.leader != Some(leader) || !view.is_voter(view.me) {
        return;
    }
    let Some(member) = view.members.get(&leader) else {
        return;
    };
    // Streams end for many reasons; only a refused connection tells that nobody is there any more.
    if !is_gone(&member.peer_address).await {
        return;
    }
    let Some((vote, mine)) = desk.vote_and_last().await else {
        return;
    };
    for (id, member) in desk.others() {
        if id == leader || !view.is_voter(id) {
            continue;
        }
        let link = desk.peers.link(id, &member.peer_address);
        let told = tokio::time::timeout(ANSWER, link.ask(&Ask::LastLog)).await;
        if let Ok(Ok(Told::LastLog { last })) = told
            && (last > mine || (last == mine && id < view.me))
        {
            // It sees the same end and campaigns itself.
            return;
        }
    }
    if view::leader(&desk.raft) != Some(leader) {
        return;
    }
    desk.metrics.failovers.inc();
    tracing::info!(
        node.leader = leader,
        "the leader's process is gone; this node campaigns at once"
    );
    let request = transfer_request(vote, view.me, mine);
    if let Err(error) = desk.raft.handle_transfer_leader(request).await {
        tracing::warn!(%error, "the shortcut failed; the ordinary election follows");
    }
}

async fn is_gone(address: &str) -> bool {
    for _ in 0..CONNECT_TRIES {
        match tokio::time::timeout(ANSWER, TcpStream::connect(address)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return true,
            // Unreachable or silent: a cut network looks like this, and says nothing about the process.
            Ok(Err(_)) | Err(_) => return false,
            Ok(Ok(_)) => tokio::time::sleep(CONNECT_PAUSE).await,
        }
    }
    false
}
