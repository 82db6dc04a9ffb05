//! Outcomes: settled exactly once, whoever reports, however often, and whatever dies meanwhile.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use service::tasks::Tasks;

use crate::harness::{Answer, Client, DEADLINE};
use crate::system::{Plan, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_is_settled_once() {
    let system = System::start().await;
    let round = system.open(0).await;
    let first = system.report(0, &round, json!(0)).await.expect(200);
    let receipt = first.json();
    assert_eq!(first.header("idempotent-replayed"), "");
    assert_eq!(
        (&receipt["correct"], &receipt["settlement"]),
        (&json!(true), &json!(0))
    );
    // All were right: each gains a thousandth from the treasury.
    assert_eq!(receipt["models"][0]["stake_micro"], 1_001_000_000_u64);
    assert_eq!(receipt["treasury_micro"], 997_000_000_u64);
    let again = system.report(0, &round, json!("setosa")).await;
    let again = again.expect(200);
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("idempotent-replayed"), "true");
    system
        .report(0, &round, json!("virginica"))
        .await
        .refused(409, "round-settled");
    let unknown = "0123456789abcdef0123456789abcdef";
    system
        .report(0, unknown, json!(0))
        .await
        .refused(404, "round-not-found");
    let shown = system
        .consensus(0)
        .get(&format!("/rounds/{round}"))
        .await
        .expect(200);
    let shown = shown.json();
    assert_eq!(
        (&shown["state"], &shown["outcome"]),
        (&json!("settled"), &json!(0))
    );
    assert_eq!(shown["receipt"], receipt);
    assert_eq!(system.check().await["settlements"], 1);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_oracle_knows_the_truth() {
    let system = System::start().await;
    let round = system.open(0).await;
    let body = json!({"round_id": round, "outcome": 0});
    system
        .operator()
        .post("/outcomes", &body)
        .await
        .refused(403, "forbidden");
    let stranger = Client::at(system.consensus(0).address, "a-token-that-nobody-gave-out");
    stranger
        .post("/outcomes", &body)
        .await
        .refused(401, "unauthorized");
    for outcome in [json!(3), json!(-1), json!("tulip"), json!(null), json!([0])] {
        let answer = system
            .report(0, &round, outcome)
            .await
            .refused(422, "invalid-request");
        assert_eq!(answer.json()["errors"][0]["pointer"], "/outcome");
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_settle_many_rounds_once_each() {
    let plan = Plan {
        consensus: 2,
        ..Plan::default()
    };
    let system = System::start_with(plan, |_config| {}).await;
    let rounds = join_all((0..60).map(|number| system.open(number % 2))).await;
    let reports = rounds.iter().enumerate().flat_map(|(number, round)| {
        // Both processes at once, and each of them twice.
        [0, 1, 0, 1].map(|instance| {
            let outcome = json!(number % 2);
            let system = &system;
            async move { system.report(instance, round, outcome).await }
        })
    });
    let answers: Vec<Answer> = join_all(reports).await;
    for four in answers.chunks(4) {
        let firsts = four
            .iter()
            .filter(|answer| answer.header("idempotent-replayed").is_empty());
        assert_eq!(firsts.count(), 1, "{four:?}");
        for answer in four {
            assert_eq!((answer.status, &answer.body), (200, &four[0].body));
        }
    }
    let ledger = system.check().await;
    assert_eq!(
        (&ledger["settlements"], &ledger["open_rounds"]),
        (&json!(60), &json!(0))
    );
    history_is_whole(&system, 60).await;
    system.stop().await;
}

/// Page by page towards the beginning, every settlement once.
async fn history_is_whole(system: &System, settlements: u64) {
    let client = system.consensus(0);
    let mut target = "/history?limit=7".to_owned();
    let mut seen: Vec<u64> = Vec::new();
    loop {
        let answer = client.get(&target).await.expect(200);
        let page = answer.json();
        let numbers = page.as_array().unwrap().iter().rev();
        seen.extend(numbers.map(|row| row["settlement"].as_u64().unwrap()));
        let link = answer.header("link");
        let Some(next) = link.strip_prefix('<').and_then(|link| link.split_once('>')) else {
            break;
        };
        next.0.clone_into(&mut target);
    }
    assert_eq!(seen, (0..settlements).rev().collect::<Vec<_>>());
    // What was escaped in the question is so in the way to the next page.
    let page = client.get("/history?model=k%6En&limit=7").await.expect(200);
    assert_eq!(page.json().as_array().unwrap().len(), 7);
    assert!(page.header("link").contains("model=k%6En&"), "{page:?}");
    let one = client
        .get("/history?model=knn&limit=200")
        .await
        .expect(200)
        .json();
    let rows = one.as_array().unwrap();
    assert_eq!(rows.len() as u64, settlements);
    assert!(
        rows.iter()
            .all(|row| row["model"] == "knn" && row["stake_micro"].is_u64())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_while_settling_leaves_nothing_half_done() {
    let plan = Plan {
        consensus: 3,
        ..Plan::default()
    };
    let mut system = System::start_with(plan, |_config| {}).await;
    let rounds = join_all((0..40).map(|_| system.open(0))).await;
    // Both are cut down in the middle of this; what they were told may have happened or not.
    let urge = Tasks::new();
    for (number, round) in rounds.iter().enumerate() {
        let client = system.consensus(number % 2);
        let body = json!({"round_id": round, "outcome": 0});
        urge.spawn("report", async move {
            let request = client.request(Method::POST, "/outcomes").json(&body);
            let _whatever = request.send().await;
        });
    }
    tokio::time::sleep(Duration::from_millis(8)).await;
    system.kill_consensus(0).await;
    system.kill_consensus(1).await;
    assert!(urge.drain(DEADLINE).await, "a report hangs");
    for round in &rounds {
        let body = json!({"round_id": round, "outcome": 0});
        let answer = system.consensus(2).post("/outcomes", &body).await;
        assert_eq!(answer.expect(200).json()["round_id"], **round);
    }
    let ledger = system.check().await;
    assert_eq!(
        (&ledger["settlements"], &ledger["open_rounds"]),
        (&json!(40), &json!(0))
    );
    system.stop().await;
}

/// As after fewer models may take part than there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_that_do_not_fit_beside_the_models_are_settled_next() {
    let mut system = System::start().await;
    system.config.consensus.models_max = 1;
    system.config.limits.txn_ops_max = 14;
    system.start_consensus(2).await;
    let rounds = join_all((0..12).map(|_| system.open(1))).await;
    let reports = rounds.iter().map(|round| system.report(1, round, json!(0)));
    for answer in join_all(reports).await {
        answer.expect(200);
    }
    assert_eq!(system.check().await["settlements"], 12);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_of_other_classes_ends_without_an_outcome() {
    let plan = Plan {
        models: Vec::new(),
        ..Plan::default()
    };
    let mut system = System::start_with(plan, |config| {
        config.consensus.classes = ["no", "yes"].map(str::to_owned).to_vec();
    })
    .await;
    let two = r#"{"probabilities": [0.5, 0.5]}"#.to_owned();
    system.add_liar("two", two).await.expect(201);
    let older = system.open(0).await;
    system.config.consensus.classes.push("perhaps".to_owned());
    system.start_consensus(2).await;
    let told = system.report(1, &older, json!(2)).await;
    let told = told.refused(410, "round-expired");
    assert!(told.text().contains("other classes"), "{}", told.text());
    let three = r#"{"probabilities": [0, 0, 1]}"#.to_owned();
    system.add_liar("three", three).await.expect(201);
    let newer = system.open(1).await;
    // Also a process that knows two classes shows a round of three.
    let shown = system.consensus(0).get(&format!("/rounds/{newer}")).await;
    let shown = shown.expect(200).json();
    assert_eq!((&shown["prediction"], &shown["label"]), (&json!(2), &json!(null)));
    system.report(1, &newer, json!(2)).await.expect(200);
    system.stop().await;
}

/// By a record that this service would never write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_does_not_end_settling() {
    let system = System::start().await;
    let round = system.open(0).await;
    let store = system.cluster.client(0);
    let key = "/v1/kv/predict/model/knn";
    let whole = store.get(key).await.expect(200);
    let mut damaged = whole.json();
    damaged["account"]["trust"]["scores"] = json!(u64::MAX);
    let put = async |value: String| {
        let request = store.request(Method::PUT, key).body(value);
        store.send(request).await.expect(200);
    };
    put(damaged.to_string()).await;
    let failed = system.report(0, &round, json!(0)).await;
    failed.refused(503, "outcome-unknown");
    put(whole.text()).await;
    system.consensus(0).get("/readyz").await.expect(200);
    system.report(0, &round, json!(0)).await.expect(200);
    system.stop().await;
}
