//! Sessions: on all instances the same, few leases for all of them, and how they end.

use reqwest::Method;
use serde_json::json;
use service::secrets::Secret;
use service::tasks::Tasks;

use super::system::{PASSWORD, System};
use crate::harness::{Client, DEADLINE};
use crate::vessel::Vessel;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_the_same_on_every_instance() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (ada, client) = system.user("Ada").await;
    let elsewhere = system.at(1, &client);
    let me = elsewhere.get("/me").await.expect(200).json();
    assert_eq!(
        (&me["user_id"], &me["username"], &me["admin"]),
        (&json!(ada), &json!("Ada"), &json!(false))
    );
    elsewhere.post("/logout", &json!({})).await.expect(204);
    client.get("/me").await.refused(401, "unauthorized");
    // All sessions of a user end together.
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(system.sign_in("ADA", PASSWORD).await);
    }
    sessions[0]
        .post("/logout", &json!({"everywhere": true}))
        .await
        .expect(204);
    for session in &sessions {
        session.get("/me").await.refused(401, "unauthorized");
    }
    system.stop().await;
}

/// Leases are few and everybody's: neither those who sign in again and again take many, nor names that are made up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_in_takes_few_leases() {
    let system = System::start_with(1, 1, |config| {
        config.sign_in_tries_max = 1000;
        // A time that no other lease has.
        config.sign_in_window_s = 77;
    })
    .await;
    let (_, oldest) = system.user("ada").await;
    let (_, other) = system.user("bob").await;
    let root = system.cluster.client(0);
    let leases = async |ttl_ms: u64| {
        let leases = root.get("/v1/leases").await.expect(200).json();
        let leases = leases.as_array().unwrap().iter();
        leases.filter(|lease| lease["ttl_ms"] == ttl_ms).count()
    };
    let session_ms = system.config.shop.session_s * 1000;
    for n in 0..3 {
        let body = json!({"username": format!("nobody {n}"), "password": "wrong password"});
        let refused = system.browse(Method::POST, "/login", &body).await;
        refused.refused(401, "invalid-credentials");
    }
    // A quarter of the time more, so that the next ones need not have another.
    assert_eq!((leases(77_000).await, leases(96_250).await), (0, 1));
    let tried = root.get("/v1/kv?prefix=shop/menagerie/tried/").await.expect(200);
    let tried = tried.json()["kvs"].as_array().unwrap().clone();
    assert_eq!(tried.len(), 3);
    assert!(tried.iter().all(|kv| kv["lease"] != 0), "{tried:?}");
    // No wall clock ends them.
    let due = root.get("/v1/kv?prefix=shop/menagerie/due/").await.expect(200);
    assert_eq!(due.json()["count"], 0);
    let more = (0..20).map(|_| system.sign_in("ada", PASSWORD));
    let more = futures_util::future::join_all(more).await;
    // All that begin within ten minutes share one.
    assert_eq!(
        (leases(session_ms).await, leases(session_ms + 600_000).await),
        (0, 1)
    );
    oldest.get("/me").await.refused(401, "unauthorized");
    for client in &more {
        client.get("/me").await.expect(200);
    }
    // Nobody else's session ends with one's own.
    more[0].post("/logout", &json!({})).await.expect(204);
    more[0].get("/me").await.refused(401, "unauthorized");
    more[2].get("/me").await.expect(200);
    let everywhere = json!({"everywhere": true});
    more[1].post("/logout", &everywhere).await.expect(204);
    more[2].get("/me").await.refused(401, "unauthorized");
    other.get("/me").await.expect(200);
    assert_eq!(marks(&system).await, 1);
    system.stop().await;
}

/// How many sessions are written down for their users.
async fn marks(system: &System) -> u64 {
    let target = "/v1/kv?prefix=shop/menagerie/signed-in/&count_only=1";
    let seen = system.cluster.client(0).get(target).await.expect(200).json();
    seen["count"].as_u64().unwrap()
}

