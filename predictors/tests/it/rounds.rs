//! Asking all models, and opening rounds.

use std::net::SocketAddr;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::harness::{Client, wait_for};
use crate::system::{Plan, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_consensus_answers_as_a_model_does_and_tells_who_took_part() {
    let system = System::start().await;
    let said = system.said().await;
    assert_eq!(
        (&said["prediction"], &said["label"]),
        (&json!(0), &json!("setosa"))
    );
    assert_eq!(said["consensus_prediction"], 0);
    assert_eq!(said["participants"], json!(["knn", "logistic", "naive-bayes"]));
    assert_eq!(said["absent"], json!([]));
    assert_eq!(said["model"]["name"], "consensus");
    assert!(said.get("round_id").is_none());
    let one = &said["individual_predictions"][0];
    assert_eq!((&one["model"], &one["status"]), (&json!("knn"), &json!("ok")));
    assert_eq!(one["stake"], 1000);
    assert!(
        (one["weight"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-5,
        "{one}"
    );
    assert_eq!(system.check().await["open_rounds"], 0);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_is_stored_before_anything_of_it_is_told() {
    let system = System::start().await;
    let consensus = system.consensus(0);
    let body = json!({"features": [5.1, 3.5, 1.4, 0.2]});
    let answer = consensus.post("/predict", &body).await.expect(201);
    let said = answer.json();
    let id = said["round_id"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("/rounds/{id}"));
    assert!(said.get("individual_predictions").is_none());
    let round = consensus.get(&format!("/rounds/{id}")).await.expect(200).json();
    assert_eq!(round["state"], "closed");
    assert_eq!(round["individual_predictions"].as_array().unwrap().len(), 3);
    assert_eq!(round["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(round["features"]["pw"], 0.2);
    assert_eq!(system.check().await["open_rounds"], 1);
    for id in ["nonsense", "00000000000000000000000000000000", "a%2Fb"] {
        consensus
            .get(&format!("/rounds/{id}"))
            .await
            .refused(404, "round-not-found");
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_opens_one_round() {
    let system = System::start().await;
    let consensus = system.consensus(0);
    let send = async |features: [f64; 4]| {
        let request = consensus.request(Method::POST, "/predict");
        let request = request.header("idempotency-key", "one");
        consensus
            .send(request.json(&json!({ "features": features })))
            .await
    };
    let (one, two) = tokio::join!(send([5.1, 3.5, 1.4, 0.2]), send([5.1, 3.5, 1.4, 0.2]));
    let again = send([5.1, 3.5, 1.4, 0.2]).await.expect(201);
    let one = one.expect(201);
    assert_eq!(one.json(), two.expect(201).json());
    assert_eq!(one.json(), again.json());
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.header("location"), one.header("location"));
    send([6.3, 3.3, 6.0, 2.5])
        .await
        .refused(422, "idempotency-key-reused");
    assert_eq!(system.check().await["open_rounds"], 1);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_is_about_one_row() {
    let system = System::start().await;
    let row = [5.1, 3.5, 1.4, 0.2];
    let client = system.consensus(0);
    for rows in [json!([row, row]), json!([])] {
        let refused = client.post("/predict", &json!({ "instances": rows })).await;
        let told = refused.refused(400, "invalid-features").json();
        let detail = told["detail"].as_str().unwrap();
        assert!(detail.starts_with("A round is about one instance"), "{told}");
        assert_eq!(told["error"], detail);
    }
    let opened = client.post("/predict", &json!({"instances": [row]})).await;
    let mut told = opened.expect(201).json();
    // Who asks in a list reads the answer of a model there, as models answer it.
    let listed = told["predictions"].take();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 1);
    for (name, value) in listed[0].as_object().unwrap() {
        assert_eq!(&told[name], value, "{name}");
    }
    assert_eq!(listed[0]["label"], "setosa");
    let round = client
        .get(&format!("/rounds/{}", told["round_id"].as_str().unwrap()))
        .await;
    round.expect(200);
    let plain = client.post("/predict", &json!({ "features": row })).await;
    assert!(plain.expect(201).json()["predictions"].is_null());
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_of_whoever_sent_it() {
    let system = System::start().await;
    let url = format!("http://{}/predict", system.consensus(0).address);
    let http = service::http::client(std::time::Duration::from_secs(20));
    // Each about another flower, so that none could be taken for the repetition of another.
    let body = |sl: f64| json!({"features": [sl, 3.5, 1.4, 0.2]});
    for (sl, client) in [(5.0, system.operator()), (5.1, system.consensus(0))] {
        let request = client.request(Method::POST, "/predict").json(&body(sl));
        let request = request.header("idempotency-key", "one");
        client.send(request).await.expect(201);
    }
    let request = http.post(&url).header("idempotency-key", "one").json(&body(5.2));
    assert_eq!(request.send().await.unwrap().status().as_u16(), 201);
    let stranger = Client::at(system.consensus(0).address, "a-token-that-nobody-gave-out");
    let refused = stranger.post("/predict", &body(5.3)).await;
    refused.refused(401, "unauthorized");
    assert_eq!(system.check().await["open_rounds"], 3);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_rounds_are_bounded_and_expire_without_effect() {
    let system = System::start_with(Plan::default(), |config| {
        config.consensus.open_rounds_max = 3;
        config.consensus.round_s = 1;
    })
    .await;
    let mut rounds = Vec::new();
    for _ in 0..3 {
        rounds.push(system.open(0).await);
    }
    let body = json!({"features": [5.1, 3.5, 1.4, 0.2]});
    let full = system
        .consensus(0)
        .post("/predict", &body)
        .await
        .refused(429, "too-many-rounds");
    assert!(full.number("retry-after") >= 1);
    wait_for("all rounds to expire", async || {
        let open = system.check().await["open_rounds"].clone();
        (open == 0).then_some(()).ok_or(open)
    })
    .await;
    system
        .report(0, &rounds[0], json!(0))
        .await
        .refused(410, "round-expired");
    let round = system.consensus(0).get(&format!("/rounds/{}", rounds[0])).await;
    assert_eq!(round.expect(200).json()["state"], "expired");
    let ledger = system.check().await;
    assert_eq!(ledger["treasury"], 1000);
    system.stop().await;
}

/// More of them than are looked at in one go, and all due before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_that_cannot_be_read_keep_no_other_from_expiring() {
    let system = System::start_with(Plan::default(), |config| config.consensus.round_s = 1).await;
    let store = system.cluster.client(0);
    let put = |key: String, value: &str| json!({"put": {"key": key, "value": value}});
    let numbers: Vec<usize> = (0..510).collect();
    for some in numbers.chunks(60) {
        let puts = some.iter().flat_map(|number| {
            [
                put(format!("predict/round/{number:032x}"), "{}"),
                put(format!("predict/open/0000000000001/{number:032x}"), ";"),
            ]
        });
        let puts: Vec<Value> = puts.collect();
        store.txn(&json!({ "then": puts })).await.expect(200);
    }
    let round = system.open(0).await;
    wait_for("the round to expire", async || {
        let shown = system.consensus(0).get(&format!("/rounds/{round}")).await;
        let state = shown.expect(200).json()["state"].clone();
        (state == "expired").then_some(()).ok_or(state)
    })
    .await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_network_was_set_up_the_ledger_was_empty() {
    let system = System::start().await;
    let before = system.consensus(0).get("/ledger?revision=0").await.expect(200);
    let before = before.json();
    assert_eq!(
        (&before["supply_micro"], &before["conserved"]),
        (&json!(0), &json!(true))
    );
    system.stop().await;
}

/// Opens a round without any token, from one of the addresses of this machine.
async fn open_from(system: &System, from: [u8; 4]) -> (u16, Value) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    let mut stream = socket.connect(system.consensus(0).address).await.unwrap();
    let body = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;
    let request = format!(
        "POST /predict HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_head, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap())
}

async fn state_of(system: &System, said: &Value) -> Value {
    let id = said["round_id"].as_str().unwrap();
    let round = system.consensus(0).get(&format!("/rounds/{id}")).await;
    round.expect(200).json()["state"].clone()
}

/// The second address of the loopback device is there without being set up on Linux alone.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_can_fill_the_open_rounds_for_all() {
    let system = System::start_with(Plan::default(), |config| config.consensus.open_rounds_max = 3).await;
    let (greedy, other) = ([127, 0, 0, 1], [127, 0, 0, 2]);
    // Of a time when more were allowed, and before all others: these are not the only ones that are looked at.
    let store = system.cluster.client(0);
    for number in 0..3 {
        let at_ms = service::time::now_ms() + 60_000;
        let key = format!("/v1/kv/predict/open/{at_ms:013}/{number}");
        let request = store.request(Method::PUT, &key).body("knn;");
        store.send(request).await.expect(200);
    }
    let mut rounds = Vec::new();
    for _ in 0..3 {
        let (status, said) = open_from(&system, greedy).await;
        assert_eq!(status, 201, "{said}");
        rounds.push(said);
    }
    let (status, said) = open_from(&system, greedy).await;
    assert_eq!((status, &said["code"]), (429, &json!("too-many-rounds")));
    // Whoever holds fewer gets a place, but not more than half.
    let (status, said) = open_from(&system, other).await;
    assert_eq!(status, 201, "{said}");
    assert_eq!(state_of(&system, &rounds[0]).await, "expired");
    assert_eq!(state_of(&system, &rounds[1]).await, "closed");
    // Its outcome does not come too late.
    let ended = rounds[0]["round_id"].as_str().unwrap();
    let told = system.report(0, ended, json!(0)).await;
    let told = told.refused(410, "round-expired");
    assert!(told.text().contains("made room"), "{}", told.text());
    assert_eq!(open_from(&system, other).await.0, 429);
    // Whoever has a token gets all of them, and keeps them.
    for _ in 0..3 {
        system.open(0).await;
    }
    assert_eq!(state_of(&system, &said).await, "expired");
    assert_eq!(open_from(&system, other).await.0, 429);
    assert_eq!(system.check().await["open_rounds"], 3);
    system.stop().await;
}
