//! The peer port: takes connections of other members and hands what they say to Raft.
//!
//! Invariant: no proposal is taken in that lay in a cut network or in a paused process for long. Whoever asked has asked
//! somebody else meanwhile; an answer that was kept for the repetition would be forgotten, and the write done twice.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use service::tasks::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, mpsc};

use super::appends;
use super::doorway::{Doorway, Place};
use super::frame::append_frame;
use super::handshake::{Connection, Purpose, Trust, accept};
use super::link::{NUMBERED_BYTES_MAX, WARMING, write_all};
use super::message::{self, Ask, Control, Controlled, NotNow, Told, transfer_request};
use super::room::{QUESTIONS_MAX, Room};
use super::stream::write_flushed;
use super::transfer;
use super::turns::Turns;
use crate::raft::desk::Desk;
use crate::raft::types::{Snapshot, SnapshotFolder};

/// Members, their several connections, and reconnects that overlap.
const CONNECTIONS_MAX: usize = 256;
/// Askers say something more often than this. What comes after a longer silence may be as old as that, and is not
/// listened to; the asker connects anew. It is far less than answers to repeatable writes are kept.
const SILENT_MAX: Duration = Duration::from_secs(10);

pub struct PeerServer {
    pub desk: Arc<Desk>,
    pub trust: Arc<Trust>,
    pub tasks: Tasks,
    pub fast_failover: bool,
    /// Entries up to here were once on this disk and are gone: no vote before they are back.
    pub lost_up_to: Option<u64>,
    receiving: Mutex<()>,
    /// Checks whether a leader is gone, under way; streams that end together need no more than these.
    pub(super) checks: Arc<Semaphore>,
    pub(super) streams: Turns,
}

impl PeerServer {
    pub fn new(
        desk: Arc<Desk>,
        trust: Arc<Trust>,
        tasks: Tasks,
        fast_failover: bool,
        lost_up_to: Option<u64>,
    ) -> Arc<Self> {
        Arc::new(Self {
            desk,
            trust,
            tasks,
            fast_failover,
            lost_up_to,
            receiving: Mutex::new(()),
            checks: Arc::new(Semaphore::new(2)),
            streams: Turns::default(),
        })
    }

