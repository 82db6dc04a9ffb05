//! Passing a request on to an instance, and to the next one when that fails.
//! Invariant: what might be done twice is sent a second time only if it surely was not sent before; an answer of
//! known size is held until it is whole, as long as there is room, so that an instance dying within it costs the caller
//! nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header, request::Parts};
use bytes::Bytes;
use futures_util::StreamExt as _;
use kvstore_client::Registration;
use service::edge;
use service::problem::{self, Problem};
use tokio::time::Instant;

use super::mirror::{self, Source};
use super::{App, Shared, bodies, headers};
use crate::refresh;

const SHOP: &str = "petstore";
/// Before those that have failed are tried once more.
const ROUND_PAUSE: Duration = Duration::from_millis(200);

/// Why an instance gave no answer.
enum Failure {
    /// It surely did not see the request.
    NotSent,
    /// It may have done what was asked.
    Lost,
    /// The same, and it had all the time that it was given.
    Late,
    /// It has only just started, and says so.
    NotReady(Response<Body>),
}

/// The body of an answer.
enum Told {
    Whole(Bytes),
    Streamed(Body),
}

/// A request as it is sent to each instance that is tried.
struct Outgoing {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    repeatable: bool,
}

pub(super) async fn pass(
    State(app): State<Shared>,
    request: Request<Body>,
) -> problem::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let deadline = Instant::now() + app.times.whole(&parts.method, parts.uri.path());
    let (body, _room) = bodies::read(&app.held, body, app.config.body_bytes_max, deadline).await?;
    let outgoing = Outgoing::of(parts, body);
    let source = mirror::source(&outgoing.method, &outgoing.path);
    if let Source::Mirror(name) = &source {
        let copy = mirror::walk(&app, name.as_deref(), &outgoing.path).await;
        return copy.ok_or_else(mirror::gone);
    }
    let copied = source == Source::ShopsOrMirror;
    // Shops ask the store too, and would only be waited for in vain.
    if copied
        && app.roster.is_stale()
        && let Some(copy) = mirror::catalogue(&app, &outgoing.path).await
    {
        return Ok(copy);
    }
    let answer = from_shops(&app, &outgoing, copied, deadline).await;
    // That a shop cannot read the store is told before the gateway notices itself.
    let able = matches!(&answer, Ok(response) if response.status() != StatusCode::SERVICE_UNAVAILABLE);
    if copied
        && !able
        && let Some(copy) = mirror::catalogue(&app, &outgoing.path).await
    {
        return Ok(copy);
    }
    answer
}

/// Of what there are copies, two shops that are late are enough to ask a mirror: they wait longer for a store without a
/// leader than whoever reads would. One alone may be late for a reason of its own, and the next one knows better than a
/// copy.
async fn from_shops(
    app: &App,
    outgoing: &Outgoing,
    copied: bool,
    deadline: Instant,
) -> problem::Result<Response<Body>> {
    let mut tried: Vec<String> = Vec::new();
    // Until one was asked in vain.
    let mut mirror_may_answer = copied && mirror::is_there(app);
    let mut late = false;
    let path = outgoing.path.split('?').next().unwrap_or_default();
    // Once somebody may have carried a write out, nobody's silence makes that undone.
    let mut may_be_done = false;
    let mut not_ready = None;
    let mut attempts = 0;
    while attempts < app.config.attempts_max
        && let Some(instance) = next(app, &mut tried, deadline).await
    {
        attempts += 1;
        let time = if late && mirror_may_answer {
            app.times.before_a_mirror()
        } else {
            app.times.each(&outgoing.method, path, outgoing.repeatable)
        };
        let until = deadline.min(Instant::now() + time);
        match attempt(app, &instance, outgoing, until).await {
            // It speaks for itself; an earlier one may have done what this one could not.
            Ok(response) if may_be_done && response.status().is_server_error() => {
                return Err(lost(outgoing));
            }
            Ok(response) => {
                let passed = &app.counters.passed;
                passed.with_label_values(&[instance.name.as_str()]).inc();
                return Ok(response);
            }
            Err(failure) => {
                let failed = &app.counters.failed;
                failed.with_label_values(&[instance.name.as_str()]).inc();
                let late_too = late && matches!(failure, Failure::Late);
                if mirror_may_answer && (late_too || app.roster.is_stale()) {
                    if let Some(copy) = mirror::catalogue(app, &outgoing.path).await {
                        return Ok(copy);
                    }
                    mirror_may_answer = false;
                }
                late |= matches!(failure, Failure::Late);
                match failure {
                    Failure::NotSent => {}
                    Failure::Lost | Failure::Late => may_be_done |= !outgoing.method.is_safe(),
                    Failure::NotReady(response) => not_ready = Some(response),
                }
                if may_be_done && !outgoing.repeatable {
                    break;
                }
            }
        }
    }
    match not_ready {
        _ if may_be_done => Err(lost(outgoing)),
        Some(response) => Ok(response),
        None => Err(nobody(attempts)),
    }
}

