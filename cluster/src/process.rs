//! What every process that the launcher starts has in common: it dies with its supervisor, and it keeps
//! the log file that its output goes to from growing without bound.
//! Invariant: a supervised process never outlives its supervisor, even if that is killed with kill -9.
//! It must not know what the process does.

use std::io::{ErrorKind, Read};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, getpid, kill_process};

use crate::launcher::log_file;

/// How often one looks whether the log has grown too large.
const LOOK_EVERY: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// How the launcher starts a process; of no use on a command line that a person types.
#[derive(Args, Debug)]
pub(crate) struct Supervised {
    /// End at once when the process that started this one ends (it holds our stdin open)
    #[arg(long, hide = true)]
    die_with_parent: bool,
    /// The file that our output goes to, which is to be rotated
    #[arg(long, hide = true, value_name = "FILE", requires = "die_with_parent")]
    log_file: Option<PathBuf>,
}

impl Supervised {
    /// To be called first, before there is anything that could outlive the supervisor.
    ///
    /// Two ways, since neither is enough: the kernel's signal also ends a process that is stopped (Linux only;
    /// it comes when the *thread* that started us ends, which for the launcher is its main thread), and the end
    /// of stdin also tells of a parent that died before we asked for the signal.
    pub(crate) fn begin(self) -> anyhow::Result<()> {
        if !self.die_with_parent {
            return Ok(());
        }
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .context("ask for the parent's death")?;
        self.rotate();
        std::thread::Builder::new()
            .name("lifeline".to_owned())
            .spawn(move || self.watch())
            .context("start the lifeline thread")?;
        Ok(())
    }

    fn watch(self) {
        loop {
            let stdin = std::io::stdin();
            let mut waited = [PollFd::new(&stdin, PollFlags::IN)];
            match poll(&mut waited, Some(&LOOK_EVERY)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => self.rotate(),
                Ok(_) if is_open(&mut stdin.lock()) => {}
                Ok(_) | Err(_) => break,
            }
        }
        // As sudden as the parent's death; the store's files are made for this.
        let _ = kill_process(getpid(), Signal::KILL);
    }

    fn rotate(&self) {
        let Some(path) = &self.log_file else { return };
        if let Err(error) = log_file::rotate_own(path) {
            tracing::warn!(%error, "the log file cannot be rotated");
        }
    }
}

/// Whether the other end still holds the pipe. Nothing is ever sent through it.
fn is_open(stdin: &mut impl Read) -> bool {
    let mut ignored = [0; 64];
    match stdin.read(&mut ignored) {
        Ok(0) => false,
        Err(error) => error.kind() == ErrorKind::Interrupted,
        Ok(_) => true,
    }
}
