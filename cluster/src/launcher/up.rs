//! `menagerie up`: starts everything, waits until it is ready, and stays as its supervisor.
//! Invariant: with `--detach` the work is done by a second run of this program in a session of its own; this one
//! returns only when that one has all ready, or goes on with most of it, which fails with what is missing; else it says
//! why not and leaves nothing running. The data folder has been made before.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use indicatif::ProgressBar;
use rustix::process::{Pid, Signal, kill_process};
use service::tasks::Tasks;
use service::telemetry::{self, Format};

use super::coming::{self, Coming, Outlook};
use super::control::{self, Answer, Request};
use super::place::Place;
use super::plan;
use super::supervisor::{self, Supervisor};
use super::{State, Status, log_file, status};
use crate::console;
use crate::context::{Context, block_on};
use crate::output::{Failure, Usage};

pub(super) const POLL_EVERY: Duration = Duration::from_millis(50);
/// At copies that are being made, and at what is missing once the start is over.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// At the size of the log.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// A supervisor that answers has deadlines of its own.
const SILENCE_MAX: Duration = Duration::from_mins(2);
const END_DEADLINE: Duration = Duration::from_mins(1);

#[derive(Args)]
pub(crate) struct Up {
    /// Return when all is ready, and let everything go on in the background; where only most of the nodes come, fail
    /// with what is missing, and let the rest go on
    #[arg(long)]
    detach: bool,
    /// This run is the background part of --detach
    #[arg(long, hide = true)]
    background: bool,
}

impl Up {
    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        if self.detach {
            return block_on(detach(&context));
        }
        if self.background {
            // The session of the terminal, and the signals sent to it, are no longer ours.
            rustix::process::setsid().context("leave the session of the terminal")?;
        }
        telemetry::init(
            "launcher",
            if self.background {
                Format::Json
            } else {
                Format::Quiet
            },
        )?;
        block_on(supervise(&context, self.background))
    }
}

async fn supervise(context: &Context, background: bool) -> anyhow::Result<()> {
    let tasks = Tasks::new();
    tasks.stop_on_signals().context("take over the signals")?;
    if background {
        let log = Place::new(&context.data).log_of("supervisor");
        tasks.spawn("log", keep_small(log, tasks.clone()));
    }
    let (supervisor, socket) = supervisor::start(context, &tasks)?;
    if let Some(socket) = socket {
        console::start(context, socket, &supervisor, &tasks).context("start the console")?;
    }
    let settled = tokio::select! {
        settled = until_settled(context, &supervisor) => settled,
        () = tasks.stopping() => Ok(()),
    };
    if settled.is_ok() && !tasks.is_stopping() {
        if !background {
            let status = supervisor.status().await;
            greet(context, &status)?;
            if let Some(lack) = coming::lack(&Place::new(&context.data), &status) {
                context.output.note(format_args!("\n{lack}\nThe rest goes on."));
            }
            context.output.note("\nCtrl-C stops everything.");
        }
        tokio::select! {
            () = until_all_run(&supervisor) => {}
            () = tasks.stopping() => {}
        }
        tasks.stopping().await;
    }
    if !background {
        context.output.note("stopping …");
    }
    supervisor.stop().await;
    settled
}

/// As the other processes do with their own logs.
async fn keep_small(log: PathBuf, tasks: Tasks) {
    while tokio::time::timeout(LOG_EVERY, tasks.stopping()).await.is_err() {
        if let Err(error) = log_file::rotate_own(&log) {
            tracing::warn!(%error, "the log file cannot be rotated");
        }
    }
}

/// Until all is ready, or most of it serves and the rest is waited for no longer; fails where neither comes.
async fn until_settled(context: &Context, supervisor: &Arc<Supervisor>) -> anyhow::Result<()> {
    let progress = context
        .output
        .progress(supervisor.present().processes.len() as u64, "starting");
    let began = Instant::now();
    let mut coming = Coming::new(&context.config, supervisor.is_first, began);
    let mut looked = began;
    loop {
        let status = supervisor.present();
        progress.set_position(running(&status));
        progress.set_message(awaited(&status));
        let is_settled = match coming.outlook(&status, Instant::now()) {
            Outlook::All => {
                supervisor.set_ready();
                true
            }
            Outlook::Enough => supervisor.serve_in_part().await,
            Outlook::Open => false,
            Outlook::Hopeless(name) => bail!(supervisor::why_failed(&context.data, &name)),
        };
        if is_settled {
            progress.finish_and_clear();
            return Ok(());
        }
        if coming.is_over(Instant::now()) {
            bail!(too_late(&context.data, &status, began.elapsed()));
        }
        if looked.elapsed() >= LOOK_EVERY {
            coming.look_at_copies(&supervisor.http, &status).await;
            looked = Instant::now();
        }
        tokio::select! {
            () = supervisor.changed() => {}
            () = tokio::time::sleep(POLL_EVERY) => {}
        }
    }
}

