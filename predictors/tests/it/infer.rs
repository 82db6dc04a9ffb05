//! The Open Inference Protocol.

use serde_json::json;

use crate::system::{Plan, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_knows_only_the_protocol_can_use_the_model() {
    let plan = Plan {
        models: vec![("logistic", "logistic", "")],
        ..Plan::default()
    };
    let system = System::start_with(plan, |_config| {}).await;
    let model = system.model(0);
    assert_eq!(model.get("/v2").await.expect(200).json()["name"], "menagerie");
    assert_eq!(
        model.get("/v2/health/live").await.expect(200).json(),
        json!({"live": true})
    );
    model.get("/v2/health/ready").await.expect(200);
    model.get("/v2/models/logistic/ready").await.expect(200);
    let about = model.get("/v2/models/logistic").await.expect(200).json();
    assert_eq!(about["inputs"][0]["shape"], json!([-1, 4]));
    assert_eq!(about["outputs"][1]["name"], "predict_proba");
    model
        .get("/v2/models/other")
        .await
        .refused(404, "model-not-found");
    let infer = |body: serde_json::Value| {
        let model = model.clone();
        async move { model.post("/v2/models/logistic/infer", &body).await }
    };
    let flat = json!({"id": "a", "inputs": [{
        "name": "features", "shape": [2, 4], "datatype": "FP64", "data": [5.1, 3.5, 1.4, 0.2, 6.3, 3.3, 6.0, 2.5],
    }]});
    let said = infer(flat).await.expect(200).json();
    assert_eq!(said["id"], "a");
    assert_eq!(said["model_name"], "logistic");
    let labels = json!({"name": "predict", "datatype": "INT64", "shape": [2], "data": [0, 2]});
    assert_eq!(said["outputs"][0], labels);
    assert_eq!(said["outputs"][1]["shape"], json!([2, 3]));
    assert_eq!(said["outputs"][1]["data"].as_array().unwrap().len(), 6);
    let nested = json!({"inputs": [{
        "name": "x", "shape": [1, 4], "datatype": "FP32", "data": [[5.1, 3.5, 1.4, 0.2]],
    }], "outputs": [{"name": "predict"}]});
    let said = infer(nested).await.expect(200).json();
    assert_eq!(said["outputs"].as_array().unwrap().len(), 1);
    for input in [
        json!({"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}),
        json!({"name": "x", "shape": [2, 4], "datatype": "FP64", "data": [1, 2, 3, 4]}),
        json!({"name": "x", "shape": [1, 4], "datatype": "BYTES", "data": ["a", "b", "c", "d"]}),
        json!({"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [1, 2, 3, null]}),
    ] {
        let answer = infer(json!({ "inputs": [input] }))
            .await
            .refused(400, "invalid-features");
        assert!(answer.json()["error"].is_string());
    }
    system.stop().await;
}

/// Each in its order, as an object has them: nobody who sends that means an input or an output.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_no_input_and_no_output() {
    let plan = Plan {
        models: vec![("logistic", "logistic", "")],
        ..Plan::default()
    };
    let system = System::start_with(plan, |_config| {}).await;
    let row = [5.1, 3.5, 1.4, 0.2];
    let input = json!({"name": "x", "shape": [1, 4], "datatype": "FP64", "data": row});
    for (body, pointer) in [
        (json!({"inputs": [["x", [1, 4], "FP64", row]]}), "/inputs/0"),
        (
            json!({"inputs": [input], "outputs": [{"name": "predict"}, ["predict"]]}),
            "/outputs/1",
        ),
    ] {
        let answer = system.model(0).post("/v2/models/logistic/infer", &body).await;
        let refused = answer.refused(422, "invalid-request");
        assert_eq!(refused.pointers(), [pointer]);
        assert!(refused.json()["error"].is_string());
    }
    system.stop().await;
}
