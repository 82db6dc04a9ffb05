//! A buyer who takes each order back: one as soon as it is placed, the next once it is paid, so that orders go every way
//! that leads back. Invariant: each order has a key of its own and each is asked for until its end is known.

use std::sync::{Arc, Mutex};

use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use service::tasks::Tasks;

use super::{Bought, Errand, Market, PAUSE, TRY, lock};
use crate::chaos::book::Book;

pub(super) const USER: &str = "chaos-back";
/// What is counted of it.
pub(in crate::chaos) const TAKEN_BACK: &str = "orders taken back";

pub(super) struct Returner {
    pub(super) name: String,
    pub(super) market: Arc<Market>,
    pub(super) bought: Arc<Mutex<Bought>>,
    pub(super) book: Arc<Book>,
}

/// Nothing is known yet, what was asked for is so, or there was an answer that there may not be.
type Told<T> = Option<Result<T, String>>;

impl Returner {
    pub(super) async fn run(self, tasks: Tasks) {
        let http = service::http::client(TRY);
        for n in 0_usize.. {
            if tasks.is_stopping() {
                return;
            }
            match self.there_and_back(&http, n, &tasks).await {
                Some(Ok(())) => {
                    self.book.success();
                    self.book.served(&self.name);
                    self.book.count(TAKEN_BACK);
                }
                Some(Err(fault)) => return self.book.violation(fault),
                None => return,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Nothing when it was stopped in between.
    async fn there_and_back(&self, http: &reqwest::Client, n: usize, tasks: &Tasks) -> Told<()> {
        let errand = self.market.errand(USER, n);
        lock(&self.bought).keys += 1;
        let order = loop {
            if tasks.is_stopping() {
                lock(&self.bought).open.push(errand);
                return None;
            }
            match self.order(http, &errand, n.is_multiple_of(2)).await {
                Some(Ok(order)) => break order,
                Some(Err(fault)) => return Some(Err(fault)),
                None => tokio::time::sleep(PAUSE).await,
            }
        };
        while !tasks.is_stopping() {
            let told = self.take_back(http, &errand, &order).await;
            if told.is_some() {
                return told;
            }
            tokio::time::sleep(PAUSE).await;
        }
        None
    }

    async fn order(&self, http: &reqwest::Client, errand: &Errand, at_once: bool) -> Told<String> {
        let request = http.post(format!("http://{}/orders", self.market.shop));
        let mut request = request.header("idempotency-key", &errand.key).json(&errand.body);
        if at_once {
            request = request.header("prefer", "respond-async");
        }
        let (status, told) = self.ask(request).await?;
        match told["order_id"].as_str() {
            Some(order) if status.is_success() => Some(Ok(order.to_owned())),
            _ => Some(Err(format!("an order was answered with {status}: {told}"))),
        }
    }

    async fn take_back(&self, http: &reqwest::Client, errand: &Errand, order: &str) -> Told<()> {
        let path = format!("http://{}/orders/{USER}/{order}/cancel", self.market.shop);
        let request = http.post(path);
        let request = request.header("idempotency-key", format!("{}-back", errand.key));
        let (status, told) = self.ask(request).await?;
        let is_over = matches!(told["status"].as_str(), Some("canceled" | "refunded"));
        if status.is_success() {
            return is_over.then_some(Ok(()));
        }
        // It is being paid at this very moment, and can be taken back after that.
        let is_too_early = status == StatusCode::CONFLICT && told["order_status"] == "authorized";
        (!is_too_early).then(|| Err(format!("a cancel was answered with {status}: {told}")))
    }

    /// Nothing where the answer is lost, or says that somebody is not there at the moment.
    async fn ask(&self, request: RequestBuilder) -> Option<(StatusCode, Value)> {
        let answer = request.bearer_auth(&self.market.token).send().await.ok()?;
        let status = answer.status();
        let told: Value = answer.json().await.unwrap_or_default();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            let request = told["request_id"].as_str().unwrap_or_default();
            self.book.internal(&self.name, request);
        }
        let is_passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        (!is_passing).then_some((status, told))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::extract::State;
    use axum::routing::post;
    use axum::{Json, Router};
    use serde_json::json;
    use service::serve::{Limits, serve};
    use tokio::net::TcpListener;

    use super::*;
    use crate::arena::wait_for;

    /// What the shop answers to cancels, one after the other.
    type Answers = Arc<Mutex<Vec<(StatusCode, Value)>>>;

    /// One who meets these answers to a cancel, and has been heard of by then.
    async fn meeting(answers: Vec<(StatusCode, Value)>) -> (Arc<Book>, Arc<Mutex<Bought>>) {
        let cancel = async |State(answers): State<Answers>| {
            let (status, told) = answers.lock().unwrap().remove(0);
            (status, Json(told))
        };
        let order = async || {
            (
                StatusCode::ACCEPTED,
                Json(json!({"order_id": "o", "status": "pending"})),
            )
        };
        let app = Router::new().route("/orders", post(order));
        let app = app.route("/orders/chaos-back/o/cancel", post(cancel));
        let app = app.with_state(Arc::new(Mutex::new(answers)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let market = Market {
            shop: listener.local_addr().unwrap().to_string(),
            token: "token".to_owned(),
            goods: vec!["1".to_owned()],
            cards: vec!["2".to_owned()],
        };
        let (tasks, book) = (Tasks::new(), Arc::new(Book::new()));
        tasks.spawn("shop", serve(listener, app, Limits::default(), tasks.clone()));
        let bought = Arc::<Mutex<Bought>>::default();
        let returner = Returner {
            name: "buyer".to_owned(),
            market: Arc::new(market),
            bought: Arc::clone(&bought),
            book: Arc::clone(&book),
        };
        tasks.spawn("returner", returner.run(tasks.clone()));
        let heard = wait_for("an order to be taken back", Duration::from_secs(10), async || {
            let pages = book.pages();
            let is_heard = pages.counts.contains_key(TAKEN_BACK) || !pages.violations.is_empty();
            is_heard.then_some(())
        });
        heard.await.unwrap();
        tasks.stop();
        (book, bought)
    }

    #[tokio::test]
    async fn it_asks_until_the_order_is_back() {
        let (book, bought) = meeting(vec![
            (StatusCode::SERVICE_UNAVAILABLE, json!({})),
            (StatusCode::CONFLICT, json!({"order_status": "authorized"})),
            (StatusCode::ACCEPTED, json!({"status": "refunding"})),
            (StatusCode::OK, json!({"status": "refunded"})),
            (StatusCode::OK, json!({"status": "refunded"})),
            (StatusCode::OK, json!({"status": "refunded"})),
        ])
        .await;
        assert_eq!(book.pages().violations, [""; 0]);
        assert!(lock(&bought).keys >= 1);
    }

    #[tokio::test]
    async fn an_order_that_cannot_be_taken_back_is_found() {
        let (book, _) = meeting(vec![(
            StatusCode::CONFLICT,
            json!({"order_status": "payment_failed"}),
        )])
        .await;
        let told = &book.pages().violations;
        assert!(told[0].contains("a cancel was answered with 409"), "{told:?}");
    }
}
