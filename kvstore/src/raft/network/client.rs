//! What openraft sends to one peer: a pipelined stream of appends, heartbeats and votes on a connection
//! of their own, snapshots on a third.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use futures_util::stream::Fuse;
use futures_util::{FutureExt as _, Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use service::tasks::Tasks;
use tokio::io::AsyncWriteExt as _;

use super::frame::{FrameReader, append_frame, append_frame_of};
use super::handshake::{Connection, HandshakeError, Purpose, Trust, connect};
use super::message::{self, Control, Controlled, Streamed};
use super::sent::{LOOK_EVERY, Sent};
use super::stream::{Incoming, write_flushed};
use super::transfer;
use crate::metrics::NodeMetrics;
use crate::raft::types::{Member, Snapshot, SnapshotFolder, TypeConfig, Vote};
use crate::storage::damage::Damage;

/// Requests written together, as far as they are ready.
const WRITE_BYTES_MAX: usize = 1 << 20;

#[derive(Clone)]
pub struct PeerNetworkFactory {
    pub trust: Arc<Trust>,
    pub tasks: Tasks,
    pub metrics: Arc<NodeMetrics>,
    pub(crate) damage: Arc<Damage>,
}

pub struct PeerNetwork {
    factory: PeerNetworkFactory,
    to: u64,
    address: String,
    /// Heartbeats reuse one connection and never stand behind entries.
    heartbeat: bool,
    /// Absent while a request is under way, so that a cancelled one leaves no half-read answer behind.
    control: Option<Connection>,
}

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

fn unreachable(error: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

fn broken(error: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}

impl RaftNetworkFactory<TypeConfig> for PeerNetworkFactory {
    type Network = PeerNetwork;

    async fn new_client(&mut self, to: u64, node: &Member) -> PeerNetwork {
        PeerNetwork {
            factory: self.clone(),
            to,
            address: node.peer_address.clone(),
            heartbeat: false,
            control: None,
        }
    }

    async fn new_heartbeat_client(&mut self, to: u64, node: &Member) -> PeerNetwork {
        PeerNetwork {
            heartbeat: true,
            ..self.new_client(to, node).await
        }
    }
}

impl PeerNetwork {
    async fn connect(&self, purpose: Purpose) -> Result<Connection, HandshakeError> {
        connect(&self.factory.trust, self.to, &self.address, purpose).await
    }

    async fn ask(&mut self, request: &Control) -> Rpc<Controlled> {
        let mut connection = match self.control.take() {
            Some(connection) => connection,
            None => self
                .connect(Purpose::Control)
                .await
                .map_err(|error| unreachable(&error))?,
        };
        let mut out = BytesMut::new();
        append_frame(&mut out, &[&message::encode(request)]).map_err(|error| broken(&error))?;
        write_flushed(&mut connection.writer, &out)
            .await
            .map_err(|error| broken(&error))?;
        let answer = connection.reader.next().await.map_err(|error| broken(&error))?;
        let answer =
            answer.ok_or_else(|| broken(&std::io::Error::from(std::io::ErrorKind::UnexpectedEof)))?;
        let answer = message::decode(&answer).map_err(|error| broken(&error))?;
        self.control = Some(connection);
        match answer {
            Controlled::Failed(reason) => Err(unreachable(&std::io::Error::other(reason))),
            answer => Ok(answer),
        }
    }
}

fn odd_answer() -> RPCError<TypeConfig> {
    broken(&std::io::Error::other(
        "the peer answered something else than was asked",
    ))
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotFolder;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        if !message::is_contiguous(&request) {
            return Err(broken(&message::MalformedMessage::Gap));
        }
        match self
            .ask(&Control::Append(message::encode_append(&request)))
            .await?
        {
            Controlled::Appended(answer) => Ok(answer),
            _ => Err(odd_answer()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        if self.heartbeat {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let sent = Sent::default();
            let mut input = sent.noted(input);
            // openraft waits out its backoff when it is asked for the first request. To connect before that
            // would try a dead peer again and again without a pause.
            let Some(first) = input.next().await else {
                let nothing: BoxStream<'s, _> = Box::pin(futures_util::stream::empty());
                return Ok(nothing);
            };
            let connection = self
                .connect(Purpose::Append)
                .await
                .map_err(|error| unreachable(&error))?;
            let requests = futures_util::stream::iter([first]).chain(input).fuse();
            Ok(pipeline(connection, requests, sent, &self.factory.tasks))
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        match self.ask(&Control::Vote(request)).await? {
            Controlled::Voted(answer) => Ok(answer),
            _ => Err(odd_answer()),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        match self.ask(&Control::PreVote(request)).await? {
            Controlled::Voted(answer) => Ok(answer),
            _ => Err(odd_answer()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let connection = self
            .connect(Purpose::Snapshot)
            .await
            .map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))?;
        let sending = transfer::send(
            connection,
            vote,
            &snapshot.meta,
            &snapshot.snapshot.0,
            &self.factory.damage,
        );
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending => {
                let vote = sent.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))?;
                self.factory.metrics.snapshots.with_label_values(&["sent"]).inc();
                Ok(SnapshotResponse::new(vote))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let control = Control::TransferLeader {
            from: *request.from_leader(),
            to: *request.to_node_id(),
            last: request.last_log_id().copied(),
        };
        match self.ask(&control).await? {
            Controlled::Transferred(Ok(())) => Ok(Ok(())),
            Controlled::Transferred(Err(reason)) => Err(broken(&std::io::Error::other(reason))),
            _ => Err(odd_answer()),
        }
    }
}

/// Writes requests on a task of its own while answers are read in order: many are under way at once.
fn pipeline<S>(
    connection: Connection,
    mut input: Fuse<S>,
    sent: Sent,
    tasks: &Tasks,
) -> BoxStream<'static, Rpc<StreamAppendResult<TypeConfig>>>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let Connection {
        reader, mut writer, ..
    } = connection;
    let finished = Arc::new(AtomicBool::new(false));
    let said = Arc::clone(&finished);
    let writing = tasks.spawn("append-stream", async move {
        let mut out = BytesMut::new();
        let mut ready = input.next().await;
        while let Some(first) = ready {
            out.clear();
            let mut whole = put(&mut out, &first);
            // What is ready as well goes out with the same system call.
            while whole
                && out.len() < WRITE_BYTES_MAX
                && let Some(Some(request)) = input.next().now_or_never()
            {
                whole = put(&mut out, &request);
            }
            // After either, the reader sees an end that is not in order, and says so: openraft then looks anew at
            // what this peer needs.
            if write_flushed(&mut writer, &out).await.is_err() || !whole {
                return;
            }
            ready = input.next().await;
        }
        // openraft ends a stream whenever it regroups. The follower answers all it got, then closes
        // too: that is an orderly end, and to report it as a fault would restart replication at once.
        said.store(true, Ordering::Release);
        writer.shutdown().await.ok();
    });
    let state = Some((reader, AbortOnDrop(writing.abort_handle())));
    Box::pin(futures_util::stream::unfold(state, move |state| {
        let (finished, sent) = (Arc::clone(&finished), sent.clone());
        next_answer(state, finished, sent)
    }))
}

/// Puts the request behind what is to be sent, unless its entries begin too late or are too large.
fn put(out: &mut BytesMut, request: &AppendEntriesRequest<TypeConfig>) -> bool {
    let wanted = request.prev_log_id.map_or(0, |prev| prev.index.saturating_add(1));
    if !message::is_contiguous(request) {
        tracing::info!(
            raft.index = wanted,
            "an entry that a peer needs was purged while it caught up; it gets a snapshot"
        );
        return false;
    }
    if let Err(error) = append_frame_of(out, |out| message::put_append(out, request)) {
        // No node proposes what is so large. Should one be in the log all the same, it stays there.
        tracing::error!(
            %error,
            raft.index = wanted,
            "an entry cannot be sent to a peer: neither it nor what follows it gets there"
        );
        return false;
    }
    true
}

type Answers = (FrameReader<Incoming>, AbortOnDrop);

async fn next_answer(
    state: Option<Answers>,
    finished: Arc<AtomicBool>,
    sent: Sent,
) -> Option<(Rpc<StreamAppendResult<TypeConfig>>, Option<Answers>)> {
    let (mut reader, writing) = state?;
    sent.counted();
    let answer = loop {
        let Ok(read) = tokio::time::timeout(LOOK_EVERY, reader.next()).await else {
            if sent.is_stalled() {
                break Err(broken(&std::io::Error::from(std::io::ErrorKind::TimedOut)));
            }
            continue;
        };
        let answer = match read {
            Ok(None) if finished.load(Ordering::Acquire) => return None,
            Ok(Some(frame)) => message::decode::<Streamed>(&frame).map_err(|error| broken(&error)),
            Ok(None) => Err(broken(&std::io::Error::from(std::io::ErrorKind::UnexpectedEof))),
            Err(error) => Err(broken(&error)),
        };
        match answer {
            Ok(Streamed::Flushed(upto)) if !sent.takes(upto) => {}
            answer => break answer,
        }
    };
    Some(match answer {
        Ok(Streamed::Flushed(upto)) => (Ok(Ok(upto)), Some((reader, writing))),
        Ok(Streamed::Conflict(at)) => (Ok(Err(StreamAppendError::Conflict(at))), None),
        Ok(Streamed::HigherVote(vote)) => (Ok(Err(StreamAppendError::HigherVote(vote))), None),
        Err(error) => (Err(error), None),
    })
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry as _;

    use super::*;
    use crate::command::Proposal;
    use crate::raft::entry::log_id;
    use crate::raft::network::frame::FRAME_BYTES_MAX;
    use crate::raft::types::Entry;

    fn append(bytes: usize) -> AppendEntriesRequest<TypeConfig> {
        let payload = EntryPayload::Normal(Proposal(vec![0_u8; bytes].into()));
        AppendEntriesRequest {
            vote: Vote::new_committed(2, 1),
            prev_log_id: Some(log_id(1, 1, 7)),
            entries: vec![Entry::new(log_id(2, 1, 8), payload)],
            leader_commit: None,
        }
    }

    #[test]
    fn an_entry_that_no_frame_takes_is_left_out() {
        let mut out = BytesMut::new();
        assert!(put(&mut out, &append(10)));
        let sent = out.clone();
        assert!(!put(&mut out, &append(FRAME_BYTES_MAX)));
        assert!(
            out == sent,
            "what was put before is still sent, and no part of it"
        );
    }
}
