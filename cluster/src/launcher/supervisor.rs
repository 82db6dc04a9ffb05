//! The supervisor: holds the data folder, keeps one keeper a process, answers the control socket, stops in order.
//! Invariant: processes start in the order of the configuration and stop in the reverse one,
//! and the lock is let go only after the last has ended.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use service::http::{self, Timeouts};
use service::secrets;
use service::tasks::Tasks;
use tokio::sync::watch;

use super::control::{self, Answer, Request};
use super::keeper::{self, Handle, Spec};
use super::place::{Lock, Place};
use super::{Status, leader, ports};
use crate::context::Context;

const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

pub(crate) struct Supervisor {
    handles: Vec<Handle>,
    place: Place,
    http: reqwest::Client,
    root_token: String,
    tasks: Tasks,
    stopped: watch::Sender<bool>,
    _lock: Lock,
}

/// Starts everything; the processes come up while the caller watches them.
pub(crate) fn start(context: &Context, tasks: &Tasks) -> anyhow::Result<Arc<Supervisor>> {
    let place = Place::new(&context.data);
    place.make()?;
    let lock = place.lock()?;
    let faults = ports::taken(&context.config);
    if !faults.is_empty() {
        bail!("cannot start: {}", faults.join("; "));
    }
    let secrets = secrets::load_or_create(&context.data).context("open the secrets")?;
    let root_token = secrets
        .token("root")
        .context("secrets.toml has no token for root")?;
    let listener = control::listen(&place.control())?;
    let http = http::client(Timeouts::default());
    let specs = specs(context, &place)?;
    let handles = specs
        .into_iter()
        .map(|spec| keeper::keep(spec, http.clone(), tasks))
        .collect();
    let supervisor = Arc::new(Supervisor {
        handles,
        place,
        http,
        root_token: root_token.expose().to_owned(),
        tasks: tasks.clone(),
        stopped: watch::Sender::new(false),
        _lock: lock,
    });
    tasks.spawn(
        "control socket",
        control::serve(listener, Arc::clone(&supervisor), tasks.clone()),
    );
    Ok(supervisor)
}

/// What runs for this configuration, in the order of starting.
fn specs(context: &Context, place: &Place) -> anyhow::Result<Vec<Spec>> {
    let program = std::env::current_exe().context("find this program's own file")?;
    let spec = |kind, name: String, address: &str, words: [&str; 4]| {
        let mut arguments: Vec<OsString> = words.map(OsString::from).into();
        arguments.extend(["--data".into(), context.data.clone().into_os_string()]);
        if let Some(file) = &context.config_file {
            arguments.extend(["--config".into(), file.clone().into_os_string()]);
        }
        Spec {
            kind,
            address: address.to_owned(),
            program: program.clone(),
            arguments,
            log: place.log_of(&name),
            name,
        }
    };
    let nodes = context.config.nodes.iter().map(|node| {
        let words = ["node", "--die-with-parent", "--id", &node.id.to_string()];
        spec("node", node.name(), &node.client, words)
    });
    let payments = context.config.payment.instances().map(|(name, address)| {
        let words = ["pay", "--die-with-parent", "--name", &name];
        spec("payment", name.clone(), address, words)
    });
    Ok(nodes.chain(payments).collect())
}

impl Supervisor {
    pub(crate) async fn answer(&self, request: Request) -> Answer {
        let done = match request {
            Request::Status => return Answer::Status(self.status().await),
            Request::Down => {
                self.tasks.stop();
                self.until_stopped().await;
                return Answer::Stopped;
            }
            Request::Act { action, name } => match self.handle(&name).await {
                Ok(handle) => handle.act(action).await,
                Err(error) => Err(error),
            },
        };
        done.map_or_else(|error| Answer::Error(format!("{error:#}")), Answer::Done)
    }

    async fn handle(&self, name: &str) -> anyhow::Result<&Handle> {
        let leader = if name == "leader" {
            self.leader().await
        } else {
            None
        };
        let name = match (name, &leader) {
            ("leader", None) => bail!("no node leads at the moment: try again, or see `menagerie status`"),
            ("leader", Some(leader)) => leader,
            _ => name,
        };
        if let Some(handle) = self
            .handles
            .iter()
            .find(|handle| handle.view.borrow().name == name)
        {
            return Ok(handle);
        }
        let names: Vec<String> = self
            .handles
            .iter()
            .map(|handle| handle.view.borrow().name.clone())
            .collect();
        bail!(
            "there is no process {name:?}; there are: {}, and leader",
            names.join(", ")
        )
    }

    pub(crate) async fn status(&self) -> Status {
        let leader = self.leader().await;
        Status {
            leader,
            ..self.present()
        }
    }

    /// The processes as they are now, without asking any of them who leads.
    pub(crate) fn present(&self) -> Status {
        Status {
            processes: self
                .handles
                .iter()
                .map(|handle| handle.view.borrow().clone())
                .collect(),
            leader: None,
            data: self.place.data.display().to_string(),
            supervisor: Some(std::process::id()),
        }
    }

    async fn leader(&self) -> Option<String> {
        let awake = self.handles.iter().filter_map(|handle| {
            let view = handle.view.borrow();
            let awake = view.pid.is_some() && view.state != super::State::Paused;
            (view.kind == "node" && awake).then(|| view.address.clone())
        });
        let addresses: Vec<String> = awake.collect();
        let id = leader::find(&self.http, &addresses, &self.root_token).await?;
        Some(format!("n{id}"))
    }

    async fn until_stopped(&self) {
        let mut stopped = self.stopped.subscribe();
        // The sender lives in self, so waiting cannot fail.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }

    /// Stops all processes, the last started first, then answers those who wait for it.
    pub(crate) async fn stop(&self) {
        self.tasks.stop();
        for handle in self.handles.iter().rev() {
            if let Err(error) = handle.leave().await {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "a process could not be stopped in order"
                );
            }
        }
        let _ = std::fs::remove_file(self.place.control());
        self.stopped.send_replace(true);
        self.tasks.drain(DRAIN_DEADLINE).await;
    }

    /// Returns when a process has changed in any way.
    pub(crate) async fn changed(&self) {
        let mut views: Vec<_> = self.handles.iter().map(|handle| handle.view.clone()).collect();
        let changes = views.iter_mut().map(|view| Box::pin(view.changed()));
        let _ = futures_util::future::select_all(changes).await;
    }
}

/// Why a process failed, as far as its log says so.
pub(crate) fn why_failed(data: &Path, name: &str) -> String {
    let place = Place::new(data);
    format!(
        "{name} fails; the end of {}:\n{}",
        place.log_of(name).display(),
        place.tail_of(name)
    )
}
