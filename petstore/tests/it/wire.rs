//! The wire between the shops and the payment service, which can keep an answer back.
//! Invariant: requests always go on at once, so what was asked is done; only whoever asked does not hear of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
}

impl Wire {
    pub(crate) async fn to(payment: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let knob = Arc::new(Knob {
            armed: AtomicBool::new(false),
            kept: watch::Sender::new(false),
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
                spawner.spawn("requests", pass(from_caller, to_payment, None));
                spawner.spawn(
                    "answers",
                    pass(from_payment, to_caller, Some(Arc::clone(&shared))),
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
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, knob: Option<Arc<Knob>>) {
    let mut piece = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if let Some(knob) = &knob
            && knob.armed.swap(false, Ordering::SeqCst)
        {
            knob.kept.send_replace(true);
            let mut kept = knob.kept.subscribe();
            if kept.wait_for(|kept| !kept).await.is_err() {
                return;
            }
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
