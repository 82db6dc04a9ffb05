//! One node as curl speaks to it: plain HTTP, no idempotency key, and nothing is sent again.
//! Invariant: what an answer says of a write is read as the contract has it, and not by `KvClient`: whatever that takes
//! for harmless would be hidden here too. What nobody was told of is open.
//! It must not know who asks, nor what is made of the answers.

use std::time::Duration;

use bytes::Bytes;
use kvstore_client::wire::kv::Put;
use kvstore_client::wire::problem::Problem;
use kvstore_client::wire::txn::{OpResult, TxnAnswer};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::json;

use super::clients;
use super::linear::Held;
use super::sent::Fate;

/// Longer than a node looks for a leader, or nobody would hear it say that nothing was done.
const DEADLINE: Duration = Duration::from_secs(5);

pub(super) struct Node {
    http: Client,
    base: String,
    token: String,
}

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) revision: u64,
    /// What its key then held.
    pub(super) number: i64,
}

/// What became of a request that was not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) fate: Fate,
    /// What was answered, where no fault may have a node answer like that.
    pub(super) wrong: Option<String>,
    /// Under which id a node said that something is wrong inside of it, and nothing more.
    pub(super) internal: Option<String>,
}

impl Failed {
    fn known(fate: Fate) -> Self {
        Self {
            fate,
            wrong: None,
            internal: None,
        }
    }

    fn refused(status: StatusCode, body: &[u8]) -> Self {
        let problem = problem(body);
        let told = told_by(status, &problem.code).map_or_else(|| Self::wrong(status, body), Self::known);
        let is_internal = status == StatusCode::INTERNAL_SERVER_ERROR;
        Self {
            internal: is_internal.then_some(problem.request_id),
            ..told
        }
    }

    /// Whatever such an answer means, nobody was told what became of the request.
    fn wrong(status: StatusCode, body: &[u8]) -> Self {
        let body = String::from_utf8_lossy(body);
        Self {
            wrong: Some(format!("{status} {body}")),
            ..Self::known(Fate::Open)
        }
    }
}

impl Node {
    pub(super) fn new(endpoint: &str, token: &str) -> Self {
        Self {
            http: service::http::client(DEADLINE),
            base: service::http::base(endpoint),
            token: token.to_owned(),
        }
    }

    pub(super) async fn read(&self, key: &str) -> Result<Held, Failed> {
        match self.hear(self.http.get(self.url(key))).await? {
            (StatusCode::OK, body) => Ok(Some(clients::number(&body))),
            (StatusCode::NOT_FOUND, body) if problem(&body).code == "key-not-found" => Ok(None),
            (status, body) => Err(Failed::refused(status, &body)),
        }
    }

    pub(super) async fn put(&self, key: &str, number: i64) -> Result<Done, Failed> {
        let put = self.http.put(self.url(key)).body(number.to_string());
        let (status, body) = self.write(put).await?;
        let put = serde_json::from_slice::<Put>(&body);
        let put = put.map_err(|_unread| Failed::wrong(status, &body))?;
        let revision = put.revision;
        Ok(Done { revision, number })
    }

    pub(super) async fn add(&self, key: &str, by: i64) -> Result<Done, Failed> {
        let add = json!({"then": [{"add": {"key": key, "by": by}}]});
        let add = self.http.post(format!("{}/v1/txn", self.base)).json(&add);
        let (status, body) = self.write(add).await?;
        let answer = serde_json::from_slice::<TxnAnswer>(&body);
        let answer = answer.map_err(|_unread| Failed::wrong(status, &body))?;
        match answer.results.as_slice() {
            [OpResult::Add { value }] if answer.succeeded => Ok(Done {
                revision: answer.revision,
                number: *value,
            }),
            _ => Err(Failed::wrong(status, &body)),
        }
    }

    fn url(&self, key: &str) -> String {
        format!("{}/v1/kv/{key}", self.base)
    }

    /// An answer that says yes.
    async fn write(&self, request: RequestBuilder) -> Result<(StatusCode, Bytes), Failed> {
        let (status, body) = self.hear(request).await?;
        if status.is_success() {
            Ok((status, body))
        } else {
            Err(Failed::refused(status, &body))
        }
    }

    /// The whole answer. Only where nobody was reached nothing was sent.
    async fn hear(&self, request: RequestBuilder) -> Result<(StatusCode, Bytes), Failed> {
        let answer = request.bearer_auth(&self.token).send().await;
        let answer = answer.map_err(|error| {
            Failed::known(if error.is_connect() {
                Fate::Denied
            } else {
                Fate::Open
            })
        })?;
        let status = answer.status();
        let body = answer.bytes().await;
        let body = body.map_err(|_broken| Failed::known(Fate::Open))?;
        Ok((status, body))
    }
}

fn problem(body: &[u8]) -> Problem {
    serde_json::from_slice(body).unwrap_or_default()
}

