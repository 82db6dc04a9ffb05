//! Questions to one peer over one connection, many under way at once, each told apart by a number.
//!
//! The connection is made on demand. What was not sent surely did not happen; what was sent and not
//! answered is unknown: the two are told apart here, since nobody above could. While nothing is asked the other end is
//! asked something all the same, so that silence means a cut to both: see `super::server`.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use service::tasks::Tasks;
use tokio::sync::{mpsc, oneshot};

use super::frame::{FRAME_BYTES_MAX, append_frame};
use super::handshake::{Connection, HandshakeError, Purpose, Trust, connect};
use super::message::{self, Ask, Told};
use super::older;
use super::stream::{Outgoing, write_flushed};

/// Questions waiting to be written; more make the asker wait.
const QUEUE: usize = 256;
/// How often the other end is asked something that needs no answer.
const WARM_EVERY: Duration = Duration::from_secs(3);
/// Without any answer for so long, nobody is there, or nothing comes through.
const SILENT_MAX: Duration = Duration::from_secs(8);
/// With its number it fits into a frame.
pub(super) const NUMBERED_BYTES_MAX: usize = FRAME_BYTES_MAX - 8;
/// No question of an asker's has this number; it tells the other end that silence means something.
pub(super) const WARMING: u64 = 0;

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("the question was not sent")]
    NotSent(#[source] Option<HandshakeError>),
    #[error("the question is larger than a frame")]
    TooLarge,
    #[error("the connection ended before the answer came")]
    Lost,
}

type Pending = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Told>>>>>;

struct Live {
    questions: mpsc::Sender<(u64, Bytes)>,
    pending: Pending,
}

pub struct Link {
    trust: Arc<Trust>,
    tasks: Tasks,
    to: u64,
    address: String,
    live: tokio::sync::Mutex<Option<Arc<Live>>>,
    next: AtomicU64,
}

const POISON: &str = "no holder of the pending questions panics";

/// However a connection ends, also by a panic: nobody waits for its answers any longer, and the next question is asked
/// over a new one.
struct Ending(Pending);

impl Drop for Ending {
    fn drop(&mut self) {
        // A second panic while the first unwinds would end the process.
        if let Ok(mut pending) = self.0.lock() {
            pending.take();
        }
    }
}