/// Whom to try next. When all have failed, one of them may be back a moment later.
async fn next(app: &App, tried: &mut Vec<String>, deadline: Instant) -> Option<Arc<Registration>> {
    let instance = match app.roster.next_or_any(SHOP, tried) {
        Some(instance) => instance,
        None if tried.is_empty() => return None,
        None => {
            tried.clear();
            tokio::time::sleep(ROUND_PAUSE).await;
            app.roster.next_or_any(SHOP, tried)?
        }
    };
    tried.push(instance.address.clone());
    (Instant::now() < deadline).then_some(instance)
}

impl Outgoing {
    fn of(parts: Parts, body: Bytes) -> Self {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map(|ConnectInfo(peer)| *peer);
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        // `OPTIONS *` is about a server as a whole. Behind the address of an instance it would make no URL at all, and
        // the instances would be blamed for that.
        let path = if path.starts_with('/') { path } else { "/" };
        let mut onward = parts.headers;
        headers::onward(&mut onward, peer, service::http::scheme(), &edge::request_id());
        // As an instance sees it: a key that a caller names as one of the connection ends here.
        let repeatable = headers::is_repeatable(&parts.method, parts.uri.path(), &onward);
        Self {
            method: parts.method,
            path: path.to_owned(),
            headers: onward,
            body,
            repeatable,
        }
    }
}

