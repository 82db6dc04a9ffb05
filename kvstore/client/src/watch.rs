//! Following changes: a stream that moves to another node when its own fails.
//! Invariant: revisions are delivered whole, in order, each once. A connection that ends within a revision
//! leaves nothing of it behind, and the next one resumes after the last whole revision.

#[cfg(test)]
mod bent;
mod request;

use crate::call::{self, Request};
use crate::client::KvClient;
use crate::endpoints::{Endpoint, Prefer, Tried};
use crate::error::{Error, Result, Trouble};
use crate::sse::{Event, Parser, TooLarge};
use crate::wire::Revision;
use crate::wire::headers;
use crate::wire::problem::Problem;
use crate::wire::watch::{self as wire, Change, Position};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
pub use request::WatchRequest;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::yield_now;
use tokio::time::error::Elapsed;
use tokio::time::{Duration, Instant, sleep_until, timeout, timeout_at};

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Of one revision: a deletion of a whole prefix is one, and must fit.
const REVISION_BYTES_MAX: usize = 256 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    pub kind: EventKind,
    pub revision: Revision,
    pub change: Change,
}

/// All events of one revision. Without events it is progress: nothing happened here up to `revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    pub revision: Revision,
    pub events: Vec<WatchEvent>,
}

pub struct WatchStream {
    client: KvClient,
    request: WatchRequest,
    /// Everything up to here is delivered.
    position: Revision,
    /// Whose changes these are, once a node has said so.
    cluster: Option<String>,
    connection: Option<Connection>,
    /// How many revisions came that had been delivered before.
    repeated: u64,
    tried: Tried,
    /// Connections in a row that brought nothing.
    fruitless: u32,
    retry_at: Instant,
    events: VecDeque<WatchEvent>,
}

/// One connection, and what it has brought of a revision that is not whole yet.
struct Connection {
    endpoint: Arc<Endpoint>,
    pieces: BoxStream<'static, reqwest::Result<Bytes>>,
    /// When it was made, or its last piece was taken.
    heard: Instant,
    parser: Parser,
    partial: Vec<WatchEvent>,
    partial_bytes: usize,
}

/// What one event of a connection means for the stream.
enum Step {
    Deliver(WatchBatch),
    Nothing,
    Repeated,
    Reconnect,
}

impl KvClient {
    /// Begins to follow. What the store refuses (no right to read, compacted) is told here at once.
    pub async fn watch(&self, request: WatchRequest) -> Result<WatchStream> {
        let deadline = Instant::now() + self.deadline();
        // Without a place to begin, a connection lost before its first event would lose that event.
        let position = match request.from {
            Some(from) => from.saturating_sub(1),
            None => self.revision().await?,
        };
        let mut stream = WatchStream {
            client: self.clone(),
            request,
            position,
            cluster: None,
            connection: None,
            repeated: 0,
            tried: Tried::default(),
            fruitless: 0,
            retry_at: Instant::now(),
            events: VecDeque::new(),
        };
        loop {
            let connected = timeout_at(deadline, stream.connect()).await;
            match connected.unwrap_or(Err(Error::Unavailable {
                source: Trouble::Timeout,
            })) {
                Ok(()) => return Ok(stream),
                Err(error) if is_passing(&error) => {
                    stream.fall_back();
                    if stream.retry_at >= deadline {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl WatchStream {
    /// Everything up to this revision has been received; `next` may still hold some of it back.
    pub fn position(&self) -> Revision {
        self.position
    }

    /// The id of the cluster whose changes these are, if it has told it. Another's are an error.
    pub fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// How many revisions came again, though each connection asks only for later ones. None of them is delivered again.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// The next event. An error is final: after `Compacted`, read everything anew and watch from there. Cancel-safe.
    pub async fn next(&mut self) -> Result<WatchEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let batch = self.next_batch().await?;
            self.events.extend(batch.events);
        }
    }

    /// All events of the next revision, or news of progress without events. Do not mix with `next`. Cancel-safe.
    pub async fn next_batch(&mut self) -> Result<WatchBatch> {
        loop {
            let Some(connection) = &mut self.connection else {
                match self.connect().await {
                    Err(error) if !is_passing(&error) => return Err(error),
                    Err(error) => {
                        tracing::debug!(%error, "watch not connected yet");
                        self.fall_back();
                    }
                    Ok(()) => {}
                }
                continue;
            };
            if let Some(event) = connection.parser.next() {
                match connection.step(event, &mut self.position)? {
                    Step::Deliver(batch) => {
                        self.fruitless = 0;
                        return Ok(batch);
                    }
                    Step::Nothing => {}
                    Step::Repeated => self.repeated += 1,
                    Step::Reconnect => self.fall_back(),
                }
                continue;
            }
            match connection.piece(self.request.silence_max).await {
                Ok(Some(Ok(piece))) => connection.parser.feed(&piece).map_err(too_large)?,
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, position = self.position, "watch lost its connection");
                    self.fall_back();
                }
                Ok(None) => self.fall_back(),
                Err(_silent) => {
                    // It is the last that served, so it would be asked first again.
                    self.client.shared.endpoints.failed(&connection.endpoint);
                    self.fall_back();
                }
            }
        }
    }

    /// The events as a `Stream` that ends after its first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<WatchEvent>> + Send {
        stream::unfold(Some(self), |watch| async move {
            let mut watch = watch?;
            let item = watch.next().await;
            let rest = item.is_ok().then_some(watch);
            Some((item, rest))
        })
    }

    async fn connect(&mut self) -> Result<()> {
        sleep_until(self.retry_at).await;
        let request = Request::read(self.request.target(self.position), Prefer::Sticky);
        let (endpoint, response) = self.client.open(request, &mut self.tried).await?;
        self.tried = Tried::default();
        let cluster = response.headers().get(headers::CLUSTER);
        let cluster = cluster.and_then(|id| id.to_str().ok()).map(str::to_owned);
        if self.cluster.is_some() && cluster.is_some() && cluster != self.cluster {
            // Its revisions are others, though they may have the same numbers.
            return Err(gone("another cluster answers at these addresses by now"));
        }
        self.cluster = cluster.or(self.cluster.take());
        self.connection = Some(Connection {
            endpoint,
            pieces: response.bytes_stream().boxed(),
            heard: Instant::now(),
            parser: Parser::default(),
            partial: Vec::new(),
            partial_bytes: 0,
        });
        Ok(())
    }

    /// Lets go of the connection and of the revision it was in the middle of. The first new try is at once.
    fn fall_back(&mut self) {
        self.connection = None;
        let doublings = self.fruitless.min(10);
        let pause = PAUSE_MAX.min(PAUSE_MIN * 2_u32.pow(doublings));
        let pause = if self.fruitless == 0 {
            Duration::ZERO
        } else {
            call::jitter(pause)
        };
        self.fruitless = self.fruitless.saturating_add(1);
        self.retry_at = Instant::now() + pause;
    }
}

impl Connection {
    /// The next piece, unless none has come for so long. That is counted from the last one and not from this call: who
    /// asks for a moment at a time would otherwise stay with a silent node for ever. Cancel-safe.
    async fn piece(
        &mut self,
        silence_max: Duration,
    ) -> std::result::Result<Option<reqwest::Result<Bytes>>, Elapsed> {
        let left = silence_max.saturating_sub(self.heard.elapsed());
        // A piece that is there already is taken even when no time is left: perhaps nobody has asked for long.
        let mut piece = timeout(left, self.pieces.next()).await;
        if piece.is_err() {
            // It may lie in the socket still, when all of this process stood still; who reads that comes first.
            yield_now().await;
            piece = timeout(Duration::ZERO, self.pieces.next()).await;
        }
        if matches!(piece, Ok(Some(Ok(_)))) {
            self.heard = Instant::now();
        }
        piece
    }

