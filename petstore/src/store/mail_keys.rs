//! Where letters stand: mailboxes by shard and actor, letters that are due later, letters that failed, and who looks
//! after which shard.
//! Invariant: the id of a letter follows from the letter it answers, so that a step done twice writes it once.

use kvstore_client::wire::Revision;
use service::config::TXN_OPS_MIN;
use sha2::{Digest as _, Sha256};

use super::{Actor, Keys};
use crate::domain::{OrderId, UserId, hex, segment};

/// Small enough to be read at once, and many enough to be shared evenly.
pub(crate) const SHARDS: u8 = 64;
// One instance may take all of them at once.
const _: () = assert!(SHARDS as usize <= TXN_OPS_MIN);

impl Actor {
    pub(crate) fn shard(&self) -> u8 {
        shard_of(self.home())
    }

    fn name(&self) -> String {
        match self {
            Self::Order { user, id } | Self::Card { user, id } | Self::Notify { user, id } => {
                format!("{}/{id}", segment(user))
            }
            Self::Inventory { product } => product.clone(),
            Self::Cart { user } => segment(user).to_string(),
        }
    }
}

fn shard_of(home: &str) -> u8 {
    Sha256::digest(home.as_bytes())[0] % SHARDS
}

impl OrderId {
    pub(crate) fn shard(&self) -> u8 {
        shard_of(self.as_str())
    }
}

impl Keys {
    pub(crate) fn all_mail(&self) -> String {
        self.at("mail/")
    }

    pub(crate) fn mailbox(&self, actor: &Actor) -> String {
        let (shard, kind, name) = (actor.shard(), actor.kind(), actor.name());
        self.at(format_args!("mail/{shard:02}/{kind}/{name}/"))
    }

    pub(crate) fn letter(&self, to: &Actor, id: &str) -> String {
        format!("{}{id}", self.mailbox(to))
    }

    /// The id of the `nth` letter that a letter brings about, which was written at this revision.
    pub(crate) fn answer_id(key: &str, written: Revision, nth: usize) -> String {
        let digest = Sha256::new().chain_update(key).chain_update([0]);
        let digest = digest.chain_update(written.to_be_bytes());
        let digest = digest.chain_update(nth.to_be_bytes()).finalize();
        hex(&digest[..16])
    }

    /// A letter that is delivered at that time; where it goes stands in it.
    pub(crate) fn timer(&self, due_ms: u64, order: &OrderId) -> String {
        self.at(format_args!("timer/{due_ms:013}/{order}"))
    }

    pub(crate) fn timers(&self) -> String {
        self.at("timer/")
    }

    /// Everything that is due at this time stands before it.
    pub(crate) fn timers_before(&self, now_ms: u64) -> String {
        self.at(format_args!("timer/{:013}/", now_ms.saturating_add(1)))
    }

    pub(crate) fn dead_letters(&self) -> String {
        self.at("dead/")
    }

    pub(crate) fn dead_letter(&self, id: &str) -> String {
        self.at(format_args!("dead/{id}"))
    }

    /// How many unfinished orders name a product, which is bounded, and with it every mailbox.
    pub(crate) fn rooms(&self) -> String {
        self.at("room/")
    }

    pub(crate) fn room(&self, product: &str) -> String {
        self.at(format_args!("room/{product}"))
    }

    pub(crate) fn shards(&self) -> String {
        self.at("shard/")
    }

    /// The instance that looks after a shard, under its lease.
    pub(crate) fn shard(&self, shard: u8) -> String {
        self.at(format_args!("shard/{shard:02}"))
    }

    /// Why there is no order of this name; pages follow it.
    pub(crate) fn notice(&self, user: &UserId, order: &OrderId) -> String {
        self.at(format_args!("live/notice/{}/{order}", segment(user.as_str())))
    }

    pub(crate) fn notices(&self) -> String {
        self.at("live/notice/")
    }

    /// When a notice runs out.
    pub(crate) fn due_notice(&self, at_ms: u64, user: &UserId, order: &OrderId) -> String {
        self.at(format_args!(
            "due/{at_ms:013}/notice/{}/{order}",
            segment(user.as_str())
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_belongs_to_an_order_is_together() {
        let (user, id) = (UserId::parse(&"ü".repeat(128)).unwrap(), OrderId::new(1));
        let (order, card) = (
            Actor::order(&user, &id),
            Actor::Card {
                user: user.to_string(),
                id: id.to_string(),
            },
        );
        assert_eq!((order.shard(), card.shard()), (id.shard(), id.shard()));
        let keys = Keys::of_shop(&"x".repeat(63));
        let longest = keys.letter(&order, &Keys::answer_id("k", 1, 0));
        assert!(longest.len() <= 1024 && longest.starts_with(&keys.mailbox(&order)));
        assert!(keys.due_notice(1, &user, &id).len() <= 1024);
    }

    #[test]
    fn answers_have_names_of_their_own() {
        let mut ids: Vec<String> = (0..3).map(|nth| Keys::answer_id("a", 1, nth)).collect();
        ids.push(Keys::answer_id("b", 1, 0));
        ids.push(Keys::answer_id("a", 2, 0));
        assert_eq!(Keys::answer_id("a", 1, 0), ids[0]);
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 5);
    }
}
