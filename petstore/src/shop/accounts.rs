//! Accounts: who may sign in. A name belongs to one account, whatever the case of its letters.
//! Invariant: a name is taken in the same transaction that makes its account; tries at a name are counted in the
//! store before the password is looked at, so that no number of instances gives a guesser more of them.

use kvstore_client::wire::Revision;
use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::{Branch, Condition, Op};
use kvstore_client::{Txn, problem_of};
use service::problem::{self, Problem, Result};
use service::time::now_ms;
use zeroize::Zeroizing;

use super::Shop;
use super::products::replayed;
use crate::domain::{UserId, Username};
use crate::store::{AccountRecord, Kept, Once, Reply, Store, UserRecord, read, write};

pub(crate) struct NewUser {
    pub(crate) name: Username,
    /// As it was typed.
    pub(crate) shown: String,
    pub(crate) password: Zeroizing<String>,
}

/// An account whose password was given, as it stood then.
pub(crate) struct Checked {
    pub(super) account: AccountRecord,
    pub(super) key: String,
    pub(super) revision: Revision,
}

pub(super) fn no_such_account() -> Problem {
    Problem::new(
        problem::INVALID_CREDENTIALS,
        "No account has this name with this password.",
    )
}

fn name_taken() -> Problem {
    Problem::new(problem::USERNAME_TAKEN, "This user name is taken.")
}

impl Shop {
    pub(crate) async fn sign_up(&self, new: NewUser, once: Option<&Once>) -> Result<Reply> {
        let work = Box::pin(self.try_to_sign_up(new, once));
        self.once(once, |kept| Ok(replayed(kept)), work).await
    }

    async fn try_to_sign_up(&self, new: NewUser, once: Option<&Once>) -> Result<Reply> {
        if new.name == Username::admin() {
            return Err(name_taken());
        }
        let user = UserId::random();
        let body = serde_json::json!({"user_id": user.as_str(), "username": new.shown});
        let kept = Kept::json(201, &body).at("/me".to_owned());
        let account = AccountRecord {
            user: user.to_string(),
            username: new.shown,
            hash: self.passwords.hash(self.passwords.queue()?, new.password).await?,
            admin: false,
        };
        let txn = self.open_account(&new.name, &user, &account);
        let txn = self.store.keep(txn, once, &kept);
        let answer = self.store.commit(self.store.guard(txn, once)).await?;
        if answer.branch == Branch::Then {
            return Ok(Reply::first(kept));
        }
        match Store::replay_of(once, answer.got(0))? {
            Some(kept) => Ok(replayed(kept)),
            None => Err(name_taken()),
        }
    }

    fn open_account(&self, name: &Username, user: &UserId, account: &AccountRecord) -> Txn {
        let key = self.store.keys.account(name);
        let record = UserRecord {
            username: account.username.clone(),
            created_ms: now_ms(),
        };
        Txn::new()
            .when(Condition::absent(&key))
            .then(Op::put(&key, write(account)))
            .then(Op::put(&self.store.keys.user(user), write(&record)))
    }

    /// The account of a name whose password this is. So much as a try is written down only for those who have a place
    /// in the row, so that names made up by the thousand fill nothing.
    pub(crate) async fn check_password(
        &self,
        name: Option<Username>,
        password: Zeroizing<String>,
    ) -> Result<Checked> {
        let queued = self.passwords.queue()?;
        let account = match &name {
            Some(name) => {
                self.count_try(name).await?;
                let kv = self.store.client.get(&self.store.keys.account(name)).await;
                kv.map_err(problem_of)?.map(checked).transpose()?
            }
            // What cannot be a name takes as long as one that nobody has.
            None => None,
        };
        let hash = account.as_ref().map(|checked| checked.account.hash.clone());
        let fits = self.passwords.matches(queued, password, hash).await?;
        match (account, name) {
            (Some(account), Some(name)) if fits => {
                if let Err(problem) = self.forget_tries(&name).await {
                    tracing::debug!(%problem, "the tries of a name still count");
                }
                self.points.reach("password checked").await;
                Ok(account)
            }
            _ => Err(no_such_account()),
        }
    }

    /// The account of the admin has the password of the secrets, also after those were changed. Sessions that were begun
    /// with another one end with it.
    pub(crate) async fn open_admin(&self, password: &str) -> Result<()> {
        let (name, user) = (Username::admin(), UserId::parse("admin").expect("it is a name"));
        let key = self.store.keys.account(&name);
        let secret = || Zeroizing::new(password.to_owned());
        let known = self.store.client.get(&key).await.map_err(problem_of)?;
        if let Some(kv) = &known {
            let account: AccountRecord = read(&kv.key, &kv.bytes())?;
            let queued = self.passwords.queue()?;
            if self
                .passwords
                .matches(queued, secret(), Some(account.hash))
                .await?
            {
                // Whoever changed it may have died before it sent out all who came with the old one.
                return self.end_sessions_before(user.as_str(), kv.mod_revision).await;
            }
        }
        let account = AccountRecord {
            user: user.to_string(),
            username: name.to_string(),
            hash: self.passwords.hash(self.passwords.queue()?, secret()).await?,
            admin: true,
        };
        let Some(kv) = known else {
            let txn = self.open_account(&name, &user, &account);
            return self.store.commit(txn).await.map(drop);
        };
        let txn = Txn::new()
            .when(Condition::unchanged(&key, kv.mod_revision))
            .then(Op::put(&key, write(&account)));
        // Whoever had the old password is sent out: before, since this process may die behind the change and none would
        // do it later; and behind it for those who came in between. Behind the change the old one begins no session.
        self.end_all_sessions(user.as_str()).await?;
        // Another instance that was faster has written the same.
        self.store.commit(txn).await?;
        self.end_all_sessions(user.as_str()).await
    }
}

fn checked(kv: KeyValue) -> Result<Checked> {
    Ok(Checked {
        account: read(&kv.key, &kv.bytes())?,
        revision: kv.mod_revision,
        key: kv.key,
    })
}
