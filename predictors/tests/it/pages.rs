//! The page, the documents, and rounds that are played for it.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::harness::wait_for;
use crate::system::{Plan, System};

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

/// As the page asks, with a connection of its own.
async fn ask_as_the_page(system: &System, target: &str, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(system.consensus(0).address).await.unwrap();
    let body = body.to_string();
    let request = format!(
        "POST {target} HTTP/1.1\r\nhost: here\r\nsec-fetch-site: same-origin\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_away_in_mid_play_leaves_no_round_open() {
    let system = System::start().await;
    let stream = ask_as_the_page(&system, "/play", &json!({"rounds": 30})).await;
    wait_for("the play to begin", async || {
        let ledger = system.check().await;
        let begun = ledger["settlements"] != 0 || ledger["open_rounds"] != 0;
        begun.then_some(()).ok_or(ledger)
    })
    .await;
    drop(stream);
    wait_for("the play to end", async || {
        let ledger = system.check().await;
        let ended = ledger["settlements"] == 30 && ledger["open_rounds"] == 0;
        ended.then_some(()).ok_or(ledger)
    })
    .await;
    system.stop().await;
}

/// Whoever says that they are the page gets no better place than anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_of_the_page_crowd_nobody_out() {
    let system = System::start_with(Plan::default(), |config| config.consensus.open_rounds_max = 1).await;
    let url = |target: &str| format!("http://{}{target}", system.consensus(0).address);
    let http = service::http::client(std::time::Duration::from_secs(20));
    let flower = json!({"features": [5.1, 3.5, 1.4, 0.2]});
    let opened = http.post(url("/predict")).json(&flower).send().await.unwrap();
    assert_eq!(opened.status().as_u16(), 201);
    let play = http.post(url("/play")).header("sec-fetch-site", "same-origin");
    let refused = play.json(&json!({"rounds": 1})).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 429);
    assert_eq!(system.check().await["open_rounds"], 1);
    // The oracle does.
    let oracle = system.consensus(0).post("/play", &json!({"rounds": 1})).await;
    oracle.expect(200);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_with_a_key_are_played_once() {
    let system = System::start().await;
    let oracle = system.consensus(0);
    let play = async |rounds: u64| {
        let request = oracle.request(Method::POST, "/play");
        let request = request.header("idempotency-key", "play-1");
        oracle.send(request.json(&json!({ "rounds": rounds }))).await
    };
    let first = play(3).await.expect(200);
    assert_eq!(first.header("idempotent-replayed"), "");
    let again = play(3).await.expect(200);
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("idempotent-replayed"), "true");
    play(4).await.refused(422, "idempotency-key-reused");
    assert_eq!(system.check().await["settlements"], 3);
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
