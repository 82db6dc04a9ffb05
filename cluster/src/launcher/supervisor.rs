//! The supervisor: holds the data folder, keeps one keeper a process, answers the control socket, stops in order.
//! Invariant: processes start in the order of the configuration and stop in the reverse one,
//! and the lock is let go only after the last has ended.

use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use service::config::Step;
use service::http::{self, Timeouts};
use service::secrets;
use service::tasks::Tasks;
use tokio::sync::watch;

use super::control::{self, Answer, Request};
use super::journal::Journal;
use super::keeper::{self, Handle, Spec};
use super::place::{Lock, Place};
use super::plan::{self, Listen, Process};
use super::{Status, leader, ports};
use crate::context::Context;
use crate::output::Usage;

const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

pub(crate) struct Supervisor {
    handles: Vec<Handle>,
    place: Place,
    pub(super) http: reqwest::Client,
    root_token: String,
    pub(crate) journal: Journal,
    console: Option<String>,
    tasks: Tasks,
    /// All has been ready once, demo data included.
    ready: AtomicBool,
    /// The start is over, and not all has come.
    partial: AtomicBool,
    /// No node was ever started here.
    pub(super) is_first: bool,
    stopped: watch::Sender<bool>,
    _lock: Lock,
}

/// Starts everything; the processes come up while the caller watches them.
/// Also answers the socket of the console, if there is to be one.
pub(crate) fn start(
    context: &Context,
    tasks: &Tasks,
) -> anyhow::Result<(Arc<Supervisor>, Option<TcpListener>)> {
    let place = Place::new(&context.data);
    let lock = place.lock()?;
    let processes = plan::processes(&context.config);
    let mut faults = ports::taken(context, &processes);
    let console = console_socket(context).unwrap_or_else(|fault| {
        faults.push(fault);
        None
    });
    if !faults.is_empty() {
        bail!(Usage(faults.join("\n")));
    }
    let secrets = secrets::load_or_create(&context.data).context("open the secrets")?;
    let root_token = secrets
        .token("root")
        .context("secrets.toml has no token for root")?;
    let listener = control::listen(&place.control())?;
    let http = http::client(Timeouts::default());
    let journal = Journal::new();
    let mut nodes = processes.iter().filter(|process| process.kind == "node");
    let is_first = !nodes.any(|node| place.data.join(&node.name).is_dir());
    let handles = specs(context, &place, processes)?
        .into_iter()
        .map(|spec| keeper::keep(spec, http.clone(), journal.clone(), tasks))
        .collect();
    let url = console.as_ref().map(url_of).transpose()?;
    let supervisor = Arc::new(Supervisor {
        handles,
        place,
        http,
        root_token: root_token.expose().to_owned(),
        journal,
        console: url,
        tasks: tasks.clone(),
        ready: AtomicBool::new(false),
        partial: AtomicBool::new(false),
        is_first,
        stopped: watch::Sender::new(false),
        _lock: lock,
    });
    tasks.spawn(
        "control socket",
        control::serve(listener, Arc::clone(&supervisor), tasks.clone()),
    );
    Ok((supervisor, console))
}

/// Makes the data folder, or says which setting names one that cannot be had.
pub(crate) fn make(context: &Context, place: &Place) -> anyhow::Result<()> {
    place
        .make()
        .map_err(|error| Usage(format!("{}: {error:#}", context.place_of_data())).into())
}

fn console_socket(context: &Context) -> Result<Option<TcpListener>, String> {
    let address = context.config.console.address.clone();
    if address.is_empty() {
        return Ok(None);
    }
    let setting = vec![Step::Key("console"), Step::Key("address")];
    ports::listen(context, "the console", &Listen { address, setting })
        .map(Some)
        .map_err(|fault| format!("{fault} (\"\" switches it off)"))
}

/// Where a browser on this machine finds the console.
fn url_of(socket: &TcpListener) -> anyhow::Result<String> {
    let mut address = socket.local_addr().context("ask for the console's address")?;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Ok(format!("{}/", service::http::base(&address.to_string())))
}

