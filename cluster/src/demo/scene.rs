//! What a demo plays on: a running system, which is started first and stopped afterwards if there is none,
//! a voice, and a way to wait for what must come.
//! Invariant: what ran before runs afterwards, and what did not does not.

use std::fmt::Display;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::process::Command;

use crate::context::Context;
use crate::launcher::control::{self, Answer, Request};
use crate::launcher::place::Place;
use crate::launcher::{Status, act};
use crate::output::Output;

const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(super) struct Scene<'context> {
    context: &'context Context,
    started_here: bool,
    /// Wait for the reader before each step.
    step: bool,
}

impl<'context> Scene<'context> {
    /// Takes what runs on the data folder, or starts it.
    pub(super) async fn open(context: &'context Context, step: bool) -> anyhow::Result<Self> {
        let mut scene = Self {
            context,
            started_here: false,
            step,
        };
        if control::ask(&Place::new(&context.data), &Request::Status)
            .await?
            .is_none()
        {
            scene.say("Nothing runs yet, so everything is started first …");
            scene.menagerie(&["up", "--detach"]).await?;
            scene.started_here = true;
        }
        Ok(scene)
    }

    /// Takes and starts nothing: what is played brings a system of its own.
    pub(super) fn without_system(context: &'context Context, step: bool) -> Self {
        Self {
            context,
            started_here: false,
            step,
        }
    }

    /// Stops what was started for the demo.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        if self.started_here {
            self.menagerie(&["down"]).await?;
            self.say("What was started for this demo is stopped again.");
        }
        Ok(())
    }

    /// Another run of this program, as a user would do it.
    async fn menagerie(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(std::env::current_exe().context("find this program's own file")?);
        command.args(arguments).arg("--data").arg(&self.context.data);
        if let Some(file) = &self.context.config_file {
            command.arg("--config").arg(file);
        }
        let output = command.output().await.context("run menagerie")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim();
            bail!("{}", said.strip_prefix("menagerie: ").unwrap_or(said));
        }
        Ok(())
    }

    /// Told to people; programs get the report at the end.
    pub(super) fn say(&self, text: impl Display) {
        if !self.context.output.json {
            // A listener who has left does not stop the play; its report fails then.
            let _ = self.context.output.line(text);
        }
    }

    /// A new chapter; waits for Enter when asked to and there is somebody.
    pub(super) async fn chapter(&self, text: impl Display) -> anyhow::Result<()> {
        if self.step && std::io::stdin().is_terminal() && !self.context.output.json {
            self.context.output.note("\n[Enter]");
            tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
                .await
                .context("wait for Enter")??;
        }
        self.say(format_args!("\n{text}"));
        Ok(())
    }

    pub(super) fn output(&self) -> Output {
        self.context.output
    }

    pub(super) async fn status(&self) -> anyhow::Result<Status> {
        match control::ask(&Place::new(&self.context.data), &Request::Status).await? {
            Some(Answer::Status(status)) => Ok(status),
            _ => bail!(act::nobody(self.context)),
        }
    }

    /// Looks again and again until there is something to see.
    pub(super) async fn wait_for<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(seen) = look().await? {
                return Ok(seen);
            }
            if Instant::now() > end {
                bail!("waited {} s in vain for {what}", deadline.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
