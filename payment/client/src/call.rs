//! One call: as many attempts as its deadline allows, at one instance after the other.
//! Invariant: everything sent here is safe to repeat, because the caller's id (or an idempotency key) makes the
//! service do it once. So an attempt whose fate is open is simply followed by the next.
//! It must not know what a request means.

#[cfg(test)]
mod bent;

use bytes::Bytes;
use kvstore_client::Trouble;
use kvstore_client::wire::problem::Problem;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, LINK};
use reqwest::{Method, StatusCode, Url};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::{Duration, Instant};

use crate::error::{Error, Result};

/// The first try of a call; each later one gets twice the time, as far as the deadline lets it. An instance that
/// decides nothing for so long may hang; nobody knows sooner.
pub(crate) const FIRST_TRY: Duration = Duration::from_secs(1);
/// The same for a page of payments, each with its transfers: a busy instance may take seconds for it.
pub(crate) const FIRST_TRY_OF_PAGE: Duration = Duration::from_secs(10);
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
    /// The more has to be read for it, the longer, because each try begins from the start; half of the call's time
    /// at the most, if there is another instance.
    pub(crate) first_try: Duration,
}

impl Request {
    pub(crate) fn read(target: String, first_try: Duration) -> Self {
        Self {
            method: Method::GET,
            target,
            body: Bytes::new(),
            idempotency_key: None,
            first_try,
        }
    }
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
        // An instance that takes the call and never answers leaves time for another one. The only one would just begin
        // again what it has done half of.
        let most = if self.bases.len() > 1 { time / 2 } else { time };
        let mut try_time = request.first_try.min(most);
        let (mut pause, mut tries) = (PAUSE_MIN, 0);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let at = self.sticky.load(Ordering::Relaxed) % self.bases.len();
            let outgoing = self.outgoing(&self.bases[at], request, request_id.as_ref())?;
            let trouble = match self.attempt_at(at, outgoing, try_time.min(left)).await {
                Ok(answer) => return Ok(answer),
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::Again(trouble)) => trouble,
            };
            tries += 1;
            // However many fail at once within a long deadline, the time does not overflow.
            try_time = try_time.saturating_mul(2).min(time);
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
        // The next page is where an answer says: what is no path could make another host of the base, to which the token
        // would go.
        if !request.target.starts_with('/') {
            return Err(Error::Invalid(format!("{:?} is no path", request.target)));
        }
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

    /// One attempt within this time. Unless it decides the request, the next one is made at another instance.
    async fn attempt_at(
        &self,
        at: usize,
        outgoing: reqwest::Request,
        time: Duration,
    ) -> std::result::Result<Answer, Refusal> {
        let mut waiting = Waiting {
            caller: self,
            at,
            since: Instant::now(),
            is_over: false,
        };
        let tried = tokio::time::timeout(time, self.attempt(outgoing)).await;
        let tried = tried.unwrap_or(Err(Refusal::Again(Trouble::Timeout)));
        waiting.is_over = true;
        if matches!(tried, Err(Refusal::Again(_))) {
            waiting.leave();
        }
        tried
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
        decided(status, next, body.into())
    }
}