impl Link {
    pub fn new(trust: Arc<Trust>, tasks: Tasks, to: u64, address: String) -> Self {
        Self {
            trust,
            tasks,
            to,
            address,
            live: tokio::sync::Mutex::new(None),
            next: AtomicU64::new(1),
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub async fn ask(&self, question: &Ask) -> Result<Told, AskError> {
        let encoded = Bytes::from(message::encode(question));
        if encoded.len() > NUMBERED_BYTES_MAX {
            let bytes = encoded.len();
            tracing::error!(bytes, node.peer = self.to, "a question is too large to be sent");
            return Err(AskError::TooLarge);
        }
        let live = self
            .live()
            .await
            .map_err(|error| AskError::NotSent(Some(error)))?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, waiting) = oneshot::channel();
        match live.pending.lock().expect(POISON).as_mut() {
            Some(pending) => pending.insert(number, answer),
            None => return Err(AskError::NotSent(None)),
        };
        if live.questions.send((number, encoded)).await.is_err() {
            return Err(AskError::NotSent(None));
        }
        waiting.await.map_err(|_dropped| AskError::Lost)
    }

    /// The connection under way, or a new one if there is none or it has ended.
    async fn live(&self) -> Result<Arc<Live>, HandshakeError> {
        let mut live = self.live.lock().await;
        if let Some(live) = live
            .as_ref()
            .filter(|live| live.pending.lock().expect(POISON).is_some())
        {
            return Ok(Arc::clone(live));
        }
        let connection = connect(&self.trust, self.to, &self.address, Purpose::Ask).await?;
        let (questions, queue) = mpsc::channel(QUEUE);
        let pending: Pending = Arc::new(Mutex::new(Some(HashMap::new())));
        let ending = Ending(Arc::clone(&pending));
        let made = Arc::new(Live { questions, pending });
        let warming = keep_warm(made.questions.downgrade());
        let tasks = self.tasks.clone();
        self.tasks.spawn("peer-link", async move {
            tokio::select! {
                () = serve(connection, queue, ending, tasks) => {}
                // Nobody holds this link any more.
                () = warming => {}
            }
        });
        *live = Some(Arc::clone(&made));
        Ok(made)
    }
}

/// Writes questions and hands out answers until the connection ends; then nobody waits any longer.
async fn serve(connection: Connection, queue: mpsc::Receiver<(u64, Bytes)>, ending: Ending, tasks: Tasks) {
    let Connection {
        mut reader, writer, ..
    } = connection;
    let writing = write_all(writer, queue);
    let reading = async {
        while let Ok(Ok(Some(frame))) = tokio::time::timeout(SILENT_MAX, reader.next()).await {
            let Some((number, told)) = split(&frame) else {
                break;
            };
            let asker = ending
                .0
                .lock()
                .expect(POISON)
                .as_mut()
                .and_then(|pending| pending.remove(&number));
            if let Some(asker) = asker {
                // An asker that gave up needs no answer.
                asker.send(told).ok();
            }
        }
    };
    let written = tokio::select! {
        written = writing => written,
        () = reading => Ok(()),
        () = tasks.stopping() => Ok(()),
    };
    if let Err(error) = written {
        tracing::debug!(%error, "a connection to a peer broke");
    }
}

/// Ends when the link is gone.
async fn keep_warm(questions: mpsc::WeakSender<(u64, Bytes)>) {
    let question = Bytes::from(message::encode(&Ask::LastLog));
    // The first one is at once, so that a connection that is cut while it is young is known too.
    while let Some(questions) = questions.upgrade() {
        // A full queue is as good a sign of life.
        questions.try_send((WARMING, question.clone())).ok();
        drop(questions);
        tokio::time::sleep(WARM_EVERY).await;
    }
}

fn split(frame: &[u8]) -> Option<(u64, Told)> {
    let (number, body) = frame.split_at_checked(8)?;
    Some((
        u64::from_le_bytes(number.try_into().ok()?),
        older::decode_told(body).ok()?,
    ))
}

/// Writes numbered messages, as many per system call as are waiting.
pub(super) async fn write_all(
    mut writer: Outgoing,
    mut queue: mpsc::Receiver<(u64, Bytes)>,
) -> io::Result<()> {
    let mut out = BytesMut::new();
    while let Some((number, body)) = queue.recv().await {
        out.clear();
        append_frame(&mut out, &[&number.to_le_bytes(), &body])?;
        while let Ok((number, body)) = queue.try_recv() {
            append_frame(&mut out, &[&number.to_le_bytes(), &body])?;
            if out.len() > 1 << 20 {
                break;
            }
        }
        write_flushed(&mut writer, &out).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures_util::FutureExt as _;
    use tokio::io::AsyncWrite;

    use super::*;
    use crate::raft::bare::trust;
    use crate::raft::network::frame::FrameReader;
    use crate::raft::network::stream::Incoming;

    /// Where nothing can be written without a panic.
    struct Panicking;

    impl AsyncWrite for Panicking {
        fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, _bytes: &[u8]) -> Poll<io::Result<usize>> {
            panic!("as a fault of ours would");
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn connection(reader: Incoming, writer: Outgoing) -> Connection {
        Connection {
            reader: FrameReader::new(reader),
            writer,
            peer: 2,
            peer_disk: String::new(),
            peer_cluster: None,
            purpose: Purpose::Ask,
        }
    }

    #[tokio::test]
    async fn a_link_that_ends_in_a_panic_is_made_anew() {
        let pending: Pending = Arc::new(Mutex::new(Some(HashMap::new())));
        let (questions, queue) = mpsc::channel(QUEUE);
        let (answer, waiting) = oneshot::channel();
        pending.lock().unwrap().as_mut().unwrap().insert(1, answer);
        questions
            .try_send((1, Bytes::from_static(b"a question")))
            .unwrap();
        // Nothing comes, and no end of it.
        let (reader, _other_end) = tokio::io::duplex(64);
        let serving = serve(
            connection(Box::new(reader), Box::new(Panicking)),
            queue,
            Ending(Arc::clone(&pending)),
            Tasks::new(),
        );
        AssertUnwindSafe(serving).catch_unwind().await.unwrap_err();
        assert!(pending.lock().unwrap().is_none(), "it would be taken for alive");
        assert!(
            waiting.await.is_err(),
            "nobody waits for an answer that cannot come"
        );
    }

    #[tokio::test]
    async fn a_question_that_no_frame_takes_is_told_as_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = "127.0.0.1:1".to_owned();
        let link = Link::new(trust(folder.path(), 1), Tasks::new(), 2, nowhere);
        let told = link.ask(&Ask::Propose(vec![0_u8; FRAME_BYTES_MAX].into())).await;
        assert!(matches!(told, Err(AskError::TooLarge)), "{told:?}");
    }
}
