//! A backup of the whole store, from the first node that makes one.
//! Invariant: a node is waited for as long as it lives and the caller allows, since it sends nothing before its work
//! is done, and what is given up it does for nobody. One that is gone, stands still or has no time is passed over.

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use reqwest::Response;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::attempt::{self, Outcome};
use crate::call::{self, Request};
use crate::client::KvClient;
use crate::endpoints::{Endpoint, Prefer, Tried};
use crate::error::{Error, Result, Trouble};

/// A backup that says nothing for so long is given up: its node is paused or cut off.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How often a node is looked at that has not begun to answer.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// In this time a node that lives says so, whatever else it does.
const LOOK_TIME_MAX: Duration = Duration::from_secs(1);
/// After a round of all nodes, longer each time: other backups are under way there, or nobody leads.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl KvClient {
    /// A consistent backup, piece by piece, begun within the deadline. A stream that ends in an error is no backup.
    pub async fn snapshot(&self) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        self.snapshot_within(self.deadline()).await
    }

    /// The same, where the deadline is only for finding a node that sets to work: one that lives may be at it until
    /// `time_max` is over, which bounds all of this.
    pub async fn snapshot_within(
        &self,
        time_max: Duration,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        let pieces = self.begin_snapshot(time_max).await?.bytes_stream().boxed();
        Ok(unless_silent(pieces, SILENCE_MAX))
    }

    /// Asks one node after the other until one begins, the time is over, or all have failed at the work itself.
    async fn begin_snapshot(&self, time_max: Duration) -> Result<Response> {
        let end = Instant::now() + time_max;
        let mut look_until = (Instant::now() + self.deadline()).min(end);
        let (mut tried, mut asked, mut pause) = (Tried::default(), 0, PAUSE_MIN);
        let mut last: Option<Error> = None;
        loop {
            let began = Instant::now();
            let mut has_lived = false;
            let error = match self.snapshot_of_next(&mut tried, end, &mut has_lived).await {
                Err(error @ Error::Unavailable { .. }) => error,
                settled => return settled,
            };
            // While one was at work nobody was looked for. One that has no time, or finds no leader, was not at work.
            if has_lived && (error.problem().is_none() || is_at_fault(&error)) {
                look_until = (look_until + began.elapsed()).min(end);
            }
            asked += usize::from(!is_at_fault(&error));
            let error = last
                .take()
                .filter(|before| tells(before) > tells(&error))
                .unwrap_or(error);
            let left = self.shared.endpoints.count_left(&tried);
            let mut wait = Duration::ZERO;
            if asked >= left {
                asked = 0;
                wait = call::jitter(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
            if left == 0 || Instant::now() + wait >= look_until {
                return Err(error);
            }
            last = Some(error);
            sleep(wait).await;
        }
    }

    async fn snapshot_of_next(
        &self,
        tried: &mut Tried,
        end: Instant,
        has_lived: &mut bool,
    ) -> Result<Response> {
        let request = Request::read("/v1/snapshot", Prefer::Sticky);
        let endpoint = self.shared.endpoints.choose(request.prefer, tried);
        let left = end.saturating_duration_since(Instant::now());
        let begun = tokio::select! {
            begun = self.open_at(&endpoint, request, left) => begun,
            source = self.stands_still(&endpoint, has_lived) => {
                self.shared.endpoints.failed(&endpoint);
                Err(Error::Unavailable { source })
            }
        };
        if begun.as_ref().is_err_and(is_at_fault) {
            // Another attempt there would be as much work, and find the same fault.
            tried.give_up(&endpoint);
        }
        begun
    }

    /// Ends when the node shows no sign of life, and notes it when it does.
    async fn stands_still(&self, endpoint: &Endpoint, has_lived: &mut bool) -> Trouble {
        loop {
            sleep(LOOK_EVERY).await;
            let look = self.shared.finish(Request::read("/livez", Prefer::Sticky));
            match attempt::send(&self.shared.http, &endpoint.base, &look, LOOK_TIME_MAX).await {
                Outcome::Answer(_) => *has_lived = true,
                Outcome::NotSent(trouble) | Outcome::Lost(trouble) => return trouble,
            }
        }
    }
}

fn is_at_fault(error: &Error) -> bool {
    error.problem().is_some_and(|problem| problem.status == 500)
}

/// What a node said tells more than that the time is over, and that one is gone tells the least.
fn tells(error: &Error) -> u8 {
    match error.code() {
        _ if error.problem().is_some() => 2,
        "connection" => 0,
        _ => 1,
    }
}

/// Ends in an error where nothing comes for so long.
fn unless_silent(
    pieces: impl Stream<Item = reqwest::Result<Bytes>> + Send + Unpin,
    silence_max: Duration,
) -> impl Stream<Item = Result<Bytes>> + Send {
    stream::unfold(Some(pieces), move |pieces| async move {
        let mut pieces = pieces?;
        let trouble = match timeout(silence_max, pieces.next()).await {
            Ok(None) => return None,
            Ok(Some(Ok(piece))) => return Some((Ok(piece), Some(pieces))),
            Ok(Some(Err(error))) => Trouble::Connection(error),
            Err(_elapsed) => Trouble::Timeout,
        };
        Some((Err(Error::Unavailable { source: trouble }), None))
    })
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_backup_that_falls_silent_is_given_up() {
        let patience = Duration::from_secs(10);
        let said = stream::iter([Ok(Bytes::from_static(b"piece"))]);
        let said = said.chain(stream::pending());
        let mut backup = pin!(unless_silent(said, Duration::from_millis(20)));
        let first = backup.next().await.expect("what was said comes through");
        assert_eq!(first.unwrap(), "piece");
        let end = timeout(patience, backup.next()).await.expect("it is given up");
        assert!(
            matches!(
                end,
                Some(Err(Error::Unavailable {
                    source: Trouble::Timeout
                }))
            ),
            "{end:?}"
        );
        assert!(backup.next().await.is_none());
        // One that is whole ends as one that is.
        let whole = stream::iter([Ok(Bytes::from_static(b"piece"))]);
        let whole: Vec<_> = unless_silent(whole, patience).collect().await;
        assert!(matches!(whole.as_slice(), [Ok(_)]), "{whole:?}");
    }
}
