//! Asks the services whether they can do their work: every second while somebody looks, and before a page that nobody
//! has looked at yet.
//! Invariant: what is told of a service was said by the process that is there now; one that was not asked has said
//! nothing. A service that hangs holds up neither the others nor the nodes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use service::http;

use crate::launcher::{State, View};

/// Between an answer and the next question.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(1);
/// They ask the store for a second before they say that they are not ready.
const DEADLINE: Duration = Duration::from_millis(1500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    NotReady,
    /// No answer at all.
    Silent,
}

pub(super) struct Services {
    http: reqwest::Client,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    at: Option<Instant>,
    /// By the name of the process, with its number.
    said: BTreeMap<String, (Option<u32>, Readiness)>,
}

impl Services {
    pub(super) fn new() -> Self {
        Self {
            http: http::client(DEADLINE),
            heard: Mutex::default(),
        }
    }

    /// Asks all that are meant to serve; of the others nothing is known from then on.
    pub(super) async fn ask(&self, views: &[View]) {
        let services = views.iter().filter(|view| view.kind != "node");
        let running = services.filter(|view| view.state == State::Running);
        let asked = running.map(async |view| {
            let readiness = self.readiness(&view.address).await;
            (view.name.clone(), (view.pid, readiness))
        });
        let said = join_all(asked).await.into_iter().collect();
        *self.heard() = Heard {
            at: Some(Instant::now()),
            said,
        };
    }

    /// Asks where nobody has done so lately.
    pub(super) async fn ask_if_due(&self, views: &[View]) {
        let at = self.heard().at;
        if at.is_none_or(|at| at.elapsed() > ASK_EVERY + DEADLINE) {
            self.ask(views).await;
        }
    }

    /// What they said when they were asked last.
    pub(super) fn said(&self, views: &[View]) -> BTreeMap<String, Readiness> {
        let heard = self.heard();
        let said = views.iter().filter_map(|view| {
            let (pid, readiness) = heard.said.get(&view.name)?;
            (*pid == view.pid).then(|| (view.name.clone(), *readiness))
        });
        said.collect()
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn readiness(&self, address: &str) -> Readiness {
        let url = format!("{}/readyz", http::base(address));
        match self.http.get(url).send().await {
            Ok(answer) if answer.status().is_success() => Readiness::Ready,
            Ok(_) => Readiness::NotReady,
            Err(_) => Readiness::Silent,
        }
    }
}
