//! What leaders send: pipelined streams of appends. Requests go in as they come, answers go out in order.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};

use super::failover;
use super::frame::{FrameReader, append_frame};
use super::handshake::Connection;
use super::message::{self, Streamed};
use super::server::PeerServer;
use super::stream::{Incoming, write_flushed};
use super::turns::Newer;
use crate::raft::types::TypeConfig;

pub(super) async fn take(server: &Arc<PeerServer>, connection: Connection) -> io::Result<()> {
    let Connection {
        reader,
        mut writer,
        peer,
        ..
    } = connection;
    let mut waiting = server.streams.enter(peer);
    let Some(_turn) = waiting.turn().await else {
        return Ok(());
    };
    let requests = requests(Arc::clone(server), peer, reader, waiting.newer);
    let mut answers = Box::pin(server.desk.raft.stream_append(requests).fuse());
    let mut out = BytesMut::new();
    while let Some(answer) = answers.next().await {
        out.clear();
        let mut ready = Some(answer);
        // Answers that are ready together go out with one system call.
        while let Some(answer) = ready {
            let answer = streamed(answer.map_err(io::Error::other)?);
            append_frame(&mut out, &[&message::encode(&answer)])?;
            ready = answers.next().now_or_never().flatten();
        }
        write_flushed(&mut writer, &out).await?;
    }
    Ok(())
}

/// All that comes, until its leader ends the stream or begins another.
fn requests(
    server: Arc<PeerServer>,
    peer: u64,
    reader: FrameReader<Incoming>,
    newer: Newer,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static {
    futures_util::stream::unfold((reader, newer), move |(mut reader, mut newer)| {
        let server = Arc::clone(&server);
        async move {
            let read = tokio::select! {
                read = reader.next() => read,
                () = newer.comes() => return None,
            };
            let desk = &server.desk;
            let request = read.ok().flatten().and_then(|frame| {
                let request = message::decode_append(frame).ok()?;
                desk.heard.note(&desk.raft, &request.vote);
                Some(request)
            });
            let Some(request) = request else {
                look_after(&server, peer);
                return None;
            };
            desk.taken.note().await;
            Some((request, (reader, newer)))
        }
    })
}

/// Its stream has ended: is it gone?
fn look_after(server: &Arc<PeerServer>, peer: u64) {
    if !server.fast_failover || server.tasks.is_stopping() {
        return;
    }
    let Ok(permit) = Arc::clone(&server.checks).try_acquire_owned() else {
        return;
    };
    let looking = Arc::clone(server);
    server.tasks.spawn("failover", async move {
        let may_lead = || looking.has_all();
        failover::on_stream_end(Arc::clone(&looking.desk), peer, may_lead).await;
        drop(permit);
    });
}

fn streamed(answer: StreamAppendResult<TypeConfig>) -> Streamed {
    match answer {
        Ok(upto) => Streamed::Flushed(upto),
        Err(StreamAppendError::Conflict(at)) => Streamed::Conflict(at),
        Err(StreamAppendError::HigherVote(vote)) => Streamed::HigherVote(vote),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::raft::bare::{Bare, DEADLINE, calm, trust};
    use crate::raft::entry::log_id;
    use crate::raft::led::{FOLLOWER, LEADER, begin_to_lead};
    use crate::raft::log::held;
    use crate::raft::network::frame::write_frame;
    use crate::raft::network::handshake::{Purpose, Trust, connect};
    use crate::raft::types::Vote;

    /// A new stream of the leader's, with a request that tells nothing new.
    async fn stream(leader: &Arc<Trust>, to: &Bare) -> Connection {
        let connecting = connect(leader, FOLLOWER, &to.address, Purpose::Append);
        let mut stream = connecting.await.unwrap();
        let append = AppendEntriesRequest {
            vote: Vote::new_committed(1, LEADER),
            prev_log_id: Some(log_id(1, LEADER, 0)),
            entries: Vec::new(),
            leader_commit: None,
        };
        let append = message::encode_append(&append);
        write_frame(&mut stream.writer, &append).await.unwrap();
        stream
    }

    async fn at_most(node: &Bare, tasks: usize) {
        let ending = async {
            while node.tasks.running() > tasks {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let ended = tokio::time::timeout(DEADLINE, ending).await;
        let running = node.tasks.running();
        assert!(ended.is_ok(), "{running} tasks run, and not {tasks}");
    }

    #[tokio::test]
    async fn streams_that_were_given_up_take_no_places_while_the_disk_hangs() {
        let (folder, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (log, release) = held::open(folder.path());
        let node = Bare::over(log, folder, FOLLOWER, &calm()).await;
        let leader = trust(there.path(), LEADER);
        let before = node.tasks.running();
        for _ in 0..8 {
            drop(stream(&leader, &node).await);
        }
        // One that waits for answers, and the newest.
        at_most(&node, before + 2).await;
        assert!(node.tasks.running() > before, "nothing hangs");
        drop(release);
        at_most(&node, before).await;
        node.end().await;
    }

    #[tokio::test]
    async fn a_newer_stream_ends_the_one_before() {
        let (node, there) = (Bare::start(FOLLOWER, &calm()).await, tempfile::tempdir().unwrap());
        begin_to_lead(&node.desk, "127.0.0.1:1").await;
        let leader = trust(there.path(), LEADER);
        let [mut first, mut second] = [stream(&leader, &node).await, stream(&leader, &node).await];
        let answer = second.reader.next().await.unwrap().expect("it goes on");
        let answer: Streamed = message::decode(&answer).unwrap();
        assert!(matches!(answer, Streamed::Flushed(_)), "{answer:?}");
        let ending = async { while let Ok(Some(_answer)) = first.reader.next().await {} };
        let ended = tokio::time::timeout(DEADLINE, ending).await;
        assert!(ended.is_ok(), "the one before goes on");
        node.end().await;
    }
}
