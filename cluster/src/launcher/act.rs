//! `menagerie kill|term|pause|resume|start|restart NAME…`: asks the supervisor to do something with its processes.
//! Invariant: names are tried in order, and the first that fails ends the command.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;

use super::control::{self, Answer, Request};
use super::place::Place;
use super::{Action, State, View};
use crate::context::{Context, block_on};
use crate::output::Usage;

const READY_DEADLINE: Duration = Duration::from_mins(1);
const POLL_EVERY: Duration = Duration::from_millis(50);

#[derive(Args)]
pub(crate) struct Names {
    /// Processes such as n1, or `leader` for the node that leads now
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Start {
    #[command(flatten)]
    names: Names,
    /// Return only when they are ready
    #[arg(long)]
    wait: bool,
}

impl Names {
    pub(crate) fn run(self, context: Context, action: Action) -> anyhow::Result<()> {
        block_on(async {
            let views = self.act(&context, action).await?;
            report(&context, &views)
        })
    }

    async fn act(&self, context: &Context, action: Action) -> anyhow::Result<Vec<View>> {
        let mut views = Vec::new();
        for name in &self.names {
            views.push(act(context, action, name).await?);
        }
        Ok(views)
    }
}

impl Start {
    pub(crate) fn run(self, context: Context, action: Action) -> anyhow::Result<()> {
        block_on(async {
            let mut views = self.names.act(&context, action).await?;
            if self.wait {
                until_ready(&context, &mut views).await?;
            }
            report(&context, &views)
        })
    }
}

/// Asks for one thing to be done with one process; answers what has become of it.
pub(crate) async fn act(context: &Context, action: Action, name: &str) -> anyhow::Result<View> {
    let request = Request::Act {
        action,
        name: name.to_owned(),
    };
    match control::ask(&Place::new(&context.data), &request).await? {
        Some(Answer::Done(view)) => Ok(view),
        Some(Answer::Stranger(told)) => bail!(Usage(told)),
        Some(Answer::Error(error)) => bail!(error),
        Some(other) => bail!("the launcher gave an answer that does not fit: {other:?}"),
        None => bail!(nobody(context)),
    }
}

/// What to say when no supervisor answers.
pub(crate) fn nobody(context: &Context) -> String {
    format!(
        "nothing runs on {}: start it with `menagerie up`, or name the right folder with --data",
        context.data.display()
    )
}

pub(crate) async fn until_ready(context: &Context, views: &mut [View]) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_DEADLINE;
    loop {
        let answer = control::ask(&Place::new(&context.data), &Request::Status).await?;
        let Some(Answer::Status(status)) = answer else {
            bail!(nobody(context))
        };
        for view in views.iter_mut() {
            if let Some(now) = status.processes.iter().find(|now| now.name == view.name) {
                *view = now.clone();
            }
        }
        let Some(late) = views.iter().find(|view| view.state != State::Running) else {
            return Ok(());
        };
        if late.state == State::Failed {
            bail!(super::supervisor::why_failed(&context.data, &late.name));
        }
        if Instant::now() > deadline {
            bail!(
                "{} is not ready after {} s ({})",
                late.name,
                READY_DEADLINE.as_secs(),
                late.state.word()
            );
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

fn report(context: &Context, views: &[View]) -> anyhow::Result<()> {
    if context.output.json {
        return Ok(context
            .output
            .document(&serde_json::json!({ "processes": views }))?);
    }
    for view in views {
        context
            .output
            .line(format_args!("{} is {}", view.name, view.state.word()))?;
    }
    Ok(())
}
