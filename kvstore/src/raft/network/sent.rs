//! The requests of an append stream that are not answered yet.
//!
//! openraft takes an answer for one to every request that ends at or before the same entry, also one that was
//! sent much later only to tell of a commit. Late answers, as after a pause or a cut, would so prove that this
//! node led when the later one was sent, and confirm reads that must not be served. A late answer is therefore
//! left out when a request under way will be answered with the same or more.
//!
//! Invariant: openraft has a list of its own of what is under way, and sees no request that is not noted here from when
//! a late answer was judged until it has counted it; also where the two run on different threads.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use openraft::entry::RaftEntry;
use openraft::raft::AppendEntriesRequest;
use service::time::Since;

use crate::raft::types::{LogId, TypeConfig};

#[derive(Clone, Default)]
pub(super) struct Sent(Arc<Mutex<UnderWay>>);

#[derive(Default)]
struct UnderWay {
    requests: VecDeque<Request>,
    /// openraft has a late answer and may not have counted it yet.
    is_counting: bool,
    /// Of who wants the next request meanwhile.
    waiting: Option<Waker>,
}

/// Where the log of the follower ends once it has taken this.
struct Request {
    last: Option<LogId>,
    /// By the clock that goes on while the machine sleeps: what was answered before is late.
    at: Since,
}

/// An answer to what was sent no longer ago is taken as it comes. Far below any lease: whoever gave it has not voted
/// for another since, and where leases do not count `super::taken` makes sure of it. Answers mostly take less, so that
/// few commits wait for a later one; more would make a failover wait. A virtual machine that was halted meanwhile does
/// not know it, and may take one of long before; to leave them all out would starve reads where requests overlap.
pub(super) const LATE: Duration = Duration::from_millis(10);

/// A stream without an answer for so long is given up. While it lasts, openraft keeps all of the log for it, so
/// that a member that stands still would let the others' disks fill up.
const STALLED: Duration = Duration::from_secs(5);
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Sent {
    pub(super) fn is_stalled(&self) -> bool {
        let under_way = self.lock();
        let first = under_way.requests.front();
        first.is_some_and(|first| first.at.elapsed() > STALLED)
    }

    /// What openraft sends, each request noted in the same step in which openraft does so.
    pub(super) fn noted<S>(&self, input: S) -> Noted<S> {
        let sent = self.clone();
        Noted { input, sent }
    }

    /// Whether openraft may have this answer, and then it must; called once with each, in order. `counted` follows.
    pub(super) fn takes(&self, upto: Option<LogId>) -> bool {
        let mut under_way = self.lock();
        let answered = under_way.requests.pop_front();
        let is_late = answered.is_some_and(|answered| answered.at.elapsed() > LATE);
        let next = under_way.requests.front();
        let is_misleading = is_late && next.is_some_and(|next| next.last <= upto);
        under_way.is_counting = is_late && !is_misleading;
        !is_misleading
    }

    /// openraft asks for the next answer, so it has counted the one before.
    pub(super) fn counted(&self) {
        let mut under_way = self.lock();
        under_way.is_counting = false;
        if let Some(waiting) = under_way.waiting.take() {
            waiting.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().expect("no holder of the sent requests panics")
    }
}

pub(super) struct Noted<S> {
    input: S,
    sent: Sent,
}

impl<S> Stream for Noted<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    type Item = AppendEntriesRequest<TypeConfig>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { input, sent } = &mut *self;
        let mut under_way = sent.lock();
        if under_way.is_counting {
            under_way.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        let request = ready!(input.poll_next_unpin(context));
        let noted = request.as_ref().map(|request| Request {
            last: request
                .entries
                .last()
                .map(RaftEntry::log_id)
                .or(request.prev_log_id),
            at: Since::now(),
        });
        under_way.requests.extend(noted);
        Poll::Ready(request)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, stream};

    use super::*;
    use crate::raft::entry::log_id;
    use crate::raft::types::Vote;

    const LAST: u64 = 15;

    fn sent(requests: &[(u64, Duration)]) -> Sent {
        let sent = Sent::default();
        for (last, age) in requests {
            let (last, at) = (Some(log_id(1, 1, *last)), Since::now().earlier(*age));
            sent.lock().requests.push_back(Request { last, at });
        }
        sent
    }

    /// Only to tell of a commit.
    fn request() -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(log_id(1, 1, LAST)),
            entries: Vec::new(),
            leader_commit: None,
        }
    }

    #[test]
    fn a_late_answer_does_not_stand_for_a_later_request() {
        let upto = |index| Some(log_id(1, 1, index));
        let (old, new) = (Duration::from_secs(1), Duration::ZERO);
        // Late, and a request that only tells of a commit is under way: that one's answer counts.
        let late = sent(&[(10, old), (15, old), (15, new)]);
        assert!(late.takes(upto(10)), "no other request ends there");
        assert!(!late.takes(upto(15)));
        assert!(late.takes(upto(15)), "it is the last");
        // In time: nobody can have taken over since.
        let timely = sent(&[(15, new), (15, new)]);
        assert!(timely.takes(upto(15)));
    }

    #[tokio::test]
    async fn nothing_is_sent_while_a_late_answer_is_counted() {
        let sent = sent(&[(LAST, Duration::from_secs(1))]);
        let upto = Some(log_id(1, 1, LAST));
        let mut requests = sent.noted(stream::iter([request(), request()]));
        assert!(sent.takes(upto));
        let next = requests.next().now_or_never();
        assert!(next.is_none(), "the answer would stand for this request as well");
        let next = tokio::time::timeout(Duration::from_secs(10), requests.next());
        let (next, ()) = tokio::join!(next, async { sent.counted() });
        assert!(next.is_ok(), "nobody woke who waits for the next");
        // The answer to it comes in time, and holds up nobody.
        assert!(sent.takes(upto));
        assert!(requests.next().now_or_never().flatten().is_some());
    }
}
