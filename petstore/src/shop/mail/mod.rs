//! Checkout by letters between actors. Reading order: `life` (what an order makes of a letter), `actor` (one letter
//! after the other, each in one transaction), `steps` (what each kind of actor does), `office` (brings letters to
//! actors), `shards` (who looks after which), `wait` (for whoever ordered), `dead` (what nobody could read).
//! Invariant: a step is one transaction: if the state and the letter are still what was read, it writes the new state,
//! takes the letter away and puts the letters that follow. So each letter acts once, whatever dies, and two owners of
//! a shard do no harm. The letter in the store is the truth; what goes through memory is only news of it.

mod actor;
mod dead;
mod life;
mod office;
mod shards;
mod steps;
#[cfg(test)]
mod story;
mod wait;

use kvstore_client::Txn;
use kvstore_client::wire::Revision;
use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::{Condition, Op};
use service::problem::Result;

pub(crate) use dead::DeadLetter;
pub(crate) use office::Office;

use crate::store::{Actor, Keys, Letter, Post, read, write};

/// The owner of the todo of an order that letters carry on.
pub(crate) const BY_MAIL: &str = "mail";

/// A letter as it was found in its mailbox.
#[derive(Clone, Debug)]
pub(super) struct Item {
    key: String,
    written: Revision,
    revision: Revision,
    post: Post,
}

impl Item {
    fn of(kv: &KeyValue) -> Result<Self> {
        Ok(Self {
            key: kv.key.clone(),
            written: kv.create_revision,
            revision: kv.mod_revision,
            post: read(&kv.key, &kv.bytes())?,
        })
    }

    /// Makes a transaction one that takes this letter, if it is still there as it was read.
    fn taken(&self, txn: Txn) -> Txn {
        txn.when(Condition::unchanged(&self.key, self.revision))
            .then(Op::delete(&self.key))
    }

    /// The `nth` letter that is written on account of this one.
    fn answer(&self, keys: &Keys, nth: usize, to: Actor, letter: Letter) -> Op {
        let key = keys.letter(&to, &Keys::answer_id(&self.key, self.written, nth));
        Op::put(&key, write(&Post::new(to, letter)))
    }
}
