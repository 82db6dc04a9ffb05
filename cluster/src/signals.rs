//! Signals as this process finds them: which it was begun not to hear, and the one of a terminal that has gone.
//! Invariant: what is ignored here stays so, as under `nohup`, and for all that is started from here too.
//! It must not know what becomes of whoever hears one.

use rustix::process::Signal;
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
}
