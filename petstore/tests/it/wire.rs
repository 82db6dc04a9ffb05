//! The wire between the shops and the payment service, which can keep an answer back, and knows what was asked.
//! Invariant: requests always go on at once, so what was asked is done; only whoever asked does not hear of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use service::tasks::Tasks;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::harness::DEADLINE;

pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    knob: Arc<Knob>,
    _tasks: Tasks,
}

struct Knob {
    /// Whether the next answer is to be kept back.
    armed: AtomicBool,
    /// Whether one is.
    kept: watch::Sender<bool>,
    /// What the shops have said on each connection.
    said: Mutex<Vec<Vec<u8>>>,
}

/// What goes by.
enum Way {
    /// On the connection of this number.
    Requests(usize),
    Answers,
}

impl Wire {
    pub(crate) async fn to(payment: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let knob = Arc::new(Knob {
            armed: AtomicBool::new(false),
            kept: watch::Sender::new(false),
            said: Mutex::default(),
        });
        let tasks = Tasks::new();
        let (shared, spawner) = (Arc::clone(&knob), tasks.clone());
        tasks.spawn("wire", async move {
            while let Ok((caller, _)) = listener.accept().await {
                let Ok(payment) = TcpStream::connect(payment).await else {
                    continue;
                };
                let (from_caller, to_caller) = caller.into_split();
                let (from_payment, to_payment) = payment.into_split();
                let requests = Way::Requests(shared.begin());
                spawner.spawn(
                    "requests",
                    pass(from_caller, to_payment, Arc::clone(&shared), requests),
                );
                spawner.spawn(
                    "answers",
                    pass(from_payment, to_caller, Arc::clone(&shared), Way::Answers),
                );
            }
        });
        Self {
            address,
            knob,
            _tasks: tasks,
        }
    }

    /// The next answer does not arrive until it is let go; those after it do.
    pub(crate) fn keep_next(&self) {
        self.knob.armed.store(true, Ordering::SeqCst);
    }

    /// Waits until an answer is on its way and kept back: what was asked for has been done.
    pub(crate) async fn keeps_one(&self) {
        let mut kept = self.knob.kept.subscribe();
        let waiting = kept.wait_for(|kept| *kept);
        let kept = tokio::time::timeout(DEADLINE, waiting).await;
        kept.expect("an answer comes by").unwrap();
    }

    pub(crate) fn let_go(&self) {
        self.knob.kept.send_replace(false);
    }

    /// The ids of all requests that have gone by.
    pub(crate) fn request_ids(&self) -> Vec<String> {
        let said = self.knob.said.lock().unwrap().concat();
        let said = String::from_utf8_lossy(&said);
        let ids = said
            .lines()
            .filter_map(|line| line.strip_prefix("x-request-id: "));
        ids.map(str::to_owned).collect()
    }
}

impl Knob {
    fn begin(&self) -> usize {
        let mut said = self.said.lock().unwrap();
        said.push(Vec::new());
        said.len() - 1
    }

    fn note(&self, connection: usize, piece: &[u8]) {
        self.said.lock().unwrap()[connection].extend_from_slice(piece);
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, knob: Arc<Knob>, way: Way) {
    let mut piece = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        match way {
            Way::Requests(connection) => knob.note(connection, &piece[..length]),
            Way::Answers if knob.armed.swap(false, Ordering::SeqCst) => {
                knob.kept.send_replace(true);
                let mut kept = knob.kept.subscribe();
                if kept.wait_for(|kept| !kept).await.is_err() {
                    return;
                }
            }
            Way::Answers => {}
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
