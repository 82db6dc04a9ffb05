//! Adversaries in a real network: they lose their stake, and the consensus stays right.

use serde_json::json;

use crate::system::{HONEST, Plan, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_always_wrong_is_ejected_and_a_top_up_brings_it_back() {
    let mut models = HONEST.to_vec();
    models.push(("mallory", "tree", "always-wrong"));
    let plan = Plan {
        models,
        ..Plan::default()
    };
    let system = System::start_with(plan, |_config| {}).await;
    let mut rounds = 0;
    while system.find_model("mallory").await["status"] == "active" {
        let id = system.open(0).await;
        let receipt = system.report(0, &id, json!(0)).await.expect(200).json();
        assert_eq!(receipt["correct"], true, "{receipt}");
        rounds += 1;
        assert!(rounds <= 20, "{}", system.find_model("mallory").await);
    }
    assert!((14..=16).contains(&rounds), "{rounds}");
    let out = system.find_model("mallory").await;
    assert_eq!((&out["status"], &out["weight"]), (&json!("ejected"), &json!(0.0)));
    assert_eq!(out["trust"], 0.0);
    let id = system.open(0).await;
    let round = system
        .consensus(0)
        .get(&format!("/rounds/{id}"))
        .await
        .expect(200)
        .json();
    assert_eq!(round["absent"], json!(["mallory"]));
    let stake = out["stake_micro"].as_u64().unwrap();
    let missing = 1_000_000_000 - stake;
    let amount = format!("{}.{:06}", missing / 1_000_000, missing % 1_000_000);
    let body: serde_json::Value = serde_json::from_str(&format!("{{\"amount\": {amount}}}")).unwrap();
    let back = system.operator().post("/models/mallory/stake", &body).await;
    let back = back.expect(200);
    assert_eq!(back.json()["status"], "active");
    assert_eq!(back.json()["trust"], 0.0);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behaviours_do_what_their_names_say() {
    let plan = Plan {
        models: vec![
            ("honest", "naive-bayes", ""),
            ("copycat", "tree", "copy"),
            ("turncoat", "knn", "turn-bad-after 2"),
            ("dice", "knn", "random"),
        ],
        ..Plan::default()
    };
    let system = System::start_with(plan, |_config| {}).await;
    let target = format!("/predict?{}", crate::system::SETOSA);
    let says = async |index: usize| system.model(index).get(&target).await.expect(200).json();
    assert_eq!(says(1).await["probabilities"], says(0).await["probabilities"]);
    let turned: Vec<i64> = [says(2).await, says(2).await, says(2).await]
        .iter()
        .map(|said| said["prediction"].as_i64().unwrap())
        .collect();
    assert_eq!(turned, [0, 0, 1]);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        seen.insert(says(3).await["prediction"].as_i64().unwrap());
    }
    assert_eq!(seen.len(), 3);
    system.stop().await;
}