    fn step(&mut self, event: Event, position: &mut Revision) -> Result<Step> {
        let kind = match event.name.as_str() {
            wire::EVENT_PUT => EventKind::Put,
            wire::EVENT_DELETE => EventKind::Delete,
            wire::EVENT_PROGRESS => return self.progress(&event, position),
            // What follows is gone from this connection, not from the store.
            wire::EVENT_LAGGING => return Ok(Step::Reconnect),
            wire::EVENT_COMPACTED => return Err(compacted(&event)),
            _ => return Ok(Step::Nothing),
        };
        let change: Change = serde_json::from_str(&event.data).map_err(Error::json)?;
        self.partial_bytes += event.data.len();
        if self.partial_bytes > REVISION_BYTES_MAX {
            return Err(too_large(TooLarge));
        }
        let revision = change.mod_revision;
        self.partial.push(WatchEvent {
            kind,
            revision,
            change,
        });
        let Some(id) = event.id else {
            return Ok(Step::Nothing);
        };
        let revision = id.parse::<Revision>().ok().ok_or(Error::Protocol {
            detail: "an event whose id is no revision",
            source: None,
        })?;
        self.partial_bytes = 0;
        let mut events = std::mem::take(&mut self.partial);
        if revision <= *position {
            return Ok(Step::Repeated);
        }
        for event in &mut events {
            event.revision = revision;
        }
        *position = revision;
        Ok(Step::Deliver(WatchBatch { revision, events }))
    }

    fn progress(&mut self, event: &Event, position: &mut Revision) -> Result<Step> {
        let Position { revision } = serde_json::from_str(&event.data).map_err(Error::json)?;
        if !self.partial.is_empty() {
            // Progress within a revision would step over the rest of it.
            return Ok(Step::Reconnect);
        }
        if revision <= *position {
            return Ok(Step::Nothing);
        }
        *position = revision;
        let events = Vec::new();
        Ok(Step::Deliver(WatchBatch { revision, events }))
    }
}

/// Another node, or the same one later, may do better. A node that lags does not know our position yet.
fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Unavailable { .. }) || error.code() == "future-revision"
}

fn too_large(TooLarge: TooLarge) -> Error {
    Error::Protocol {
        detail: "an event, or all events of one revision, larger than any the store can hold",
        source: None,
    }
}

fn compacted(event: &Event) -> Error {
    let mut error = gone("the changes that come next are no longer kept");
    if let Error::Compacted { source } = &mut error
        && let Ok(serde_json::Value::Object(members)) = serde_json::from_str(&event.data)
    {
        source.extra = members;
    }
    error
}

fn gone(detail: &str) -> Error {
    let problem = Problem {
        kind: "/problems/compacted".to_owned(),
        title: "Compacted".to_owned(),
        status: 410,
        detail: detail.to_owned(),
        code: "compacted".to_owned(),
        ..Problem::default()
    };
    Error::Compacted {
        source: Box::new(problem),
    }
}

impl std::fmt::Debug for WatchStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("WatchStream")
            .field("request", &self.request)
            .field("position", &self.position)
            .field("connected", &self.connection.is_some())
            .finish_non_exhaustive()
    }
}
