//! One model over HTTP: every form of asking, and what is refused.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::Client;
use crate::system::{Plan, SETOSA, System, ask_text};

fn one(name: &'static str, kind: &'static str) -> Plan {
    Plan {
        models: vec![(name, kind, "")],
        ..Plan::default()
    }
}

fn sound(said: &Value) {
    let probabilities: Vec<f64> = said["probabilities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p.as_f64().unwrap())
        .collect();
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{said}");
    assert_eq!(said["prediction"], 0, "{said}");
    assert_eq!(said["label"], "setosa", "{said}");
    assert_eq!(said["classes"], json!(["setosa", "versicolor", "virginica"]));
    assert_eq!(said["confidence"], said["probabilities"][0]);
    assert_eq!(
        said["features"],
        json!({"sl": 5.1, "sw": 3.5, "pl": 1.4, "pw": 0.2})
    );
    assert!(
        said["model"]["version"].as_str().unwrap().starts_with("sha256:"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_of_asking_gets_the_same_answer() {
    let system = System::start_with(one("naive-bayes", "naive-bayes"), |_config| {}).await;
    let model = system.model(0);
    let said = model.get(&format!("/predict?{SETOSA}")).await.expect(200).json();
    sound(&said);
    assert_eq!(said["model"]["name"], "naive-bayes");
    let same = |other: Value| {
        for part in ["probabilities", "model", "prediction"] {
            assert_eq!(other[part], said[part]);
        }
    };
    let long = "/predict?sepal_length=5.1&sepal_width=3.5&petal_length=1.4&petal_width=0.2";
    same(model.get(long).await.expect(200).json());
    let by_name = json!({"sl": 5.1, "sw": 3.5, "pl": 1.4, "petal_width": 0.2});
    same(model.post("/predict", &by_name).await.expect(200).json());
    let list = json!({"features": [5.1, 3.5, 1.4, 0.2]});
    same(model.post("/predict", &list).await.expect(200).json());
    let many = json!({"instances": [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]});
    let many = model.post("/predict", &many).await.expect(200).json();
    same(many["predictions"][0].clone());
    assert_eq!(many["predictions"][1]["label"], "virginica");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_row_is_refused_in_words() {
    let system = System::start_with(one("knn", "knn"), |_config| {}).await;
    let model = system.model(0);
    for target in [
        "/predict",
        "/predict?sl=5.1&sw=3.5&pl=1.4",
        "/predict?sl=abc&sw=3.5&pl=1.4&pw=0.2",
        "/predict?sl=NaN&sw=3.5&pl=1.4&pw=0.2",
        "/predict?sl=inf&sw=3.5&pl=1.4&pw=0.2",
        "/predict?sl=1e999&sw=3.5&pl=1.4&pw=0.2",
        "/predict?sl=1&sl=2&sw=3.5&pl=1.4&pw=0.2",
    ] {
        let answer = model.get(target).await.expect(400);
        assert!(answer.json()["error"].is_string(), "{target}");
    }
    for body in [
        "{}",
        "{\"features\": [1, 2, 3]}",
        "{\"features\": [1, 2, 3, \"x\"]}",
        "{\"features\": [1, 2, 3, 1e999]}",
        "{\"features\": [1, 2, 3, null]}",
        "{\"instances\": []}",
        "{\"instances\": [[1, 2, 3]]}",
        "{\"sl\": \"5.1\", \"sw\": 1, \"pl\": 1, \"pw\": 1}",
        "{\"sl\": 5.1",
    ] {
        let answer = ask_text(&model, "/predict", body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        assert!(answer.json()["error"].is_string(), "{body}");
    }
    model.get("/predict/x").await.refused(404, "not-found");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_is_learned_once_and_kept_in_the_store() {
    let mut system = System::start_with(one("tree", "tree"), |_config| {}).await;
    let card = system.model(0).get("/model").await.expect(200).json();
    assert_eq!(card["name"], "tree");
    assert_eq!(card["data"]["rows"], 150);
    assert_eq!(card["data"]["rows_by_class"], json!([50, 50, 50]));
    assert!(
        card["cross_validated"]["accuracy"].as_f64().unwrap() > 0.9,
        "{card}"
    );
    assert!(
        card["cross_validated"]["log_loss"].as_f64().unwrap() < 0.5,
        "{card}"
    );
    assert_eq!(card["cross_validated"]["confusion"].as_array().unwrap().len(), 3);
    // A second process of the same recipe loads what the first has learned.
    system.start_model_again(0).await;
    let again = system.model(1).get("/model").await.expect(200).json();
    assert_eq!(again, card);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_model_that_is_damaged_is_learned_anew() {
    let mut system = System::start_with(one("naive-bayes", "naive-bayes"), |_config| {}).await;
    let store = system.cluster.client(0);
    let stored = async || {
        let all = "/v1/kv?prefix=predict/fitted/&keys_only=true";
        let all = store.get(all).await.expect(200).json();
        let keys = all["kvs"].as_array().unwrap().iter();
        let keys = keys.map(|kv| format!("/v1/kv/{}", kv["key"].as_str().unwrap()));
        keys.collect::<Vec<String>>()
    };
    let one_of = async |what: &str| stored().await.into_iter().find(|key| key.contains(what)).unwrap();
    let damage = async |key: String| {
        let request = store.request(Method::PUT, &key).body("{}");
        store.send(request).await.expect(200);
    };
    store.delete(&one_of("/part/").await).await.expect(200);
    system.start_model_again(0).await;
    damage(one_of("/part/").await).await;
    system.start_model_again(0).await;
    damage(one_of("/card").await).await;
    system.start_model_again(0).await;
    for process in 0..4 {
        let target = format!("/predict?{SETOSA}");
        sound(&system.model(process).get(&target).await.expect(200).json());
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_learned_from_another_table_has_its_columns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("penguins.csv");
    let mut text = "species,island,bill,mass\n".to_owned();
    for n in 0..20 {
        let (species, mass) = [("Adelie", 3700), ("Gentoo", 5000)][n % 2];
        let bill = if n == 7 {
            "NA".to_owned()
        } else {
            (38 + n % 2 * 9).to_string()
        };
        text.extend([species, ",Biscoe,", &bill, ",", &(mass + n).to_string(), "\n"]);
    }
    std::fs::write(&path, text).unwrap();
    let system = System::start_with(one("penguins", "forest"), |config| {
        let model = &mut config.models[0];
        path.to_str().unwrap().clone_into(&mut model.table);
        "species".clone_into(&mut model.label);
        "mean".clone_into(&mut model.impute);
        model.ignore = vec!["island".to_owned()];
        config.consensus.features = ["bill", "mass"].map(str::to_owned).to_vec();
        config.consensus.classes = ["Adelie", "Gentoo"].map(str::to_owned).to_vec();
    })
    .await;
    let model = system.model(0);
    let said = model.get("/predict?bill=47&mass=5010").await.expect(200).json();
    assert_eq!(
        (&said["label"], &said["classes"]),
        (&json!("Gentoo"), &json!(["Adelie", "Gentoo"]))
    );
    let refused = model
        .get("/predict?bill=47")
        .await
        .refused(400, "invalid-features");
    assert!(refused.text().contains("`mass` is missing"), "{}", refused.text());
    let card = model.get("/model").await.expect(200).json();
    assert_eq!(
        (&card["data"]["rows"], &card["features"]),
        (&json!(20), &json!(["bill", "mass"]))
    );
    assert_eq!(
        card["data"]["notes"],
        json!(["1 missing numbers are the mean of their column"])
    );
    let said = system
        .consensus(0)
        .get("/predict?bill=38&mass=3710")
        .await
        .expect(200);
    assert_eq!(said.json()["label"], "Adelie");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_tells_how_it_is() {
    let system = System::start_with(one("naive-bayes", "naive-bayes"), |_config| {}).await;
    let model = system.model(0);
    model.get("/livez").await.expect(200);
    model.get("/docs").await.expect(200);
    model.get(&format!("/predict?{SETOSA}")).await.expect(200);
    let metrics = model.get("/metrics").await.expect(200).text();
    assert!(
        metrics.contains("predictor_requests_total{route=\"/predict\",status=\"2xx\"} 1"),
        "{metrics}"
    );
    let stranger = Client::at(model.address, "a-token-that-nobody-gave-out");
    stranger.get("/metrics").await.refused(401, "unauthorized");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_models_answer_the_consensus_alone() {
    let system = System::start_with(Plan::default(), |config| config.consensus.private_models = true).await;
    let target = format!("/predict?{SETOSA}");
    system.model(0).get(&target).await.refused(401, "unauthorized");
    let said = system.consensus(0).get(&target).await.expect(200).json();
    assert_eq!(said["participants"].as_array().unwrap().len(), 3, "{said}");
    assert!(said.get("individual_predictions").is_none(), "{said}");
    // Nor from a round that is open, unless one may settle it.
    let id = system.open(0).await;
    let url = format!("http://{}/rounds/{id}", system.consensus(0).address);
    let http = service::http::client(Duration::from_secs(20));
    let shown = async || {
        let answer = http.get(&url).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        answer.json::<Value>().await.unwrap()
    };
    let open = shown().await;
    assert_eq!(open["participants"].as_array().unwrap().len(), 3, "{open}");
    assert!(open.get("individual_predictions").is_none(), "{open}");
    let target = format!("/rounds/{id}");
    for client in [system.operator(), system.consensus(0)] {
        let said = client.get(&target).await.expect(200).json();
        assert_eq!(said["individual_predictions"].as_array().unwrap().len(), 3);
    }
    let stranger = Client::at(system.consensus(0).address, "a-token-that-nobody-gave-out");
    stranger.get(&target).await.refused(401, "unauthorized");
    system.report(0, &id, json!(0)).await.expect(200);
    let settled = shown().await;
    assert_eq!(settled["individual_predictions"].as_array().unwrap().len(), 3);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_are_answered() {
    let system = System::start_with(one("forest", "forest"), |_config| {}).await;
    let model = system.model(0);
    let target = format!("/predict?{SETOSA}");
    let began = std::time::Instant::now();
    let asked = (0..200).map(|_| model.get(&target));
    for answer in futures_util::future::join_all(asked).await {
        sound(&answer.expect(200).json());
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    system.stop().await;
}
