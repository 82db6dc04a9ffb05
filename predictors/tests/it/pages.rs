//! The page, the documents, and rounds that are played for it.

use serde_json::{Value, json};

use crate::system::System;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_runs_nothing_but_its_own_script() {
    let system = System::start().await;
    let client = system.consensus(0);
    let page = client.get("/").await.expect(200);
    let html = page.text();
    assert!(
        page.header("content-security-policy")
            .contains("script-src 'self'")
    );
    assert!(
        !html.contains("<script>") && !html.contains("style=") && !html.contains("onclick"),
        "{html}"
    );
    assert_eq!(html.matches("type=\"range\"").count(), 4);
    assert!(html.contains("Play 50 rounds"));
    let script = client.get("/page.js").await.expect(200);
    assert!(script.header("content-type").starts_with("text/javascript"));
    assert!(!script.text().contains("innerHTML"));
    client.get("/page.css").await.expect(200);
    client.get("/icon.svg").await.expect(200);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_are_played_for_the_page_alone() {
    let system = System::start().await;
    let http = service::http::client(std::time::Duration::from_secs(20));
    let url = format!("http://{}/play", system.consensus(0).address);
    let play = async |site: &str| {
        let request = http
            .post(&url)
            .header("sec-fetch-site", site)
            .json(&json!({"rounds": 5}));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(play("cross-site").await, 403);
    assert_eq!(play("same-origin").await, 200);
    let oracle = system.consensus(0).post("/play", &json!({"rounds": 3})).await;
    assert_eq!(oracle.expect(200).json()["rounds"].as_array().unwrap().len(), 3);
    let ledger = system.check().await;
    assert_eq!(
        (&ledger["settlements"], &ledger["open_rounds"]),
        (&json!(8), &json!(0))
    );
    let history = system.consensus(0).get("/history").await.expect(200).json();
    assert_eq!(history.as_array().unwrap().len(), 8);
    system.stop().await;
}

/// Every refusal that the document tells is a kind of problem with that status.
fn check_document(document: &Value) {
    assert_eq!(document["openapi"], "3.1.0");
    let mut told = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item
            .as_object()
            .unwrap()
            .values()
            .filter(|value| value["responses"].is_object())
        {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let text = answer["description"].as_str().unwrap();
                let Some(list) = text.strip_prefix("Refused: ") else {
                    continue;
                };
                for code in list.split('`').skip(1).step_by(2) {
                    let kind = service::problem::by_code(code).unwrap_or_else(|| panic!("{code} of {path}"));
                    assert_eq!(kind.status.to_string(), *status, "{code} of {path}");
                    told += 1;
                }
            }
        }
    }
    assert!(told > 10, "only {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_tell_every_refusal_as_it_is() {
    let system = System::start().await;
    check_document(&system.consensus(0).get("/openapi.json").await.expect(200).json());
    check_document(&system.model(0).get("/openapi.json").await.expect(200).json());
    system.stop().await;
}
