//! Twins: the same request with the same idempotency key, twice at once. The second is held after it has looked for an
//! answer and found none, until the first is done, so that it meets what the first has changed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use kvstore_client::wire::headers::{LEADER, REQUEST_ID};
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use service::serve::{self, Limits};
use service::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::harness::{Answer, Client, DEADLINE, wait_for};
use crate::system::System;

const SECOND: &str = "the-second-twin";

/// Stands between a process and the store, and holds the transactions of the second twin while it is shut.
struct Gate {
    store: String,
    http: reqwest::Client,
    shut: watch::Sender<bool>,
    held: watch::Sender<usize>,
}

async fn pass(State(gate): State<Arc<Gate>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let body = to_bytes(body, 8 << 20).await.unwrap();
    let of_second = parts.headers.get(REQUEST_ID).is_some_and(|id| id == SECOND);
    if of_second && parts.uri.path() == "/v1/txn" && *gate.shut.borrow() {
        gate.held.send_modify(|held| *held += 1);
        gate.shut.subscribe().wait_for(|shut| !shut).await.unwrap();
    }
    let url = format!("http://{}{}", gate.store, parts.uri);
    for name in [header::HOST, header::CONTENT_LENGTH] {
        parts.headers.remove(name);
    }
    let request = gate.http.request(parts.method, url).headers(parts.headers);
    let Ok(answer) = request.body(body).send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    // Told where the leader is, the process would go there past the gate.
    for name in [LEADER, "content-length", "transfer-encoding", "connection"] {
        headers.remove(name);
    }
    let Ok(body) = answer.bytes().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    (status, headers, Body::from(body)).into_response()
}

/// One process of the consensus that reaches the store directly, and one behind a gate.
struct Twins {
    system: System,
    gate: Arc<Gate>,
    tasks: Tasks,
}

impl Twins {
    async fn start() -> Self {
        let mut system = System::start().await;
        let gate = Arc::new(Gate {
            store: system.config.nodes[0].client.clone(),
            http: service::http::client(DEADLINE),
            shut: watch::Sender::new(false),
            held: watch::Sender::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let app = Router::new().fallback(pass).with_state(Arc::clone(&gate));
        let tasks = Tasks::new();
        tasks.spawn(
            "gate",
            serve::serve(listener, app, Limits::default(), tasks.clone()),
        );
        system.config.nodes[0].client = address.to_string();
        system.start_consensus(2).await;
        Self { system, gate, tasks }
    }

    /// What the first and the second twin are answered.
    async fn send(&self, key: &str, make: impl Fn(&Client) -> RequestBuilder) -> (Answer, Answer) {
        self.gate.shut.send_replace(true);
        self.gate.held.send_replace(0);
        let (direct, gated) = (self.system.operator(), self.system.operator_of(1));
        let second = make(&gated)
            .header("idempotency-key", key)
            .header(REQUEST_ID, SECOND);
        let first = async {
            wait_for("the second twin to be held", async || {
                let held = *self.gate.held.borrow();
                (held > 0).then_some(()).ok_or(held)
            })
            .await;
            let first = direct.send(make(&direct).header("idempotency-key", key)).await;
            self.gate.shut.send_replace(false);
            first
        };
        tokio::join!(first, gated.send(second))
    }

    async fn stop(self) {
        self.system.stop().await;
        self.tasks.stop();
        self.tasks.drain(Duration::from_secs(5)).await;
    }
}

fn same(first: &Answer, second: &Answer, status: u16) {
    assert_eq!(
        (first.status, second.status),
        (status, status),
        "{} {}",
        first.text(),
        second.text()
    );
    assert_eq!(first.body, second.body);
    assert_eq!(
        (
            first.header("idempotent-replayed"),
            second.header("idempotent-replayed")
        ),
        ("", "true")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twin_is_not_refused_for_what_the_other_has_done() {
    let twins = Twins::start().await;
    let join = |client: &Client| {
        let body = json!({"name": "new", "url": "http://127.0.0.1:9", "deposit": 1000});
        client.request(Method::POST, "/models").json(&body)
    };
    let (first, second) = twins.send("join", join).await;
    same(&first, &second, 201);
    // Paid out at once, so that the second finds nobody of this name.
    let leave = |client: &Client| client.request(Method::DELETE, "/models/new");
    let (first, second) = twins.send("leave", leave).await;
    same(&first, &second, 200);
    let ledger = twins.system.check().await;
    assert_eq!((&ledger["supply"], &ledger["models"]), (&json!(4000), &json!(3)));
    twins.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_else_is_still_refused() {
    let twins = Twins::start().await;
    let join = |name: &'static str| {
        move |client: &Client| {
            let body = json!({"name": name, "url": "http://127.0.0.1:9", "deposit": 1000});
            client.request(Method::POST, "/models").json(&body)
        }
    };
    // Both wish to be at the same place, under one key each and then under the same.
    let operator = twins.system.operator();
    operator.send(join("one")(&operator)).await.expect(201);
    let (first, second) = twins.send("two", join("two")).await;
    first.refused(409, "model-exists");
    second.refused(409, "model-exists");
    let other = operator.send(join("three")(&operator).header("idempotency-key", "two"));
    // A refusal is not kept, so the key is free.
    other.await.refused(409, "model-exists");
    twins.stop().await;
}
