//! What callers are told of what is only half made: a cluster that has no id yet, a removal of a member whose caller
//! went away between its two steps, and a delete whose caller did before it was done.

use std::slice;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Request, header};
use bytes::Bytes;
use futures_util::FutureExt as _;
use serde_json::Value;
use service::config::LimitsConfig;
use service::problem;
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::{Api, auth, router};
use crate::command::{Access, Action, Expect, Once, Rule};
use crate::raft::bare::{Bare, DEADLINE, calm};
use crate::raft::start::root_rules;
use crate::store::Store;

const REVISION: &str = "/v1/revision";
/// A route for any token at any level, one for a key, and one for root alone.
const ROUTES: [&str; 3] = ["/v1/revision?consistency=local", "/v1/kv/key", "/v1/tokens"];

struct Told {
    status: u16,
    replayed: bool,
    body: Value,
}

impl Told {
    #[track_caller]
    fn refused(self, status: u16, code: &str) {
        let told = (self.status, self.body["code"].as_str());
        assert_eq!(told, (status, Some(code)), "{}", self.body);
    }
}

/// Everything that callers meet of a node.
fn app(node: &Bare) -> Router {
    let limits = LimitsConfig::default();
    service::edge::wrap(router(Api::new(Store::over(node, &limits), limits)), "n1")
}

pub(super) fn request(method: &str, target: &str, token: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(target);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(Body::empty()).unwrap()
}

async fn told(app: &Router, request: Request<Body>) -> Told {
    let answer = app.clone().oneshot(request).await.unwrap();
    let replayed = answer.headers().get("idempotent-replayed");
    let (status, replayed) = (answer.status().as_u16(), replayed.is_some());
    let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    Told {
        status,
        replayed,
        body: serde_json::from_slice(&body).unwrap(),
    }
}

/// The cluster gets this id, and a token that is its own name.
pub(super) async fn seed(node: &Bare, cluster_id: &str, name: &str, rules: Vec<Rule>) {
    let action = Action::Seed {
        cluster_id: cluster_id.to_owned(),
        tokens: vec![(name.to_owned(), auth::hash(name.as_bytes()), rules)],
    };
    node.desk.propose_own(action).await.unwrap();
}

/// Also who is known: by a backup, whose tokens are not those of the cluster that is made out of it.
#[tokio::test]
async fn nobody_with_a_token_is_refused_while_the_cluster_is_being_made() {
    let node = Bare::start(1, &calm()).await;
    let app = app(&node);
    let ask = async |route: &str, token: Option<&str>| told(&app, request("GET", route, token)).await;
    ask(REVISION, Some("unknown")).await.refused(503, "no-leader");
    ask(REVISION, None).await.refused(401, "unauthorized");
    Bare::unite(slice::from_ref(&node)).await;
    let reads = Rule {
        prefix: Bytes::from_static(b"another/"),
        access: Access::Read,
    };
    seed(&node, "", "of-a-backup", vec![reads]).await;
    for route in ROUTES {
        for token in ["of-a-backup", "unknown"] {
            ask(route, Some(token)).await.refused(503, "not-ready");
        }
        ask(route, None).await.refused(401, "unauthorized");
    }
    seed(&node, "an id", "root", root_rules()).await;
    assert_eq!(ask(REVISION, Some("root")).await.status, 200);
    for route in ROUTES {
        ask(route, Some("unknown")).await.refused(401, "unauthorized");
    }
    node.end().await;
}

const MEMBER: &str = "/v1/cluster/members/3";

/// Of the last of three members.
fn removal() -> Request<Body> {
    let mut removal = request("DELETE", MEMBER, Some("root"));
    let key = HeaderValue::from_static("a-removal");
    removal.headers_mut().insert("idempotency-key", key);
    removal
}

