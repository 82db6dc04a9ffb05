//! Changes of members as any program makes them: over HTTP, through any node, and asked for twice, also under a key.
//! Invariant: a repeat of a change that was made answers what the first did, or clearly that it is made.

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{
    Cluster, SOON, member_of, start_newcomer, three_and_newcomers, wait_for_member, wait_until,
};

const MEMBERS: &str = "/v1/cluster/members";

struct Answer {
    status: StatusCode,
    location: Option<String>,
    replayed: bool,
    body: Value,
}

impl Answer {
    fn member(&self, id: u64) -> Option<&Value> {
        let members = self.body["members"].as_array()?;
        members.iter().find(|member| member["id"] == id)
    }

    #[track_caller]
    fn refused(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), self.body["code"].as_str()),
            (status, Some(code)),
            "{}",
            self.body
        );
    }

    #[track_caller]
    fn fine(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self
    }
}

async fn ask(cluster: &Cluster, method: &str, through: &str, path: &str, body: Value) -> Answer {
    let request = cluster.request(method, through, path);
    let request = if body.is_null() {
        request
    } else {
        request.json(&body)
    };
    told(request).await
}

async fn told(request: reqwest::RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    let location = answer.headers().get("location");
    Answer {
        status: answer.status(),
        location: location.map(|location| location.to_str().unwrap().to_owned()),
        replayed: answer
            .headers()
            .get("idempotent-replayed")
            .is_some_and(|it| it == "true"),
        body: answer.json().await.unwrap(),
    }
}

/// Of the three, one is dead already: without the other nothing could be committed, nor the change be taken back.
#[tokio::test]
async fn a_voter_that_is_needed_is_not_removed() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let others: Vec<&str> = ["n1", "n2", "n3"]
        .into_iter()
        .filter(|name| *name != leader)
        .collect();
    let path = |name: &str| format!("{MEMBERS}/{}", name.trim_start_matches('n'));
    cluster.kill(others[0]).await;
    ask(&cluster, "DELETE", &leader, &path(others[1]), Value::Null)
        .await
        .refused(503, "member-unreachable");
    let client = cluster.client();
    client.put("still", "written").await.unwrap();
    // The dead one may go.
    let left = ask(&cluster, "DELETE", &leader, &path(others[0]), Value::Null)
        .await
        .fine(200);
    assert_eq!(left.body["members"].as_array().unwrap().len(), 2, "{}", left.body);
    client.put("still", "written again").await.unwrap();
}

/// A learner that does not run, and whose address nobody else has.
fn learner(id: u64) -> Value {
    json!({"id": id, "peer_address": format!("127.0.0.1:{}", 60_000 + id), "client_address": "127.0.0.1:1"})
}

#[tokio::test]
async fn a_change_under_a_key_is_made_once() {
    let cluster = Cluster::start(3).await;
    let keyed = async |through: &str, method: &str, path: &str, body: Value, key: &str| {
        let request = cluster.request(method, through, path).json(&body);
        told(request.header("idempotency-key", key)).await
    };
    let remove = format!("{MEMBERS}/9");
    let first = keyed("n1", "POST", MEMBERS, learner(9), "add").await.fine(201);
    assert!(!first.replayed && first.member(9).is_some(), "{}", first.body);
    let again = keyed("n2", "POST", MEMBERS, learner(9), "add").await.fine(201);
    assert!(again.replayed && again.member(9).is_some(), "{}", again.body);
    keyed("n2", "POST", MEMBERS, learner(8), "add")
        .await
        .refused(422, "idempotency-key-reused");

    for (through, replayed) in [("n1", false), ("n3", true)] {
        let removed = keyed(through, "DELETE", &remove, Value::Null, "remove")
            .await
            .fine(200);
        assert_eq!(removed.replayed, replayed);
        assert!(removed.member(9).is_none(), "{}", removed.body);
    }
    // A late repeat of the first change does not bring back what was removed since.
    let late = keyed("n1", "POST", MEMBERS, learner(9), "add").await.fine(201);
    assert!(late.replayed && late.member(9).is_none(), "{}", late.body);
    // What was refused is no removal that went.
    for _ in 0..2 {
        keyed("n1", "DELETE", &remove, Value::Null, "too-late")
            .await
            .refused(404, "member-not-found");
    }
}

