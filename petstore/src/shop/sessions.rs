//! Sessions: who is signed in. The token is random and known to its owner alone; the store has its hash.
//! Invariant: a session that was ended is over on every instance for every request that begins afterwards, since the
//! near cache is asked linearizably. A session ends by itself with its lease, and takes the lease along when it ends
//! before; nobody has more than a few, since leases are few and everybody's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kvstore_client::wire::LeaseId;
use kvstore_client::wire::txn::Op;
use kvstore_client::{Freshness, Txn, problem_of};
use service::problem::{self, Problem, Result};
use service::time::now_ms;
use sha2::{Digest as _, Sha256};
use tokio::time::{Duration, Instant};

use super::Shop;
use crate::domain::hex;
use crate::store::{AccountRecord, SessionRecord, read, write};

const TOKEN_START: &str = "ps_";
const TOKEN_BYTES: usize = 32;
/// Sessions of one user; with one more, the oldest ends.
const SESSIONS_MAX: usize = 20;

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
    pub(crate) async fn begin_session(&self, account: AccountRecord) -> Result<NewSession> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).expect("the operating system has random bytes to give");
        let token = format!("{TOKEN_START}{}", URL_SAFE_NO_PAD.encode(bytes));
        let record = SessionRecord {
            user: account.user,
            username: account.username,
            admin: account.admin,
            expires_ms: now_ms() + self.config.session_s * 1000,
        };
        let ttl = Duration::from_secs(self.config.session_s);
        let lease = self.store.client.lease_grant(ttl).await.map_err(problem_of)?;
        let hash = hash(token.as_bytes());
        let (session, mark) = (
            self.store.keys.session(&hash),
            self.store.keys.session_of(&record.user, &hash),
        );
        let txn = Txn::new()
            .then(Op::put_leased(&session, write(&record), lease.id))
            .then(Op::put_leased(&mark, "", lease.id));
        if let Err(problem) = self.store.commit(txn).await {
            // Perhaps it was written; but nobody is told its token.
            self.give_back(lease.id).await;
            return Err(problem);
        }
        self.end_oldest(&record.user).await;
        Ok(NewSession { token, record })
    }

    /// Looked at when the new session is there: of many that begin at the same time the last one sees all.
    async fn end_oldest(&self, user: &str) {
        let mut marks = match self.store.client.scan(&self.store.keys.sessions_of(user)).await {
            Ok(scan) => scan.kvs,
            Err(error) => {
                tracing::debug!(%error, "could not look for sessions that are too many");
                return;
            }
        };
        marks.sort_by_key(|mark| mark.create_revision);
        let over = marks.len().saturating_sub(SESSIONS_MAX);
        for mark in marks.iter().take(over) {
            self.give_back(mark.lease).await;
        }
    }

    /// Without its lease a session has ended. What cannot be done ends by itself later.
    async fn give_back(&self, lease: LeaseId) {
        if let Err(error) = self.store.client.lease_revoke(lease).await {
            tracing::debug!(%error, lease.id = lease, "the lease of a session has to run out");
        }
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
        self.end(&self.store.keys.session(&hash(token))).await
    }

    /// Its lease ends with it: it would count among all leases until its time is over.
    async fn end(&self, key: &str) -> Result<()> {
        let client = &self.store.client;
        match client.get(key).await.map_err(problem_of)? {
            None => Ok(()),
            Some(kv) if kv.lease == 0 => client.delete(key).await.map(drop).map_err(problem_of),
            Some(kv) => client.lease_revoke(kv.lease).await.map(drop).map_err(problem_of),
        }
    }

    /// All sessions of a user, on all devices.
    pub(crate) async fn end_all_sessions(&self, user: &str) -> Result<()> {
        let prefix = self.store.keys.all_sessions();
        let found = self
            .catalogue
            .near()
            .range(&prefix, Freshness::Linearizable)
            .await;
        for kv in found.map_err(problem_of)?.value {
            let record: SessionRecord = read(&kv.key, &kv.bytes())?;
            if record.user == user {
                self.end(&kv.key).await?;
            }
        }
        Ok(())
    }
}
