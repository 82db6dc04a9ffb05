//! A whole system that lives as long as this run does: its supervisor is a child of ours.
//! Invariant: it does not outlive the run: a drop stops it in order, and when the run itself is killed, the kernel (of
//! Linux) kills the supervisor, by which all that it has started ends. To be started on the main thread, since the
//! kernel goes by the end of the thread.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use indicatif::ProgressBar;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use super::place::Place;
use super::{coming, up};
use crate::leash;

/// Of a drop, while whoever has interrupted the run waits. Two processes that hang have been killed by then.
const DROP_MAX: Duration = Duration::from_secs(25);
/// One that was killed ends at once, unless the kernel does not let it go.
const KILLED_MAX: Duration = Duration::from_secs(5);

pub(crate) struct System {
    supervisor: Child,
    config_file: Option<PathBuf>,
    place: Place,
}

impl System {
    /// Starts all of a configuration, and returns when it is ready. Without a file it is that which `up` would take.
    pub(crate) async fn start(config_file: Option<&Path>, data: &Path) -> anyhow::Result<Self> {
        let place = Place::new(data);
        place.make()?;
        // Taken and let go again: if somebody holds the folder, the log that would be written to is theirs.
        drop(place.lock()?);
        let (supervisor, said_before) = up::spawn_background(leash::ours_on_leash()?, config_file, &place)?;
        let mut system = Self {
            supervisor,
            config_file: config_file.map(Path::to_path_buf),
            place,
        };
        let nobody_looks = ProgressBar::hidden();
        let settled = up::until_background_has_settled(
            &system.place,
            &mut system.supervisor,
            said_before,
            &nobody_looks,
        );
        let status = settled.await?;
        // Whoever needs a system for a while needs all of it.
        match coming::lack(&system.place, &status) {
            Some(lack) => bail!(lack),
            None => Ok(system),
        }
    }

    /// What another run of this program says about the system, in JSON. That run ends with this one, too.
    pub(crate) async fn run(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let mut command = Command::new(std::env::current_exe().context("find this program's own file")?);
        command.arg("--json").arg("--data").arg(&self.place.data);
        if let Some(file) = &self.config_file {
            command.arg("--config").arg(file);
        }
        let ran = command
            .args(arguments)
            .env_remove("MENAGERIE_TOKEN")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("run this program")?;
        let said = String::from_utf8_lossy(&ran.stderr);
        ensure!(
            ran.status.success(),
            "menagerie {}: {}",
            arguments.join(" "),
            said.trim()
        );
        Ok(ran.stdout)
    }

    /// Stops all of it, and returns when the last process has ended.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        up::end(&mut self.supervisor).await.context("stop the system")
    }
}

impl Drop for System {
    /// In order, and waited for: whoever drops it may remove its folder next.
    fn drop(&mut self) {
        end_within(&mut self.supervisor, DROP_MAX);
    }
}

/// In order, if that does not take too long, and else at once: then all that it has started dies with it.
fn end_within(supervisor: &mut Child, patience: Duration) {
    for (signal, patience) in [(Signal::TERM, patience), (Signal::KILL, KILLED_MAX)] {
        let deadline = Instant::now() + patience;
        let mut is_told = false;
        while Instant::now() < deadline {
            let Ok(None) = supervisor.try_wait() else { return };
            if !is_told {
                // It has not been waited for, so the number is still its own.
                is_told = kill_process(Pid::from_child(supervisor), signal).is_ok();
            }
            std::thread::park_timeout(up::POLL_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn a_supervisor_that_does_not_end_is_seen_dead() {
        let mut sh = std::process::Command::new("sh");
        let deaf = sh.args(["-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"]);
        let mut child = deaf.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        end_within(&mut child, Duration::from_millis(200));
        let ended = child.try_wait().unwrap().unwrap();
        assert_eq!(ended.signal(), Some(Signal::KILL.as_raw()));
    }

    #[test]
    fn a_supervisor_that_ends_is_not_waited_for_any_longer() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        end_within(&mut child, Duration::from_mins(1));
        let ended = child.try_wait().unwrap().unwrap();
        assert_eq!(ended.signal(), Some(Signal::TERM.as_raw()));
    }
}
