//! Connections: bounds, bad heads, answers that nobody reads, and a stop that lets begun requests end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use service::serve::Limits;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::harness::{DEADLINE, Server, read_to_close};

const PING: &[u8] = b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n";
/// So many `small` lets in.
const CONNECTIONS: usize = 2;

fn ping() -> Router {
    Router::new().route("/ping", get(async || "pong"))
}

/// Takes few connections, and waits for no reader for long.
pub(crate) fn small() -> Limits {
    Limits {
        connections_max: CONNECTIONS,
        write_timeout: Duration::from_millis(100),
        ..Limits::default()
    }
}

/// Beside `ping`, a route whose answer is larger than all that waits between two ends.
pub(crate) fn large() -> Router {
    const PIECE: &[u8] = &[b'x'; 16 << 10];
    let pieces = async || Body::from_stream(stream::repeat(Ok::<_, Infallible>(Bytes::from_static(PIECE))));
    ping().route("/large", get(pieces))
}

/// Takes all places, each with an answer that begins and is read no further.
pub(crate) async fn ask_and_do_not_read<S: AsyncRead + AsyncWrite + Unpin>(
    connect: impl AsyncFn() -> S,
) -> Vec<S> {
    let mut deaf = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = connect().await;
        stream
            .write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        stream.flush().await.unwrap();
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
        deaf.push(stream);
    }
    deaf
}

/// Waits until there is room for one more connection.
async fn has_room(server: &Server) {
    let asking = async {
        loop {
            let request = b"GET /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            if server.exchange(request).await.starts_with("HTTP/1.1 200") {
                break;
            }
        }
    };
    timeout(DEADLINE, asking).await.expect("no place was given back");
}

/// A route that tells when it has begun and ends when it is let go.
struct Held {
    begun: Arc<Notify>,
    let_go: Arc<Notify>,
}

impl Held {
    fn new() -> (Self, Router) {
        let held = Self {
            begun: Arc::default(),
            let_go: Arc::default(),
        };
        let (begun, let_go) = (Arc::clone(&held.begun), Arc::clone(&held.let_go));
        let handler = async move || {
            begun.notify_one();
            let_go.notified().await;
            "held"
        };
        let routes = ping().route("/held", get(handler));
        (held, routes)
    }
}

#[tokio::test]
async fn a_stop_lets_a_begun_request_end_and_takes_no_new_connection() {
    let (held, routes) = Held::new();
    let server = Server::start(routes).await;
    let request = server
        .tasks
        .spawn("request", server.http.get(server.url("/held")).send());
    held.begun.notified().await;
    server.tasks.stop();
    let refused = async { while server.http.get(server.url("/ping")).send().await.is_ok() {} };
    timeout(DEADLINE, refused)
        .await
        .expect("new connections are still taken");
    assert!(
        !server.ended.is_finished(),
        "returned before the open request ended"
    );
    held.let_go.notify_one();
    let response = request.await.unwrap().unwrap();
    assert_eq!(response.text().await.unwrap(), "held");
    timeout(DEADLINE, server.ended).await.unwrap().unwrap().unwrap();
    assert!(server.tasks.drain(DEADLINE).await);
}

#[tokio::test]
async fn idle_and_unused_connections_do_not_delay_a_stop() {
    let server = Server::start(ping()).await;
    assert!(server.get("/ping").await.status().is_success());
    let mut unused = server.connect().await;
    let began = Instant::now();
    server.tasks.stop();
    timeout(DEADLINE, server.ended).await.unwrap().unwrap().unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "took {took:?}");
    assert_eq!(read_to_close(&mut unused).await, "");
}

