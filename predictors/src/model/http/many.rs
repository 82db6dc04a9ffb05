//! Requests with many rows, which must not keep the one thread of a model from the rounds of the consensus.

use std::sync::{Arc, mpsc};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use service::tasks::Tasks;
use tokio::runtime::Builder;
use tower::ServiceExt as _;

use super::bent::{app, wrapped};
use super::predict::ROWS_TOGETHER_MAX;

const ROW: [f64; 4] = [5.1, 3.5, 1.4, 0.2];

fn request(target: &str, body: &Value) -> Request<Body> {
    let request = Request::post(target).header(header::CONTENT_TYPE, "application/json");
    request.body(Body::from(body.to_string())).unwrap()
}

/// One for `/predict`, and one for the protocol.
fn requests(rows: usize) -> [Request<Body>; 2] {
    let input = json!({"name": "x", "shape": [rows, 4], "datatype": "FP64", "data": vec![ROW; rows]});
    [
        request("/predict", &json!({"instances": vec![ROW; rows]})),
        request("/v2/models/m/infer", &json!({"id": "i", "inputs": [input]})),
    ]
}

async fn read(response: Response) -> Value {
    let body = to_bytes(response.into_body(), 1 << 24).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

async fn ask(router: &Router, request: Request<Body>) -> Response {
    router.clone().oneshot(request).await.unwrap()
}

#[tokio::test]
async fn many_rows_are_answered_as_few_are() {
    let router = wrapped(app());
    let one = read(ask(&router, request("/predict", &json!({"features": ROW}))).await).await;
    for rows in [ROWS_TOGETHER_MAX, ROWS_TOGETHER_MAX + 1, 10_000] {
        let [predict, infer] = requests(rows);
        let said = read(ask(&router, predict).await).await;
        let predictions = said["predictions"].as_array().unwrap();
        assert_eq!(predictions.len(), rows);
        assert_eq!(predictions[rows - 1]["probabilities"], one["probabilities"]);
        let inferred = read(ask(&router, infer).await).await;
        assert_eq!(inferred["id"], "i");
        assert_eq!(inferred["outputs"][0]["shape"], json!([rows]));
        assert_eq!(inferred["outputs"][1]["shape"], json!([rows, 3]));
        assert_eq!(inferred["outputs"][1]["data"][2], one["probabilities"][2]);
    }
}

/// Its id is of the task that answers, which is another than the thread that works.
#[tokio::test]
async fn an_answer_with_many_rows_names_its_request() {
    let [mut predict, _infer] = requests(100);
    let id = "the-id-of-this-request";
    predict.headers_mut().insert("x-request-id", id.parse().unwrap());
    let said = read(ask(&wrapped(app()), predict).await).await;
    assert_eq!(said["request_id"], id);
}

/// The only other thread is busy, so that whatever is done apart is not done yet.
#[test]
fn no_row_of_many_is_looked_at_on_the_thread_that_answers() {
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let (end, ended) = mpsc::channel::<()>();
        let busy = Tasks::new().spawn_blocking("busy", move || ended.recv().is_err());
        let router = wrapped(app());
        let at_once = |request: Request<Body>| router.clone().oneshot(request).now_or_never();
        for few in requests(ROWS_TOGETHER_MAX) {
            assert!(at_once(few).is_some());
        }
        for many in requests(ROWS_TOGETHER_MAX + 1) {
            assert!(at_once(many).is_none());
        }
        drop(end);
        assert!(busy.await.unwrap());
    });
}

#[tokio::test]
async fn only_few_requests_with_many_rows_are_answered_at_once() {
    let app = app();
    let router = wrapped(Arc::clone(&app));
    let places = app.places.available_permits();
    let held = app
        .places
        .try_acquire_many(u32::try_from(places).unwrap())
        .unwrap();
    for many in requests(ROWS_TOGETHER_MAX + 1) {
        let refused = ask(&router, many).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key(header::RETRY_AFTER));
        let told = read(refused).await;
        assert_eq!(told["code"], "overloaded", "{told}");
        assert!(told["error"].is_string(), "{told}");
    }
    for few in requests(ROWS_TOGETHER_MAX) {
        assert_eq!(ask(&router, few).await.status(), StatusCode::OK);
    }
    drop(held);
    for many in requests(ROWS_TOGETHER_MAX + 1) {
        assert_eq!(ask(&router, many).await.status(), StatusCode::OK);
    }
}
