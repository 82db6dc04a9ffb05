//! Sessions: who is signed in. The token is random and known to its owner alone; the store has its hash.
//! Invariant: a session that was ended is over on every instance for every request that begins afterwards, since the
//! near cache is asked linearizably. It ends by itself with the time it names; what is left of it goes later with its
//! lease, which it shares with others, so that no number of sessions fills the store with leases.

use std::cmp::Reverse;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kvstore_client::wire::Revision;
use kvstore_client::wire::txn::{Branch, Condition, Op};
use kvstore_client::{Freshness, Txn, problem_of};
use service::config::TXN_OPS_MIN;
use service::problem::{self, Problem, Result};
use service::time::now_ms;
use sha2::{Digest as _, Sha256};
use tokio::time::{Duration, Instant};

use super::Shop;
use super::accounts::{Checked, no_such_account};
use crate::domain::hex;
use crate::store::{SessionRecord, read, write};

const TOKEN_START: &str = "ps_";
const TOKEN_BYTES: usize = 32;
/// Sessions of one user; with one more, the oldest ends.
const SESSIONS_MAX: usize = 20;
/// Two keys are removed for each.
const MARKS_AT_ONCE: usize = 50;
const _: () = assert!(2 * MARKS_AT_ONCE <= TXN_OPS_MIN);

/// A session that has just begun; the token is told once.
pub(crate) struct NewSession {
    pub(crate) token: String,
    pub(crate) record: SessionRecord,
}

/// A session that lasts, and how its end is known.
pub(super) struct Held {
    pub(super) key: String,
    pub(super) ends: Instant,
}

fn hash(token: &[u8]) -> String {
    hex(&Sha256::digest(token))
}

impl Shop {
    /// Only while the account is as it was when its password was looked at.
    pub(crate) async fn begin_session(&self, checked: Checked) -> Result<NewSession> {
        let account = checked.account;
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).expect("the operating system has random bytes to give");
        let token = format!("{TOKEN_START}{}", URL_SAFE_NO_PAD.encode(bytes));
        let lasts_ms = u64::try_from(self.session_leases.least.as_millis()).unwrap_or(u64::MAX);
        let record = SessionRecord {
            user: account.user,
            username: account.username,
            admin: account.admin,
            expires_ms: now_ms() + lasts_ms,
            account: checked.revision,
        };
        let hash = hash(token.as_bytes());
        let (session, mark) = (
            self.store.keys.session(&hash),
            self.store.keys.session_of(&record.user, &hash),
        );
        let begun = |lease| {
            Txn::new()
                .when(Condition::unchanged(&checked.key, checked.revision))
                .then(Op::put_leased(&session, write(&record), lease))
                .then(Op::put_leased(&mark, "", lease))
        };
        // If this fails it may have been written all the same; but nobody is told its token.
        let begun = self.commit_leased(&self.session_leases, begun).await?;
        if begun.branch != Branch::Then {
            return Err(no_such_account());
        }
        if let Err(problem) = self.end_oldest(&record.user).await {
            tracing::debug!(%problem, "could not end sessions that are too many");
        }
        Ok(NewSession { token, record })
    }

    /// Looked at when the new session is there: of many that begin at the same time the last one sees all. A mark whose
    /// session is gone counts for nothing: an older program that ends a session leaves it behind.
    async fn end_oldest(&self, user: &str) -> Result<()> {
        let keys = &self.store.keys;
        let prefix = keys.sessions_of(user);
        let scan = self.store.client.scan(&prefix).await;
        let mut marks = scan.map_err(problem_of)?.kvs;
        marks.sort_by_key(|mark| Reverse(mark.create_revision));
        let hashes = marks.iter().filter_map(|mark| mark.key.strip_prefix(&prefix));
        let hashes: Vec<&str> = hashes.collect();
        let mut left = SESSIONS_MAX;
        for hashes in hashes.chunks(MARKS_AT_ONCE) {
            let look = |txn: Txn, hash: &&str| txn.then(Op::get(&keys.session(hash)));
            let seen = self.store.commit(hashes.iter().fold(Txn::new(), look)).await?;
            let mut over = Txn::new();
            for (nth, hash) in hashes.iter().enumerate() {
                if left > 0 && seen.got(nth).is_some() {
                    left -= 1;
                } else {
                    over = self.ended(over, user, hash);
                }
            }
            if over != Txn::new() {
                self.store.commit(over).await?;
            }
        }
        Ok(())
    }

    /// Its lease is that of others too. One that an older program began has a lease of its own, which runs out.
    fn ended(&self, txn: Txn, user: &str, hash: &str) -> Txn {
        let keys = &self.store.keys;
        txn.then(Op::delete(&keys.session(hash)))
            .then(Op::delete(&keys.session_of(user, hash)))
    }

    /// Whose token this is, if it is anybody's.
    pub(crate) async fn session(&self, token: &[u8]) -> Result<Option<SessionRecord>> {
        if !token.starts_with(TOKEN_START.as_bytes()) {
            return Ok(None);
        }
        let key = self.store.keys.session(&hash(token));
        let found = self.catalogue.near().get(&key, Freshness::Linearizable).await;
        let kv = found.map_err(problem_of)?.value;
        let record = kv
            .map(|kv| read::<SessionRecord>(&kv.key, &kv.bytes()))
            .transpose()?;
        Ok(record.filter(|record| record.expires_ms > now_ms()))
    }

    /// The session of this token, as long as it lasts.
    pub(super) async fn held(&self, token: &[u8]) -> Result<Held> {
        let Some(session) = self.session(token).await? else {
            let over = "This token is not known here, or its time is over.";
            return Err(Problem::new(problem::UNAUTHORIZED, over));
        };
        let left = Duration::from_millis(session.expires_ms.saturating_sub(now_ms()));
        Ok(Held {
            key: self.store.keys.session(&hash(token)),
            ends: Instant::now() + left,
        })
    }

    pub(crate) async fn end_session(&self, token: &[u8]) -> Result<()> {
        let hash = hash(token);
        let kv = self.store.client.get(&self.store.keys.session(&hash)).await;
        let Some(kv) = kv.map_err(problem_of)? else {
            return Ok(());
        };
        let record: SessionRecord = read(&kv.key, &kv.bytes())?;
        let txn = self.ended(Txn::new(), &record.user, &hash);
        self.store.commit(txn).await.map(drop)
    }

    /// All sessions of a user, on all devices.
    pub(crate) async fn end_all_sessions(&self, user: &str) -> Result<()> {
        self.end_sessions(user, |_any| true).await
    }

    /// Those that were begun with another account than the one of this revision.
    pub(super) async fn end_sessions_before(&self, user: &str, account: Revision) -> Result<()> {
        self.end_sessions(user, |session| session.account != account)
            .await
    }

    async fn end_sessions(&self, user: &str, which: impl Fn(&SessionRecord) -> bool) -> Result<()> {
        let prefix = self.store.keys.all_sessions();
        let found = self
            .catalogue
            .near()
            .range(&prefix, Freshness::Linearizable)
            .await;
        for kv in found.map_err(problem_of)?.value {
            // One that cannot be read lets nobody in, and the log has it now; the others end all the same.
            let Ok(record) = read::<SessionRecord>(&kv.key, &kv.bytes()) else {
                continue;
            };
            if record.user == user
                && which(&record)
                && let Some(hash) = kv.key.strip_prefix(&prefix)
            {
                self.store.commit(self.ended(Txn::new(), user, hash)).await?;
            }
        }
        Ok(())
    }
}
