//! Changes of products, orders and carts are the shop's: they are passed on to one of its instances.
//! Invariant: what may have been carried out is sent to no second instance, unless it is safe to repeat; all that are
//! asked have the time of one request together.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Request, Response, header};
use kvstore_client::Registration;
use service::problem::{self, Problem};
use service::{body, edge, http};
use std::time::Duration;
use tokio::time::Instant;

use super::{App, Shared};

/// What belongs to one connection, or is made anew for the next.
const LEFT_OUT: [HeaderName; 7] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const REGISTRY: &str = "registry/petstore/";

pub(super) async fn pass(
    State(app): State<Shared>,
    request: Request<Body>,
) -> problem::Result<Response<Body>> {
    let config = &app.config.gateway;
    let deadline = Instant::now() + Duration::from_millis(config.request_ms_max);
    let (parts, body) = request.into_parts();
    let body = body::read(body, config.body_bytes_max, deadline).await?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let repeatable = parts.method.is_safe() || parts.headers.contains_key("idempotency-key");
    let headers = onward(parts.headers);
    let addresses = addresses(&app).await?;
    // A shop waits for the end of an order before it answers.
    let waits = Duration::from_millis(app.config.shop.order_wait_ms) + Duration::from_secs(1);
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        // One that hangs leaves time for those that may be asked after it.
        let sharing = if repeatable { addresses.len() - tried } else { 1 };
        let share = left / u32::try_from(sharing).unwrap_or(u32::MAX);
        let time = share.max(waits.min(left / 2));
        let request = app
            .http
            .request(parts.method.clone(), format!("{}{path}", http::base(address)))
            .timeout(time);
        let sent = request.headers(headers.clone()).body(body.clone()).send().await;
        match sent {
            Ok(answer) => return back(answer, config.body_bytes_max).await,
            Err(error) if error.is_connect() || repeatable => {
                // It tells the whole URL, with whatever was asked for.
                let error = error.without_url();
                tracing::debug!(%error, "an instance of the shop gave no answer");
            }
            Err(_lost) => {
                let detail = "The shop gave no answer, and the request may have been carried out. Look before you \
                              send it again; with an `Idempotency-Key` it would have been repeated safely.";
                return Err(Problem::new(problem::OUTCOME_UNKNOWN, detail));
            }
        }
    }
    let detail = "No instance of the shop answers, and the copy itself is not changed by anybody else.";
    Err(Problem::new(problem::NO_INSTANCE, detail).retry_after_ms(1000))
}

/// Who is registered, as the copy knows it, and what the configuration says: that alone, where there is no copy yet or
/// too many read it. What is passed on changes nothing here and needs nothing else of it.
async fn addresses(app: &App) -> problem::Result<Vec<String>> {
    let rows = match app.look_up(|reader| reader.under(REGISTRY)).await {
        Err(problem) if problem.kind.status == 503 => Vec::new(),
        read => read?,
    };
    let registered = rows.iter().filter_map(|row| {
        let read: Result<Registration, _> = serde_json::from_slice(&row.value);
        read.ok().map(|registration| registration.address)
    });
    let mut addresses: Vec<String> = registered.collect();
    for configured in &app.config.shop.addresses {
        if !addresses.contains(configured) {
            addresses.push(configured.clone());
        }
    }
    Ok(addresses)
}

fn onward(mut headers: HeaderMap) -> HeaderMap {
    for name in LEFT_OUT {
        headers.remove(name);
    }
    if let Ok(id) = edge::request_id().parse() {
        headers.insert("x-request-id", id);
    }
    headers
}