/// Three nodes, and what callers meet of the first, which leads. Whoever asked for the removal saw its first step.
async fn half_removed() -> (Vec<Bare>, Router) {
    let nodes = Bare::cluster(3).await;
    let app = app(&nodes[0]);
    seed(&nodes[0], "an id", "root", root_rules()).await;
    tokio::select! {
        biased;
        () = nodes[0].knows("the first step", |view| view.joint) => {}
        removed = told(&app, removal()) => panic!("both steps were taken: {}", removed.body),
    }
    nodes[0].leads().await;
    (nodes, app)
}

/// A repeat is answered as the one that was not heard would have been; another removal finds nobody.
async fn repeats_find_it_made(app: &Router) {
    for _ in 0..2 {
        let repeated = told(app, removal()).await;
        assert_eq!(
            (repeated.status, repeated.replayed),
            (200, true),
            "{}",
            repeated.body
        );
        let members = repeated.body["members"].as_array().unwrap();
        let members: Vec<Option<u64>> = members.iter().map(|member| member["id"].as_u64()).collect();
        assert_eq!(members, [Some(1), Some(2)]);
    }
    let another = request("DELETE", MEMBER, Some("root"));
    told(app, another).await.refused(404, "member-not-found");
}

#[tokio::test]
async fn a_repeat_finishes_a_removal_that_was_left_halfway() {
    let (nodes, app) = half_removed().await;
    repeats_find_it_made(&app).await;
    for node in nodes {
        node.end().await;
    }
}

#[tokio::test]
async fn a_repeat_knows_its_removal_that_somebody_else_has_finished() {
    let (nodes, app) = half_removed().await;
    nodes[0].desk.finish_change().await.unwrap();
    repeats_find_it_made(&app).await;
    for node in nodes {
        node.end().await;
    }
}

/// All deletes by prefixes that are under way may take no more keys than one may.
#[tokio::test]
async fn a_delete_keeps_its_room_until_it_is_done() {
    const KEYS_MAX: usize = 3;
    let node = Bare::cluster(1).await.remove(0);
    seed(&node, "an id", "root", root_rules()).await;
    for key in ["a/1", "a/2"] {
        let put = Action::Put {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::new(),
            lease: 0,
            expect: Expect::Any,
        };
        node.desk.propose_own(put).await.unwrap();
    }
    let limits = LimitsConfig {
        delete_keys_max: KEYS_MAX,
        request_ms_max: 600_000,
        ..LimitsConfig::default()
    };
    let api = Api::new(Store::over(&node, &limits), limits);
    let root = request("DELETE", "/v1/kv", Some("root"));
    let caller = api.caller(root.headers()).await.unwrap();
    let delete = || Action::DeletePrefix {
        prefix: Bytes::from_static(b"a/"),
    };
    let all = api.room_for_deletes(3, None).await.unwrap();
    // Its key is forgotten soon, so it may not wait until then.
    let once = Once {
        key: "a key".to_owned(),
        fingerprint: [0; 16],
        ttl_ms: 200,
        room_bytes: 1 << 20,
    };
    let told = timeout(DEADLINE, api.delete(&caller, delete(), Some(once))).await;
    let refused = told
        .expect("it does not wait for room that never comes")
        .unwrap_err();
    assert_eq!(refused.kind, problem::OVERLOADED);
    assert_eq!(node.desk.machine.state().keys, 2, "it was not done");
    drop(all);
    let mut deleting = Box::pin(api.delete(&caller, delete(), None));
    while api.deletes.available_permits() == KEYS_MAX {
        let done = deleting.as_mut().now_or_never();
        assert!(done.is_none(), "it is done without any room");
        tokio::task::yield_now().await;
    }
    // Its caller leaves.
    drop(deleting);
    assert!(api.room_for_deletes(1, None).now_or_never().is_some());
    assert!(
        api.room_for_deletes(2, None).now_or_never().is_none(),
        "for more there is no room"
    );
    let room = timeout(DEADLINE, api.room_for_deletes(2, None)).await;
    assert!(room.expect("its room is given back").is_ok());
    assert_eq!(node.desk.machine.state().keys, 0);
    node.end().await;
}
