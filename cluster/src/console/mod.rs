//! The console: one page on which one watches the whole, breaks it, and sees it heal.
//! In reading order: `page` is what a browser gets first, `stream` what it is told from then on, `session` what
//! is done while somebody looks, `nodes` asks the nodes and `services` the others, `board` collects what the probe
//! sees, `picture` puts it into words, `guard` says who may do what.
//! Invariant: it costs nothing when nobody looks. It must not know how the supervisor does what it is asked.

#[cfg(test)]
mod bent;
mod board;
mod guard;
mod nodes;
mod page;
mod picture;
mod services;
mod session;
mod stream;

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use service::serve::{self, Limits};
use service::tasks::Tasks;

use crate::context::Context;
use crate::launcher::plan;
use crate::launcher::supervisor::Supervisor;
use guard::Guard;
use nodes::Nodes;
use stream::Hub;

const CONNECTIONS_MAX: usize = 64;

/// What all parts share.
pub(crate) struct Console {
    supervisor: Arc<Supervisor>,
    nodes: Nodes,
    hub: Hub,
    guard: Guard,
    page: page::Page,
    tasks: Tasks,
}

/// Serves the page on this socket until the tasks stop.
pub(crate) fn start(
    context: &Context,
    socket: TcpListener,
    supervisor: &Arc<Supervisor>,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let secrets = context.secrets()?;
    let root = secrets
        .token("root")
        .context("secrets.toml has no token for root")?;
    let address = socket.local_addr().context("ask for the console's address")?;
    socket
        .set_nonblocking(true)
        .context("prepare the console's socket")?;
    let listener = tokio::net::TcpListener::from_std(socket).context("take over the console's socket")?;
    let console = Arc::new(Console {
        supervisor: Arc::clone(supervisor),
        nodes: Nodes::new(root.clone()),
        hub: Hub::new(),
        guard: Guard::new(address.ip().is_loopback(), root.clone()),
        page: page::Page::new(&plan::processes(&context.config), &context.data)?,
        tasks: tasks.clone(),
    });
    let limits = Limits {
        connections_max: CONNECTIONS_MAX,
        connections_per_address_max: CONNECTIONS_MAX,
        ..Limits::default()
    };
    tasks.spawn(
        "console",
        serve::serve(listener, router(Arc::clone(&console)), limits, tasks.clone()),
    );
    tasks.spawn("console sessions", session::watch_over(console));
    Ok(())
}

fn router(console: Arc<Console>) -> Router {
    let routes = Router::new()
        .route("/", get(page::show))
        .route("/console.css", get(page::style))
        .route("/console.js", get(page::script))
        .route("/icon.svg", get(page::icon))
        .route("/events", get(stream::events))
        .route("/processes/{name}/{action}", post(page::act))
        .layer(from_fn_with_state(Arc::clone(&console), guard::check))
        .with_state(console);
    service::edge::wrap(routes, "console")
}
