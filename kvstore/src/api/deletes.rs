//! How many keys one command may delete by prefixes, and all together that this node has under way: they are gathered in
//! the memory of every member, and what comes in one entry is applied in one go.
//! Invariant: what was done under an idempotency key is not refused when it comes again. It is decided here and not where
//! it is applied, since nodes of other versions know no such limit. So it goes by what this node has just then: keys that
//! are written meanwhile pass it. A key below two prefixes of one branch counts twice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvstore_client::wire::level::Consistency;
use service::arrival;
use service::problem::{self, Problem, Result};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::auth::Caller;
use super::leases::is_repeated;
use super::{Api, reply};
use crate::command::{Action, Once, Op, Reply};
use crate::machine::state::prefix_end;
use crate::store::{Direction, Span, WriteError};

/// The prefixes that are deleted by each way that it may go.
fn branches(action: &Action) -> [Vec<Bytes>; 3] {
    let of_ops = |ops: &[Op]| {
        let prefixes = ops.iter().filter_map(|op| match op {
            Op::DeletePrefix { prefix } => Some(prefix.clone()),
            _ => None,
        });
        prefixes.collect()
    };
    match action {
        Action::DeletePrefix { prefix } => [vec![prefix.clone()], Vec::new(), Vec::new()],
        Action::Txn(txn) => [
            of_ops(&txn.then),
            of_ops(&txn.otherwise),
            of_ops(txn.failed.as_deref().unwrap_or_default()),
        ],
        _ => <[Vec<Bytes>; 3]>::default(),
    }
}

impl Api {
    /// Proposes what may delete keys by prefixes. It keeps its room until it is decided, also when its caller leaves.
    pub(super) async fn delete(&self, caller: &Caller, action: Action, once: Option<Once>) -> Result<Reply> {
        let came = arrival::came();
        let mut most = 0;
        for prefixes in branches(&action) {
            let count = self.bound_deletes(caller, once.as_ref(), &prefixes).await?;
            most = most.max(count);
        }
        if most == 0 {
            let command = self.command(caller, action, once)?;
            return self.decided(self.store.write_of(command, came).await);
        }
        // Later than this it could meet a store that has forgotten what another copy of it did.
        let within = once
            .as_ref()
            .map(|once| once.half().saturating_sub(came.elapsed()));
        let room = self.room_for_deletes(most, within).await?;
        let command = self.command(caller, action, once)?;
        let store = self.store.clone();
        let writing = self.store.edge().spawn("delete", async move {
            let _room = room;
            store.write_of(command, came).await
        });
        // Whoever loses sight of it, as when the node ends, does not know whether it was done.
        self.decided(writing.await.unwrap_or(Err(WriteError::OutcomeUnknown)))
    }

    /// Waits, as long as a request may and no longer than `within`, until all that is under way leaves room for so many
    /// more.
    pub(super) async fn room_for_deletes(
        &self,
        keys: u32,
        within: Option<Duration>,
    ) -> Result<OwnedSemaphorePermit> {
        let room = Arc::clone(&self.deletes).acquire_many_owned(keys);
        let deadline = within.map_or(self.deadline(), |within| {
            self.deadline().min(Instant::now() + within)
        });
        let Ok(room) = timeout_at(deadline, room).await else {
            let detail = "Other deletes of very many keys are under way; this one was not done.";
            return Err(Problem::new(problem::OVERLOADED, detail));
        };
        Ok(room.expect("the semaphore is never closed"))
    }

    /// How many keys there are below these prefixes, if they are not too many.
    async fn bound_deletes(&self, caller: &Caller, once: Option<&Once>, prefixes: &[Bytes]) -> Result<u32> {
        let keys_max = self.limits.delete_keys_max as u64;
        let mut count = 0;
        if !prefixes.is_empty() {
            // So that this node knows of a first copy that was done, and of keys that are gone.
            self.read_point(Consistency::Linearizable).await?;
        }
        for prefix in prefixes {
            // Who may not know how many there are is refused when the command is applied.
            if caller.may_read_prefix(self, prefix).is_err() {
                continue;
            }
            let span = Span {
                from: prefix.to_vec(),
                to: prefix_end(prefix),
                direction: Direction::Ascending,
            };
            let counted = self.store.count(span, keys_max - count + 1).await;
            count += counted.map_err(reply::read_problem)?;
            if count > keys_max {
                break;
            }
        }
        if count <= keys_max {
            return Ok(u32::try_from(count).expect("no limit is as large as that"));
        }
        if is_repeated(self, caller, once) {
            return Ok(0);
        }
        let detail = format!(
            "There are more than {keys_max} keys below what is to be deleted, more than one transaction may delete. \
             This request deleted nothing. Delete them in parts: by longer prefixes, or by their keys (`menagerie kv del --prefix P --in-parts`)."
        );
        Err(Problem::new(problem::TOO_LARGE, detail))
    }
}