/// What an answer that says no tells of a write; none when no fault may have one answered like that which is small and
/// has no conditions.
fn told_by(status: StatusCode, code: &str) -> Option<Fate> {
    match (status.as_u16(), code) {
        (429, _) | (503, "no-leader" | "overloaded" | "not-ready" | "shutting-down") | (507, "disk-full") => {
            Some(Fate::Denied)
        }
        // A word that is none of these promises nothing.
        (500..=599, _) => Some(Fate::Open),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use axum::extract::State;
    use axum::http::HeaderMap;
    use axum::{Json, Router};
    use kvstore_client::wire::headers;
    use serde_json::Value;
    use service::serve::{Limits, serve};
    use service::tasks::Tasks;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;
    use crate::arena::free_address;

    /// A node that says the same to whatever it is sent, as long as its tasks run.
    pub(in crate::chaos) struct Parrot {
        pub(in crate::chaos) address: String,
        pub(in crate::chaos) tasks: Tasks,
        heard: Arc<Mutex<Vec<HeaderMap>>>,
    }

    impl Parrot {
        pub(in crate::chaos) async fn saying(status: u16, says: Value) -> Self {
            let heard = Arc::<Mutex<Vec<HeaderMap>>>::default();
            let state = (Arc::clone(&heard), StatusCode::from_u16(status).unwrap(), says);
            let app = Router::new().fallback(answer).with_state(state);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (address, tasks) = (listener.local_addr().unwrap().to_string(), Tasks::new());
            tasks.spawn("node", serve(listener, app, Limits::default(), tasks.clone()));
            Self {
                address,
                tasks,
                heard,
            }
        }

        fn node(&self) -> Node {
            Node::new(&self.address, "token")
        }
    }

    type Says = (Arc<Mutex<Vec<HeaderMap>>>, StatusCode, Value);

    async fn answer(
        State((heard, status, says)): State<Says>,
        headers: HeaderMap,
        _body: Bytes,
    ) -> (StatusCode, Json<Value>) {
        heard.lock().unwrap().push(headers);
        (status, Json(says))
    }

    pub(in crate::chaos) fn put() -> Value {
        json!({"key": "k", "revision": 7, "version": 1, "created": true})
    }

    pub(in crate::chaos) fn sum(value: i64) -> Value {
        json!({"revision": 7, "succeeded": true, "branch": "then", "results": [{"add": {"value": value}}]})
    }

    pub(in crate::chaos) fn refusal(code: &str) -> Value {
        json!({"code": code})
    }

    #[tokio::test]
    async fn a_write_is_sent_once_and_without_a_key_whatever_is_said_to_it() {
        let done = |number| Ok(Done { revision: 7, number });
        let denied = || Err(Failed::known(Fate::Denied));
        let open = || Err(Failed::known(Fate::Open));
        for (status, says, put_told, add_told) in [
            (503, refusal("no-leader"), denied(), denied()),
            (503, refusal("outcome-unknown"), open(), open()),
            (
                200,
                put(),
                done(3),
                Err(Failed::wrong(StatusCode::OK, put().to_string().as_bytes())),
            ),
            (
                200,
                sum(9),
                Err(Failed::wrong(StatusCode::OK, sum(9).to_string().as_bytes())),
                done(9),
            ),
        ] {
            let parrot = Parrot::saying(status, says).await;
            assert_eq!(parrot.node().put("k", 3).await, put_told);
            assert_eq!(parrot.node().add("k", 3).await, add_told);
            parrot.tasks.stop();
            let heard = parrot.heard.lock().unwrap();
            assert_eq!(heard.len(), 2);
            let mut heard = heard.iter();
            assert!(heard.all(|headers| !headers.contains_key(headers::IDEMPOTENCY_KEY)));
        }
    }

    #[tokio::test]
    async fn what_reached_nobody_was_not_done_and_what_was_not_answered_may_have_been() {
        let nobody = Node::new(&free_address().unwrap(), "token");
        assert_eq!(nobody.put("k", 3).await, Err(Failed::known(Fate::Denied)));
        let (listener, tasks) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Tasks::new());
        let broken = Node::new(&listener.local_addr().unwrap().to_string(), "token");
        tasks.spawn("node", async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Hangs up once it has heard something.
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        });
        assert_eq!(broken.put("k", 3).await, Err(Failed::known(Fate::Open)));
    }

    #[tokio::test]
    async fn a_read_tells_what_is_there_and_that_nothing_is() {
        for (status, says, told) in [
            (200, json!(7), Ok(Some(7))),
            (404, refusal("key-not-found"), Ok(None)),
            (503, refusal("no-leader"), Err(Failed::known(Fate::Denied))),
        ] {
            let parrot = Parrot::saying(status, says).await;
            assert_eq!(parrot.node().read("k").await, told);
            parrot.tasks.stop();
        }
    }

    #[test]
    fn what_was_surely_not_done_is_told_apart_from_what_is_open_and_what_nobody_may_say() {
        let told = |status, code| told_by(StatusCode::from_u16(status).unwrap(), code);
        for code in ["no-leader", "overloaded", "not-ready", "shutting-down"] {
            assert_eq!(told(503, code), Some(Fate::Denied), "{code}");
        }
        assert_eq!(told(429, "too-many-requests"), Some(Fate::Denied));
        assert_eq!(told(507, "disk-full"), Some(Fate::Denied));
        for (status, code) in [
            (503, "outcome-unknown"),
            (503, "new-word"),
            (500, "internal"),
            (502, ""),
        ] {
            assert_eq!(told(status, code), Some(Fate::Open), "{code}");
        }
        for (status, code) in [
            (401, "unauthorized"),
            (404, "key-not-found"),
            (412, "precondition-failed"),
        ] {
            assert_eq!(told(status, code), None, "{code}");
        }
    }
}
