//! The page itself, what belongs to it, and its buttons.
//! Invariant: everything is in the binary, so that it works offline; the template gets the same picture that
//! later changes come from. Buttons are forms, so that they work before and without the script.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::{Path as Segments, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Response};
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, escape_formatter};
use serde::Serialize;
use service::problem::{self, Problem};

use super::Console;
use super::picture::{self, Picture};
use crate::launcher::Action;
use crate::launcher::control::{Answer, Request};
use crate::launcher::journal::Entry;
use crate::launcher::plan::Process;

const TEMPLATE: &str = include_str!("../../console/page.html");
const STYLE: &str = include_str!("../../console/console.css");
const SCRIPT: &str = include_str!("../../console/console.js");
const ICON: &str = include_str!("../../console/icon.svg");
const NAME: &str = "page.html";
/// How many entries of the journal the page begins with; more come over the stream.
const ENTRIES: usize = 20;
/// Those of the buttons, in their order.
const BUTTONS: [Action; 4] = [Action::Start, Action::Resume, Action::Pause, Action::Kill];

pub(super) struct Page {
    environment: Environment<'static>,
    rows: Vec<Row>,
    drawing: Drawing,
    data: String,
}

/// What the template is filled with.
#[derive(Serialize)]
struct Shown<'page> {
    picture: Picture,
    rows: &'page [Row],
    drawing: &'page Drawing,
    data: &'page str,
    buttons: [&'static str; 4],
    entries: Vec<Entry>,
    version: &'static str,
}

/// What never changes about a process.
#[derive(Clone, Debug, Serialize)]
struct Row {
    name: String,
    kind: &'static str,
    address: String,
    /// Of its page.
    url: String,
}

/// Where everything stands in the picture of the cluster.
#[derive(Debug, Serialize)]
struct Drawing {
    height: f64,
    nodes: Vec<Spot>,
    services: Vec<Spot>,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, Serialize)]
struct Spot {
    name: String,
    x: f64,
    y: f64,
}

/// From one node to another.
#[derive(Debug, Serialize)]
struct Line {
    from: Spot,
    to: Spot,
}

impl Page {
    pub(super) fn new(processes: &[Process], data: &Path) -> anyhow::Result<Self> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        // What is not known is an empty place, not a word.
        environment.set_formatter(|out, state, value| {
            if value.is_none() {
                return Ok(());
            }
            escape_formatter(out, state, value)
        });
        environment
            .add_template(NAME, TEMPLATE)
            .context("read the template of the console")?;
        let rows = processes.iter().map(|process| Row {
            name: process.name.clone(),
            kind: process.kind,
            address: process.address.clone(),
            url: format!("{}{}", service::http::base(&process.address), process.page),
        });
        Ok(Self {
            environment,
            rows: rows.collect(),
            drawing: draw(processes),
            data: data.display().to_string(),
        })
    }

    fn render(&self, picture: Picture, entries: Vec<Entry>) -> Result<String, minijinja::Error> {
        let shown = Shown {
            picture,
            rows: &self.rows,
            drawing: &self.drawing,
            data: &self.data,
            buttons: BUTTONS.map(Action::word),
            entries,
            version: env!("CARGO_PKG_VERSION"),
        };
        self.environment.get_template(NAME)?.render(Serde(&shown))
    }
}

const WIDTH: f64 = 360.0;
const RADIUS: f64 = 104.0;
const CENTRE: (f64, f64) = (WIDTH / 2.0, 150.0);
const SERVICES_A_ROW: usize = 4;
const SERVICE_ROW: f64 = 46.0;
/// From the middle of a node to what is below it.
const NODE_ROOM: f64 = 46.0;

/// Nodes stand in a circle, the first on top; services in rows below.
fn draw(processes: &[Process]) -> Drawing {
    let (nodes, services): (Vec<_>, Vec<_>) = processes.iter().partition(|process| process.kind == "node");
    let count = nodes.len();
    let circle = nodes.iter().enumerate().map(|(index, node)| {
        let turn = std::f64::consts::TAU * fraction(index, count) - std::f64::consts::FRAC_PI_2;
        let radius = if count == 1 { 0.0 } else { RADIUS };
        Spot {
            name: node.name.clone(),
            x: round(CENTRE.0 + radius * turn.cos()),
            y: round(CENTRE.1 + radius * turn.sin()),
        }
    });
    let nodes: Vec<Spot> = circle.collect();
    let lowest = nodes.iter().map(|spot| spot.y).fold(0.0, f64::max) + NODE_ROOM;
    let rows: Vec<_> = services.chunks(SERVICES_A_ROW).collect();
    let spots = rows.iter().enumerate().flat_map(|(row, services)| {
        services.iter().enumerate().map(move |(column, service)| Spot {
            name: service.name.clone(),
            x: round(WIDTH * (fraction(column, services.len()) + fraction(1, 2 * services.len()))),
            y: round(lowest + SERVICE_ROW * (fraction(row, 1) + 0.5)),
        })
    });
    let services = spots.collect();
    let pairs = nodes.iter().enumerate().flat_map(|(index, from)| {
        let others = nodes[index + 1..].iter();
        others.map(|to| Line {
            from: from.clone(),
            to: to.clone(),
        })
    });
    Drawing {
        height: round(lowest + SERVICE_ROW * fraction(rows.len(), 1)),
        lines: pairs.collect(),
        nodes,
        services,
    }
}

