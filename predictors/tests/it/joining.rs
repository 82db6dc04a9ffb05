//! Models that join, stake and leave.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Client, wait_for};
use crate::system::{System, ask_text};

async fn join(client: &Client, name: &str, url: &str) -> crate::harness::Answer {
    let body = json!({"name": name, "url": url, "deposit": 1000});
    client.post("/models", &body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_configured_places_are_ever_called() {
    let system = System::start().await;
    let operator = system.operator();
    for url in [
        "http://169.254.169.254",
        "http://example.com:5001",
        "https://127.0.0.1:5001",
        "file:///etc/passwd",
        "http://127.0.0.1:5001/admin",
        "http://127.0.0.1:5001/?x=1",
        "http://user:word@127.0.0.1:5001",
        "http://127.0.0.1.example.com:5001",
        "http://0.0.0.0:5001",
        "http://[::ffff:10.0.0.1]:5001",
        "nonsense",
    ] {
        let answer = join(&operator, "far", url).await.refused(422, "url-not-allowed");
        assert_eq!(answer.json()["errors"][0]["pointer"], "/url");
    }
    assert_eq!(system.find_model("far").await, Value::Null);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_takes_the_operator_a_name_and_a_deposit() {
    let system = System::start().await;
    let (operator, url) = (system.operator(), "http://127.0.0.1:9");
    let oracle = system.consensus(0);
    join(&oracle, "new", url).await.refused(403, "forbidden");
    let body = r#"{"name": "a/b", "url": 5, "deposit": 12.3456789}"#;
    let answer = ask_text(&operator, "/models", body).await.expect(422);
    let told = answer.json();
    let pointers: Vec<&str> = told["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| fault["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(pointers, ["/name", "/url", "/deposit"]);
    let answer = ask_text(
        &operator,
        "/models",
        r#"{"name":"poor","url":"http://127.0.0.1:9","deposit":499.999999}"#,
    );
    answer.await.refused(422, "invalid-request");
    let made = join(&operator, "new", url).await.expect(201);
    let model = made.json();
    assert_eq!(made.header("location"), "/models/new");
    assert_eq!(
        (&model["stake"], &model["status"]),
        (&json!(1000), &json!("active"))
    );
    join(&operator, "new", "http://127.0.0.1:10")
        .await
        .refused(409, "model-exists");
    join(&operator, "twin", url).await.refused(409, "model-exists");
    assert_eq!(system.check().await["supply"], 5000);
    let raised = operator.post("/models/new/stake", &json!({"amount": 0.5})).await;
    assert_eq!(raised.expect(200).json()["stake"], 1000.5);
    operator
        .post("/models/none/stake", &json!({"amount": 1}))
        .await
        .refused(404, "model-not-found");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stake_with_a_key_is_raised_once() {
    let system = System::start().await;
    let operator = system.operator();
    let raise = async |amount: u64| {
        let request = operator.request(Method::POST, "/models/knn/stake");
        let request = request.header("idempotency-key", "raise-1");
        operator.send(request.json(&json!({ "amount": amount }))).await
    };
    let (one, two) = tokio::join!(raise(100), raise(100));
    assert_eq!(one.expect(200).json(), two.expect(200).json());
    assert_eq!(raise(100).await.expect(200).header("idempotent-replayed"), "true");
    raise(200).await.refused(422, "idempotency-key-reused");
    assert_eq!(system.find_model("knn").await["stake"], 1100);
    assert_eq!(system.check().await["supply"], 4100);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stake_is_raised_to_a_billion_tokens_at_most() {
    let system = System::start().await;
    let operator = system.operator();
    let raise = async |amount: u64| {
        operator
            .post("/models/knn/stake", &json!({ "amount": amount }))
            .await
    };
    let refused = raise(999_999_001).await.refused(422, "invalid-request");
    assert_eq!(refused.pointers(), ["/amount"]);
    let raised = raise(999_999_000).await.expect(200).json();
    assert_eq!(raised["stake"], 1_000_000_000);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_leaves_is_paid_once_no_round_depends_on_it() {
    let system = System::start().await;
    let operator = system.operator();
    // Rounds that are open, more of them than one answer of the store holds; none asked it.
    let store = system.cluster.client(0);
    for number in 0..5 {
        let key = format!("/v1/kv/predict/open/9999999999999/{number}");
        let request = store.request(Method::PUT, &key).body("x".repeat(1 << 20));
        store.send(request).await.expect(200);
    }
    let round = system.open(0).await;
    let leaving = operator
        .send(operator.request(Method::DELETE, "/models/knn"))
        .await;
    assert_eq!(leaving.expect(200).json()["status"], "unbonding");
    let ledger = system.check().await;
    assert_eq!(
        (&ledger["escrow"], &ledger["stakes"]),
        (&json!(1000), &json!(2000))
    );
    let said = system.said().await;
    assert_eq!(said["participants"], json!(["logistic", "naive-bayes"]));
    operator
        .post("/models/knn/stake", &json!({"amount": 1}))
        .await
        .refused(409, "model-unbonding");
    // It is liable for the round it took part in, and wins there too.
    let receipt = system.report(0, &round, json!(0)).await.expect(200).json();
    assert_eq!(receipt["models"][0]["model"], "knn");
    assert_eq!(receipt["models"][0]["stake"], 1001);
    wait_for("the model to be paid out", async || {
        let left = system.find_model("knn").await;
        left.is_null().then_some(()).ok_or(left)
    })
    .await;
    let ledger = system.check().await;
    assert_eq!((&ledger["escrow"], &ledger["supply"]), (&json!(0), &json!(2999)));
    operator
        .send(operator.request(Method::DELETE, "/models/knn"))
        .await
        .refused(404, "model-not-found");
    // Whoever comes back under the old name has the old trust.
    let back = join(&operator, "knn", "http://127.0.0.1:9")
        .await
        .expect(201)
        .json();
    assert_eq!(back["trust"], receipt["models"][0]["trust"]);
    system.stop().await;
}

/// Neither its ejection, which costs the whole deposit, nor the rounds that it missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_washes_nothing_off() {
    let mut system = System::start().await;
    let (operator, store) = (system.operator(), system.cluster.client(0));
    system.stop_model(1).await;
    for _ in 0..3 {
        let id = system.open(0).await;
        system.report(0, &id, json!(0)).await.expect(200);
    }
    assert_eq!(system.find_model("knn").await["misses"], 3);
    // As after rounds in which it was wrong.
    let key = "/v1/kv/predict/model/knn";
    let mut record = store.get(key).await.expect(200).json();
    record["account"]["ejected"] = json!(true);
    let request = store.request(Method::PUT, key).body(record.to_string());
    store.send(request).await.expect(200);
    let leaving = operator.request(Method::DELETE, "/models/knn");
    operator.send(leaving).await.expect(200);
    let back = async |deposit: u64| {
        let body = json!({"name": "knn", "url": "http://127.0.0.1:9", "deposit": deposit});
        operator.post("/models", &body).await
    };
    let refused = back(999).await.refused(422, "invalid-request");
    assert_eq!(refused.pointers(), ["/deposit"]);
    let model = back(1000).await.expect(201).json();
    assert_eq!(
        (&model["misses"], &model["status"]),
        (&json!(3), &json!("active"))
    );
    // Whoever left without that may come back with less.
    let leaving = operator.request(Method::DELETE, "/models/logistic");
    operator.send(leaving).await.expect(200);
    let body = json!({"name": "logistic", "url": "http://127.0.0.1:10", "deposit": 500});
    operator.post("/models", &body).await.expect(201);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_of_the_configuration_is_asked_where_it_is_now() {
    let mut system = System::start().await;
    system.start_model_again(1).await;
    let moved = system.model(3).address;
    system.config.models[1].address = moved.to_string();
    system.stop_model(1).await;
    assert_eq!(system.said().await["absent"], json!(["knn"]));
    // A process that reads the new configuration tells all the others.
    system.start_consensus(2).await;
    wait_for("the model to be asked at its new place", async || {
        let model = system.find_model("knn").await;
        let there = model["url"] == format!("http://{moved}");
        there.then_some(()).ok_or(model)
    })
    .await;
    assert_eq!(system.said().await["absent"], json!([]));
    assert_eq!(system.find_model("knn").await["stake"], 1000);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_again_has_its_answer_kept() {
    let system = System::start().await;
    let operator = system.operator();
    let round = system.open(0).await;
    let leave = async || {
        let request = operator.request(Method::DELETE, "/models/knn");
        operator.send(request.header("idempotency-key", "again")).await
    };
    let plain = operator.request(Method::DELETE, "/models/knn");
    operator.send(plain).await.expect(200);
    let again = leave().await.expect(200);
    system.report(0, &round, json!(0)).await.expect(200);
    wait_for("the model to be paid out", async || {
        let left = system.find_model("knn").await;
        left.is_null().then_some(()).ok_or(left)
    })
    .await;
    assert_eq!(leave().await.expect(200).body, again.body);
    system.stop().await;
}
