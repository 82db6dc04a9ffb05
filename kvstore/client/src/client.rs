//! `KvClient`: where the store is, who is asking, and how long a call may take. Cheap to clone.
//! Its calls are in the files named after what they are about: `keys`, `txn`, `leases`, `watch`, `admin`, `backup`.

use crate::attempt::Answer;
use crate::call::{self, Request, Safety};
use crate::endpoints::{self, Endpoints, Prefer, Reads};
use crate::error::{Error, Result};
use crate::wire::headers;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use service::planted::{Bug, is_planted};
use service::tasks::Tasks;
use std::fmt::Write as _;
use std::sync::Arc;
use tokio::time::Duration;

const DEADLINE: Duration = Duration::from_secs(5);
pub(crate) const TRY_TIME_MAX: Duration = Duration::from_secs(2);
/// Shorter than the first try, so that a node behind a dead link counts as not reached, not as lost.
const CONNECT_TIME_MAX: Duration = Duration::from_millis(300);
/// How long the store remembers answers for our own repetitions.
const OWN_KEY_TTL_S: u64 = 60;
/// More than this the store does not promise.
const KEY_TTL_S_MAX: u64 = 24 * 60 * 60;

#[derive(Clone)]
pub struct KvClient {
    pub(crate) shared: Arc<Shared>,
    deadline: Duration,
    /// The first try of a call may take all of its time.
    is_brief: bool,
    idempotency_key: Option<HeaderValue>,
}

pub(crate) struct Shared {
    pub(crate) http: reqwest::Client,
    pub(crate) endpoints: Endpoints,
    pub(crate) try_time_max: Duration,
    pub(crate) tasks: Tasks,
    authorization: Option<HeaderValue>,
    reads: Reads,
}

/// Collects what a client needs. Only the endpoints have no default.
#[must_use]
pub struct Builder {
    endpoints: Vec<String>,
    token: Option<String>,
    deadline: Duration,
    try_time_max: Duration,
    reads: Reads,
    tasks: Tasks,
}

impl KvClient {
    /// `endpoints` are client addresses, `host:port` or `http://host:port`, of some or all nodes.
    pub fn builder<T: Into<String>>(endpoints: impl IntoIterator<Item = T>) -> Builder {
        Builder {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            token: None,
            deadline: DEADLINE,
            try_time_max: TRY_TIME_MAX,
            reads: Reads::default(),
            tasks: Tasks::new(),
        }
    }

    /// The same client with another deadline for each call, repetitions included.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            deadline,
            ..self.clone()
        }
    }

    /// The same client for what is worth so much time at the most. It is not divided into tries: in a part of it no node
    /// could answer.
    pub(crate) fn briefly(&self, time: Duration) -> Self {
        Self {
            deadline: time.min(self.deadline),
            is_brief: true,
            ..self.clone()
        }
    }

    /// A client for one write, which carries the caller's key in place of a random one: it can be
    /// repeated with the same key after `Unknown`, even by another process. 1 to 255 visible ASCII characters.
    pub fn with_idempotency_key(&self, key: &str) -> Result<Self> {
        let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
        match HeaderValue::from_str(key) {
            Ok(value) if visible && (1..=255).contains(&key.len()) => Ok(Self {
                idempotency_key: Some(value),
                ..self.clone()
            }),
            _ => Err(Error::Invalid {
                detail: "an idempotency key is 1 to 255 visible ASCII characters".to_owned(),
            }),
        }
    }

    /// A client for one write, which the caller may repeat after `Unknown` under the key that this names: the caller's,
    /// or a random one that the store keeps as long. What a write draws by itself is soon forgotten.
    #[must_use]
    pub fn with_lasting_key(&self) -> Self {
        let key = self.idempotency_key.clone();
        Self {
            idempotency_key: Some(key.unwrap_or_else(random_key)),
            ..self.clone()
        }
    }

    /// The same client without a caller's key: each write draws its own.
    pub(crate) fn with_own_keys(&self) -> Self {
        Self {
            idempotency_key: None,
            ..self.clone()
        }
    }

    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The set that keep-alives and caches of this client run on.
    pub fn tasks(&self) -> &Tasks {
        &self.shared.tasks
    }

    pub(crate) fn prefer_for_reads(&self) -> Prefer {
        match self.shared.reads {
            Reads::Sticky => Prefer::Sticky,
            Reads::Spread => Prefer::Next,
            Reads::Leader => Prefer::Leader,
        }
    }

    /// What makes a write safe to repeat: the caller's key, or a random one.
    pub(crate) fn keyed(&self) -> Safety {
        Safety::Keyed(self.idempotency_key.clone().unwrap_or_else(random_key))
    }

    /// For a write that has the same effect however often it comes: it needs no key, but the caller's goes with it.
    pub(crate) fn repeatable(&self) -> Safety {
        let key = self.idempotency_key.clone();
        key.map_or(Safety::Repeatable, Safety::Keyed)
    }

    /// For a write that only the caller may repeat, under the caller's key.
    pub(crate) fn once(&self) -> Safety {
        Safety::Once(self.idempotency_key.clone())
    }

    /// How long the answer to a key is to be kept, where that is not for as long as the store keeps one by itself.
    fn key_ttl_s(&self) -> Option<u64> {
        // Twice the deadline: the last repetition may be under way when the deadline passes.
        let needed = self.deadline.as_secs().saturating_mul(2).min(KEY_TTL_S_MAX);
        match self.idempotency_key {
            None => Some(needed.max(OWN_KEY_TTL_S)),
            // For how long a caller relies on it we do not know, so it is never kept for less.
            Some(_) => Some(needed).filter(|needed| *needed > headers::IDEMPOTENCY_TTL_S_DEFAULT),
        }
    }

    pub(crate) async fn call(&self, mut request: Request) -> Result<Answer> {
        if let Some(key) = request.safety.key()
            && !is_planted(Bug::RetryWithoutKey)
        {
            let name = HeaderName::from_static(headers::IDEMPOTENCY_KEY);
            request.headers.insert(name, key.clone());
            if let Some(ttl_s) = self.key_ttl_s() {
                let name = HeaderName::from_static(headers::IDEMPOTENCY_TTL);
                request.headers.insert(name, HeaderValue::from(ttl_s));
            }
        }
        request.is_brief = self.is_brief;
        call::call(&self.shared, request, self.deadline).await
    }

    /// A call whose answer is JSON.
    pub(crate) async fn call_json<T: serde::de::DeserializeOwned>(&self, request: Request) -> Result<T> {
        let answer = self.call(request).await?;
        serde_json::from_slice(&answer.body).map_err(Error::json)
    }
}

