//! One server of an arena: how it is started, and everything that can be done to its process.
//! Invariant: it never outlives the run: a drop kills it, and the kernel does when the run itself was killed.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{LOOK_EVERY, wait_for};

const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// What stands in the log behind all that a process has said which has ended, and how it did.
pub(crate) const ENDED: &str = "---- ended: ";

/// How a server is started, each time.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// The network namespace it lives in.
    pub(crate) namespace: Option<String>,
    pub(crate) log: PathBuf,
}

pub(crate) struct Server {
    pub(crate) start: Start,
    child: Option<Child>,
    lives: Lives,
}

/// How often a server was started, for whoever must know whether the one it hears is still the one it heard before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lives(Arc<AtomicU64>);

impl Lives {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// To be called once the last life is over, and before the next can say anything.
    pub(crate) fn begin(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Server {
    pub(crate) fn new(start: Start) -> Self {
        Self {
            start,
            child: None,
            lives: Lives::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.start.name
    }

    pub(crate) fn lives(&self) -> Lives {
        self.lives.clone()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// To be called on the main thread: the death of the thread that started a server is the server's end.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            bail!("{} runs already", self.name());
        }
        let log = self.log()?;
        let mut words: Vec<String> = Vec::new();
        if let Some(namespace) = &self.start.namespace {
            // Only the network: with `ip netns exec` it would also keep copies of all mounts, also of dead disks.
            words.extend([
                "nsenter".to_owned(),
                format!("--net=/run/netns/{namespace}"),
                "--".to_owned(),
            ]);
        }
        if cfg!(target_os = "linux") {
            // Each of these becomes the next, so that the process keeps its number.
            words.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned));
        }
        words.push(self.start.program.display().to_string());
        words.extend(self.start.arguments.iter().cloned());
        self.lives.begin();
        let child = Command::new(&words[0])
            .args(&words[1..])
            .envs(self.start.environment.iter().cloned())
            // Its end tells a server that looks for it that we are gone.
            .stdin(Stdio::piped())
            .stdout(log.try_clone().context("open the log twice")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.name()))?;
        self.child = Some(child);
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.with_context(|| format!("{} does not run", self.name()))?;
        kill_process(pid, signal).with_context(|| format!("send a signal to {}", self.name()))
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        let ended = self.child.as_mut().map(Child::try_wait);
        matches!(ended, Some(Ok(Some(_))))
    }

    /// Kills it, if it runs, and sees it dead; others on this thread go on meanwhile. One that the kernel does not let
    /// go, as when it hangs in a dead disk, is not waited for without end.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        // One that is dead already cannot be killed, and can be waited for all the same.
        let _ = child.kill();
        let pid = child.id();
        let ended = self.ended().await.map(drop);
        ended.with_context(|| format!("{} was killed: {}", self.name(), whereabouts(pid)))
    }

    /// Waits for the end of one that was asked to stop, or killed; answers how it ended.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let what = format!("the end of {}", self.name());
        let status = wait_for(&what, STOP_DEADLINE, async || {
            self.child.as_mut()?.try_wait().ok().flatten()
        });
        let status = status.await?;
        self.child = None;
        self.remark(&format!("{ENDED}{status}"))?;
        Ok(status)
    }

    /// Puts a line between what it has said so far and what it says from now on.
    pub(crate) fn remark(&self, line: &str) -> anyhow::Result<()> {
        // One that was killed may have been so in the middle of a line.
        let written = self.log()?.write_all(format!("\n{line}\n").as_bytes());
        written.with_context(|| format!("write to {}", self.start.log.display()))
    }

    fn log(&self) -> anyhow::Result<File> {
        let log = OpenOptions::new().create(true).append(true).open(&self.start.log);
        log.with_context(|| format!("open {}", self.start.log.display()))
    }

    /// The end of what it has said, for whoever wants to know why it failed.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.start.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else {
            return;
        };
        // One that cannot be ended has nobody left who could do more about it.
        let _ = child.kill();
        let end = Instant::now() + STOP_DEADLINE;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::park_timeout(LOOK_EVERY);
        }
    }
}

/// Where the kernel has a process that does not end.
fn whereabouts(pid: u32) -> String {
    let file = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let state = file("status");
    let state = state.lines().find(|line| line.starts_with("State:"));
    format!("{} in {:?}", state.unwrap_or("State: unknown"), file("wchan"))
}

#[cfg(test)]
impl Server {
    /// One that does what these words tell a shell.
    pub(crate) fn of_shell(folder: &std::path::Path, words: &str) -> Self {
        Self::new(Start {
            name: "shell".to_owned(),
            program: "sh".into(),
            arguments: ["-c", words].map(str::to_owned).to_vec(),
            environment: Vec::new(),
            namespace: None,
            log: folder.join("log"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::tests::beside_others;

    /// Now and then one may be gone before anybody looks, so several are killed.
    #[tokio::test]
    async fn others_go_on_until_one_that_was_killed_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::of_shell(folder.path(), "exec sleep 60");
        let kills = async {
            for _ in 0..5 {
                server.start().unwrap();
                server.kill().await.unwrap();
                assert!(server.pid().is_none());
            }
        };
        let ((), turns) = beside_others(kills).await;
        assert!(turns > 1, "others got {turns} turns");
    }
}
