//! The requests of an append stream that are not answered yet.
//!
//! openraft takes an answer for one to every request that ends at or before the same entry, also one that was
//! sent much later only to tell of a commit. Late answers, as after a pause or a cut, would so prove that this
//! node led when the later one was sent, and confirm reads that must not be served. A late answer is therefore
//! left out when a request under way will be answered with the same or more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use openraft::entry::RaftEntry;
use openraft::raft::AppendEntriesRequest;
use service::time::Since;

use crate::raft::types::{LogId, TypeConfig};

#[derive(Clone, Default)]
pub(super) struct Sent(Arc<Mutex<VecDeque<Request>>>);

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
        self.lock()
            .front()
            .is_some_and(|first| first.at.elapsed() > STALLED)
    }

    pub(super) fn note(&self, request: &AppendEntriesRequest<TypeConfig>) {
        let last = request
            .entries
            .last()
            .map(RaftEntry::log_id)
            .or(request.prev_log_id);
        let at = Since::now();
        self.lock().push_back(Request { last, at });
    }

    /// Called once with each answer, in order.
    pub(super) fn is_misleading(&self, upto: Option<LogId>) -> bool {
        let mut sent = self.lock();
        let answered = sent.pop_front();
        let late = answered.is_some_and(|answered| answered.at.elapsed() > LATE);
        late && sent.front().is_some_and(|next| next.last <= upto)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Request>> {
        self.0.lock().expect("no holder of the sent requests panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::entry::log_id;

    fn sent(requests: &[(u64, Duration)]) -> Sent {
        let sent = Sent::default();
        for (last, age) in requests {
            let at = Since::now().earlier(*age);
            let last = Some(log_id(1, 1, *last));
            sent.lock().push_back(Request { last, at });
        }
        sent
    }

    #[test]
    fn a_late_answer_does_not_stand_for_a_later_request() {
        let upto = |index| Some(log_id(1, 1, index));
        let (old, new) = (Duration::from_secs(1), Duration::ZERO);
        // Late, and a request that only tells of a commit is under way: that one's answer counts.
        let late = sent(&[(10, old), (15, old), (15, new)]);
        assert!(!late.is_misleading(upto(10)), "no other request ends there");
        assert!(late.is_misleading(upto(15)));
        assert!(!late.is_misleading(upto(15)), "it is the last");
        // In time: nobody can have taken over since.
        let timely = sent(&[(15, new), (15, new)]);
        assert!(!timely.is_misleading(upto(15)));
    }
}
