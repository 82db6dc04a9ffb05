//! Who looks after which shard: each belongs to the living instance that draws the highest lot for it, so all agree
//! without asking, and of those that come and go only their share moves.
//! Invariant: an instance holds a shard under its lease, so the shards of a dead one are free when its lease ends. That
//! two look after the same shard for a moment costs work and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use kvstore_client::wire::LeaseId;
use kvstore_client::wire::txn::{Branch, Condition, Op};
use kvstore_client::{Txn, WatchRequest, problem_of};
use service::problem::Result;
use sha2::{Digest as _, Sha256};
use tokio::time::{Duration, timeout};

use crate::shop::Shop;
use crate::store::SHARDS;

const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Whatever the watches say, things are looked at again after a while.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A shard and who has it, as it was read.
struct Held {
    owner: String,
    revision: u64,
}

/// Whose a shard should be.
fn keeper(shard: u8, alive: &HashSet<String>) -> Option<&str> {
    let lot = |instance: &&String| -> [u8; 32] {
        Sha256::new()
            .chain_update(instance.as_bytes())
            .chain_update([shard])
            .finalize()
            .into()
    };
    alive.iter().max_by_key(lot).map(String::as_str)
}

impl Shop {
    /// Holds this instance's share of the shards under its lease, for as long as it is asked to.
    pub(crate) async fn hold_shards(&self, lease: LeaseId) {
        loop {
            if let Err(problem) = self.share(lease).await {
                tracing::debug!(%problem, "the shards are not shared out yet");
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// From now on others look after them.
    pub(crate) fn let_go(&self) {
        self.office.mine.send_replace(BTreeSet::new());
    }

    async fn share(&self, lease: LeaseId) -> Result<()> {
        let client = &self.store.client;
        let from = client.revision().await.map_err(problem_of)? + 1;
        let follow = async |prefix: String| {
            let watch = client.watch(WatchRequest::prefix(prefix).from(from)).await;
            watch.map_err(problem_of)
        };
        let mut instances = follow(self.store.keys.instances()).await?;
        let mut shards = follow(self.store.keys.shards()).await?;
        loop {
            if self.share_once(lease).await? {
                continue;
            }
            let news = async {
                tokio::select! {
                    batch = instances.next_batch() => batch,
                    batch = shards.next_batch() => batch,
                }
            };
            if let Ok(batch) = timeout(LOOK_EVERY, news).await {
                batch.map_err(problem_of)?;
            }
        }
    }

    /// Takes what is free and ours, and gives up what is another's now. Whether anything moved.
    async fn share_once(&self, lease: LeaseId) -> Result<bool> {
        let alive = self.alive().await?;
        let held = self.held_shards().await?;
        let me = self.instance.as_str();
        let ours = |shard: &u8| keeper(*shard, &alive) == Some(me);
        let mine =
            (0..SHARDS).filter(|shard| ours(shard) && held.get(shard).is_some_and(|held| held.owner == me));
        let mine: BTreeSet<u8> = mine.collect();
        self.office.mine.send_if_modified(|known| {
            let moved = *known != mine;
            *known = mine;
            moved
        });
        let mut txn = Txn::new();
        let mut moves = 0;
        for shard in 0..SHARDS {
            let key = self.store.keys.shard(shard);
            match held.get(&shard) {
                None if ours(&shard) => {
                    txn = txn
                        .when(Condition::absent(&key))
                        .then(Op::put_leased(&key, me.to_owned(), lease));
                }
                Some(held) if held.owner == me && !ours(&shard) && !alive.is_empty() => {
                    txn = txn
                        .when(Condition::unchanged(&key, held.revision))
                        .then(Op::delete(&key));
                }
                _ => continue,
            }
            moves += 1;
        }
        if moves == 0 {
            return Ok(false);
        }
        let moved = self.store.commit(txn).await?.branch == Branch::Then;
        if moved {
            tracing::info!(shards = moves, "the shards are shared out anew");
        }
        Ok(moved)
    }

    async fn held_shards(&self) -> Result<BTreeMap<u8, Held>> {
        let prefix = self.store.keys.shards();
        let scan = self.store.client.scan(&prefix).await.map_err(problem_of)?;
        let held = scan.kvs.iter().filter_map(|kv| {
            let shard = kv.key.strip_prefix(&prefix)?.parse().ok()?;
            let owner = String::from_utf8_lossy(&kv.bytes()).into_owned();
            let revision = kv.mod_revision;
            Some((shard, Held { owner, revision }))
        });
        Ok(held.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn shards_move_only_from_and_to_who_comes_and_goes() {
        let (two, three) = (named(&["a", "b"]), named(&["a", "b", "c"]));
        let mut shares: BTreeMap<&str, u8> = BTreeMap::new();
        for shard in 0..SHARDS {
            let (before, after) = (keeper(shard, &two).unwrap(), keeper(shard, &three).unwrap());
            assert!(before == after || after == "c", "shard {shard}: {before} {after}");
            *shares.entry(after).or_default() += 1;
        }
        assert!(
            shares.len() == 3 && shares.values().all(|share| *share >= 8),
            "{shares:?}"
        );
        assert_eq!(keeper(0, &named(&[])), None);
    }
}