    /// Serves until the tasks are told to stop.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let (room, doorway) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Doorway::default());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.tasks.stopping() => return,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors, most likely: let some connections end first.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (server, room, place) = (Arc::clone(&self), Arc::clone(&room), doorway.enter());
            self.tasks.spawn("peer-connection", async move {
                let stopping = server.tasks.clone();
                tokio::select! {
                    () = server.welcome(stream, place, room) => {}
                    () = stopping.stopping() => {}
                }
            });
        }
    }

    async fn welcome(self: Arc<Self>, stream: TcpStream, mut place: Place, room: Arc<Semaphore>) {
        let accepted = tokio::select! {
            accepted = accept(&self.trust, stream) => accepted,
            () = place.lost() => {
                tracing::debug!("a connection to the peer port had to make room before it proved anything");
                return;
            }
        };
        drop(place);
        match accepted {
            Ok(connection) => {
                let Ok(_permit) = room.try_acquire() else {
                    tracing::warn!(node.peer = connection.peer, "too many connections of members");
                    return;
                };
                self.converse(connection).await;
            }
            Err(error) => tracing::debug!(%error, "a connection to the peer port was not trusted"),
        }
    }

    async fn converse(self: Arc<Self>, connection: Connection) {
        let (peer, purpose) = (connection.peer, connection.purpose);
        let ended = match purpose {
            Purpose::Append => appends::take(&self, connection).await,
            Purpose::Control => self.control(connection).await,
            Purpose::Snapshot => self.snapshot(connection).await,
            Purpose::Ask => self.questions(connection).await,
        };
        if let Err(error) = ended {
            tracing::debug!(node.peer = peer, ?purpose, %error, "a peer's connection broke");
        }
    }

    /// Ends with whoever asks. Raft may take long to answer, as while it waits for its disk, and heartbeats that nobody
    /// waits for any longer would take up the places of all connections meanwhile.
    async fn control(&self, connection: Connection) -> io::Result<()> {
        let Connection {
            mut reader,
            mut writer,
            ..
        } = connection;
        while let Some(frame) = reader.next().await? {
            let request: Control = message::decode(&frame).map_err(io::Error::other)?;
            // Who hands over has given up the lead by then. What else Raft was told it does all the same, and what it
            // was not told yet is as if it had been lost on the way.
            let must_be_told = matches!(request, Control::TransferLeader { .. });
            let answered = tokio::select! {
                biased;
                answer = self.answer_control(request) => Ok(answer),
                // Nothing is asked before the answer to this has come, so it is the end.
                end = reader.next(), if !must_be_told => Err(end),
            };
            let answer = match answered {
                Ok(answer) => answer.unwrap_or_else(Controlled::Failed),
                Err(end) => return end.map(drop),
            };
            let mut out = BytesMut::new();
            append_frame(&mut out, &[&message::encode(&answer)])?;
            write_flushed(&mut writer, &out).await?;
        }
        Ok(())
    }

    async fn answer_control(&self, request: Control) -> Result<Controlled, String> {
        let raft = &self.desk.raft;
        let text = |error: &dyn std::fmt::Display| error.to_string();
        match request {
            Control::Append(encoded) => {
                let request = message::decode_append(encoded).map_err(|error| text(&error))?;
                self.desk.heard.note(raft, &request.vote);
                raft.append_entries(request)
                    .await
                    .map(Controlled::Appended)
                    .map_err(|error| text(&error))
            }
            Control::Vote(request) => {
                self.may_vote()?;
                // Without the flag, a lease keeps it from voting.
                let _quiet = if request.leadership_transfer {
                    Some(self.desk.taken.quiet().await)
                } else {
                    None
                };
                raft.vote(request)
                    .await
                    .map(Controlled::Voted)
                    .map_err(|error| text(&error))
            }
            Control::PreVote(request) => {
                self.may_vote()?;
                raft.pre_vote(request)
                    .await
                    .map(Controlled::Voted)
                    .map_err(|error| text(&error))
            }
            Control::TransferLeader { from, to, last } => {
                self.may_vote()?;
                let answer = raft
                    .handle_transfer_leader(transfer_request(from, to, last))
                    .await
                    .map_err(|error| text(&error))?;
                Ok(Controlled::Transferred(answer.map_err(|error| error.to_string())))
            }
        }
    }

    /// A vote stands for everything this node ever acknowledged; with part of that lost, it would lie.
    fn may_vote(&self) -> Result<(), String> {
        match self.lost_up_to {
            Some(end) if !self.has_all() => Err(format!(
                "this node lost entries before {end} and does not vote until it has them again"
            )),
            _ => Ok(()),
        }
    }

    /// Whether what was lost is there again.
    pub(super) fn has_all(&self) -> bool {
        let has = |end| self.desk.machine.progress_now().applied_end >= end;
        self.lost_up_to.is_none_or(has)
    }

    async fn snapshot(&self, mut connection: Connection) -> io::Result<()> {
        let _one_at_a_time = self.receiving.lock().await;
        let (vote, meta, folder) =
            transfer::receive(&mut connection, self.desk.machine.incoming_folder()).await?;
        let snapshot = Snapshot {
            meta,
            snapshot: SnapshotFolder(folder),
        };
        let answer = self
            .desk
            .raft
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(io::Error::other)?;
        let mut out = BytesMut::new();
        append_frame(&mut out, &[&message::encode(&answer.vote)])?;
        write_flushed(&mut connection.writer, &out).await
    }

    /// Answers go out as they are ready, not in the order of the questions.
    async fn questions(self: Arc<Self>, connection: Connection) -> io::Result<()> {
        let Connection {
            mut reader,
            writer,
            peer,
            ..
        } = connection;
        let (answers, queue) = mpsc::channel::<(u64, Bytes)>(QUESTIONS_MAX);
        let room = Room::new();
        let writing = self.tasks.spawn("peer-answers", async move {
            if let Err(error) = write_all(writer, queue).await {
                tracing::debug!(node.peer = peer, %error, "answers to a peer could not be sent");
            }
        });
        // The program of before does not keep its connections warm, and may be silent for as long as it likes.
        let (mut heard, mut is_kept_warm) = (Instant::now(), false);
        while let Some(frame) = reader.next().await? {
            let Some((number, body)) = frame.split_at_checked(8) else {
                break;
            };
            let number = u64::from_le_bytes(number.try_into().expect("split at eight"));
            let question: Ask = message::decode(body).map_err(io::Error::other)?;
            let silent = heard.elapsed();
            heard = Instant::now();
            if is_kept_warm && silent > SILENT_MAX {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "what comes may be old"));
            }
            is_kept_warm |= number == WARMING;
            let Some(seat) = room.enter(&question).await else {
                let told = message::encode(&Told::Mirrored(Err(NotNow::Overloaded)));
                answers.send((number, told.into())).await.ok();
                continue;
            };
            let (desk, answers) = (Arc::clone(&self.desk), answers.clone());
            self.tasks.spawn("peer-question", async move {
                let _seat = seat;
                let mut told = message::encode(&desk.answer(question).await);
                if told.len() > NUMBERED_BYTES_MAX {
                    // It was done; what it answered cannot be told.
                    tracing::error!(
                        bytes = told.len(),
                        "the answers to a batch are too large to be sent"
                    );
                    told = message::encode(&Told::Proposed(Err(NotNow::Unknown)));
                }
                // The asker has gone away; nobody misses the answer.
                answers.send((number, told.into())).await.ok();
            });
        }
        writing.abort();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use openraft::raft::VoteRequest;

    use super::*;
    use crate::raft::bare::{Bare, DEADLINE, calm, trust};
    use crate::raft::log::held;
    use crate::raft::network::frame::write_frame;
    use crate::raft::network::handshake::connect;
    use crate::raft::types::{Member, Vote};

    #[tokio::test]
    async fn who_waits_no_longer_for_an_answer_has_no_place() {
        let (folder, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (log, release) = held::open(folder.path());
        let node = Bare::over(log, folder, 1, &calm()).await;
        let raft = &node.desk.raft;
        let alone = BTreeMap::from([(1, Member::default())]);
        raft.initialize(alone).await.unwrap();
        // It votes for itself, and answers nothing while it waits for its disk to write that down.
        raft.trigger().elect(false).await.unwrap();
        let before = node.tasks.running();
        let asker = trust(there.path(), 2);
        let connecting = connect(&asker, 1, &node.address, Purpose::Control);
        let mut connection = connecting.await.unwrap();
        assert!(node.tasks.running() > before, "nobody serves this connection");
        let vote = VoteRequest {
            vote: Vote::new(3, 2),
            last_log_id: None,
            leadership_transfer: false,
        };
        let asked = message::encode(&Control::PreVote(vote));
        write_frame(&mut connection.writer, &asked).await.unwrap();
        drop(connection);
        let ending = async {
            while node.tasks.running() > before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let ended = tokio::time::timeout(DEADLINE, ending).await;
        assert!(ended.is_ok(), "it keeps its place while Raft waits for the disk");
        drop(release);
        node.end().await;
    }
}
