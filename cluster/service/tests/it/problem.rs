//! Problems on the wire and the pages that explain them.

use axum::Router;
use axum::body::to_bytes;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use insta::assert_snapshot;
use reqwest::StatusCode;
use serde_json::Value;
use service::problem::{self, Problem};

use crate::harness::Server;

async fn shown(response: Response) -> String {
    let status = response.status();
    let mut headers: Vec<String> = Vec::new();
    for (name, value) in response.headers() {
        headers.push(format!("{name}: {}", value.to_str().unwrap()));
    }
    headers.sort();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    assert!(body["request_id"].is_string());
    body["request_id"] = "…".into();
    format!("{status}\n{}\n{body}", headers.join("\n"))
}

#[tokio::test]
async fn a_problem_tells_all_faults_at_once() {
    let problem = Problem::new(problem::INVALID_REQUEST, "Two fields are wrong.")
        .fault("/ttl_ms", "must be at least 500")
        .fault("/pin", "must not be negative");
    assert_snapshot!(shown(problem.into_response()).await, @r#"
    422 Unprocessable Entity
    content-type: application/problem+json
    {"code":"invalid-request","detail":"Two fields are wrong.","errors":[{"detail":"must be at least 500","pointer":"/ttl_ms"},{"detail":"must not be negative","pointer":"/pin"}],"request_id":"…","status":422,"title":"Invalid request","type":"/problems/invalid-request"}
    "#);
}

#[tokio::test]
async fn extra_members_and_headers_are_sent_but_replace_nothing() {
    let problem = Problem::new(problem::PRECONDITION_FAILED, "The key has changed.")
        .extra("revision", 17)
        .extra("status", 200)
        .header(header::ETAG, HeaderValue::from_static("\"17\""));
    assert_snapshot!(shown(problem.into_response()).await, @r#"
    412 Precondition Failed
    content-type: application/problem+json
    etag: "17"
    {"code":"precondition-failed","detail":"The key has changed.","request_id":"…","revision":17,"status":412,"title":"Precondition failed","type":"/problems/precondition-failed"}
    "#);
}

#[tokio::test]
async fn retries_are_told_in_whole_seconds_and_at_least_one() {
    let seconds = |problem: Problem| {
        let response = problem.into_response();
        let value = response.headers().get(header::RETRY_AFTER).cloned();
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    let overloaded = Problem::new(problem::OVERLOADED, "");
    assert_eq!(seconds(overloaded.clone()).as_deref(), Some("1"));
    assert_eq!(
        seconds(overloaded.clone().retry_after_ms(50)).as_deref(),
        Some("1")
    );
    assert_eq!(seconds(overloaded.retry_after_ms(1001)).as_deref(), Some("2"));
    let slower = Problem::new(problem::TOO_MANY_REQUESTS, "");
    assert_eq!(seconds(slower).as_deref(), Some("1"));
    assert_eq!(seconds(Problem::new(problem::CONFLICT, "")), None);
}

#[tokio::test]
async fn who_is_not_signed_in_learns_how() {
    let response = Problem::new(problem::UNAUTHORIZED, "Send a token.").into_response();
    assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
}

#[tokio::test]
async fn each_kind_has_a_page_for_people_and_one_for_curl() {
    let server = Server::start(Router::new()).await;
    for kind in problem::ALL {
        let path = format!("/problems/{}", kind.code);
        let text = server.get(&path).await;
        assert_eq!(text.headers()["content-type"], "text/plain; charset=utf-8");
        assert!(text.text().await.unwrap().contains(kind.help));
        let request = server.http.get(server.url(&path));
        let html = request
            .header("accept", "text/html,*/*;q=0.8")
            .send()
            .await
            .unwrap();
        assert_eq!(html.headers()["content-type"], "text/html; charset=utf-8");
        let html = html.text().await.unwrap();
        assert!(html.starts_with("<!doctype html>") && html.contains(kind.code));
        assert!(!html.contains("<script") && !html.contains("http://") && !html.contains("https://"));
    }
    let unknown = server.get("/problems/no-such-thing").await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_page_reads_well() {
    let server = Server::start(Router::new()).await;
    let page = server.get("/problems/outcome-unknown").await;
    assert_snapshot!(page.text().await.unwrap(), @r"
    Outcome unknown (outcome-unknown, status 503)

    The write was handed on, but the node could not learn what became of it: the leader was lost or the time ran out. It may have been done or may still be done. Repeat it with the same Idempotency-Key, which is always safe, or read what you wanted to change.
    ");
}