fn fraction(part: usize, whole: usize) -> f64 {
    let number = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    number(part) / number(whole.max(1))
}

fn round(length: f64) -> f64 {
    (length * 10.0).round() / 10.0
}

pub(super) async fn show(State(console): State<Arc<Console>>) -> problem::Result<Response> {
    let views = console.supervisor.present().processes;
    let standings = console.nodes.ask_for_a_new_page(&views).await;
    let picture = picture::draw(&views, &standings);
    let (mut entries, _) = console.supervisor.journal.read();
    entries.reverse();
    entries.truncate(ENTRIES);
    let rendered = console.page.render(picture, entries);
    let html = rendered.map_err(|error| Problem::internal("render the console", error))?;
    Ok((no_store(), Html(html)).into_response())
}

fn no_store() -> [(HeaderName, HeaderValue); 1] {
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))]
}

/// Asked for again with every page: they change only with the binary, which nobody can see from outside.
fn asset(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}

pub(super) async fn style() -> Response {
    asset("text/css; charset=utf-8", STYLE)
}

pub(super) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

pub(super) async fn icon() -> Response {
    asset("image/svg+xml", ICON)
}

/// One button of one process, or of whoever leads.
pub(super) async fn act(
    State(console): State<Arc<Console>>,
    Segments((name, action)): Segments<(String, String)>,
    headers: HeaderMap,
) -> problem::Result<Response> {
    let known = name == "leader" || console.page.rows.iter().any(|row| row.name == name);
    let action = Action::ALL.into_iter().find(|known| known.word() == action);
    let (true, Some(action)) = (known, action) else {
        return Err(Problem::new(
            problem::NOT_FOUND,
            "There is no such process, or it knows no such action.",
        ));
    };
    // On a task of its own: what was begun is done, also when the browser leaves.
    let supervisor = Arc::clone(&console.supervisor);
    let done = console.tasks.spawn("button", async move {
        supervisor.answer(Request::Act { action, name }).await
    });
    match done.await {
        Ok(Answer::Done(view)) if wants_json(&headers) => Ok(Json(view).into_response()),
        Ok(Answer::Done(_)) => {
            let back = [(header::LOCATION, HeaderValue::from_static("/"))];
            Ok((StatusCode::SEE_OTHER, back).into_response())
        }
        Ok(Answer::Error(error) | Answer::Stranger(error)) => Err(Problem::new(problem::CONFLICT, error)),
        Ok(other) => Err(Problem::internal(
            "press a button",
            anyhow::anyhow!("an answer that does not fit: {other:?}"),
        )),
        Err(error) => Err(Problem::internal("press a button", error)),
    }
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).map(HeaderValue::as_bytes);
    accept == Some(b"application/json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launcher::{State, View};

    fn process(name: &str, kind: &'static str) -> Process {
        Process {
            name: name.to_owned(),
            kind,
            address: "127.0.0.1:1".to_owned(),
            page: "/docs",
            arguments: Vec::new(),
            listens: Vec::new(),
        }
    }

    #[test]
    fn nodes_stand_in_a_circle_and_services_below() {
        let mut processes: Vec<_> = ["n1", "n2", "n3"].map(|name| process(name, "node")).into();
        processes.push(process("pay1", "payment"));
        processes.push(process("pay2", "payment"));
        let drawing = draw(&processes);
        let spots: Vec<_> = drawing.nodes.iter().map(|spot| (spot.x, spot.y)).collect();
        assert_eq!(spots, [(180.0, 46.0), (270.1, 202.0), (89.9, 202.0)]);
        let services: Vec<_> = drawing.services.iter().map(|spot| (spot.x, spot.y)).collect();
        assert_eq!(services, [(90.0, 271.0), (270.0, 271.0)]);
        assert_eq!(drawing.lines.len(), 3);
        assert!((drawing.height - 294.0).abs() < 0.01);
        assert!((draw(&processes[..1]).nodes[0].y - CENTRE.1).abs() < 0.01);
    }

    #[test]
    fn what_is_put_into_the_page_is_escaped() {
        let processes = [process("<script>alert(1)</script>", "node")];
        let page = Page::new(&processes, Path::new("/tmp/<b>")).unwrap();
        let view = View {
            name: processes[0].name.clone(),
            kind: "node".to_owned(),
            pid: None,
            address: String::new(),
            state: State::Killed,
            restarts: 0,
        };
        let picture = picture::draw(&[view], &super::super::nodes::Standings::default());
        let html = page.render(picture, Vec::new()).unwrap();
        assert!(!html.contains("<script>alert") && !html.contains("<b>"), "{html}");
        assert!(html.contains("&lt;script&gt;"), "{html}");
        assert!(html.contains(">killed<") && !html.contains("none<"), "{html}");
    }
}