#[tokio::test]
async fn a_request_that_comes_just_after_a_stop_is_answered_as_the_last() {
    let server = Server::start(ping()).await;
    let mut stream = server.connect().await;
    stream.write_all(PING).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"pong") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed early");
    }
    server.tasks.stop();
    // The pause is the point: without the grace, the connection is closed within it.
    tokio::time::sleep(Duration::from_millis(20)).await;
    stream.write_all(PING).await.unwrap();
    let last = read_to_close(&mut stream).await;
    assert!(
        last.ends_with("pong") && last.contains("connection: close"),
        "{last}"
    );
    timeout(DEADLINE, server.ended).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_without_end_is_cut_at_the_deadline() {
    let endless = async || Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let limits = Limits {
        drain_deadline: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = Server::start_with(Router::new().route("/endless", get(endless)), limits).await;
    let response = server.get("/endless").await;
    server.tasks.stop();
    timeout(DEADLINE, server.ended).await.unwrap().unwrap().unwrap();
    assert!(
        response.bytes().await.is_err(),
        "a cut body must not look complete"
    );
}

#[tokio::test]
async fn a_head_that_does_not_come_closes_the_connection() {
    let limits = Limits {
        header_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = Server::start_with(ping(), limits).await;
    let answer = server.exchange(b"GET /ping HTTP/1.1\r\nhos").await;
    assert!(!answer.contains("200"), "{answer}");
    assert!(server.get("/ping").await.status().is_success());
}

#[tokio::test]
async fn large_heads_are_refused_and_the_server_lives() {
    let server = Server::start(ping()).await;
    let send = async |bytes: usize| {
        let value = "x".repeat(bytes);
        let request = format!("GET /ping HTTP/1.1\r\nhost: x\r\nlong: {value}\r\nconnection: close\r\n\r\n");
        server.exchange(request.as_bytes()).await
    };
    assert!(send(15_000).await.starts_with("HTTP/1.1 200"));
    let refused = send(17_000).await;
    assert!(refused.starts_with("HTTP/1.1 431"), "{refused}");
    assert!(refused.contains("\"code\":\"headers-too-large\""), "{refused}");
    let refused = send(200_000).await;
    assert!(
        refused.is_empty() || refused.starts_with("HTTP/1.1 431"),
        "{refused}"
    );
    assert!(server.get("/ping").await.status().is_success());
}

#[tokio::test]
async fn a_head_that_is_too_large_is_told_so() {
    let server = Server::start(ping()).await;
    let send = async |line: &str, times: usize| {
        let lines = line.repeat(times);
        let request = format!("GET /ping HTTP/1.1\r\nhost: x\r\n{lines}connection: close\r\n\r\n");
        server.exchange(request.as_bytes()).await
    };
    let answer = send("a: b\r\n", 90).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let refused = send(&format!("a: {}\r\n", "0123456789".repeat(25)), 90).await;
    assert!(refused.starts_with("HTTP/1.1 431"), "{refused}");
    assert!(refused.contains("\"code\":\"headers-too-large\""), "{refused}");
    assert!(refused.contains("x-served-by: shell1\r\n"), "{refused}");
    assert!(refused.contains("x-request-id: "), "{refused}");
    // More lines than are read at all: room for them would have to be made for each request.
    let refused = send("a: b\r\n", 500).await;
    assert!(refused.starts_with("HTTP/1.1 431"), "{refused}");
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_the_server_lives() {
    let server = Server::start(ping()).await;
    for nonsense in [
        &b"\x16\x03\x01 hello\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        &[0; 64],
    ] {
        let answer = server.exchange(nonsense).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
    }
    assert!(server.get("/ping").await.status().is_success());
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_and_a_closed_one_makes_room() {
    let limits = Limits {
        connections_per_address_max: 2,
        ..Limits::default()
    };
    let server = Server::start_with(ping(), limits).await;
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    for stream in [&mut first, &mut second] {
        stream.write_all(PING).await.unwrap();
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
    }
    let mut third = server.connect().await;
    let refused = read_to_close(&mut third).await;
    let (head, body) = refused.split_once("\r\n\r\n").expect("an answer with a body");
    assert!(
        head.starts_with("HTTP/1.1 503") && head.contains("retry-after: 1"),
        "{head}"
    );
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{head}"
    );
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&body["code"], &body["status"]),
        (&"overloaded".into(), &503.into())
    );
    let id = body["request_id"].as_str().unwrap();
    assert!(
        head.contains(&format!("x-request-id: {id}")) && head.contains("x-served-by: shell1"),
        "{head}"
    );
    drop(first);
    has_room(&server).await;
}

#[tokio::test]
async fn who_does_not_read_the_answer_keeps_no_place() {
    let server = Server::start_with(large(), small()).await;
    let deaf = ask_and_do_not_read(async || server.connect_narrow().await).await;
    has_room(&server).await;
    drop(deaf);
}

/// Some megabytes wait in the kernel for a reader who was quick before.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn who_reads_slowly_is_waited_for() {
    let patience = Duration::from_secs(1);
    let limits = Limits {
        write_timeout: patience,
        ..Limits::default()
    };
    let server = Server::start_with(large(), limits).await;
    // A reader with a larger buffer says only after a larger part of it that there is room again.
    let mut stream = server.connect_holding(1 << 20).await;
    stream
        .write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut piece = vec![0; 64 << 10];
    for _ in 0..256 {
        stream.read_exact(&mut piece).await.unwrap();
    }
    let slowly = Instant::now();
    while slowly.elapsed() < 3 * patience {
        stream.read_exact(&mut piece).await.unwrap();
        tokio::time::sleep(patience / 10).await;
    }
    // All that waited could be read although it was cut off; more is still to come.
    let much = async {
        for _ in 0..256 {
            stream.read_exact(&mut piece).await.unwrap();
        }
    };
    timeout(DEADLINE, much).await.unwrap();
}

#[tokio::test]
async fn a_connection_is_kept_between_requests() {
    let server = Server::start(ping()).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(PING).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"pong") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed early");
        }
    }
}

/// Also when its body comes later, or this process was held meanwhile.
#[tokio::test]
async fn a_request_is_as_old_as_its_head() {
    const LATER: Duration = Duration::from_millis(50);
    let age = async |body: Bytes| {
        assert_eq!(body, "x");
        service::arrival::came().elapsed().as_millis().to_string()
    };
    let server = Server::start(Router::new().route("/age", axum::routing::put(age))).await;
    let mut stream = server.connect().await;
    let head = b"PUT /age HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\nconnection: close\r\n\r\n";
    stream.write_all(head).await.unwrap();
    // It says so once the head was taken and the body is asked for.
    let mut told = [0; 25];
    timeout(DEADLINE, stream.read_exact(&mut told))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    // The pause is the point.
    tokio::time::sleep(LATER).await;
    stream.write_all(b"x").await.unwrap();
    let answer = read_to_close(&mut stream).await;
    let age = answer.rsplit("\r\n").next().unwrap().parse::<u128>().unwrap();
    assert!(age >= LATER.as_millis(), "{answer}");
}
