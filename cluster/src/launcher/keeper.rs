//! One process and its keeper: starts it, asks whether it is ready, starts it again when it dies by itself.
//! Invariant: the keeper alone reaps its process and alone signals it, so no signal ever meets a stranger
//! that got the same pid. The process holds a pipe whose other end dies with us, and ends when that closes.
//! It must not know of the other processes.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use service::tasks::Tasks;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{Action, State, View};

const STOP_DEADLINE: Duration = Duration::from_secs(10);
const RESTART_DELAY_MIN: Duration = Duration::from_millis(200);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);
/// So many deaths within the window mean that it will not come up by itself.
const DEATHS_MAX: usize = 5;
const DEATHS_WINDOW: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_millis(30);

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) address: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) log: PathBuf,
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
    pub(crate) async fn act(&self, action: Action) -> anyhow::Result<View> {
        self.order(Wish::Act(action)).await?;
        Ok(self.view.borrow().clone())
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

pub(crate) fn keep(spec: Spec, http: reqwest::Client, tasks: &Tasks) -> Handle {
    let (orders, ordered) = mpsc::channel(8);
    let (view, seen) = watch::channel(View {
        name: spec.name.clone(),
        kind: spec.kind.to_owned(),
        pid: None,
        address: spec.address.clone(),
        state: State::Starting,
        restarts: 0,
    });
    let keeper = Keeper {
        spec,
        http,
        ordered,
        view,
        running: None,
        restart_at: None,
        deaths: VecDeque::new(),
    };
    tasks.spawn("keeper", keeper.run());
    Handle { view: seen, orders }
}

struct Keeper {
    spec: Spec,
    http: reqwest::Client,
    ordered: mpsc::Receiver<Order>,
    view: watch::Sender<View>,
    running: Option<Running>,
    restart_at: Option<Instant>,
    deaths: VecDeque<Instant>,
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
                () = ready(&self.http, &self.spec.address, starting) => Event::Ready,
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
                Event::Ready => self.set(State::Running),
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
        tracing::info!(process.name = %self.spec.name, process.pid = pid, state = state.word(), "process");
    }

    async fn obey(&mut self, wish: Wish) -> anyhow::Result<()> {
        match wish {
            Wish::Act(Action::Kill) => self.end(Signal::KILL, State::Killed).await,
            Wish::Act(Action::Term) => self.end(Signal::TERM, State::Stopped).await,
            Wish::Act(Action::Pause) => {
                self.signal(Signal::STOP)?;
                self.set(State::Paused);
                Ok(())
            }
            Wish::Act(Action::Resume) => {
                self.signal(Signal::CONT)?;
                if self.state() == State::Paused {
                    self.set(State::Starting);
                }
                Ok(())
            }
            Wish::Act(Action::Start) => {
                if self.running.is_some() {
                    bail!("{} runs already ({})", self.spec.name, self.state().word());
                }
                self.deaths.clear();
                self.start()
            }
            Wish::Act(Action::Restart) => {
                if self.running.is_some() {
                    self.end(Signal::TERM, State::Stopped).await?;
                }
                self.deaths.clear();
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

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.running.as_ref().and_then(|running| running.child.id());
        let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.ok_or_else(|| anyhow!("{} does not run ({})", self.spec.name, self.state().word()))?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.spec.name))
    }

    /// Signals the process and waits for its end; one that ignores SIGTERM is killed at the deadline.
    async fn end(&mut self, signal: Signal, afterwards: State) -> anyhow::Result<()> {
        if self.running.is_none() && self.restart_at.take().is_some() {
            // It has just died by itself and was to be started again: that is what the user now prevents.
            self.set(afterwards);
            return Ok(());
        }
        self.signal(signal)?;
        if self.state() == State::Paused && signal != Signal::KILL {
            self.signal(Signal::CONT)?;
        }
        if let Some(running) = &mut self.running {
            let waited = tokio::time::timeout(STOP_DEADLINE, running.child.wait()).await;
            if waited.is_err() {
                tracing::warn!(process.name = %self.spec.name, "did not stop in time, is killed");
                running.child.kill().await.context("kill")?;
            }
        }
        self.running = None;
        self.set(afterwards);
        Ok(())
    }

    fn start(&mut self) -> anyhow::Result<()> {
        self.restart_at = None;
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.spec.log)
            .with_context(|| format!("open {}", self.spec.log.display()))?;
        let mut child = Command::new(&self.spec.program)
            .args(&self.spec.arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            // Ctrl-C goes to the whole group of the terminal; ours are stopped in order instead.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.spec.name))?;
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
            tracing::error!(process.name = %self.spec.name, error = format!("{error:#}"), "cannot start");
            self.note_death();
        }
    }

    fn died(&mut self, status: std::io::Result<ExitStatus>) {
        self.running = None;
        match status {
            Ok(status) => tracing::warn!(process.name = %self.spec.name, %status, "ended by itself"),
            Err(error) => tracing::error!(process.name = %self.spec.name, %error, "cannot be waited for"),
        }
        self.note_death();
    }

    fn note_death(&mut self) {
        let now = Instant::now();
        self.deaths
            .retain(|death| now.duration_since(*death) < DEATHS_WINDOW);
        self.deaths.push_back(now);
        if self.deaths.len() >= DEATHS_MAX {
            self.set(State::Failed);
            return;
        }
        self.restart_at = Some(now + restart_delay(self.deaths.len()));
        self.view.send_modify(|view| view.restarts += 1);
        self.set(State::Starting);
    }
}

/// The pause before a process is started again after its nth death in the window.
fn restart_delay(deaths: usize) -> Duration {
    let doublings = u32::try_from(deaths.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .min(16);
    (RESTART_DELAY_MIN * 2_u32.pow(doublings)).min(RESTART_DELAY_MAX)
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
    let url = format!("http://{address}/readyz");
    loop {
        let answer = http.get(&url).timeout(Duration::from_millis(500)).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        tokio::time::sleep(PROBE_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_bound() {
        let delays: Vec<u128> = (1..8).map(|deaths| restart_delay(deaths).as_millis()).collect();
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}
