//! What a demo plays on: a running system, which is started first and stopped afterwards if there is none,
//! a voice, and a way to wait for what must come.
//! Invariant: what ran before runs afterwards, and what did not does not.

use std::fmt::Display;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::oneshot;

use crate::certificates;
use crate::context::Context;
use crate::launcher::control::{self, Answer, Request};
use crate::launcher::place::Place;
use crate::launcher::{Status, System, act};
use crate::output::Output;

const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(super) struct Scene<'context> {
    context: &'context Context,
    /// What was started for the demo. It ends with the scene, however that ends.
    started: Option<System>,
    /// Wait for the reader before each step.
    step: bool,
}

impl<'context> Scene<'context> {
    /// Takes what runs on the data folder, or starts it.
    pub(super) async fn open(context: &'context Context, step: bool) -> anyhow::Result<Self> {
        let mut scene = Self::without_system(context, step);
        if control::ask(&Place::new(&context.data), &Request::Status)
            .await?
            .is_none()
        {
            scene.say("Nothing runs yet, so everything is started first …");
            let system = System::start(context.config_file.as_deref(), &context.data).await?;
            scene.started = Some(system);
        }
        // The first start has made the certificates.
        certificates::speak_as_client(context)?;
        Ok(scene)
    }

    /// Takes and starts nothing: what is played brings a system of its own.
    pub(super) fn without_system(context: &'context Context, step: bool) -> Self {
        Self {
            context,
            started: None,
            step,
        }
    }

    /// Stops what was started for the demo.
    pub(super) async fn close(mut self) -> anyhow::Result<()> {
        if let Some(system) = self.started.take() {
            system.stop().await?;
            self.say("What was started for this demo is stopped again.");
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
            let (tell, told) = oneshot::channel();
            // On a thread of its own: one of the runtime's would be waited for at the end, and so would Enter by a demo
            // that was interrupted.
            let reader = std::thread::Builder::new().name("enter".to_owned());
            let reading = reader.spawn(move || {
                // Nobody may wait for it any more.
                let _ = tell.send(std::io::stdin().read_line(&mut String::new()));
            });
            reading.context("wait for Enter")?;
            told.await.context("wait for Enter")?.context("wait for Enter")?;
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
