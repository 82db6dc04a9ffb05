//! Holds whoever first gets to a point of the payment service, so that a test can kill in just that moment.
//! Invariant: only one is held; everybody else goes by.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use payment::{Moment, Points};
use tokio::sync::{Notify, mpsc};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(crate) struct Trap {
    armed: Arc<Mutex<Option<(&'static str, Moment)>>>,
    caught_tx: mpsc::Sender<()>,
    caught: Arc<tokio::sync::Mutex<mpsc::Receiver<()>>>,
    release: Arc<Notify>,
}

impl Trap {
    pub(crate) fn new() -> Self {
        let (caught_tx, caught) = mpsc::channel(1);
        Self {
            armed: Arc::default(),
            caught_tx,
            caught: Arc::new(tokio::sync::Mutex::new(caught)),
            release: Arc::default(),
        }
    }

    pub(crate) fn points(&self) -> Points {
        let trap = self.clone();
        Points::each(move |step, moment| {
            let trap = trap.clone();
            Box::pin(async move {
                let is_here = trap
                    .armed
                    .lock()
                    .unwrap()
                    .take_if(|armed| *armed == (step, moment));
                if is_here.is_some() {
                    trap.caught_tx.send(()).await.unwrap();
                    trap.release.notified().await;
                }
            })
        })
    }

    pub(crate) fn arm(&self, step: &'static str, moment: Moment) {
        *self.armed.lock().unwrap() = Some((step, moment));
    }

    pub(crate) async fn caught(&self) {
        let mut caught = self.caught.lock().await;
        let one = tokio::time::timeout(PATIENCE, caught.recv()).await;
        let armed = *self.armed.lock().unwrap();
        one.unwrap_or_else(|_| panic!("nobody got to {armed:?}"))
            .expect("the trap is open");
    }

    pub(crate) fn release(&self) {
        self.release.notify_one();
    }
}
