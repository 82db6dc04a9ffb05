//! One service on threads of its own, so that it can die in the middle of anything, as a process does.
//! Invariant: after `kill` none of its tasks goes on, nothing is cleaned up, and its port is closed.

use std::net::SocketAddr;

use service::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::harness::DEADLINE;

pub(crate) struct Vessel {
    pub(crate) address: SocketAddr,
    /// `None` once it was killed.
    runtime: Option<Runtime>,
    tasks: Tasks,
    running: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Vessel {
    /// `run` makes the service; port 0 takes any that is free.
    pub(crate) fn launch<F>(port: u16, run: impl FnOnce(TcpListener, Tasks) -> F) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let entered = runtime.enter();
        let listener = TcpListener::from_std(listener).unwrap();
        let running = tasks.spawn("service", Box::pin(run(listener, tasks.clone())));
        drop(entered);
        Self {
            address,
            runtime: Some(runtime),
            tasks,
            running: Some(running),
        }
    }

    /// As `kill -9` does it.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.runtime.is_some()
    }

    /// As SIGTERM does it.
    pub(crate) async fn stop(&mut self) {
        if !self.is_alive() {
            return;
        }
        self.tasks.stop();
        if let Some(running) = self.running.take() {
            let stopped = tokio::time::timeout(DEADLINE, running).await;
            stopped.expect("stops in time").unwrap().unwrap();
        }
        self.kill();
    }
}

impl Drop for Vessel {
    fn drop(&mut self) {
        self.kill();
    }
}
