//! The bodies of requests, which are held to be sent again, and of answers, which are held until they are whole.
//! Invariant: all of either together never take more than the room there is. A request takes it for what has arrived
//! and not for what was announced, so that whoever announces and sends nothing keeps nobody else out; an answer keeps
//! it until its reader has taken the last of it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use service::body;
use service::problem::{self, Problem, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

/// How long a body may take to arrive, as it takes room from others all the while.
const ARRIVES_IN: Duration = Duration::from_secs(5);

/// One permit of the semaphore for each byte; none for an empty body.
pub(super) struct Room<'all> {
    all: &'all Semaphore,
    taken: Option<SemaphorePermit<'all>>,
}

impl<'all> Room<'all> {
    fn of(all: &'all Semaphore) -> Self {
        Self { all, taken: None }
    }

    /// Whether there was enough.
    fn take(&mut self, bytes: usize) -> bool {
        let Ok(bytes) = u32::try_from(bytes) else {
            return false;
        };
        let Ok(more) = self.all.try_acquire_many(bytes) else {
            return false;
        };
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        true
    }
}

/// Reads a whole body of at most `bytes_max` bytes, which keeps its room until that is dropped.
pub(super) async fn read(
    all: &Semaphore,
    body: Body,
    bytes_max: usize,
    deadline: Instant,
) -> Result<(Bytes, Room<'_>)> {
    let mut room = Room::of(all);
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        // It is refused without being held.
        return Ok((body::read(body, bytes_max, deadline).await?, room));
    }
    let until = deadline.min(Instant::now() + ARRIVES_IN);
    let mut pieces = body.into_data_stream();
    let mut whole = BytesMut::new();
    loop {
        let Ok(piece) = timeout_at(until, pieces.next()).await else {
            return Err(Problem::new(
                problem::BODY_TIMEOUT,
                "The body did not arrive within the time it may take.",
            ));
        };
        let piece = match piece {
            None => return Ok((whole.freeze(), room)),
            Some(Ok(piece)) => piece,
            Some(Err(error)) => {
                tracing::debug!(%error, "a body broke off");
                return Err(Problem::new(
                    problem::MALFORMED_BODY,
                    "The body broke off before it was complete.",
                ));
            }
        };
        if piece.len() > bytes_max - whole.len() {
            return Err(Problem::new(
                problem::TOO_LARGE,
                format!("The body is larger than the {bytes_max} bytes allowed here."),
            ));
        }
        if !room.take(piece.len()) {
            drop((room, whole));
            // The caller reads the refusal in place of a reset connection.
            body::discard(Body::new(pieces), until).await;
            return Err(Problem::new(
                problem::OVERLOADED,
                "So many request bodies are under way that there is no room for another one.",
            )
            .retry_after_ms(1000));
        }
        whole.extend_from_slice(&piece);
    }
}

/// Room for an answer of this size, if there is any.
pub(super) fn room_for(all: &Arc<Semaphore>, bytes: u64) -> Option<OwnedSemaphorePermit> {
    let bytes = u32::try_from(bytes).ok()?;
    Arc::clone(all).try_acquire_many_owned(bytes).ok()
}

struct Held {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// An answer that gives its room back with the last of its bytes.
pub(super) fn hold(bytes: Bytes, room: OwnedSemaphorePermit) -> Bytes {
    Bytes::from_owner(Held { bytes, _room: room })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{FutureExt as _, stream};

    use super::*;

    fn body(pieces: &[&'static [u8]]) -> Body {
        let pieces = pieces.iter().copied().map(Bytes::from_static);
        let pieces: Vec<_> = pieces.map(Ok::<_, Infallible>).collect();
        Body::from_stream(stream::iter(pieces))
    }

    async fn refused(all: &Semaphore, body: Body, bytes_max: usize, deadline: Instant) -> &'static str {
        let read = read(all, body, bytes_max, deadline).await;
        read.map(|(whole, _room)| whole).unwrap_err().kind.code
    }

    #[tokio::test]
    async fn room_is_taken_by_what_has_arrived() {
        let (all, deadline) = (Semaphore::new(10), Instant::now() + Duration::from_mins(1));
        let (whole, room) = read(&all, body(&[b"abc", b"", b"def"]), 8, deadline)
            .await
            .unwrap();
        assert_eq!((&whole[..], all.available_permits()), (&b"abcdef"[..], 4));
        let unending =
            stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"xy"))]).chain(stream::pending());
        let mut waiting = Box::pin(read(&all, Body::from_stream(unending), 8, deadline));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(all.available_permits(), 2, "of the 8 that it may become");
        assert_eq!(
            refused(&all, body(&[b"ab", b"c"]), 8, deadline).await,
            "overloaded"
        );
        assert_eq!(all.available_permits(), 2);
        drop((waiting, room));
        assert_eq!(all.available_permits(), 10);
    }

    #[tokio::test]
    async fn what_is_too_large_or_too_late_takes_no_room() {
        let (all, deadline) = (Semaphore::new(100), Instant::now() + Duration::from_millis(20));
        assert_eq!(
            refused(&all, body(&[b"abc", b"def"]), 5, deadline).await,
            "too-large"
        );
        assert_eq!(
            refused(&all, Body::from("abcdef"), 5, deadline).await,
            "too-large"
        );
        let never = stream::pending::<std::result::Result<Bytes, Infallible>>();
        assert_eq!(
            refused(&all, Body::from_stream(never), 5, deadline).await,
            "body-timeout"
        );
        assert_eq!(all.available_permits(), 100);
    }

    #[test]
    fn an_answer_keeps_its_room_until_the_last_of_it_is_gone() {
        let all = Arc::new(Semaphore::new(10));
        let answer = hold(Bytes::from_static(b"answer"), room_for(&all, 6).unwrap());
        assert_eq!((&answer[..], all.available_permits()), (&b"answer"[..], 4));
        assert!(room_for(&all, 5).is_none());
        let rest = answer.slice(3..);
        drop(answer);
        assert_eq!(all.available_permits(), 4);
        drop(rest);
        assert_eq!(all.available_permits(), 10);
    }
}
