//! One call: as many attempts as its deadline allows, at one instance after the other.
//! Invariant: everything sent here is safe to repeat, because the caller's id (or an idempotency key) makes the
//! service do it once. So an attempt whose fate is open is simply followed by the next.
//! It must not know what a request means.

use bytes::Bytes;
use kvstore_client::Trouble;
use kvstore_client::wire::problem::Problem;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, LINK};
use reqwest::{Method, StatusCode, Url};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::{Duration, Instant};

use crate::error::{Error, Result};

/// The first try of a call; each later one gets twice the time.
const FIRST_TRY: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// A page of payments with all their transfers, and then some.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(crate) struct Caller {
    pub(crate) http: reqwest::Client,
    /// `http://host:port`, at least one.
    pub(crate) bases: Vec<String>,
    /// The instance that answered last is asked first.
    pub(crate) sticky: AtomicUsize,
    pub(crate) authorization: HeaderValue,
}

pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) body: Bytes,
    pub(crate) idempotency_key: Option<HeaderValue>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    /// Where the next page is, if there is one.
    pub(crate) next: Option<String>,
}

impl Caller {
    /// Sends a request until an instance has decided it, or `time` is over.
    pub(crate) async fn call(&self, request: &Request, time: Duration) -> Result<Answer> {
        let deadline = Instant::now() + time;
        let request_id = HeaderValue::try_from(service::edge::request_id()).ok();
        let (mut try_time, mut pause, mut tries) = (FIRST_TRY, PAUSE_MIN, 0);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let at = self.sticky.load(Ordering::Relaxed) % self.bases.len();
            let outgoing = self.outgoing(&self.bases[at], request, request_id.as_ref())?;
            let trouble = match tokio::time::timeout(try_time.min(left), self.attempt(outgoing)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(Refusal::Final(error))) => return Err(error),
                Ok(Err(Refusal::Again(trouble))) => trouble,
                Err(_elapsed) => Trouble::Timeout,
            };
            // Another call may have moved on from that instance already; then its choice stands.
            let next = (at + 1) % self.bases.len();
            let _moved = self
                .sticky
                .compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
            tries += 1;
            try_time *= 2;
            // Each instance is tried once before anything is waited for.
            let wait = if tries < self.bases.len() {
                Duration::ZERO
            } else {
                jitter(pause)
            };
            if tries >= self.bases.len() {
                pause = (pause * 2).min(PAUSE_MAX);
            }
            if Instant::now() + wait >= deadline {
                return Err(Error::Unknown { source: trouble });
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn outgoing(
        &self,
        base: &str,
        request: &Request,
        request_id: Option<&HeaderValue>,
    ) -> Result<reqwest::Request> {
        let url = Url::parse(&[base, &request.target].concat());
        let url = url.map_err(|error| Error::Invalid(format!("no address of a payment service: {error}")))?;
        let mut outgoing = reqwest::Request::new(request.method.clone(), url);
        let headers = outgoing.headers_mut();
        headers.insert(AUTHORIZATION, self.authorization.clone());
        if let Some(id) = request_id {
            headers.insert(REQUEST_ID, id.clone());
        }
        if let Some(key) = &request.idempotency_key {
            headers.insert(IDEMPOTENCY_KEY, key.clone());
        }
        if !request.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *outgoing.body_mut() = Some(request.body.clone().into());
        }
        Ok(outgoing)
    }

    async fn attempt(&self, outgoing: reqwest::Request) -> std::result::Result<Answer, Refusal> {
        let mut response = self.http.execute(outgoing).await.map_err(Trouble::from)?;
        let status = response.status();
        let next = response
            .headers()
            .get(LINK)
            .and_then(|link| next_of(link.to_str().ok()?));
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(Trouble::from)? {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(Refusal::Again(Trouble::TooLarge {
                    bytes_max: ANSWER_BYTES_MAX,
                }));
            }
            body.extend_from_slice(&piece);
        }
        if status.is_success() {
            let body = body.into();
            return Ok(Answer { status, body, next });
        }
        let mut problem = serde_json::from_slice::<Problem>(&body).unwrap_or_default();
        problem.status = status.as_u16();
        let problem = Box::new(problem);
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Refusal::Again(Trouble::Problem(problem)));
        }
        Err(Refusal::Final(Error::of(problem)))
    }
}

/// The target of `<…>; rel="next"`.
fn next_of(link: &str) -> Option<String> {
    let (target, kind) = link.strip_prefix('<')?.split_once('>')?;
    (kind.trim_start_matches(';').trim() == "rel=\"next\"").then(|| target.to_owned())
}

enum Refusal {
    /// Decided: another attempt would hear the same.
    Final(Error),
    Again(Trouble),
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        Self::Again(trouble)
    }
}

/// Half of the wait is fixed and half is drawn, so that clients that failed together do not return together.
fn jitter(wait: Duration) -> Duration {
    let drawn = getrandom::u32().expect("the operating system has random bytes to give");
    wait / 2 + (wait / 2).mul_f64(f64::from(drawn) / f64::from(u32::MAX))
}
