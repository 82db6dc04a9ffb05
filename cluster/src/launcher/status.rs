//! `menagerie status`: every process, its state, and who leads.
//! Invariant: works without a supervisor too (then it asks the nodes themselves), and fails when nothing runs at all.

use std::time::Duration;

use anyhow::bail;
use service::http::{self, Timeouts};

use super::control::{self, Answer, Request};
use super::place::Place;
use super::{State, Status, View, act, leader};
use crate::context::{Context, block_on};
use crate::output::Output;

const DEADLINE: Duration = Duration::from_millis(500);

pub(crate) fn run(context: Context) -> anyhow::Result<()> {
    block_on(async {
        let status = match control::ask(&Place::new(&context.data).control(), &Request::Status).await? {
            Some(Answer::Status(status)) => status,
            Some(other) => bail!("the launcher gave an answer that does not fit: {other:?}"),
            None => without_supervisor(&context).await?,
        };
        if context.output.json {
            context.output.document(&status)?;
        } else {
            show(context.output, &status)?;
        }
        if status.processes.iter().all(|view| view.state == State::Stopped) && status.supervisor.is_none() {
            bail!(act::nobody(&context));
        }
        Ok(())
    })
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
    let http = http::client(Timeouts {
        call: Some(DEADLINE),
        ..Timeouts::default()
    });
    let mut processes = Vec::new();
    for node in &context.config.nodes {
        let address = node.client.clone();
        let answer = http.get(format!("http://{address}/readyz")).send().await;
        let state = match answer {
            Ok(answer) if answer.status().is_success() => State::Running,
            Ok(_) => State::Starting,
            Err(_) => State::Stopped,
        };
        processes.push(View {
            name: node.name(),
            kind: "node".to_owned(),
            pid: None,
            address,
            state,
            restarts: 0,
        });
    }
    let addresses: Vec<String> = processes
        .iter()
        .filter(|view| view.state != State::Stopped)
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
    })
}
