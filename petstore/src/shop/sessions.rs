//! Sessions: who is signed in. The token is random and known to its owner alone; the store has its hash.
//! Invariant: a session that was ended is over on every instance for every request that begins afterwards, since the
//! near cache is asked linearizably. A session ends by itself with its lease.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kvstore_client::wire::txn::Op;
use kvstore_client::{Freshness, Txn, problem_of};
use service::problem::Result;
use service::time::now_ms;
use sha2::{Digest as _, Sha256};
use tokio::time::Duration;

use super::Shop;
use crate::domain::hex;
use crate::store::{AccountRecord, SessionRecord, read, write};

const TOKEN_START: &str = "ps_";
const TOKEN_BYTES: usize = 32;

/// A session that has just begun; the token is told once.
pub(crate) struct NewSession {
    pub(crate) token: String,
    pub(crate) record: SessionRecord,
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
        let key = self.store.keys.session(&hash(token.as_bytes()));
        let put = Op::put_leased(&key, write(&record), lease.id);
        self.store.commit(Txn::new().then(put)).await?;
        Ok(NewSession { token, record })
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

    pub(crate) async fn end_session(&self, token: &[u8]) -> Result<()> {
        let key = self.store.keys.session(&hash(token));
        self.store.client.delete(&key).await.map(drop).map_err(problem_of)
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
                self.store.client.delete(&kv.key).await.map_err(problem_of)?;
            }
        }
        Ok(())
    }
}
