//! Letters to a card that wait, because nobody says anything about their payment.
//! Invariant: none of them is laid aside, so that nobody has to send it again once payment answers as it should.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use reqwest::Method;
use serde_json::{Value, json};
use service::config::ShopAuth;
use service::serve::{self, Limits};
use service::tasks::Tasks;
use tokio::net::TcpListener;

use super::purchase::{PIECES, becomes, order_unwaited, sold};
use super::system::{System, VISA, order};
use crate::harness::{DEADLINE, wait_for};

/// The letter to the card would be laid aside if it failed once more.
async fn has_failed_often(system: &System) {
    let letters = system.letters("").await;
    let card = letters.iter().find(|key| key.contains("/card/")).unwrap();
    let (root, target) = (system.cluster.client(0), format!("/v1/kv/{card}"));
    let mut post: Value = root.get(&target).await.expect(200).json();
    post["failures"] = json!(9);
    let failed = root.request(Method::PUT, &target).body(post.to_string());
    root.send(failed).await.expect(200);
}

/// In the place of payment, until it is told to stop: what answers while tokens, versions or proxies are changed.
async fn strangers_answer(system: &System, tasks: &Tasks) -> Arc<AtomicUsize> {
    let address = system.payments[0].address;
    let listener = wait_for("the port of payment", async || TcpListener::bind(address).await).await;
    let answers = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&answers);
    let app = Router::new().fallback(move || {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            match number % 3 {
                0 => (StatusCode::UNAUTHORIZED, "who are you?"),
                1 => (StatusCode::NOT_FOUND, "<html>"),
                _ => (StatusCode::OK, "<html>"),
            }
        }
    });
    tasks.spawn(
        "strangers",
        serve::serve(listener, app, Limits::default(), tasks.clone()),
    );
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_says_nothing_about_a_payment_lays_no_letter_aside() {
    let mut system = System::start_with(1, 1, |config| config.auth = ShopAuth::Open).await;
    let product = system.product("Thing", 10.0, PIECES).await;
    let (client, money) = (system.operator(), system.balance(VISA).await);
    let mut body = order(&product, 2, VISA);
    body["userId"] = json!("ada");
    system.traps[0].arm("before authorize");
    let made = order_unwaited(&client, &body).await;
    system.traps[0].caught().await;
    has_failed_often(&system).await;
    system.payments[0].kill();
    let tasks = Tasks::new();
    let answers = strangers_answer(&system, &tasks).await;
    system.traps[0].release();
    wait_for("each of the answers", async || {
        let answers = answers.load(Ordering::SeqCst);
        (answers >= 4).then_some(()).ok_or(answers)
    })
    .await;
    tasks.stop();
    tasks.drain(DEADLINE).await;
    let aside = system
        .cluster
        .client(0)
        .get("/v1/kv?prefix=shop/menagerie/dead/")
        .await;
    assert_eq!(aside.expect(200).json()["count"], 0);
    system.restart_payment().await;
    becomes(&client, made.header("location"), "paid").await;
    sold(&system, &product, money, 2).await;
    system.stop().await;
}