/// What the whole answer of an instance means for the request.
fn decided(status: StatusCode, next: Option<String>, body: Bytes) -> std::result::Result<Answer, Refusal> {
    if status.is_success() {
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

/// For an instance to decide a request. Who gives that up leaves the instance, also by dropping the whole call because
/// a deadline of their own is over: or else the next call would wait for the same one again. Who goes away sooner than
/// a try ends has not found out anything, and leads nobody else away from an instance that is well.
struct Waiting<'c> {
    caller: &'c Caller,
    at: usize,
    since: Instant,
    is_over: bool,
}

impl Waiting<'_> {
    fn leave(&self) {
        let Caller { sticky, bases, .. } = self.caller;
        let next = (self.at + 1) % bases.len();
        // Another call may have moved on from that instance already; then its choice stands.
        let _moved = sticky.compare_exchange(self.at, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.since.elapsed() >= FIRST_TRY {
            self.leave();
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::routing::get;
    use service::serve::{self, Limits};
    use service::tasks::Tasks;
    use tokio::net::TcpListener;

    use super::*;

    struct Server {
        caller: Caller,
        calls: Arc<AtomicUsize>,
        tasks: Tasks,
    }

    /// Answers `status` after a time to `/`, and counts how often it is asked.
    async fn server(status: StatusCode, after: Duration) -> Server {
        let (calls, tasks) = (Arc::new(AtomicUsize::new(0)), Tasks::new());
        let counted = Arc::clone(&calls);
        let route = get(move || {
            let counted = Arc::clone(&counted);
            async move {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(after).await;
                status
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().route("/", route);
        let serving = serve::serve(listener, app, Limits::default(), tasks.clone());
        let _serving = tasks.spawn("server", serving);
        let caller = Caller {
            http: service::http::client(service::http::Timeouts::default()),
            bases: vec![base],
            sticky: AtomicUsize::new(0),
            authorization: HeaderValue::from_static("Bearer none"),
        };
        Server { caller, calls, tasks }
    }

    fn request(first_try: Duration) -> Request {
        Request::read("/".to_owned(), first_try)
    }

    /// The first one takes calls and never answers; its caller knows the second one too.
    async fn one_hangs() -> (Server, Server) {
        let mut hung = server(StatusCode::OK, Duration::from_hours(1)).await;
        let well = server(StatusCode::OK, Duration::ZERO).await;
        hung.caller.bases.extend(well.caller.bases.iter().cloned());
        (hung, well)
    }

    #[tokio::test]
    async fn what_takes_long_is_not_begun_again() {
        let slow = server(StatusCode::OK, FIRST_TRY + Duration::from_millis(300)).await;
        let request = request(FIRST_TRY_OF_PAGE);
        let answer = slow.caller.call(&request, Duration::from_secs(20)).await;
        assert_eq!(answer.unwrap().status, StatusCode::OK);
        assert_eq!(slow.calls.load(Ordering::Relaxed), 1);
        slow.tasks.stop();
    }

    #[tokio::test]
    async fn the_only_one_has_all_of_the_time() {
        let time = Duration::from_secs(4);
        let slow = server(StatusCode::OK, time.mul_f64(0.7)).await;
        let answer = slow.caller.call(&request(Duration::MAX), time).await;
        assert_eq!(answer.unwrap().status, StatusCode::OK);
        assert_eq!(slow.calls.load(Ordering::Relaxed), 1);
        slow.tasks.stop();
    }

    #[tokio::test]
    async fn one_that_hangs_leaves_time_for_another() {
        for (first_try, time_s) in [(Duration::from_millis(300), 20), (Duration::MAX, 3)] {
            let (hung, well) = one_hangs().await;
            let (began, time) = (Instant::now(), Duration::from_secs(time_s));
            let answer = hung.caller.call(&request(first_try), time).await;
            assert_eq!(answer.unwrap().status, StatusCode::OK);
            assert!(began.elapsed() < time);
            assert!(well.calls.load(Ordering::Relaxed) > 0);
            hung.tasks.stop();
            well.tasks.stop();
        }
    }

    #[tokio::test]
    async fn whoever_hangs_up_is_not_led_to_the_same_one_again() {
        let (hung, well) = one_hangs().await;
        let request = request(Duration::MAX);
        let asked = hung.caller.call(&request, Duration::from_secs(40));
        let patience = FIRST_TRY + Duration::from_millis(100);
        assert!(tokio::time::timeout(patience, asked).await.is_err());
        let again = hung.caller.call(&request, Duration::from_secs(40));
        let answer = tokio::time::timeout(Duration::from_secs(10), again).await;
        assert_eq!(answer.unwrap().unwrap().status, StatusCode::OK);
        assert_eq!(well.calls.load(Ordering::Relaxed), 1);
        hung.tasks.stop();
        well.tasks.stop();
    }

    #[tokio::test]
    async fn whoever_hangs_up_at_once_leads_nobody_away() {
        let mut slow = server(StatusCode::OK, Duration::from_millis(500)).await;
        let other = server(StatusCode::OK, Duration::ZERO).await;
        slow.caller.bases.extend(other.caller.bases.iter().cloned());
        let request = request(Duration::MAX);
        let asked = slow.caller.call(&request, Duration::from_secs(40));
        let hung_up = tokio::time::timeout(Duration::from_millis(10), asked).await;
        assert!(hung_up.is_err());
        let answer = slow.caller.call(&request, Duration::from_secs(40)).await;
        assert_eq!(answer.unwrap().status, StatusCode::OK);
        assert_eq!(other.calls.load(Ordering::Relaxed), 0);
        slow.tasks.stop();
        other.tasks.stop();
    }

    #[tokio::test]
    async fn many_quick_failures_overflow_nothing() {
        let busy = server(StatusCode::SERVICE_UNAVAILABLE, Duration::ZERO).await;
        // The first try gets as much as a long row of failures leads to.
        let request = request(Duration::MAX);
        let asked = busy.caller.call(&request, Duration::MAX / 4);
        assert!(tokio::time::timeout(Duration::from_secs(1), asked).await.is_err());
        assert!(busy.calls.load(Ordering::Relaxed) > 3);
        busy.tasks.stop();
    }
}
