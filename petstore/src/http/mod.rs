//! The HTTP edge: each route of the contract, one file a topic.
//! Requests are parsed here into types that cannot be wrong. Invariant: every route but the open ones asks `caller`
//! first; no card number, password or session token leaves the request it came in, neither into a log nor into an
//! answer of another route. It must not know keys or transactions.

mod about;
#[cfg(test)]
mod bent;
mod caller;
mod carts;
mod events;
mod orders;
mod pages;
mod pictures;
mod products;
mod reading;
mod state;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, get, post, put};
use service::{docs, problem};

pub(crate) use state::{App, Counters};

const OPENAPI: &str = include_str!("openapi.json");

type Shared = Arc<App>;

/// Every route but those that `edge::wrap` adds for all services.
fn routes() -> Vec<(&'static str, MethodRouter<Shared>)> {
    vec![
        ("/hello", get(about::hello)),
        ("/products", get(products::list).post(products::create)),
        (
            "/products/{id}",
            get(products::show).put(products::change).delete(products::remove),
        ),
        ("/pets", get(products::pets).post(products::create_pet)),
        ("/pets/{id}", get(products::pet)),
        ("/pictures/{file}", get(pictures::show)),
        ("/users", post(users::sign_up)),
        ("/login", post(users::sign_in)),
        ("/logout", post(users::sign_out)),
        ("/me", get(users::me)),
        (
            "/cart/{user}",
            get(carts::show).post(carts::add).delete(carts::empty),
        ),
        (
            "/cart/{user}/item/{product}",
            put(carts::set).delete(carts::remove),
        ),
        ("/orders", post(orders::order)),
        ("/orders/{user}", get(orders::list)),
        ("/orders/{user}/{order}", get(orders::show)),
        ("/orders/{user}/{order}/cancel", post(orders::cancel)),
        ("/events", get(events::events)),
        ("/admin/audit", get(about::audit)),
        ("/metrics", get(about::metrics)),
        ("/readyz", get(about::ready)),
        ("/openapi.json", get(async || docs::document(OPENAPI))),
        ("/docs", get(async || docs::page())),
    ]
}

pub(crate) fn router(app: App) -> Router {
    let mut router = Router::new();
    for (path, methods) in routes().into_iter().chain(pages::routes()) {
        router = router.route(path, app.counters.requests.counted(path, methods));
    }
    router.with_state(Arc::new(app))
}

type Result<T> = problem::Result<T>;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(super::OPENAPI).unwrap();
        let described: BTreeSet<&str> = document["paths"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let mut served: BTreeSet<&str> = super::routes().iter().map(|(path, _)| *path).collect();
        served.extend(["/livez", "/problems/{code}"]);
        assert_eq!(described, served);
    }
}
