//! One process and its keeper: starts it, asks whether it is ready, starts it again when it dies by itself.
//! Invariant: the keeper alone reaps its process and alone signals it, so no signal ever meets a stranger
//! that got the same pid. The process holds a pipe whose other end dies with us, and ends when that closes.
//! It must not know of the other processes.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use service::tasks::Tasks;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::backoff::{self, Deaths, Next};
use super::journal::{Journal, Tone};
use super::plan::Process;
use super::{Action, State, View, log_file};

pub(super) const STOP_DEADLINE: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_millis(30);

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) process: Process,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) log: PathBuf,
}

impl Spec {
    fn name(&self) -> &str {
        &self.process.name
    }
}

/// How the supervisor reaches a keeper.
pub(crate) struct Handle {
    pub(crate) view: watch::Receiver<View>,
    orders: mpsc::Sender<Order>,
}

struct Order {
    wish: Wish,
    answer: oneshot::Sender<anyhow::Result<()>>,
}

#[derive(Clone, Copy)]
enum Wish {
    Act(Action),
    /// Stop the process and the keeper, at the end of all.
    Leave,
}

enum Event {
    Ordered(Option<Order>),
    Ended(std::io::Result<ExitStatus>),
    RestartDue,
    Ready,
}

impl Handle {
    /// How the process stands now.
    pub(crate) fn now(&self) -> View {
        self.view.borrow().clone()
    }

    pub(crate) async fn act(&self, action: Action) -> anyhow::Result<View> {
        self.order(Wish::Act(action)).await?;
        Ok(self.now())
    }

    pub(crate) async fn leave(&self) -> anyhow::Result<()> {
        self.order(Wish::Leave).await
    }

    async fn order(&self, wish: Wish) -> anyhow::Result<()> {
        let (answer, answered) = oneshot::channel();
        self.orders
            .send(Order { wish, answer })
            .await
            .context("the launcher is stopping")?;
        answered.await.context("the launcher is stopping")?
    }
}

pub(crate) fn keep(spec: Spec, http: reqwest::Client, journal: Journal, tasks: &Tasks) -> Handle {
    let (orders, ordered) = mpsc::channel(8);
    let (view, seen) = watch::channel(View {
        name: spec.process.name.clone(),
        kind: spec.process.kind.to_owned(),
        pid: None,
        address: spec.process.address.clone(),
        state: State::Starting,
        restarts: 0,
    });
    let keeper = Keeper {
        spec,
        http,
        journal,
        ordered,
        view,
        running: None,
        started: Instant::now(),
        restart_at: None,
        deaths: Deaths::default(),
    };
    tasks.spawn("keeper", keeper.run());
    Handle { view: seen, orders }
}

struct Keeper {
    spec: Spec,
    http: reqwest::Client,
    journal: Journal,
    ordered: mpsc::Receiver<Order>,
    view: watch::Sender<View>,
    running: Option<Running>,
    started: Instant,
    restart_at: Option<Instant>,
    deaths: Deaths,
}

struct Running {
    child: Child,
    /// Closing it, by whatever end of this process, ends the child.
    _lifeline: ChildStdin,
}

impl Keeper {
    async fn run(mut self) {
        self.start_again();
        loop {
            let starting = self.state() == State::Starting && self.running.is_some();
            let event = tokio::select! {
                order = self.ordered.recv() => Event::Ordered(order),
                status = ended(&mut self.running) => Event::Ended(status),
                () = due(self.restart_at) => Event::RestartDue,
                () = ready(&self.http, &self.spec.process.address, starting) => Event::Ready,
            };
            match event {
                Event::Ordered(Some(order)) => {
                    let result = self.obey(order.wish).await;
                    // Whoever asked may have left; what was done stays done.
                    let _ = order.answer.send(result);
                    if matches!(order.wish, Wish::Leave) {
                        return;
                    }
                }
                Event::Ordered(None) => return,
                Event::Ended(status) => self.died(status),
                Event::RestartDue => self.start_again(),
                Event::Ready => {
                    let took = self.started.elapsed().as_millis();
                    self.set(State::Running);
                    self.tell(Tone::Good, format_args!("is ready after {took} ms"));
                }
            }
        }
    }

    fn state(&self) -> State {
        self.view.borrow().state
    }

    fn set(&self, state: State) {
        let pid = self.running.as_ref().and_then(|running| running.child.id());
        self.view.send_modify(|view| {
            view.state = state;
            view.pid = pid;
        });
        tracing::info!(
            process.name = self.spec.name(),
            process.pid = pid,
            state = state.word(),
            "process"
        );
    }

    fn tell(&self, tone: Tone, what: impl Display) {
        self.journal.write(tone, format!("{} {what}", self.spec.name()));
    }

