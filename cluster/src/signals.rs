//! Signals as this process finds them: which it was begun not to hear, the one of a terminal that has gone, who is there to
//! take back the one that makes it stand still, and whether another one stands still.
//! Invariant: what is ignored here stays so, as under `nohup`, and for all that is started from here too.
//! It must not know what becomes of whoever hears one.

use std::fmt::Display;

use rustix::process::{Pid, Signal, getpgid, getppid, getsid};
use tokio::signal::unix::{self, SignalKind, signal};

/// The terminal is gone, or whoever is at its other end.
pub(crate) struct HangUp {
    /// None: it is ignored.
    heard: Option<unix::Signal>,
}

impl HangUp {
    pub(crate) fn listen() -> std::io::Result<Self> {
        let heard = (!is_ignored(Signal::HUP)).then(|| signal(SignalKind::hangup()));
        Ok(Self {
            heard: heard.transpose()?,
        })
    }

    /// Cancel-safe.
    pub(crate) async fn next(&mut self) {
        match &mut self.heard {
            Some(heard) => {
                heard.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Whether this process was begun so that it does not hear a signal. Where the kernel cannot be asked, it does.
fn is_ignored(signal: Signal) -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| says_ignored(&status, signal))
}

fn says_ignored(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| (mask >> (signal.as_raw() - 1)) & 1 == 1)
}

/// Whether somebody is there who can let this process's group go on when it stands still: a process of another group in
/// its session, such as a shell. Where nobody is, the kernel lets a key of the terminal stop no process by default; one
/// that hears of the key has to see to that itself. Where the kernel cannot be asked, somebody is.
pub(crate) fn can_be_let_go_on() -> bool {
    let (group, session) = (getpgid(None), getsid(None));
    let mut above = getppid();
    while let Some(process) = above {
        if getpgid(Some(process)) != group {
            return getsid(Some(process)) == session;
        }
        let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else {
            return true;
        };
        above = parent_in(&status);
    }
    false
}

/// None: it has none, or none that can be seen from here.
fn parent_in(status: &str) -> Option<Pid> {
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Pid::from_raw(parent.trim().parse().ok()?)
}

/// Whether a process was made to stand still, as by Ctrl-Z. Where the kernel cannot be asked, it was not.
pub(crate) fn stands_still(process: impl Display) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/status")).is_ok_and(|status| says_stopped(&status))
}

fn says_stopped(status: &str) -> bool {
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_some_and(|state| state.trim_start().starts_with('T'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_ignores_is_read_from_what_the_kernel_tells() {
        let status = |mask: &str| format!("Name:\tmenagerie\nSigIgn:\t{mask}\nSigCgt:\t0000000000000001\n");
        assert!(says_ignored(&status("0000000000001001"), Signal::HUP));
        assert!(!says_ignored(&status("0000000000001000"), Signal::HUP));
        assert!(says_ignored(&status("0000000000000004"), Signal::QUIT));
        assert!(!says_ignored("Name:\tmenagerie\n", Signal::HUP));
    }

    #[test]
    fn whose_child_a_process_is_is_read_from_what_the_kernel_tells() {
        let parent = |pid: &str| parent_in(&format!("Pid:\t7\nPPid:\t{pid}\nTracerPid:\t9\n"));
        assert_eq!(parent("5"), Pid::from_raw(5));
        assert_eq!(parent("0"), None);
        assert_eq!(parent_in("Name:\tmenagerie\n"), None);
    }

    #[test]
    fn who_stands_still_is_read_from_what_the_kernel_tells() {
        let stopped = |state: &str| says_stopped(&format!("Name:\tmenagerie\nState:\t{state}\nTgid:\t7\n"));
        assert!(stopped("T (stopped)"));
        // A debugger holds it, and lets it go on.
        assert!(!stopped("t (tracing stop)"));
        assert!(!stopped("S (sleeping)") && !says_stopped("Name:\tmenagerie\n"));
    }
}
