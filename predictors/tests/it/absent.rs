//! Models that are dead, slow, or say what cannot be: absent, with the reason shown, and no harm to the others.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::system::{HONEST, Plan, SETOSA, System};

fn with(name: &'static str, behave: &'static str) -> Plan {
    let mut models = HONEST.to_vec();
    models.push((name, "tree", behave));
    Plan {
        models,
        ..Plan::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_costs_the_deadline_and_no_more() {
    let system = System::start_with(with("sleepy", "sleep"), |config| config.consensus.round_ms = 200).await;
    let consensus = system.consensus(0);
    let target = format!("/predict?{SETOSA}");
    consensus.get(&target).await.expect(200);
    let began = Instant::now();
    let said = consensus.get(&target).await.expect(200).json();
    let took = began.elapsed();
    // Less than two of them, on a machine that runs other tests beside this one.
    assert!(
        took >= Duration::from_millis(200) && took < Duration::from_millis(400),
        "{took:?}"
    );
    assert_eq!(said["absent"], json!(["sleepy"]));
    assert_eq!(
        said["absent_reasons"]["sleepy"],
        "timeout: no answer within 200 ms"
    );
    assert_eq!(said["prediction"], 0);
    // It still can be stopped in an orderly way.
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_slower_than_the_round_is_absent_and_one_that_is_faster_is_not() {
    let system = System::start_with(with("slow", "slow 40"), |_config| {}).await;
    let said = system.said().await;
    assert_eq!(said["participants"].as_array().unwrap().len(), 4, "{said}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_dead_wagers_nothing_and_leaks_after_ten_misses() {
    let mut system = System::start().await;
    system.stop_model(0).await;
    for round in 0..12_u64 {
        let id = system.open(0).await;
        let receipt = system.report(0, &id, json!(0)).await.expect(200).json();
        let models = receipt["models"].as_array().unwrap();
        let dead = models
            .iter()
            .find(|model| model["model"] == "naive-bayes")
            .unwrap();
        assert_eq!(dead["right"], json!(null), "{receipt}");
        // 0.16 % of the stake, from the eleventh on.
        let lost = dead["lost_micro"].as_u64().unwrap();
        assert_eq!(lost > 0, round >= 10, "round {round}: {dead}");
        assert_eq!(dead["trust"], 0.500_002);
    }
    let said = system.said().await;
    assert_eq!(said["absent_reasons"]["naive-bayes"], "timeout: no connection");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_says_what_cannot_be_is_absent_with_the_reason() {
    let system = System::start().await;
    let large = format!(
        r#"{{"probabilities": [1, 0, 0], "padding": "{}"}}"#,
        "x".repeat(70_000)
    );
    let lies = [
        ("nan", r#"{"probabilities": [NaN, 0.5, 0.5]}"#.to_owned()),
        ("null", r#"{"probabilities": [null, 0.5, 0.5]}"#.to_owned()),
        ("short", r#"{"probabilities": [0.5, 0.5]}"#.to_owned()),
        ("negative", r#"{"probabilities": [-0.5, 1.0, 0.5]}"#.to_owned()),
        ("sum", r#"{"probabilities": [0.5, 0.5, 0.5]}"#.to_owned()),
        ("huge", r#"{"probabilities": [1e999, 0, 0]}"#.to_owned()),
        ("words", "I am sure it is a rose".to_owned()),
        (
            "foreign",
            r#"{"probabilities": [1, 0, 0], "classes": ["a", "b", "c"]}"#.to_owned(),
        ),
        ("large", large),
    ];
    for (name, body) in &lies {
        system.add_liar(name, body.clone()).await.expect(201);
    }
    let said = system.said().await;
    assert_eq!(said["participants"].as_array().unwrap().len(), 3, "{said}");
    let reasons = &said["absent_reasons"];
    for (name, _) in &lies {
        assert!(
            reasons[name].as_str().unwrap().starts_with("invalid: "),
            "{name}: {reasons}"
        );
    }
    assert_eq!(
        reasons["short"],
        "invalid: the probabilities are not as many as there are classes"
    );
    assert_eq!(reasons["sum"], "invalid: the probabilities do not sum to 1");
    assert_eq!(reasons["foreign"], "invalid: it speaks of other classes");
    assert_eq!(reasons["large"], "invalid: its answer is larger than 65536 bytes");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nobody_there_the_consensus_says_so() {
    let mut system = System::start().await;
    for model in 0..3 {
        system.stop_model(model).await;
    }
    let answer = system
        .consensus(0)
        .get(&format!("/predict?{SETOSA}"))
        .await
        .refused(503, "no-models");
    assert_eq!(answer.json()["absent"]["knn"], "timeout: no connection");
    system.stop().await;
}
