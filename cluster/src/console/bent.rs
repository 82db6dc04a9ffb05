//! Requests that no page of the console sends. Behind it is a launcher of no processes, and no button is pressed: what
//! is understood waits for that.
//! Invariant: each is understood or refused, on this machine as from others.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use service::secrets::Secret;
use service::tasks::Tasks;

use super::guard::Guard;
use super::nodes::Nodes;
use super::page::Page;
use super::stream::Hub;
use super::{Console, router};
use crate::bent_requests::{feed_requests, runtime};
use crate::launcher::place::Place;
use crate::launcher::supervisor::Supervisor;

const ROOT: &str = "the-token-of-root";

fn console(folder: &Path, loopback: bool) -> Router {
    let (root, tasks) = (Secret::new(ROOT), Tasks::new());
    let place = Place::new(&folder.join("data"));
    let supervisor = Supervisor::of_nothing(place, &tasks).expect("nobody else has the folder");
    router(Arc::new(Console {
        supervisor: Arc::new(supervisor),
        nodes: Nodes::new(root.clone()),
        hub: Hub::new(),
        guard: Guard::new(loopback, root),
        page: Page::new(&[], folder).expect("the template is whole"),
        tasks,
    }))
}

fn feed_console(loopback: bool, whole: &[String]) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let folder = tempfile::tempdir().expect("there is a folder for it");
    feed_requests(&console(folder.path(), loopback), whole);
}

#[test]
fn requests_of_this_machine() {
    let whole = [
        "GET /\nhost: localhost:8080\n\n",
        "GET /console.js\nhost: 127.0.0.1:8080\n\n",
        "GET /events\nhost: [::1]:8080\nlast-event-id: 7\n\n",
        "POST /processes/leader/kill\nhost: localhost:8080\norigin: http://localhost:8080\naccept: application/json\n\n",
        "POST /processes/l%65ader/restart\nhost: localhost\nsec-fetch-site: same-origin\n\n",
    ];
    feed_console(true, &whole.map(str::to_owned));
}

#[test]
fn requests_of_others() {
    let password = STANDARD.encode(format!("anybody:{ROOT}"));
    let whole = [
        format!("GET /\nhost: console.example\nauthorization: Basic {password}\n\n"),
        format!("GET /events\nauthorization: Bearer {ROOT}\n\n"),
        format!(
            "POST /processes/leader/pause\nhost: console.example:8080\norigin: https://console.example:8080\n\
             sec-fetch-site: same-origin\nauthorization: Bearer {ROOT}\n\n"
        ),
    ];
    feed_console(false, &whole);
}