/// How each process is run. The processes must not be started from another thread than the main one: the
/// kernel tells them of the end of the thread that started them, not of the process.
fn specs(context: &Context, place: &Place, processes: Vec<Process>) -> anyhow::Result<Vec<Spec>> {
    let program = std::env::current_exe().context("find this program's own file")?;
    let specs = processes.into_iter().map(|process| {
        let log = place.log_of(&process.name);
        let mut arguments: Vec<OsString> = process.arguments.iter().map(OsString::from).collect();
        arguments.extend([
            "--die-with-parent".into(),
            "--log-file".into(),
            log.clone().into(),
        ]);
        arguments.extend(["--data".into(), context.data.clone().into_os_string()]);
        if let Some(file) = &context.config_file {
            arguments.extend(["--config".into(), file.clone().into_os_string()]);
        }
        Spec {
            program: program.clone(),
            arguments,
            log,
            process,
        }
    });
    Ok(specs.collect())
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
            // What has been stopped must not be started again behind the back of whoever stops it.
            Request::Act { .. } if self.tasks.is_stopping() => Err(anyhow!(
                "the launcher stops everything: `menagerie down` waits for that, `menagerie up` starts it again"
            )),
            Request::Act { action, name } => match self.handle(&name).await {
                Ok(handle) => handle.act(action).await,
                Err(error) if error.is::<Usage>() => return Answer::Stranger(error.to_string()),
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
        if let Some(handle) = self.handles.iter().find(|handle| handle.now().name == name) {
            return Ok(handle);
        }
        let names: Vec<String> = self.handles.iter().map(|handle| handle.now().name).collect();
        bail!(Usage(format!(
            "there is no process {name:?}; there are: {}, and leader",
            names.join(", ")
        )))
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
        let ready = self.ready.load(Ordering::Relaxed);
        Status {
            processes: self.handles.iter().map(Handle::now).collect(),
            leader: None,
            data: self.place.data.display().to_string(),
            supervisor: Some(std::process::id()),
            console: self.console.clone(),
            ready,
            partial: !ready && self.partial.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Goes on with what runs, if somebody leads it; answers whether that is so.
    pub(super) async fn serve_in_part(&self) -> bool {
        let leads = self.leader().await.is_some();
        if leads {
            tracing::warn!("not all processes have come; the others go on without them");
            self.partial.store(true, Ordering::Relaxed);
        }
        leads
    }

    async fn leader(&self) -> Option<String> {
        let views = self.handles.iter().map(Handle::now);
        let awake = views.filter(|view| view.kind == "node" && view.is_awake());
        let addresses: Vec<String> = awake.map(|view| view.address).collect();
        let id = leader::find(&self.http, &addresses, &self.root_token).await?;
        Some(format!("n{id}"))
    }

    /// Returns when the last process has ended.
    pub(super) async fn until_stopped(&self) {
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

    /// Returns when a process changes in any way from now on.
    pub(crate) async fn changed(&self) {
        let mut views: Vec<_> = self.handles.iter().map(|handle| handle.view.clone()).collect();
        // A clone remembers what the handle has seen, which is nothing.
        views.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let changes = views.iter_mut().map(|view| Box::pin(view.changed()));
        let _ = futures_util::future::select_all(changes).await;
    }
}

#[cfg(test)]
impl Supervisor {
    /// Of no processes, so that it can be asked for anything.
    pub(crate) fn of_nothing(place: Place, tasks: &Tasks) -> anyhow::Result<Self> {
        place.make()?;
        let lock = place.lock()?;
        Ok(Self {
            handles: Vec::new(),
            place,
            http: http::client(Timeouts::default()),
            root_token: String::new(),
            journal: Journal::new(),
            console: None,
            tasks: tasks.clone(),
            ready: AtomicBool::new(false),
            partial: AtomicBool::new(false),
            is_first: true,
            stopped: watch::Sender::new(false),
            _lock: lock,
        })
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