impl std::fmt::Debug for KvClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KvClient")
            .field("endpoints", &self.shared.endpoints)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Adds what every request carries.
    pub(crate) fn finish(&self, mut request: Request) -> Request {
        if let Some(authorization) = &self.authorization {
            request.headers.insert(AUTHORIZATION, authorization.clone());
        }
        if let Ok(id) = HeaderValue::try_from(service::edge::request_id()) {
            request
                .headers
                .insert(HeaderName::from_static(headers::REQUEST_ID), id);
        }
        request
    }

    pub(crate) fn heed_leader(&self, headers: &HeaderMap) {
        if let Some(Ok(address)) = headers.get(headers::LEADER).map(HeaderValue::to_str) {
            self.endpoints.leader_is(address);
        }
    }
}

fn random_key() -> HeaderValue {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes to give");
    let mut text = String::with_capacity(32);
    write!(text, "{:032x}", u128::from_ne_bytes(bytes)).expect("a string takes any text");
    HeaderValue::try_from(text).expect("hex digits are a header value")
}

impl Builder {
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The time a call may take, repetitions included. 5 seconds unless set.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The time a single try may take before another node is asked. 2 seconds unless set. The first gets less, and more
    /// than 2 seconds only one that comes after another whose time ran out.
    pub fn try_time_max(mut self, try_time_max: Duration) -> Self {
        self.try_time_max = try_time_max;
        self
    }

    pub fn reads(mut self, reads: Reads) -> Self {
        self.reads = reads;
        self
    }

    /// The set that keep-alives and caches run on, so that they end with the process that owns them.
    pub fn tasks(mut self, tasks: Tasks) -> Self {
        self.tasks = tasks;
        self
    }

    pub fn build(self) -> Result<KvClient> {
        let bases = self.endpoints.iter().map(|endpoint| {
            endpoints::base_of(endpoint).ok_or_else(|| Error::Invalid {
                detail: format!("{endpoint:?} is not the address of a node: write host:port"),
            })
        });
        let bases = bases.collect::<Result<Vec<_>>>()?;
        if bases.is_empty() {
            return Err(Error::Invalid {
                detail: "a client needs the address of at least one node".to_owned(),
            });
        }
        let authorization = self.token.map(|token| bearer(&token)).transpose()?;
        let start = getrandom::u32().expect("the operating system has random bytes to give");
        let timeouts = service::http::Timeouts {
            connect: CONNECT_TIME_MAX,
            ..service::http::Timeouts::default()
        };
        Ok(KvClient {
            shared: Arc::new(Shared {
                http: service::http::client(timeouts),
                endpoints: Endpoints::new(bases, usize::try_from(start).unwrap_or(0)),
                try_time_max: self.try_time_max,
                tasks: self.tasks,
                authorization,
                reads: self.reads,
            }),
            deadline: self.deadline,
            is_brief: false,
            idempotency_key: None,
        })
    }
}

fn bearer(token: &str) -> Result<HeaderValue> {
    match HeaderValue::try_from(format!("Bearer {token}")) {
        Ok(mut value) => {
            value.set_sensitive(true);
            Ok(value)
        }
        Err(_invalid) => Err(Error::Invalid {
            detail: "the token has characters that no token has".to_owned(),
        }),
    }
}
