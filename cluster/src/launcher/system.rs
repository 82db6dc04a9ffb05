//! A whole system that lives as long as this run does: its supervisor is a child of ours.
//! Invariant: it does not outlive the run: a drop stops it in order, and when the run itself is killed, the kernel (of
//! Linux) kills the supervisor, by which all that it has started ends. To be started on the main thread, since the
//! kernel goes by the end of the thread.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use indicatif::ProgressBar;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use super::place::Place;
use super::up;
use crate::leash;

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
        // Taken and let go again: if somebody holds the folder, the log that would be emptied is theirs.
        drop(place.lock()?);
        let supervisor = up::spawn_background(leash::ours_on_leash()?, config_file, &place)?;
        let mut system = Self {
            supervisor,
            config_file: config_file.map(Path::to_path_buf),
            place,
        };
        let nobody_looks = ProgressBar::hidden();
        up::until_background_is_ready(&system.place, &mut system.supervisor, &nobody_looks).await?;
        Ok(system)
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
        let deadline = Instant::now() + up::END_DEADLINE;
        let mut is_told = false;
        while let Ok(None) = self.supervisor.try_wait() {
            if !is_told {
                // It has not been waited for, so the number is still its own.
                is_told = kill_process(Pid::from_child(&self.supervisor), Signal::TERM).is_ok();
            }
            if Instant::now() > deadline {
                // What it has started dies with it.
                let _ = self.supervisor.kill();
                return;
            }
            std::thread::park_timeout(up::POLL_EVERY);
        }
    }
}
