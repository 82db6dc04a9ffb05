//! The routes of a mirror: how far it is, what it has, and the way to the shop for what it must not change itself.
//! Invariant: everything that is read comes from the copy, so that it works while the store does not.

#[cfg(test)]
mod bent;
mod goods;
mod orders;
mod paging;
mod pass;
mod products;
mod reads;
mod standing;
mod state;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, any, get, post};
use service::docs;

pub(crate) use state::App;

const OPENAPI: &str = include_str!("openapi.json");

type Shared = Arc<App>;

/// Every route but those that `edge::wrap` adds for all services.
fn routes() -> Vec<(&'static str, MethodRouter<Shared>)> {
    let passed = pass::pass;
    vec![
        ("/status", get(standing::status)),
        ("/sync", post(standing::sync)),
        ("/verify", get(standing::verify)),
        ("/products", get(products::list).post(passed)),
        ("/products/{id}", get(products::show).put(passed).delete(passed)),
        ("/orders", post(passed)),
        ("/orders/{userId}", get(orders::list)),
        ("/orders/{userId}/{orderId}/cancel", post(passed)),
        ("/cart/{*rest}", any(passed)),
        ("/metrics", get(standing::metrics)),
        ("/readyz", get(standing::ready)),
        ("/openapi.json", get(async || docs::document(OPENAPI))),
        ("/docs", get(async || docs::page())),
    ]
}

pub(crate) fn router(app: App) -> Router {
    let requests = app.requests.clone();
    let routes = routes()
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| {
            router.route(path, requests.counted(path, methods))
        });
    routes.with_state(Arc::new(app))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(super::OPENAPI).unwrap();
        let described: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
        let served = super::routes()
            .into_iter()
            .map(|(path, _)| path.replace("{*", "{"));
        let mut served: BTreeSet<String> = served.collect();
        served.extend(["/livez".to_owned(), "/problems/{code}".to_owned()]);
        assert_eq!(described, served);
    }
}
