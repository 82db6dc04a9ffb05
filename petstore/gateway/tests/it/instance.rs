//! An instance behind the gateway: tells what reached it, and fails as it is told.
//! Invariant: it counts every request whose head it has seen, so that nothing can be done twice unseen.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream;
use serde_json::{Value, json};
use service::problem::{self, Problem};
use service::serve::{self, Limits};
use service::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::Notify;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Well,
    /// Answers in part, then the connection breaks.
    BreaksOff,
    /// Has not reached its store yet.
    Starts,
    /// Can do its work, but for what it needs of somebody else.
    Lacks,
    /// Never answers.
    Hangs,
    /// Is well, and never answers what it is asked.
    Slow,
    /// Answers once it is let.
    Waits,
}

pub(crate) struct Instance {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    state: Arc<Shared>,
    tasks: Tasks,
}

struct Shared {
    name: &'static str,
    mode: Mutex<Mode>,
    seen: Mutex<Vec<String>>,
    let_go: Notify,
}

impl Instance {
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Shared {
            name,
            mode: Mutex::new(Mode::Well),
            seen: Mutex::default(),
            let_go: Notify::new(),
        });
        let app = Router::new()
            .route("/readyz", get(ready))
            .route("/events", get(events))
            .fallback(echo)
            .with_state(Arc::clone(&state));
        let tasks = Tasks::new();
        let serving = serve::serve(listener, app, Limits::default(), tasks.child());
        tasks.spawn("instance", serving);
        Self {
            name,
            address,
            state,
            tasks,
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.state.mode.lock().unwrap() = mode;
    }

    /// Lets one of those answer who wait.
    pub(crate) fn let_go(&self) {
        self.state.let_go.notify_one();
    }

    /// Methods and paths, in order.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Closes its port, as when its process is gone.
    pub(crate) async fn die(&self) {
        self.tasks.stop();
        self.tasks.drain(crate::harness::DEADLINE).await;
    }
}

async fn ready(State(state): State<Arc<Shared>>) -> StatusCode {
    match *state.mode.lock().unwrap() {
        Mode::Well | Mode::Lacks | Mode::Slow => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// One event at once, and no end.
async fn events() -> Response {
    let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"id: 7\ndata: hello\n\n"))]);
    let body = Body::from_stream(futures_util::StreamExt::chain(first, stream::pending()));
    ([("content-type", "text/event-stream")], body).into_response()
}

async fn echo(State(state): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let target = parts.uri.to_string();
    state
        .seen
        .lock()
        .unwrap()
        .push(format!("{} {target}", parts.method));
    let mode = *state.mode.lock().unwrap();
    match mode {
        Mode::Well => {}
        Mode::BreaksOff => {
            let pieces = [
                Ok(Bytes::from_static(b"half")),
                Err(std::io::ErrorKind::BrokenPipe),
            ];
            let pieces = stream::iter(pieces.map(|piece| piece.map_err(std::io::Error::from)));
            return ([("content-length", "100")], Body::from_stream(pieces)).into_response();
        }
        Mode::Starts | Mode::Lacks => {
            let nothing = Problem::new(problem::NOT_READY, "Nothing was done.");
            return nothing.into_response();
        }
        Mode::Hangs | Mode::Slow => return std::future::pending().await,
        Mode::Waits => state.let_go.notified().await,
    }
    let body = axum::body::to_bytes(body, 1 << 21).await.unwrap();
    let answer = json!({
        "instance": state.name,
        "method": parts.method.as_str(),
        "target": target,
        "headers": named(&parts.headers),
        "body": String::from_utf8_lossy(&body),
    });
    let headers = [("x-served-by", state.name), ("etag", "\"5\"")];
    (StatusCode::IM_A_TEAPOT, headers, Json(answer)).into_response()
}

fn named(headers: &HeaderMap) -> Value {
    let pairs = headers.iter();
    pairs
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect()
}
