//! Passwords: hashed with argon2id, on threads of their own, a few at a time.
//! Invariant: a wrong password and an unknown name take the same work; no password outlives its request, and none
//! is ever in a log. When too many wait already, further ones are sent away at once.

use std::sync::Arc;

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Argon2, PasswordHash};
use service::problem::{self, Problem, Result};
use service::tasks::Tasks;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

/// So many may wait for each that is hashed.
const WAITING_MAX: usize = 16;

#[derive(Clone)]
pub(crate) struct Passwords {
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    tasks: Tasks,
    /// Of no password anybody has, for names that nobody has.
    nobody: Arc<OnceCell<String>>,
}

/// A place in the row of those whose password is hashed.
pub(crate) struct Queued {
    _place: OwnedSemaphorePermit,
}

impl Passwords {
    pub(crate) fn new(at_once: usize, tasks: &Tasks) -> Self {
        Self {
            places: Arc::new(Semaphore::new(at_once)),
            waiting: Arc::new(Semaphore::new(at_once * WAITING_MAX)),
            tasks: tasks.clone(),
            nobody: Arc::default(),
        }
    }

    pub(crate) fn queue(&self) -> Result<Queued> {
        match self.waiting.clone().try_acquire_owned() {
            Ok(place) => Ok(Queued { _place: place }),
            Err(_full) => Err(Problem::new(
                problem::OVERLOADED,
                "Too many are signing in or up at this moment. Nothing was done.",
            )),
        }
    }

    pub(crate) async fn hash(&self, _queued: Queued, password: Zeroizing<String>) -> Result<String> {
        self.hash_now(password).await
    }

    async fn hash_now(&self, password: Zeroizing<String>) -> Result<String> {
        self.work(move || {
            let hash = Argon2::default().hash_password(password.as_bytes());
            hash.map(|hash| hash.to_string())
                .map_err(|error| Problem::internal("hash a password", anyhow::anyhow!("{error}")))
        })
        .await?
    }

    /// Whether it is the password of this hash; without one the same work is done for nothing.
    pub(crate) async fn matches(
        &self,
        _queued: Queued,
        password: Zeroizing<String>,
        hash: Option<String>,
    ) -> Result<bool> {
        let known = hash.is_some();
        let hash = match hash {
            Some(hash) => hash,
            None => self.nobody().await?,
        };
        let fits = self
            .work(move || {
                let parsed = PasswordHash::new(&hash);
                parsed.is_ok_and(|hash| {
                    Argon2::default()
                        .verify_password(password.as_bytes(), &hash)
                        .is_ok()
                })
            })
            .await?;
        Ok(fits && known)
    }

    async fn nobody(&self) -> Result<String> {
        let made = self.nobody.get_or_try_init(|| {
            let nonsense = format!("{:?}", getrandom::u64());
            self.hash_now(Zeroizing::new(nonsense))
        });
        made.await.cloned()
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let place = self.places.clone().acquire_owned().await;
        let place = place.map_err(|closed| Problem::internal("wait to hash a password", closed))?;
        // The place goes with the work, since the one who waits for it may go before it is done.
        let done = self.tasks.spawn_blocking("password", move || {
            let _place = place;
            work()
        });
        done.await
            .map_err(|panic| Problem::internal("hash a password", panic))
    }
}