/// Whoever comes first makes the change, and the others wait for it, as for any write under one key.
#[tokio::test]
async fn twins_of_a_promotion_are_one() {
    let cluster = three_and_newcomers(1).await;
    let client = cluster.client();
    let _newcomer = start_newcomer(&cluster, 4);
    client.member_add(&member_of(&cluster, 4)).await.unwrap();
    wait_for_member(&client, 4, "the newcomer has caught up", |_, member| {
        member.is_some_and(|member| !member.voter && member.lag.is_some_and(|lag| lag < 100))
    })
    .await;
    let twins = ["n1", "n2", "n3", "n1", "n2", "n3"].map(|through| {
        let request = cluster.request("POST", through, "/v1/cluster/members/4/promote");
        told(request.header("idempotency-key", "promote"))
    });
    let mut first = 0;
    for answer in join_all(twins).await {
        let answer = answer.fine(200);
        assert_eq!(answer.member(4).unwrap()["voter"], true, "{}", answer.body);
        first += u32::from(!answer.replayed);
    }
    assert_eq!(first, 1, "the others are told what it was");
}

/// Also by a node that neither made it nor had to be asked for it.
#[tokio::test]
async fn the_answer_to_a_change_shows_it() {
    let cluster = Cluster::start(3).await;
    let nine = format!("{MEMBERS}/9");
    for through in ["n1", "n2", "n3", "n1", "n2", "n3"] {
        let added = ask(&cluster, "POST", through, MEMBERS, learner(9)).await;
        let added = added.fine(201);
        assert!(added.member(9).is_some(), "{through}: {}", added.body);
        let removed = ask(&cluster, "DELETE", through, &nine, Value::Null).await;
        let removed = removed.fine(200);
        assert!(removed.member(9).is_none(), "{through}: {}", removed.body);
    }
    let path = "/v1/cluster/leader";
    for to in [1, 2, 3, 1, 2, 3] {
        let (leader, heir) = (cluster.leader().await, format!("n{to}"));
        let mut names = ["n1", "n2", "n3"].into_iter();
        let through = names.find(|name| *name != leader && *name != heir).unwrap();
        let moved = wait_until("leadership is handed over", SOON, async || {
            let moved = ask(&cluster, "POST", through, path, json!({"to": to})).await;
            (moved.status == 200)
                .then_some(moved.body.clone())
                .ok_or_else(|| moved.body.to_string())
        })
        .await;
        assert_eq!(moved["leader"], to, "{through}: {moved}");
    }
}

#[tokio::test]
async fn members_are_added_promoted_and_removed_over_http() {
    let cluster = three_and_newcomers(1).await;
    let client = cluster.client();
    client.put("a", "1").await.unwrap();
    let follower = cluster.follower().await;
    let post = async |path: &str, body: Value| ask(&cluster, "POST", &follower, path, body).await;

    let fourth = serde_json::to_value(member_of(&cluster, 4)).unwrap();
    for _ in 0..2 {
        let added = post(MEMBERS, fourth.clone()).await.fine(201);
        assert_eq!(added.location.as_deref(), Some("/v1/cluster/members/4"));
    }
    wait_for_member(&client, 4, "the learner is a member", |_, member| {
        member.is_some_and(|member| !member.voter)
    })
    .await;
    let mut elsewhere = fourth.clone();
    elsewhere["peer_address"] = json!("127.0.0.1:9");
    post(MEMBERS, elsewhere).await.refused(409, "member-exists");
    let mut twin = fourth.clone();
    twin["id"] = json!(5);
    post(MEMBERS, twin).await.refused(409, "member-exists");
    post("/v1/cluster/members/9/promote", Value::Null)
        .await
        .refused(404, "member-not-found");
    post("/v1/cluster/leader", json!({"to": 9}))
        .await
        .refused(404, "member-not-found");
    // It does not run yet.
    post("/v1/cluster/members/4/promote", Value::Null)
        .await
        .refused(503, "member-unreachable");

    let _newcomer = start_newcomer(&cluster, 4);
    wait_until("the learner is promoted", SOON, async || {
        let promoted = post("/v1/cluster/members/4/promote", Value::Null).await;
        (promoted.status == 200)
            .then_some(())
            .ok_or(promoted.body.to_string())
    })
    .await;
    let again = post("/v1/cluster/members/4/promote", Value::Null).await.fine(200);
    assert_eq!(again.member(4).unwrap()["voter"], true, "{}", again.body);
    for _ in 0..2 {
        post("/v1/cluster/leader", json!({"to": 4})).await.fine(200);
    }
    wait_for_member(&client, 4, "the newcomer leads", |members, _| {
        members.leader == Some(4)
    })
    .await;

    // Also the one that leads: it hands over first.
    let path = "/v1/cluster/members/4";
    let removed = ask(&cluster, "DELETE", &follower, path, Value::Null)
        .await
        .fine(200);
    assert_ne!(removed.body["leader"], 4, "{}", removed.body);
    ask(&cluster, "DELETE", &follower, path, Value::Null)
        .await
        .refused(404, "member-not-found");
    wait_for_member(&client, 4, "the newcomer is gone", |members, member| {
        member.is_none() && members.members.len() == 3
    })
    .await;
    assert_eq!(client.get("a").await.unwrap().unwrap().bytes(), "1");
}
