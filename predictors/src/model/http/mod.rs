//! The HTTP edge of one model.
//! Invariant: requests are read here into rows that cannot be wrong; where models are private, every prediction asks
//! for the word of the consensus first.

mod about;
#[cfg(test)]
pub(super) mod bent;
mod infer;
#[cfg(test)]
mod many;
mod predict;
mod state;

use std::sync::Arc;

use axum::Router;
use axum::response::Redirect;
use axum::routing::{get, post};
use service::docs;

use crate::process::{Routes, counted};

pub(super) use state::{App, Ready};

pub(crate) const OPENAPI: &str = include_str!("openapi.json");

type Shared = Arc<App>;

/// Every route but those that `edge::wrap` adds for all services.
fn routes() -> Routes<Shared> {
    vec![
        ("/predict", get(predict::by_query).post(predict::by_body)),
        ("/model", get(about::card)),
        ("/v2", get(infer::server)),
        ("/v2/health/live", get(infer::live)),
        ("/v2/health/ready", get(infer::ready)),
        ("/v2/models/{name}", get(infer::metadata)),
        ("/v2/models/{name}/ready", get(infer::model_ready)),
        ("/v2/models/{name}/infer", post(infer::infer)),
        ("/readyz", get(about::ready)),
        ("/metrics", get(about::metrics)),
        ("/openapi.json", get(async || docs::document(OPENAPI))),
        ("/docs", get(async || docs::page())),
    ]
}

pub(super) fn router(app: Shared) -> Router {
    counted(routes(), &app.requests)
        .route("/", get(async || Redirect::temporary("/docs")))
        .with_state(app)
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
