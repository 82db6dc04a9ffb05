//! What goes through the gateway arrives as it was sent, and comes back as it was answered.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{DEADLINE, wait_for};
use crate::instance::Mode;
use crate::system::System;

#[tokio::test]
async fn requests_and_answers_go_through_unchanged() {
    let system = System::start(1).await;
    let client = system.client();
    let request = client
        .request(Method::PUT, "/cart/7/item/%2F?x=1&y=%20")
        .header("cookie", "session=s")
        .header("x-forwarded-for", "6.6.6.6")
        .header("connection", "keep-alive, x-hop")
        .header("x-hop", "1")
        .body("{\"quantity\": 2}");
    let answer = client.send(request).await.expect(418);
    assert_eq!(answer.header("x-served-by"), "shop1");
    assert_eq!(answer.header("etag"), "\"5\"");
    let seen = answer.json();
    assert_eq!(seen["method"], "PUT");
    assert_eq!(seen["target"], "/cart/7/item/%2F?x=1&y=%20");
    assert_eq!(seen["body"], "{\"quantity\": 2}");
    let headers = &seen["headers"];
    assert_eq!(headers["cookie"], "session=s");
    assert_eq!(headers["host"], system.gateway.to_string());
    assert_eq!(
        headers["x-forwarded-for"], "127.0.0.1",
        "who calls is not for the caller to say"
    );
    assert!(headers["x-hop"].is_null());
    assert_eq!(headers["x-request-id"], answer.header("x-request-id"));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let system = System::start_with(1, |config| config.body_bytes_max = 1024).await;
    let client = system.client();
    let request = client.request(Method::POST, "/orders").body("x".repeat(1025));
    client.send(request).await.refused(413, "too-large");
    assert!(system.shops[0].seen().is_empty());
}

/// Room is for bodies that come, not for those that were only announced.
#[tokio::test]
async fn who_announces_a_body_and_sends_none_keeps_nobody_out() {
    const BYTES: usize = 4096;
    const IDLE: usize = 64;
    let system = System::start_with(1, |config| config.body_bytes_max = BYTES).await;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let mut stream = TcpStream::connect(system.gateway).await.unwrap();
        let head = format!(
            "POST /orders HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {BYTES}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // It is asked for once the gateway waits for it.
        let mut asked = [0; 12];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100");
        idle.push(stream);
    }
    let client = system.client();
    let post = client.request(Method::POST, "/orders").body(vec![b'x'; BYTES]);
    client.send(post).await.expect(418);
    assert_eq!(system.shops[0].seen(), ["POST /orders"]);
    drop(idle);
}

#[tokio::test]
async fn events_come_as_they_happen_and_end_when_the_gateway_stops() {
    let system = System::start(1).await;
    let http = service::http::client(service::http::Timeouts::default());
    let url = format!("http://{}/events", system.gateway);
    let answer = http.get(url).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut events = answer.bytes_stream();
    let first = tokio::time::timeout(Duration::from_secs(2), events.next()).await;
    assert_eq!(
        first.unwrap().unwrap().unwrap(),
        "id: 7\ndata: hello\n\n",
        "while the stream goes on"
    );
    system.tasks.stop();
    let end = tokio::time::timeout(DEADLINE, events.next()).await;
    assert!(end.unwrap().is_none_or(|piece| piece.is_err()));
}

/// What has begun when the gateway is told to stop comes to its end; nothing new begins.
#[tokio::test]
async fn requests_under_way_end_before_the_gateway_does() {
    let system = System::start(1).await;
    system.shops[0].set(Mode::Waits);
    let client = system.client();
    let order = client.request(Method::POST, "/orders").body("{}");
    let stopping = async {
        wait_for("the request to be under way", async || {
            let seen = system.shops[0].seen();
            (seen == ["POST /orders"]).then_some(()).ok_or(seen)
        })
        .await;
        system.tasks.stop();
        wait_for("the port to be closed", async || {
            match TcpStream::connect(system.gateway).await {
                Ok(_) => Err("it is open"),
                Err(_) => Ok(()),
            }
        })
        .await;
        system.shops[0].let_go();
    };
    let (answer, ()) = tokio::join!(client.send(order), stopping);
    assert_eq!(answer.expect(418).json()["target"], "/orders");
}
