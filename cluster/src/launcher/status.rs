//! `menagerie status`: every process, its state, and who leads.
//! With `--watch` again and again until Ctrl-C, as a picture on a terminal, as one line of JSON a change for programs.
//! Invariant: works without a supervisor too (then it asks the nodes themselves), and fails when nothing runs at all.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use service::http::{self, Timeouts};

use super::control::{self, Answer, Request};
use super::place::Place;
use super::{State, Status, View, act, leader, plan};
use crate::certificates;
use crate::context::{Context, block_on};
use crate::output::Output;

const DEADLINE: Duration = Duration::from_millis(500);

const WATCH_EVERY: Duration = Duration::from_millis(500);

#[derive(Args)]
pub(crate) struct Show {
    /// Go on showing it until Ctrl-C
    #[arg(long, short)]
    watch: bool,
}

impl Show {
    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        block_on(async {
            if self.watch {
                return watch(&context).await;
            }
            let status = look(&context).await?;
            if context.output.json {
                context.output.document(&status)?;
            } else {
                show(context.output, &status)?;
            }
            if is_nobody(&status) {
                bail!(act::nobody(&context));
            }
            Ok(())
        })
    }
}

fn is_nobody(status: &Status) -> bool {
    let mut processes = status.processes.iter();
    status.supervisor.is_none() && processes.all(|view| view.state == State::Stopped)
}

async fn look(context: &Context) -> anyhow::Result<Status> {
    match control::ask(&Place::new(&context.data), &Request::Status).await? {
        Some(Answer::Status(status)) => Ok(status),
        Some(other) => bail!("the launcher gave an answer that does not fit: {other:?}"),
        None => without_supervisor(context).await,
    }
}

/// Also when nothing runs: somebody may be waiting for it to begin.
async fn watch(context: &Context) -> anyhow::Result<()> {
    let mut shown = None;
    loop {
        let status = look(context).await?;
        if shown.as_ref() != Some(&status) {
            if context.output.json {
                context.output.json_line(&status)?;
            } else {
                context.output.clear()?;
                show(context.output, &status)?;
                if is_nobody(&status) {
                    context.output.note(act::nobody(context));
                }
            }
            shown = Some(status);
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

pub(crate) fn show(output: Output, status: &Status) -> std::io::Result<()> {
    output.table(
        ["NAME", "KIND", "STATE", "PID", "ADDRESS", "RESTARTS"],
        status.processes.iter().map(|view| {
            let leads = status.leader.as_ref() == Some(&view.name);
            [
                view.name.clone(),
                if leads {
                    format!("{}, leads", view.kind)
                } else {
                    view.kind.clone()
                },
                view.state.word().to_owned(),
                view.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                view.address.clone(),
                view.restarts.to_string(),
            ]
        }),
    )
}

/// Nodes that were started one by one, or on other machines, are asked directly.
async fn without_supervisor(context: &Context) -> anyhow::Result<Status> {
    certificates::speak_as_client(context)?;
    let http = http::client(Timeouts {
        call: Some(DEADLINE),
        ..Timeouts::default()
    });
    let mut processes = Vec::new();
    for process in plan::processes(&context.config) {
        let address = process.address;
        let answer = http
            .get(format!("{}/readyz", service::http::base(&address)))
            .send()
            .await;
        let state = match answer {
            Ok(answer) if answer.status().is_success() => State::Running,
            Ok(_) => State::Starting,
            Err(_) => State::Stopped,
        };
        processes.push(View {
            name: process.name,
            kind: process.kind.to_owned(),
            pid: None,
            address,
            state,
            restarts: 0,
        });
    }
    let addresses: Vec<String> = processes
        .iter()
        .filter(|view| view.kind == "node" && view.state != State::Stopped)
        .map(|view| view.address.clone())
        .collect();
    let leader = match context
        .secrets()
        .ok()
        .as_ref()
        .and_then(|secrets| secrets.token("root"))
    {
        Some(token) => leader::find(&http, &addresses, token.expose()).await,
        None => None,
    };
    Ok(Status {
        processes,
        leader: leader.map(|id| format!("n{id}")),
        data: context.data.display().to_string(),
        supervisor: None,
        console: None,
        ready: false,
        partial: false,
    })
}