async fn back(answer: reqwest::Response, bytes_max: usize) -> problem::Result<Response<Body>> {
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers.remove("x-request-id");
    let Some(body) = whole(answer, bytes_max).await else {
        let detail = "The shop's answer broke off, or is larger than it may be; the request may have been carried \
                      out.";
        return Err(Problem::new(problem::OUTCOME_UNKNOWN, detail));
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// The answers of these routes are small; streams are not passed on here. One need not say how long it is, so it is
/// counted while it comes.
async fn whole(mut answer: reqwest::Response, bytes_max: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.ok()? {
        if body.len() + piece.len() > bytes_max {
            return None;
        }
        body.extend_from_slice(&piece);
    }
    Some(body)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use axum::Router;
    use axum::http::{Method, StatusCode, Uri};
    use futures_util::FutureExt as _;
    use service::config::Config;
    use service::serve::{self, Limits};
    use service::tasks::Tasks;
    use tokio::net::TcpListener;
    use tower::ServiceExt as _;

    use super::super::bent::{mirror, mirror_at};
    use super::super::router;
    use super::*;

    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    /// What is answered where the shop is at these addresses, and how long that takes.
    async fn passed_on(addresses: Vec<String>, ms: u64) -> (StatusCode, Duration) {
        let mut config = Config::default();
        config.shop.addresses = addresses;
        config.gateway.request_ms_max = ms;
        let folder = tempfile::tempdir().unwrap();
        let (router, _operator) = mirror(folder.path(), config);
        let request = Request::get("/cart/u1").body(Body::empty()).unwrap();
        let began = Instant::now();
        let answer = router.oneshot(request).await.unwrap();
        (answer.status(), began.elapsed())
    }

    #[tokio::test]
    async fn however_many_hang_they_have_the_time_of_one_request() {
        // They are connected to, and never answer.
        let (mut hung, mut addresses) = (Vec::new(), Vec::new());
        for _ in 0..8 {
            let (listener, address) = listener().await;
            hung.push(listener);
            addresses.push(address);
        }
        let (status, took) = passed_on(addresses, 400).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(took < Duration::from_millis(4 * 400), "{took:?}");
    }

    #[tokio::test]
    async fn one_that_hangs_leaves_time_for_the_next() {
        let (_hung, first) = listener().await;
        let (well, second) = listener().await;
        let tasks = Tasks::new();
        let shop = edge::wrap(Router::new().fallback(async || "the cart"), "shop2");
        let serving = serve::serve(well, shop, Limits::default(), tasks.clone());
        tasks.spawn("shop", serving);
        let (status, took) = passed_on(vec![first, second], 1000).await;
        assert_eq!(status, StatusCode::OK, "after {took:?}");
        tasks.stop();
    }

    /// All that the shop has for products, orders and carts: who talks to a mirror need not know which is whose.
    #[tokio::test]
    async fn every_write_of_the_shop_is_passed_on() {
        let (well, address) = listener().await;
        let tasks = Tasks::new();
        let echo = async |method: Method, uri: Uri| format!("{method} {uri}");
        let shop = edge::wrap(Router::new().fallback(echo), "shop1");
        let serving = serve::serve(well, shop, Limits::default(), tasks.clone());
        tasks.spawn("shop", serving);
        let mut config = Config::default();
        config.shop.addresses = vec![address];
        let folder = tempfile::tempdir().unwrap();
        let (router, _operator) = mirror(folder.path(), config);
        for (method, target) in [
            (Method::POST, "/products"),
            (Method::PUT, "/products/7"),
            (Method::DELETE, "/products/7"),
            (Method::POST, "/cart/u1"),
            (Method::DELETE, "/cart/u1"),
            (Method::PUT, "/cart/u1/item/7"),
            (Method::DELETE, "/cart/u1/item/7"),
            (Method::POST, "/orders"),
            (Method::POST, "/orders/u1/o1/cancel"),
        ] {
            let request = Request::builder().method(&method).uri(target);
            let answer = router.clone().oneshot(request.body(Body::empty()).unwrap()).await;
            let told = axum::body::to_bytes(answer.unwrap().into_body(), 1 << 16).await;
            assert_eq!(told.unwrap(), format!("{method} {target}"));
        }
        tasks.stop();
    }

    /// Each may take seconds, and anybody may ask for the catalogue.
    #[tokio::test]
    async fn whoever_reads_the_copy_keeps_no_write_out() {
        let (well, address) = listener().await;
        let tasks = Tasks::new();
        let shop = edge::wrap(Router::new().fallback(async || "the order"), "shop1");
        let serving = serve::serve(well, shop, Limits::default(), tasks.clone());
        tasks.spawn("shop", serving);
        let mut config = Config::default();
        config.shop.addresses = vec![address];
        let folder = tempfile::tempdir().unwrap();
        let (app, _operator) = mirror_at(folder.path(), config, 7);
        // More than there are places; until the gate opens, no place is free.
        let (gate, opened) = mpsc::channel::<()>();
        let opened = Arc::new(Mutex::new(opened));
        for _ in 0..8 {
            let opened = Arc::clone(&opened);
            let reading =
                app.read(move |_reader| Ok(opened.lock().is_ok_and(|opened| opened.recv().is_ok())));
            assert!(reading.now_or_never().is_none(), "it waits");
        }
        let request = Request::post("/orders").body(Body::empty()).unwrap();
        let answer = edge::wrap(router(app), "mirror-one").oneshot(request).await;
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
        drop(gate);
        tasks.stop();
    }
}