/// An older program that ends a session leaves its mark behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_without_a_session_ends_nobody_elses() {
    let system = System::start().await;
    let (ada, first) = system.user("ada").await;
    let root = system.cluster.client(0);
    for n in 0..60 {
        let key = format!("/v1/kv/shop/menagerie/signed-in/{ada}/{n:064x}");
        root.send(root.request(Method::PUT, &key).body(""))
            .await
            .expect(200);
    }
    assert_eq!(marks(&system).await, 61);
    system.sign_in("ada", PASSWORD).await;
    first.get("/me").await.expect(200);
    assert_eq!(marks(&system).await, 2);
    system.stop().await;
}

/// A store that was restored may not know the lease that sessions share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_gone_is_replaced() {
    let system = System::start().await;
    let (_, first) = system.user("ada").await;
    let root = system.cluster.client(0);
    let shared = (system.config.shop.session_s + 600) * 1000;
    let leases = root.get("/v1/leases").await.expect(200).json();
    let mut leases = leases.as_array().unwrap().iter();
    let lease = leases.find(|lease| lease["ttl_ms"] == shared).unwrap();
    root.delete(&format!("/v1/leases/{}", lease["id"]))
        .await
        .expect(200);
    first.get("/me").await.refused(401, "unauthorized");
    let (_, second) = system.user("bob").await;
    second.get("/me").await.expect(200);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_of_the_admin_ends_the_sessions_of_the_old_one() {
    let system = System::start().await;
    let (config, mut secrets) = (system.config.clone(), system.cluster.secrets().clone());
    let admin = system
        .sign_in("admin", secrets.shop.admin_password.expose())
        .await;
    admin.get("/me").await.expect(200);
    // One who is about to be let in with the old one when it changes.
    system.traps[0].arm("password checked");
    let password = secrets.shop.admin_password.expose();
    let login = format!("http://{}/login", system.shops[0].address);
    let login = service::http::client(DEADLINE).post(login);
    let login = login.json(&json!({"username": "admin", "password": password}));
    let sender = system.operator();
    let late = Tasks::new().spawn("late", async move { sender.send(login).await });
    system.traps[0].caught().await;
    secrets.shop.admin_password = Secret::new("another password");
    let mut other = Vessel::launch(0, |listener, tasks| {
        let settings = petstore::Settings {
            config,
            name: "shop2".to_owned(),
            address: listener.local_addr().unwrap().to_string(),
            secrets,
            points: petstore::Points::none(),
        };
        petstore::run(settings, listener, tasks)
    });
    let operator = Client::at(other.address, system.token("operator"));
    crate::harness::wait_for("the other shop", async || {
        let answer = operator.get("/readyz").await;
        (answer.status == 200).then_some(()).ok_or(answer.status)
    })
    .await;
    admin.get("/me").await.refused(401, "unauthorized");
    system.traps[0].release();
    let late = late.await.unwrap();
    late.refused(401, "invalid-credentials");
    let again = system.sign_in("admin", "another password").await;
    again.get("/me").await.expect(200);
    other.stop().await;
    system.stop().await;
}

/// A shop that starts looks at all sessions, and so does whoever ends theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_cannot_be_read_keeps_no_shop_closed() {
    let mut system = System::start().await;
    let (_, client) = system.user("ada").await;
    let root = system.cluster.client(0);
    let unreadable = root.request(Method::PUT, "/v1/kv/shop/menagerie/live/session/x");
    root.send(unreadable.body("x")).await.expect(200);
    system.start_shop().await;
    let everywhere = json!({"everywhere": true});
    client.post("/logout", &everywhere).await.expect(204);
    client.get("/me").await.refused(401, "unauthorized");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_by_themselves() {
    let system = System::start_with(1, 1, |config| config.session_s = 1).await;
    let (_, client) = system.user("ada").await;
    crate::harness::wait_for("the session to end", async || {
        let answer = client.get("/me").await;
        (answer.status == 401).then_some(()).ok_or(answer.status)
    })
    .await;
    system.stop().await;
}
