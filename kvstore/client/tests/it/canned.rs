//! A server on port 0 whose answers the test writes: real sockets, real cuts, no store.
//! Invariant: every request that arrived is handed to the script exactly once.

use bytes::Bytes;
use kvstore_client::KvClient;
use serde_json::{Value, json};
use service::tasks::Tasks;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// `METHOD target`
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) enum Reply {
    Answer(u16, Vec<(&'static str, String)>, Bytes),
    /// 200, after this long.
    Late(Duration, Bytes),
    /// The status and the other headers, after this long; of the body that they promise nothing comes.
    Head(Duration, u16),
    /// Reads the request and closes the connection.
    Cut,
    /// Reads the request and says nothing for ever.
    Hang,
    /// Says what the test sends, until the test drops its end.
    Stream(mpsc::Receiver<Bytes>),
    /// The same, as changes of this cluster.
    StreamOf(String, mpsc::Receiver<Bytes>),
}

pub(crate) fn ok(body: Value) -> Reply {
    Reply::Answer(200, Vec::new(), body.to_string().into())
}

pub(crate) fn problem(status: u16, code: &str) -> Reply {
    let body = json!({"type": format!("/problems/{code}"), "title": code, "status": status, "detail": "", "code": code});
    Reply::Answer(status, Vec::new(), body.to_string().into())
}

/// A stream that says all of `text` and then ends.
pub(crate) fn cut_stream(text: &str) -> Reply {
    let (tx, rx) = mpsc::channel(1);
    tx.try_send(Bytes::copy_from_slice(text.as_bytes())).unwrap();
    Reply::Stream(rx)
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

/// Ends with the test.
pub(crate) struct Canned {
    pub(crate) address: String,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    tasks: Tasks,
}

impl Drop for Canned {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Canned {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tasks = Tasks::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let (set, log) = (tasks.clone(), seen.clone());
        tasks.spawn("canned server", async move {
            loop {
                let (socket, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    () = set.stopping() => return,
                };
                let (script, log, stop) = (script.clone(), log.clone(), set.clone());
                set.spawn("canned connection", async move {
                    tokio::select! {
                        () = serve(socket, &*script, &log) => {}
                        () = stop.stopping() => {}
                    }
                });
            }
        });
        Self { address, seen, tasks }
    }

    /// A server that plays its replies in turn, the last one again and again.
    pub(crate) async fn replies(replies: Vec<fn() -> Reply>) -> Self {
        let turn = Mutex::new(0);
        Self::start(move |_| {
            let mut turn = turn.lock().unwrap();
            let reply = replies[(*turn).min(replies.len() - 1)];
            *turn += 1;
            reply()
        })
        .await
    }

    pub(crate) fn client(&self) -> KvClient {
        KvClient::builder([&self.address])
            .token("secret")
            .build()
            .unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(Seen::line).collect()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn serve(mut socket: TcpStream, script: &Script, log: &Mutex<Vec<Seen>>) {
    while let Some(seen) = read_request(&mut socket).await {
        log.lock().unwrap().push(seen.clone());
        match script(&seen) {
            Reply::Cut => return,
            Reply::Hang => std::future::pending().await,
            Reply::Answer(status, headers, body) => {
                if answer(&mut socket, status, headers, &body).await.is_err() {
                    return;
                }
            }
            Reply::Late(wait, body) => {
                tokio::time::sleep(wait).await;
                if answer(&mut socket, 200, Vec::new(), &body).await.is_err() {
                    return;
                }
            }
            Reply::Head(wait, status) => {
                tokio::time::sleep(wait).await;
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: 1\r\n\r\n");
                if socket.write_all(head.as_bytes()).await.is_err() {
                    return;
                }
                std::future::pending::<()>().await;
            }
            Reply::Stream(pieces) => return stream(&mut socket, "", pieces).await,
            Reply::StreamOf(cluster, pieces) => {
                return stream(&mut socket, &format!("x-kv-cluster: {cluster}\r\n"), pieces).await;
            }
        }
    }
}

async fn stream(socket: &mut TcpStream, more: &str, mut pieces: mpsc::Receiver<Bytes>) {
    let head = "HTTP/1.1 200 x\r\ncontent-type: text/event-stream\r\nconnection: close\r\n";
    let head = [head, more, "\r\n"].concat();
    socket.write_all(head.as_bytes()).await.unwrap();
    while let Some(piece) = pieces.recv().await {
        if socket.write_all(&piece).await.is_err() {
            return;
        }
    }
}

async fn answer(
    socket: &mut TcpStream,
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: &[u8],
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.extend([name, ": ", &value, "\r\n"]);
    }
    head.push_str("\r\n");
    socket.write_all(&[head.as_bytes(), body].concat()).await
}

async fn read_request(socket: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let (method, target) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers
        .get("content-length")
        .map_or(0, |text| text.parse().unwrap());
    let mut body = bytes.split_off(head_end + 4);
    while body.len() < length {
        if socket.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Seen {
        method,
        target,
        headers,
        body: body.into(),
    })
}
