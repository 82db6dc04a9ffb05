//! Requests byte by byte, for what no HTTP library would send.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Client, DEADLINE};

/// Sends one request with these further header lines, and reads the answer until the node closes.
pub(crate) async fn exchange(
    client: &Client,
    method: &str,
    target: &str,
    headers: &str,
    body: &[u8],
) -> String {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        client.token,
        body.len()
    );
    send(client, &[head.as_bytes(), body].concat()).await
}

pub(crate) async fn send(client: &Client, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(client.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let Ok(read) = reading else {
        panic!("not closed in time; so far: {text}")
    };
    // A reset after the answer is as good as a close.
    assert!(read.is_ok() || !text.is_empty(), "{read:?} before any answer");
    text
}

/// The same, saying that no more will come.
pub(crate) async fn send_and_end(client: &Client, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(client.address).await.unwrap();
    // A node that has closed already will not read the rest, which is its right.
    if stream.write_all(bytes).await.is_ok() {
        stream.shutdown().await.ok();
    }
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
    assert!(
        reading.is_ok(),
        "not closed in time after {:?}",
        String::from_utf8_lossy(bytes)
    );
    String::from_utf8_lossy(&answer).into_owned()
}
