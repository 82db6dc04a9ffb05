//! `kv lease hold`: keeps a lease for as long as a command runs.
//! Invariant: the command never outlives its lease. Whatever asks us to end is passed on to it, and the lease is kept
//! until it has ended; when the lease is lost it is ended, since another may already have taken over what the lease
//! stood for: with its whole group of processes, unless it has a terminal, where it must stay in the foreground's.
//! While we are made to stand still (Ctrl-Z) so is it, and it goes on only if the lease still lives. A SIGSTOP nobody
//! hears, so that is no way to stop a holder. And what a terminal lets go on is its whole job at once: there a command
//! works on for as long as we need to find that its lease was lost; so it does where the whole machine has slept.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use kvstore_client::wire::LeaseId;
use rustix::process::{Pid, Signal, getpid, getsid, kill_process, kill_process_group};
use tokio::process::Child;
use tokio::signal::unix::{self, SignalKind, signal};

use super::show::parse_duration;
use super::{Session, explain};
use crate::leash::on_leash;
use crate::signals::{HangUp, can_be_let_go_on};

/// The id of the lease, for the command that runs under it.
const LEASE_VARIABLE: &str = "MENAGERIE_LEASE";

/// How long it takes to stand still: a command that its terminal has told so leaves its screen in order first, and who
/// wants to call it off may do so.
const TIDY: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(super) struct Hold {
    /// Such as 5s
    #[arg(value_parser = parse_duration)]
    ttl: Duration,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Hold {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        session
            .reach
            .refuse_key("what is held is a new lease, which no other run may have as well")?;
        let (program, arguments) = self.command.split_first().context("no command")?;
        let lease = session.client.lease_keep(self.ttl).await;
        let lease = lease.map_err(explain::keyless)?;
        let mut asked = Asked::listen().context("take over the signals")?;
        // It counts from when it was asked for, and the answer may have taken longer than it lasts.
        ensure!(
            !lease.is_lost(),
            "the lease {} ran out before {program:?} could begin: the store takes longer than {:?}",
            lease.id(),
            self.ttl
        );
        let mut running = Running::start(program, arguments, lease.id())?;
        let ended = loop {
            let signal = tokio::select! {
                ended = running.child.wait() => break Some(ended),
                () = lease.lost() => break None,
                signal = asked.next() => signal,
            };
            if signal != Signal::TSTP {
                running.pass_on(signal);
                continue;
            }
            if !can_be_let_go_on() {
                continue;
            }
            running.stand_still(&mut asked).await;
            if lease.is_lost() {
                break None;
            }
            running.send(Signal::CONT);
        };
        let Some(ended) = ended else {
            running.end().await?;
            bail!("the lease {} was lost, so {program:?} was ended", lease.id());
        };
        let ended = ended.context("wait for the command")?;
        let released = lease.release().await;
        // What became of the command matters more than a lease that runs out by itself.
        if !ended.success() {
            bail!("{program:?} failed: {ended}");
        }
        released.map_err(explain::keyless)?;
        Ok(())
    }
}

/// What asks a process to end or to stand still, and would do that to this one at once.
struct Asked {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    quit: unix::Signal,
    stand_still: unix::Signal,
    go_on: unix::Signal,
    hang_up: HangUp,
}

impl Asked {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            stand_still: signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?,
            go_on: signal(SignalKind::from_raw(Signal::CONT.as_raw()))?,
            hang_up: HangUp::listen()?,
        })
    }

    async fn next(&mut self) -> Signal {
        loop {
            tokio::select! {
                // Of two that have come, that to stand still is heard first: the other one was to take it back.
                biased;
                _ = self.terminate.recv() => return Signal::TERM,
                _ = self.interrupt.recv() => return Signal::INT,
                _ = self.quit.recv() => return Signal::QUIT,
                () = self.hang_up.next() => return Signal::HUP,
                _ = self.stand_still.recv() => return Signal::TSTP,
                // Who does not stand still goes on already, and this is no answer to what comes later.
                _ = self.go_on.recv() => {}
            }
        }
    }
}

/// Whether what this process hears has come to its whole group, and so to a command in it: the keys of a terminal, and
/// its end. But of that only who leads the session hears from the kernel; the others hear it when that one has ended.
fn is_told_to_all(signal: Signal, leads_session: bool) -> bool {
    signal == Signal::INT || signal == Signal::QUIT || (signal == Signal::HUP && !leads_session)
}

struct Running {
    child: Child,
    pid: Pid,
    /// Whether it has a group of its own, to which all belong that it starts. Not where it has a terminal: that hears
    /// only the group in front, from which it would be parted.
    has_group: bool,
}

impl Running {
    fn start(program: &str, arguments: &[String], lease: LeaseId) -> anyhow::Result<Self> {
        let has_group = !std::io::stdin().is_terminal();
        let mut command = on_leash(program, arguments)?;
        command.env(LEASE_VARIABLE, lease.to_string()).kill_on_drop(true);
        if has_group {
            command.process_group(0);
        }
        let child = command.spawn().with_context(|| format!("start {program:?}"))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw).context("ask for its number")?;
        Ok(Self {
            child,
            pid,
            has_group,
        })
    }

    fn pass_on(&self, signal: Signal) {
        let leads_session = getsid(None) == Ok(getpid());
        if self.has_group || !is_told_to_all(signal, leads_session) {
            self.send(signal);
        }
    }

    /// Makes the command stand still, and then this process; returns when somebody has let this one go on, or has done
    /// so before it could stand still: nobody would do it again.
    async fn stand_still(&self, asked: &mut Asked) {
        if tokio::time::timeout(TIDY, asked.go_on.recv()).await.is_ok() {
            return;
        }
        self.send(Signal::STOP);
        // It ends here, in the thread that says it, until the process is told to go on.
        if let Err(error) = kill_process(getpid(), Signal::STOP) {
            tracing::debug!(%error, "cannot stand still");
        }
    }

    /// It has not been waited for to its end, so the number is still its own.
    fn send(&self, signal: Signal) {
        let sent = if self.has_group {
            kill_process_group(self.pid, signal)
        } else {
            kill_process(self.pid, signal)
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "the command has got no signal");
        }
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        self.send(Signal::KILL);
        self.child.wait().await.context("end the command")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hang_up_is_told_to_all_but_by_who_leads_the_session() {
        let told = |signal| [true, false].map(|leads_session| is_told_to_all(signal, leads_session));
        assert_eq!(told(Signal::HUP), [false, true]);
        assert_eq!(told(Signal::INT), [true, true]);
        assert_eq!(told(Signal::QUIT), [true, true]);
        assert_eq!(told(Signal::TERM), [false, false]);
    }
}
