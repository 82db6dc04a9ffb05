//! Letters that nobody could do anything with: they are laid aside, where a person sees them and can send them again.
//! Invariant: a letter is laid aside in the transaction that takes it from its mailbox, so it is in one place always.

use kvstore_client::wire::Revision;
use kvstore_client::wire::txn::{Branch, Condition, Op};
use kvstore_client::{RangeRequest, Txn, problem_of};
use service::problem::{self, Problem, Result};
use service::time::now_ms;

use crate::shop::Shop;
use crate::shop::products::replayed;
use crate::store::{DeadRecord, Kept, Keys, Once, Post, Reply, Store, read, write};

/// A person looks at them; more than this would not be read.
const SHOWN_MAX: u32 = 100;

/// A letter as an admin sees it.
pub(crate) struct DeadLetter {
    pub(crate) id: String,
    /// Such as `inventory`; `None` when it cannot be read.
    pub(crate) to: Option<&'static str>,
    pub(crate) home: String,
    pub(crate) error: String,
    pub(crate) at_ms: u64,
}

impl Shop {
    pub(super) async fn bury(&self, key: &str, revision: Revision, post: &[u8], error: &str) -> Result<()> {
        let id = Keys::answer_id(key, revision, 0);
        tracing::error!(
            key,
            error,
            letter.id = id,
            "a letter is laid aside; the admin's page can send it again"
        );
        let record = DeadRecord {
            key: key.to_owned(),
            error: error.to_owned(),
            at_ms: now_ms(),
            post: String::from_utf8_lossy(post).into_owned(),
        };
        let txn = Txn::new()
            .when(Condition::unchanged(key, revision))
            .then(Op::delete(key))
            .then(Op::put(&self.store.keys.dead_letter(&id), write(&record)));
        self.store.commit(txn).await.map(drop)
    }

    pub(crate) async fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        let prefix = self.store.keys.dead_letters();
        let range = RangeRequest {
            limit: Some(SHOWN_MAX),
            ..RangeRequest::prefix(&prefix)
        };
        let page = self.store.client.range(range).await.map_err(problem_of)?;
        let mut letters = Vec::with_capacity(page.kvs.len());
        for kv in &page.kvs {
            let record: DeadRecord = read(&kv.key, &kv.bytes())?;
            let to = serde_json::from_str::<Post>(&record.post)
                .ok()
                .map(|post| post.to);
            letters.push(DeadLetter {
                id: kv.key.strip_prefix(&prefix).unwrap_or_default().to_owned(),
                to: to.as_ref().map(crate::store::Actor::kind),
                home: to.map(|to| to.home().to_owned()).unwrap_or_default(),
                error: record.error,
                at_ms: record.at_ms,
            });
        }
        Ok(letters)
    }

    /// Puts a letter back into its mailbox, as if it had never failed.
    pub(crate) async fn send_again(&self, id: &str, once: Option<&Once>) -> Result<Reply> {
        let work = Box::pin(self.try_to_send_again(id, once));
        self.once(once, |kept| Ok(replayed(kept)), work).await
    }

    async fn try_to_send_again(&self, id: &str, once: Option<&Once>) -> Result<Reply> {
        let gone = || Problem::new(problem::KEY_NOT_FOUND, "This letter is no longer laid aside.");
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(gone());
        }
        let key = self.store.keys.dead_letter(id);
        let kv = self
            .store
            .client
            .get(&key)
            .await
            .map_err(problem_of)?
            .ok_or_else(gone)?;
        let record: DeadRecord = read(&kv.key, &kv.bytes())?;
        let post = match serde_json::from_str::<Post>(&record.post) {
            Ok(post) => write(&Post::new(post.to, post.letter)),
            Err(_unreadable) => record.post.into(),
        };
        let txn = Txn::new()
            .when(Condition::unchanged(&key, kv.mod_revision))
            .when(Condition::absent(&record.key))
            .then(Op::delete(&key))
            .then(Op::put(&record.key, post));
        let kept = Kept::json(
            200,
            &serde_json::json!({"message": "Letter sent again", "id": id}),
        );
        let txn = self.store.keep(txn, once, &kept);
        let answer = self.store.commit(self.store.guard(txn, once)).await?;
        if answer.branch == Branch::Then {
            return Ok(Reply::first(kept));
        }
        match Store::replay_of(once, answer.got(0))? {
            Some(kept) => Ok(replayed(kept)),
            None => Err(gone()),
        }
    }
}
