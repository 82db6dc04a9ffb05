//! Starts a service on a free port and speaks to it, through a client or byte by byte.
//! Invariant: each test has a server of its own, and waits for conditions with a deadline.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use service::serve::Limits;
use service::tasks::Tasks;
use service::{edge, http, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) tasks: Tasks,
    pub(crate) ended: JoinHandle<std::io::Result<()>>,
    pub(crate) http: reqwest::Client,
}

impl Server {
    pub(crate) async fn start(routes: Router) -> Self {
        Self::start_with(routes, Limits::default()).await
    }

    pub(crate) async fn start_with(routes: Router, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let app = edge::wrap(routes, "shell1");
        let ended = tasks.spawn("server", serve::serve(listener, app, limits, tasks.child()));
        let http = http::client(DEADLINE);
        Self {
            address,
            tasks,
            ended,
            http,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// One that soon takes nothing more unless it is read.
    pub(crate) async fn connect_narrow(&self) -> TcpStream {
        self.connect_holding(4096).await
    }

    /// One that takes so many bytes before they are read.
    pub(crate) async fn connect_holding(&self, bytes: u32) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Sends the bytes on a connection of their own and reads until the server closes it.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_to_close(&mut stream).await
    }
}

/// What arrives until the other side closes; a reset counts as a close.
pub(crate) async fn read_to_close(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    let reading = async {
        while let Ok(length @ 1..) = stream.read(&mut piece).await {
            all.extend_from_slice(&piece[..length]);
        }
    };
    let closed = tokio::time::timeout(DEADLINE, reading).await;
    let text = String::from_utf8_lossy(&all).into_owned();
    assert!(closed.is_ok(), "not closed within {DEADLINE:?}; so far: {text}");
    text
}
