//! `menagerie leash`: becomes another program that ends when whoever started it ends, also by kill -9 (Linux).
//! Invariant: between the kernel's being asked for that and the program's begin, the starter is seen to live; what the
//! program itself starts is on no leash. Of no use on a command line that a person types.
//! It must not know what the program is for.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::Args;
use rustix::process::{Pid, getppid};

#[derive(Args)]
pub(crate) struct Leash {
    /// The process that started this one
    #[arg(long, value_name = "PID")]
    held_by: i32,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Leash {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let (program, arguments) = self.command.split_first().context("no command")?;
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .context("ask for the parent's death")?;
        // Had it died before we asked, nobody would tell us.
        ensure!(
            getppid() == Pid::from_raw(self.held_by),
            "the process that started {program:?} has ended"
        );
        let error = Command::new(program).args(arguments).exec();
        Err(error).with_context(|| format!("start {program:?}"))
    }
}

/// Another run of this program on a leash of this process; its arguments are still to be added. To be started from the
/// main thread.
pub(crate) fn ours_on_leash() -> anyhow::Result<Command> {
    let ours = std::env::current_exe().context("find this program's own file")?;
    let mut command = Command::new(&ours);
    if cfg!(target_os = "linux") {
        let holder = std::process::id().to_string();
        command.args(["leash", "--held-by", &holder, "--"]).arg(&ours);
    }
    Ok(command)
}

/// The command as one on a leash of this process, where the kernel has such a thing. To be started from the main
/// thread: the kernel tells of the end of the thread that started it.
pub(crate) fn on_leash(program: &str, arguments: &[String]) -> anyhow::Result<tokio::process::Command> {
    if !cfg!(target_os = "linux") {
        let mut command = tokio::process::Command::new(program);
        command.args(arguments);
        return Ok(command);
    }
    let ours = std::env::current_exe().context("find this program's own file")?;
    let mut command = tokio::process::Command::new(ours);
    let holder = std::process::id().to_string();
    command.args(["leash", "--held-by", &holder, "--", program]);
    command.args(arguments);
    Ok(command)
}
