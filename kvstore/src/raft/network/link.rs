//! Questions to one peer over one connection, many under way at once, each told apart by a number.
//!
//! The connection is made on demand. What was not sent surely did not happen; what was sent and not
//! answered is unknown: the two are told apart here, since nobody above could. While nothing is asked the other end is
//! asked something all the same, so that silence means a cut to both: see `super::server`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use service::tasks::Tasks;
use tokio::sync::{mpsc, oneshot};

use super::frame::append_frame;
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
/// No question of an asker's has this number; it tells the other end that silence means something.
pub(super) const WARMING: u64 = 0;

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("the question was not sent")]
    NotSent(#[source] Option<HandshakeError>),
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
        let encoded = Bytes::from(message::encode(question));
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
        let made = Arc::new(Live {
            questions,
            pending: Arc::clone(&pending),
        });
        let warming = keep_warm(made.questions.downgrade());
        let tasks = self.tasks.clone();
        self.tasks.spawn("peer-link", async move {
            tokio::select! {
                () = serve(connection, queue, pending, tasks) => {}
                // Nobody holds this link any more.
                () = warming => {}
            }
        });
        *live = Some(Arc::clone(&made));
        Ok(made)
    }
}

/// Writes questions and hands out answers until the connection ends; then nobody waits any longer.
async fn serve(connection: Connection, queue: mpsc::Receiver<(u64, Bytes)>, pending: Pending, tasks: Tasks) {
    let Connection {
        mut reader, writer, ..
    } = connection;
    let writing = write_all(writer, queue);
    let reading = async {
        while let Ok(Ok(Some(frame))) = tokio::time::timeout(SILENT_MAX, reader.next()).await {
            let Some((number, told)) = split(&frame) else {
                break;
            };
            let asker = pending
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
    tokio::select! {
        () = writing => {}
        () = reading => {}
        () = tasks.stopping() => {}
    }
    pending.lock().expect(POISON).take();
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
pub(super) async fn write_all(mut writer: Outgoing, mut queue: mpsc::Receiver<(u64, Bytes)>) {
    let mut out = BytesMut::new();
    while let Some((number, body)) = queue.recv().await {
        out.clear();
        append_frame(&mut out, &[&number.to_le_bytes(), &body]);
        while let Ok((number, body)) = queue.try_recv() {
            append_frame(&mut out, &[&number.to_le_bytes(), &body]);
            if out.len() > 1 << 20 {
                break;
            }
        }
        if write_flushed(&mut writer, &out).await.is_err() {
            return;
        }
    }
}
