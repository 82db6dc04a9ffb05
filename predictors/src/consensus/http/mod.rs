//! The HTTP edge of the consensus: each route of the contract, one file a topic.
//! Invariant: everything that moves tokens asks for a token first; what models said of a round is told only once it
//! is stored.

mod about;
pub(super) mod answers;
#[cfg(test)]
mod bent;
mod caller;
mod models;
mod page;
mod past;
mod predict;
mod rounds;
mod state;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use service::docs;

use crate::process::{Routes, counted};

pub(super) use state::App;

pub(crate) const OPENAPI: &str = include_str!("openapi.json");

type Shared = Arc<App>;

/// Every route but those that `edge::wrap` adds for all services.
fn routes() -> Routes<Shared> {
    vec![
        ("/predict", get(predict::look).post(predict::open)),
        ("/outcomes", post(rounds::outcome)),
        ("/rounds/{id}", get(rounds::show)),
        ("/models", get(models::list).post(models::register)),
        ("/models/{name}", get(models::show).delete(models::unbond)),
        ("/models/{name}/stake", post(models::top_up)),
        ("/ledger", get(about::ledger)),
        ("/history", get(about::history)),
        ("/play", post(page::play)),
        ("/", get(page::page)),
        ("/page.js", get(page::script)),
        ("/page.css", get(page::style)),
        ("/icon.svg", get(page::icon)),
        ("/readyz", get(about::ready)),
        ("/metrics", get(about::metrics)),
        ("/openapi.json", get(async || docs::document(OPENAPI))),
        ("/docs", get(async || docs::page())),
    ]
}

pub(super) fn router(app: Shared) -> Router {
    counted(routes(), &app.requests).with_state(app)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(super::OPENAPI).unwrap();
        let paths = document["paths"].as_object().unwrap().keys();
        let described: BTreeSet<&str> = paths.map(String::as_str).collect();
        let mut served: BTreeSet<&str> = super::routes().iter().map(|(path, _)| *path).collect();
        served.extend(["/livez", "/problems/{code}"]);
        assert_eq!(described, served);
    }
}