/// What was missing when the start was over may come later.
async fn until_all_run(supervisor: &Arc<Supervisor>) {
    loop {
        let status = supervisor.present();
        if status.ready {
            return;
        }
        if status.all_run() {
            tracing::info!("all processes have come");
            supervisor.set_ready();
            return;
        }
        tokio::select! {
            () = supervisor.changed() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn awaited(status: &Status) -> String {
    let late = status
        .processes
        .iter()
        .filter(|view| view.state != State::Running);
    let late: Vec<&str> = late.map(|view| view.name.as_str()).collect();
    format!("starting {}", late.join(" "))
}

fn running(status: &Status) -> u64 {
    status
        .processes
        .iter()
        .filter(|view| view.state == State::Running)
        .count() as u64
}

fn too_late(data: &Path, status: &Status, waited: Duration) -> String {
    let late: Vec<String> = status
        .processes
        .iter()
        .filter(|view| view.state != State::Running)
        .map(|view| format!("{} ({})", view.name, view.state.word()))
        .collect();
    let told = format!("not ready after {} s: {}", waited.as_secs(), late.join(", "));
    match status.failed() {
        Some(view) => format!("{told}\n{}", supervisor::why_failed(data, &view.name)),
        None => told,
    }
}

fn greet(context: &Context, status: &Status) -> anyhow::Result<()> {
    if context.output.json {
        return Ok(context.output.document(status)?);
    }
    status::show(context.output, status)?;
    let address = status.processes.first().map_or("ADDRESS", |first| &first.address);
    let base = service::http::base(address);
    let trust = if context.config.tls.enabled {
        let authority = context
            .config
            .tls_folder(&context.data)
            .join(service::tls::AUTHORITY);
        format!("--cacert {} ", authority.display())
    } else {
        String::new()
    };
    if let Some(console) = &status.console {
        context.output.line(format_args!(
            "\nConsole: {console}  (watch it, break it, see it heal)"
        ))?;
    }
    context.output.line(format_args!(
        "\nTry next:\n  menagerie kv put greeting hello\n  menagerie kv get greeting\n  \
         menagerie kill leader    # then: menagerie status\n  \
         curl {trust}-H \"Authorization: Bearer $(menagerie token)\" {base}/v1/cluster"
    ))?;
    Ok(())
}

/// Runs the supervisor in the background and waits until it has all ready, or most of it; else it ends, and all that it
/// has started.
async fn detach(context: &Context) -> anyhow::Result<()> {
    let place = Place::new(&context.data);
    // Taken and let go again: a second `up` shall hear at once who is there.
    drop(place.lock()?);
    let tasks = Tasks::new();
    tasks.stop_on_signals().context("take over the signals")?;
    let program = Command::new(std::env::current_exe().context("find this program's own file")?);
    let (mut child, said_before) = spawn_background(program, context.config_file.as_deref(), &place)?;
    let progress = context
        .output
        .progress(plan::processes(&context.config).len() as u64, "starting");
    let settled = tokio::select! {
        settled = until_background_has_settled(&place, &mut child, said_before, &progress) => settled,
        () = tasks.stopping() => Err(anyhow!("interrupted before all was ready")),
    };
    let status = match settled {
        Ok(status) => status,
        Err(error) => {
            let ended = end(&mut child).await;
            ended.with_context(|| format!("leave nothing running, for {error:#}"))?;
            return Err(error);
        }
    };
    greet(context, &status)?;
    match coming::lack(&place, &status) {
        Some(lack) => {
            let text = format!("{lack}\nThe rest goes on in the background; `menagerie down` stops it.");
            let code = "partial".to_owned();
            Err(Failure { text, code }.into())
        }
        None => Ok(()),
    }
}

pub(super) async fn until_background_has_settled(
    place: &Place,
    child: &mut Child,
    said_before: u64,
    progress: &ProgressBar,
) -> anyhow::Result<Status> {
    let mut heard = Instant::now();
    loop {
        if let Some(end) = child.try_wait().context("look after the supervisor")? {
            progress.finish_and_clear();
            let said = place.said_by_supervisor(said_before);
            if said.is_empty() {
                bail!(
                    "the supervisor ended ({end}); see {}",
                    place.log_of("supervisor").display()
                );
            }
            // What was wrong usage there is wrong usage here.
            if end.code() == Some(2) {
                bail!(Usage(said));
            }
            bail!(said);
        }
        // One that begins or ends may break off; if it has ended, the reason is heard above, the next time.
        let answer = control::ask(place, &Request::Status).await;
        if let Ok(Some(Answer::Status(status))) = answer {
            heard = Instant::now();
            progress.set_position(running(&status));
            progress.set_message(awaited(&status));
            if status.ready || status.partial {
                progress.finish_and_clear();
                return Ok(status);
            }
        }
        if heard.elapsed() > SILENCE_MAX {
            bail!(
                "the supervisor does not answer; see {}",
                place.log_of("supervisor").display()
            );
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Stops a supervisor that shall not go on, and so its processes, which never outlive it.
pub(super) async fn end(child: &mut Child) -> anyhow::Result<()> {
    let deadline = Instant::now() + END_DEADLINE;
    let mut is_told = false;
    while child.try_wait().context("look after the supervisor")?.is_none() {
        if !is_told {
            // It has not been waited for, so the number is still its own.
            kill_process(Pid::from_child(child), Signal::TERM).context("stop the supervisor")?;
            is_told = true;
        }
        if Instant::now() > deadline {
            child.kill().context("kill the supervisor")?;
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
    Ok(())
}

/// The program is this one, by itself or on a leash. Answers also how far the log went before: what this run says stands
/// behind that, and in front of it why the last one ended.
pub(super) fn spawn_background(
    mut program: Command,
    config_file: Option<&Path>,
    place: &Place,
) -> anyhow::Result<(Child, u64)> {
    let path = place.log_of("supervisor");
    let log = log_file::open(&path).with_context(|| format!("open {}", path.display()))?;
    let rotated = log_file::rotate(&path, log_file::BYTES_MAX);
    let log = rotated
        .with_context(|| format!("rotate {}", path.display()))?
        .unwrap_or(log);
    let said_before = log.metadata().context("look at the log")?.len();
    program.args(["up", "--background", "--data"]).arg(&place.data);
    if let Some(file) = config_file {
        program.arg("--config").arg(file);
    }
    let child = program
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the log")?)
        .stderr(log)
        .spawn()
        .context("start the supervisor in the background")?;
    Ok((child, said_before))
}