async fn attempt(
    app: &App,
    instance: &Registration,
    outgoing: &Outgoing,
    until: Instant,
) -> Result<Response<Body>, Failure> {
    let http = if outgoing.repeatable {
        &app.pooled
    } else {
        &app.unpooled
    };
    let request = http
        .request(
            outgoing.method.clone(),
            format!("{}{}", service::http::base(&instance.address), outgoing.path),
        )
        .headers(outgoing.headers.clone())
        .body(outgoing.body.clone());
    let answer = match tokio::time::timeout_at(until, request.send()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(failed(app, instance, error)),
        Err(_elapsed) => return Err(late(app, instance).await),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    headers::back(response.headers_mut());
    let told = whole_or_stream(app, instance, outgoing, answer, until).await?;
    let again = outgoing.repeatable || outgoing.method.is_safe();
    let unready = again && matches!(&told, Told::Whole(bytes) if says_not_ready(response.status(), bytes));
    *response.body_mut() = match told {
        Told::Whole(bytes) => bytes.into(),
        Told::Streamed(body) => body,
    };
    // It may also be something else that is not ready, such as the payments, and then no other instance does better.
    if unready && !refresh::is_ready(&app.pooled, instance).await {
        app.roster.leave_out(instance, "is not ready yet");
        return Err(Failure::NotReady(response));
    }
    Ok(response)
}

pub(super) fn says_not_ready(status: StatusCode, body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Code {
        code: String,
    }
    status == StatusCode::SERVICE_UNAVAILABLE
        && serde_json::from_slice::<Code>(body).is_ok_and(|said| said.code == problem::NOT_READY.code)
}

fn failed(app: &App, instance: &Registration, error: reqwest::Error) -> Failure {
    // It tells the whole URL, with what somebody has searched for.
    let error = error.without_url();
    tracing::debug!(process.name = instance.name, %error, "an instance gave no answer");
    if error.is_connect() {
        app.roster.leave_out(instance, "cannot be reached");
        return Failure::NotSent;
    }
    app.roster.leave_out(instance, "broke off");
    Failure::Lost
}

/// One that is only slow at this is not left out: so is every other one, and all would be gone for one slow request.
async fn late(app: &App, instance: &Registration) -> Failure {
    tracing::debug!(process.name = instance.name, "an instance did not answer in time");
    if !refresh::is_ready(&app.pooled, instance).await {
        app.roster.leave_out(instance, "did not answer in time");
    }
    Failure::Late
}

/// What an instance may still fail to finish is held back: another one may do it instead, or the caller is told in
/// words that the outcome is unknown.
async fn whole_or_stream(
    app: &App,
    instance: &Registration,
    outgoing: &Outgoing,
    answer: reqwest::Response,
    until: Instant,
) -> Result<Told, Failure> {
    let is_small = |bytes: &u64| *bytes <= app.config.answer_bytes_held && outgoing.method != Method::HEAD;
    let small = answer.content_length().filter(is_small);
    // Where answers that nobody reads have taken all room, it goes by as a large one does.
    if let Some(room) = small.and_then(|bytes| bodies::room_for(&app.answers, bytes)) {
        return match tokio::time::timeout_at(until, answer.bytes()).await {
            Ok(Ok(bytes)) => Ok(Told::Whole(bodies::hold(bytes, room))),
            Ok(Err(error)) => Err(failed(app, instance, error)),
            Err(_elapsed) => Err(late(app, instance).await),
        };
    }
    let events = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    let pieces = answer.bytes_stream();
    if !events {
        return Ok(Told::Streamed(Body::from_stream(pieces)));
    }
    // It has no end of its own. Its reader comes back to another gateway, with the number of the last event it saw.
    let stop = app.stop.clone();
    let stopped = Box::pin(async move { stop.stopping().await });
    Ok(Told::Streamed(Body::from_stream(pieces.take_until(stopped))))
}

fn lost(outgoing: &Outgoing) -> Problem {
    let detail = if outgoing.repeatable {
        "A shop instance that had this request gave no answer, and no other could say what became of it. Send it again \
         with the same key: it is done once."
    } else {
        "The shop instance that had this request gave no answer, and the request may have been carried out. Look \
         before you send it again; with an `Idempotency-Key` it would have been repeated safely."
    };
    Problem::new(problem::OUTCOME_UNKNOWN, detail)
}

fn nobody(tried: usize) -> Problem {
    let detail = match tried {
        0 => "No shop instance is running. Try again shortly.".to_owned(),
        _ => format!("No shop instance answered; {tried} tries were made. Try again shortly."),
    };
    Problem::new(problem::NO_INSTANCE, detail).retry_after_ms(1000)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::to_bytes;
    use service::serve::{self, Limits};
    use service::tasks::Tasks;
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;
    use tower::ServiceExt as _;

    use super::super::bent::{self, app, registration};
    use super::super::router;
    use super::*;
    use crate::bent_requests::runtime;
    use crate::heard::heard;
    use crate::roster::Roster;

    #[tokio::test]
    async fn an_answer_is_held_as_long_as_there_is_room() {
        const ANSWER: &str = "an answer";
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tasks = Tasks::new();
        let shop = edge::wrap(Router::new().fallback(async || ANSWER), "shop1");
        tasks.spawn(
            "shop",
            serve::serve(listener, shop, Limits::default(), tasks.clone()),
        );
        for (room, left) in [(100, 100 - ANSWER.len()), (5, 5)] {
            let roster = Arc::new(Roster::new());
            roster.replace(vec![Registration {
                address: address.clone(),
                ..registration()
            }]);
            let answers = Arc::new(Semaphore::new(room));
            let gateway = router(App {
                answers: Arc::clone(&answers),
                ..app(roster)
            });
            let request = Request::get("/hello").body(Body::empty()).unwrap();
            let response = gateway.oneshot(request).await.unwrap();
            assert_eq!(answers.available_permits(), left);
            let told = to_bytes(response.into_body(), 100).await.unwrap();
            assert_eq!(&told[..], ANSWER.as_bytes());
            drop(told);
            assert_eq!(answers.available_permits(), room);
        }
        tasks.stop();
    }

    #[test]
    fn what_somebody_searched_for_is_not_logged() {
        let runtime = runtime();
        let told = heard(|| {
            let failed = runtime.block_on(async {
                let (app, instance) = (bent::app(Arc::new(Roster::new())), bent::registration());
                let request = Request::get("/products?q=a-secret").body(());
                let (parts, ()) = request.expect("it is a request").into_parts();
                let outgoing = Outgoing::of(parts, Bytes::new());
                let deadline = Instant::now() + Duration::from_secs(20);
                attempt(&app, &instance, &outgoing, deadline).await.is_err()
            });
            assert!(failed, "nobody is there");
        });
        assert!(told.contains("an instance gave no answer"), "{told}");
        assert!(!told.contains("a-secret"), "{told}");
    }
}
