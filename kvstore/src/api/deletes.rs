//! How many keys one command may delete by prefixes: all of them are gathered in the memory of every member, again at
//! each start until they are on disk, and are applied in one go.
//! Invariant: what was done under an idempotency key is not refused when it comes again. It is decided here and not where
//! it is applied, since nodes of other versions know no such limit. So it goes by what this node has just then: keys that
//! are written meanwhile pass it. A key below two prefixes of one branch counts twice.

use bytes::Bytes;
use kvstore_client::wire::level::Consistency;
use service::problem::{self, Problem, Result};

use super::auth::Caller;
use super::leases::is_repeated;
use super::{Api, reply};
use crate::command::Once;
use crate::machine::state::prefix_end;
use crate::store::{Direction, Span};

impl Api {
    pub(super) async fn bound_deletes(
        &self,
        caller: &Caller,
        once: Option<&Once>,
        prefixes: &[&Bytes],
    ) -> Result<()> {
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
        if count <= keys_max || is_repeated(self, caller, once) {
            return Ok(());
        }
        let detail = format!(
            "There are more than {keys_max} keys below what is to be deleted, more than one transaction may delete. \
             This request deleted nothing. Delete them in parts: by longer prefixes, or by their keys (`menagerie kv del --prefix P --in-parts`)."
        );
        Err(Problem::new(problem::TOO_LARGE, detail))
    }
}