    async fn obey(&mut self, wish: Wish) -> anyhow::Result<()> {
        match wish {
            Wish::Act(Action::Kill) => {
                self.end(Signal::KILL, State::Killed).await?;
                self.tell(Tone::Bad, "was killed, and stays down until it is started");
                Ok(())
            }
            Wish::Act(Action::Term) => {
                self.end(Signal::TERM, State::Stopped).await?;
                self.tell(Tone::Bad, "was stopped, and stays down until it is started");
                Ok(())
            }
            Wish::Act(Action::Pause) => self.pause(),
            Wish::Act(Action::Resume) => {
                self.signal(Signal::CONT)?;
                if self.state() == State::Paused {
                    self.started = Instant::now();
                    self.set(State::Starting);
                    self.tell(Tone::Plain, "goes on");
                }
                Ok(())
            }
            Wish::Act(Action::Start) => {
                if self.running.is_some() {
                    bail!("{} runs already ({})", self.spec.name(), self.state().word());
                }
                self.deaths.forget();
                self.tell(Tone::Plain, "is started");
                self.start()
            }
            Wish::Act(Action::Restart) => {
                self.tell(Tone::Plain, "is stopped and started again");
                if self.running.is_some() {
                    self.end(Signal::TERM, State::Stopped).await?;
                }
                self.deaths.forget();
                self.start()
            }
            Wish::Leave => {
                self.restart_at = None;
                if self.running.is_some() {
                    self.end(Signal::TERM, State::Stopped).await?;
                }
                Ok(())
            }
        }
    }

    fn pause(&mut self) -> anyhow::Result<()> {
        self.journal.note_fault(self.spec.name());
        self.signal(Signal::STOP)?;
        self.set(State::Paused);
        self.tell(Tone::Bad, "was paused");
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.running.as_ref().and_then(|running| running.child.id());
        let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid =
            pid.ok_or_else(|| anyhow!("{} does not run ({})", self.spec.name(), self.state().word()))?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.spec.name()))
    }

    /// Signals the process and waits for its end; one that ignores SIGTERM is killed at the deadline.
    async fn end(&mut self, signal: Signal, afterwards: State) -> anyhow::Result<()> {
        if self.running.is_none() && self.restart_at.take().is_some() {
            // It has just died by itself and was to be started again: that is what the user now prevents.
            self.set(afterwards);
            return Ok(());
        }
        self.journal.note_fault(self.spec.name());
        self.signal(signal)?;
        if self.state() == State::Paused && signal != Signal::KILL {
            self.signal(Signal::CONT)?;
        }
        if let Some(running) = &mut self.running {
            let waited = tokio::time::timeout(STOP_DEADLINE, running.child.wait()).await;
            if waited.is_err() {
                tracing::warn!(process.name = self.spec.name(), "did not stop in time, is killed");
                running.child.kill().await.context("kill")?;
            }
        }
        self.running = None;
        self.set(afterwards);
        Ok(())
    }

    fn start(&mut self) -> anyhow::Result<()> {
        self.restart_at = None;
        self.started = Instant::now();
        let log =
            log_file::open(&self.spec.log).with_context(|| format!("open {}", self.spec.log.display()))?;
        let mut child = Command::new(&self.spec.program)
            .args(&self.spec.arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            // Ctrl-C goes to the whole group of the terminal; ours are stopped in order instead.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.spec.name()))?;
        // Taken out, since tokio closes the child's stdin when one waits for the child.
        let lifeline = child.stdin.take().expect("stdin was asked to be a pipe");
        self.running = Some(Running {
            child,
            _lifeline: lifeline,
        });
        self.set(State::Starting);
        Ok(())
    }

    fn start_again(&mut self) {
        if let Err(error) = self.start() {
            tracing::error!(
                process.name = self.spec.name(),
                error = format!("{error:#}"),
                "cannot start"
            );
            self.note_death(&format!("cannot be started: {error:#}"));
        }
    }

    fn died(&mut self, status: std::io::Result<ExitStatus>) {
        self.journal.note_fault(self.spec.name());
        self.running = None;
        match status {
            Ok(status) => {
                tracing::warn!(process.name = self.spec.name(), %status, "ended by itself");
                self.note_death(&format!("died by itself ({status})"));
            }
            Err(error) => {
                tracing::error!(process.name = self.spec.name(), %error, "cannot be waited for");
                self.note_death(&format!("is gone ({error})"));
            }
        }
    }

    fn note_death(&mut self, how: &str) {
        match self.deaths.note(Instant::now()) {
            Next::GiveUp { deaths } => {
                self.set(State::Failed);
                let (name, window) = (self.spec.name(), backoff::WINDOW.as_secs());
                tracing::error!(
                    process.name = name,
                    deaths,
                    "died again and again and is left down: `menagerie logs {name}` may say why, `menagerie start {name}` tries again"
                );
                self.tell(
                    Tone::Bad,
                    format_args!(
                        "{how}, the {deaths}th time within {window} s, and is left down: its log may say why"
                    ),
                );
            }
            Next::StartAfter(delay) => {
                self.restart_at = Some(Instant::now() + delay);
                self.view.send_modify(|view| view.restarts += 1);
                self.set(State::Starting);
                self.tell(
                    Tone::Bad,
                    format_args!("{how} and is started again in {} ms", delay.as_millis()),
                );
            }
        }
    }
}

async fn ended(running: &mut Option<Running>) -> std::io::Result<ExitStatus> {
    match running {
        Some(running) => running.child.wait().await,
        None => std::future::pending().await,
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Returns when the process says that it can do its work.
async fn ready(http: &reqwest::Client, address: &str, starting: bool) {
    if !starting {
        return std::future::pending().await;
    }
    let url = format!("{}/readyz", service::http::base(address));
    loop {
        let answer = http.get(&url).timeout(Duration::from_millis(500)).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        tokio::time::sleep(PROBE_EVERY).await;
    }
}
