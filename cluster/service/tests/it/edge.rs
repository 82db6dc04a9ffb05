//! What all answers have in common: ids, names, and problems in place of bare refusals.

use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use insta::assert_snapshot;
use reqwest::{Response, StatusCode};
use serde_json::Value;
use service::tasks::Tasks;

use crate::harness::Server;

fn routes() -> Router {
    Router::new()
        .route("/ping", get(async || "pong"))
        .route("/id", get(async || service::edge::request_id()))
        .route("/begun", get(begun))
        .route(
            "/number/{number}",
            get(async |Path(number): Path<u8>| number.to_string()),
        )
        .route("/only-post", post(async || "posted"))
        .route("/panic", get(panics))
        .route(
            "/passed-on",
            get(async || ([("x-served-by", "shell2")], "from another")),
        )
}

async fn panics() -> &'static str {
    panic!("on purpose");
}

/// The ids that a task sees, and what that task begins on a thread of its own.
async fn begun() -> String {
    let (tasks, below) = (Tasks::new(), Tasks::new());
    let task = tasks.spawn("task", async move {
        let blocking = below.spawn_blocking("blocking", service::edge::request_id);
        let blocking = blocking.await.unwrap();
        format!("{} {blocking}", service::edge::request_id())
    });
    task.await.unwrap()
}

async fn problem(response: Response) -> String {
    let status = response.status();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let mut body: Value = response.json().await.unwrap();
    assert_eq!(content_type, "application/problem+json");
    assert_eq!(
        body["request_id"], id,
        "the body names another request than the header"
    );
    body["request_id"] = "…".into();
    format!("{status}\n{body}")
}

#[tokio::test]
async fn every_answer_names_its_request_and_its_process() {
    let server = Server::start(routes()).await;
    let response = server.get("/ping").await;
    assert_eq!(response.headers()["x-served-by"], "shell1");
    let first = response.headers()["x-request-id"].clone();
    let second = server.get("/ping").await.headers()["x-request-id"].clone();
    assert_ne!(first, second);
}

#[tokio::test]
async fn the_callers_request_id_is_taken_over_when_it_is_sound() {
    let server = Server::start(routes()).await;
    let send = async |id: &str| {
        let request = server.http.get(server.url("/id")).header("x-request-id", id);
        let response = request.send().await.unwrap();
        let header = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let seen = response.text().await.unwrap();
        assert_eq!(header, seen, "the handler saw another id than the caller");
        seen
    };
    assert_eq!(send("order-17").await, "order-17");
    assert_ne!(send("two words").await, "two words");
    let too_long = "x".repeat(129);
    assert_ne!(send(&too_long).await, too_long);
}

/// Also where whoever asked does not wait for it.
#[tokio::test]
async fn what_a_request_begins_goes_on_under_its_id() {
    let server = Server::start(routes()).await;
    let request = server.http.get(server.url("/begun"));
    let response = request.header("x-request-id", "order-17").send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "order-17 order-17");
    // Outside of any request there is nothing to go on with.
    let told = begun().await;
    let (one, other) = told.split_once(' ').unwrap();
    assert_ne!(one, other);
}

#[tokio::test]
async fn an_answer_passed_on_keeps_its_name() {
    let server = Server::start(routes()).await;
    let response = server.get("/passed-on").await;
    assert_eq!(response.headers()["x-served-by"], "shell2");
}

#[tokio::test]
async fn an_unknown_route_is_a_problem() {
    let server = Server::start(routes()).await;
    let response = server.get("/nowhere?token=secret").await;
    assert_eq!(response.headers()["x-served-by"], "shell1");
    assert_snapshot!(problem(response).await, @r#"
    404 Not Found
    {"code":"not-found","detail":"There is no such route here.","request_id":"…","status":404,"title":"Not found","type":"/problems/not-found"}
    "#);
}

#[tokio::test]
async fn a_wrong_method_is_a_problem_that_says_which_are_allowed() {
    let server = Server::start(routes()).await;
    let response = server.get("/only-post").await;
    assert_eq!(response.headers()["allow"], "POST");
    assert_snapshot!(problem(response).await, @r#"
    405 Method Not Allowed
    {"code":"method-not-allowed","detail":"This path does not take this method; the header Allow lists those it takes.","request_id":"…","status":405,"title":"Method not allowed","type":"/problems/method-not-allowed"}
    "#);
    let request = server.http.delete(server.url("/ping"));
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["allow"], "GET,HEAD");
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_parameter_that_cannot_be_read_is_a_problem() {
    let server = Server::start(routes()).await;
    assert_snapshot!(problem(server.get("/number/many").await).await, @r#"
    400 Bad Request
    {"code":"malformed-parameter","detail":"A part of the path or of the query cannot be read.","request_id":"…","status":400,"title":"Malformed parameter","type":"/problems/malformed-parameter"}
    "#);
    let not_utf8 = server.get("/number/%ff").await;
    assert_eq!(not_utf8.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_panic_answers_internal_and_the_next_request_is_served() {
    let server = Server::start(routes()).await;
    assert_snapshot!(problem(server.get("/panic").await).await, @r#"
    500 Internal Server Error
    {"code":"internal","detail":"Something went wrong here; the log has it under this request id.","request_id":"…","status":500,"title":"Internal error","type":"/problems/internal"}
    "#);
    assert_eq!(server.get("/ping").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn livez_needs_nothing() {
    let server = Server::start(routes()).await;
    let response = server.get("/livez").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.text().await.unwrap(), "alive\n");
}

/// The head of an answer, without the lines that are the connection's, and its body.
async fn told(server: &Server, method: &str, path: &str) -> (Vec<String>, String) {
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nx-request-id: r1\r\nconnection: close\r\n\r\n");
    let answer = server.exchange(request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
    let of_the_connection = |line: &&str| line.starts_with("date: ") || line.starts_with("connection: ");
    let lines = head.lines().filter(|line| !of_the_connection(line));
    (lines.map(str::to_owned).collect(), body.to_owned())
}

/// Each byte of it: callers may have come to rely on any.
#[tokio::test]
async fn what_all_answers_say_stands_in_the_same_order_and_without_a_body_too() {
    let server = Server::start(routes()).await;
    let (text, problem) = ("text/plain; charset=utf-8", "application/problem+json");
    for (path, first, content_type) in [
        ("/ping", "HTTP/1.1 200 OK", text),
        ("/nowhere", "HTTP/1.1 404 Not Found", problem),
        ("/only-post", "HTTP/1.1 405 Method Not Allowed", problem),
        ("/panic", "HTTP/1.1 500 Internal Server Error", problem),
        ("/number/many", "HTTP/1.1 400 Bad Request", problem),
    ] {
        let (head, body) = told(&server, "GET", path).await;
        let mut expected = vec![first.to_owned(), format!("content-type: {content_type}")];
        expected.extend(["x-request-id: r1".to_owned(), "x-served-by: shell1".to_owned()]);
        expected.extend((path == "/only-post").then(|| "allow: POST".to_owned()));
        expected.push(format!("content-length: {}", body.len()));
        assert_eq!(head, expected);
        assert!(!body.is_empty());
        assert_eq!(told(&server, "HEAD", path).await, (head, String::new()));
    }
    let (head, body) = told(&server, "GET", "/passed-on").await;
    let expected = [
        "HTTP/1.1 200 OK",
        "content-type: text/plain; charset=utf-8",
        "x-served-by: shell2",
        "x-request-id: r1",
        "content-length: 12",
    ];
    assert_eq!(
        (head.as_slice(), body.as_str()),
        (&expected.map(str::to_owned)[..], "from another")
    );
}
