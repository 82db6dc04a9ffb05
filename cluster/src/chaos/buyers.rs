//! Buyers, each with one order after the other, and what they were told.
//! Invariant: each order has a key of its own and is sent again with it until its end is known, at the latest when all
//! faults are over; so there is exactly one for each key.

mod returns;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use service::tasks::Tasks;

use super::book::Book;
use crate::arena::wait_for;
pub(super) use returns::TAKEN_BACK;
use returns::{Returner, USER};

const BUYERS: u64 = 2;
pub(super) const TRY: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(40);
/// A try alone may take long, and what a lost one has begun goes on with pauses that have grown.
const SERVED: Duration = Duration::from_secs(40);
/// Nothing is broken any more, and what a lost try has begun may be far from its end.
const ANSWERED: Duration = Duration::from_mins(1);

/// Where the buyers buy, what, and by which cards.
pub(super) struct Market {
    pub(super) shop: String,
    pub(super) token: String,
    pub(super) goods: Vec<String>,
    pub(super) cards: Vec<String>,
}

/// An order that is sent under its key until its end is known.
struct Errand {
    user: String,
    key: String,
    body: Value,
}

/// What is known of an order: nothing so far, the number under which it is paid, or what else is final, which goods in
/// plenty and cards with money do not lead to.
type End = Option<Result<String, String>>;

impl Market {
    /// Lets the buyers in.
    pub(super) fn open(self, tasks: &Tasks, book: &Arc<Book>) -> Buyers {
        let buyers = Buyers {
            market: Arc::new(self),
            bought: Arc::default(),
        };
        for number in 0..BUYERS {
            let user = format!("chaos-{number}");
            let buyer = Buyer {
                name: format!("buyer {user}"),
                user,
                market: Arc::clone(&buyers.market),
                bought: Arc::clone(&buyers.bought),
                book: Arc::clone(book),
            };
            book.expects(&buyer.name, SERVED);
            tasks.spawn("chaos buyer", buyer.run(tasks.clone()));
        }
        let returner = Returner {
            name: format!("buyer {USER}"),
            market: Arc::clone(&buyers.market),
            bought: Arc::clone(&buyers.bought),
            book: Arc::clone(book),
        };
        book.expects(&returner.name, SERVED);
        tasks.spawn("chaos returner", returner.run(tasks.clone()));
        buyers
    }

    fn errand(&self, user: &str, n: usize) -> Errand {
        Errand {
            user: user.to_owned(),
            key: format!("{user}-{n}"),
            body: json!({
                "userId": user,
                "items": [{"productId": self.goods[n % self.goods.len()], "quantity": 1}],
                "cardNumber": self.cards[n % self.cards.len()],
            }),
        }
    }

    /// What is wrong inside of the shop is noted; the order is open all the same, and is sent again.
    async fn send(&self, http: &reqwest::Client, errand: &Errand, book: &Book) -> End {
        let request = http.post(format!("http://{}/orders", self.shop));
        let request = request
            .bearer_auth(&self.token)
            .header("idempotency-key", &errand.key)
            .json(&errand.body);
        let answer = request.send().await.ok()?;
        let status = answer.status();
        let told: Value = answer.json().await.unwrap_or_default();
        if status == StatusCode::CREATED && told["status"] == "paid" {
            return Some(Ok(told["order_id"].as_str().unwrap_or_default().to_owned()));
        }
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            let request = told["request_id"].as_str().unwrap_or_default();
            book.internal(&format!("buyer {}", errand.user), request);
        }
        let is_passing =
            status.is_server_error() || status.is_success() || status == StatusCode::TOO_MANY_REQUESTS;
        (!is_passing).then(|| Err(format!("an order was answered with {status}: {told}")))
    }
}

/// What all buyers have sent, and what they were told.
#[derive(Default)]
struct Bought {
    /// So many keys were sent, each once or more often; each makes one order.
    keys: u64,
    /// User and number of each order that was acknowledged as paid; each for another key.
    paid: Vec<(String, String)>,
    /// Those whose end nobody knew when the buyers left.
    open: Vec<Errand>,
}

impl Bought {
    /// What cannot be when so many orders are in the store, and each key was answered.
    fn judge(&self, orders: Option<u64>) -> Vec<String> {
        let mut faults = Vec::new();
        let mut known = BTreeSet::new();
        for (user, order) in &self.paid {
            if !known.insert(order) {
                faults.push(format!(
                    "order {order} was acknowledged for two keys, the second time to {user}"
                ));
            }
        }
        match orders {
            Some(orders) if orders == self.keys => {}
            Some(orders) => faults.push(format!(
                "there are {orders} orders under {} keys, each of which makes one",
                self.keys
            )),
            None => faults.push("the shop does not say how many orders there are".to_owned()),
        }
        faults
    }
}

fn lock(bought: &Mutex<Bought>) -> MutexGuard<'_, Bought> {
    bought.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All who buy, and what is known of them when they have left.
pub(super) struct Buyers {
    market: Arc<Market>,
    bought: Arc<Mutex<Bought>>,
}

impl Buyers {
    /// User and number of each order that was acknowledged as paid.
    pub(super) fn paid(&self) -> Vec<(String, String)> {
        lock(&self.bought).paid.clone()
    }

    /// Sends again what nobody was told the end of, until somebody is.
    pub(super) async fn settle(&self, book: &Book) {
        let http = service::http::client(TRY);
        let open = std::mem::take(&mut lock(&self.bought).open);
        for errand in open {
            let what = format!("the order under the key {} to be answered", errand.key);
            let answered = wait_for(&what, ANSWERED, async || {
                self.market.send(&http, &errand, book).await
            });
            let answered = answered.await;
            match answered {
                Ok(Ok(order)) => lock(&self.bought).paid.push((errand.user, order)),
                Ok(Err(fault)) => book.violation(fault),
                Err(late) => book.violation(format!("when all was well again: {late:#}")),
            }
        }
    }

    /// What cannot be when so many orders are in the store.
    pub(super) fn judge(&self, orders: Option<u64>) -> Vec<String> {
        lock(&self.bought).judge(orders)
    }

    #[cfg(test)]
    pub(super) fn who_paid(user: &str, orders: &[String]) -> Self {
        let market = Market {
            shop: String::new(),
            token: String::new(),
            goods: Vec::new(),
            cards: Vec::new(),
        };
        let paid = orders.iter().map(|order| (user.to_owned(), order.clone()));
        let bought = Bought {
            paid: paid.collect(),
            ..Bought::default()
        };
        Self {
            market: Arc::new(market),
            bought: Arc::new(Mutex::new(bought)),
        }
    }
}

struct Buyer {
    name: String,
    user: String,
    market: Arc<Market>,
    bought: Arc<Mutex<Bought>>,
    book: Arc<Book>,
}

impl Buyer {
    async fn run(self, tasks: Tasks) {
        for n in 0_usize.. {
            if tasks.is_stopping() {
                return;
            }
            self.order(n, &tasks).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn order(&self, n: usize, tasks: &Tasks) {
        let http = service::http::client(TRY);
        let errand = self.market.errand(&self.user, n);
        lock(&self.bought).keys += 1;
        while !tasks.is_stopping() {
            match self.market.send(&http, &errand, &self.book).await {
                Some(Ok(order)) => {
                    lock(&self.bought).paid.push((errand.user, order));
                    self.book.success();
                    self.book.served(&self.name);
                    return self.book.count("checkouts");
                }
                Some(Err(fault)) => return self.book.violation(fault),
                None => self.book.count("checkouts tried again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        lock(&self.bought).open.push(errand);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::extract::State;
    use axum::http::HeaderMap;
    use axum::routing::post;
    use axum::{Json, Router};
    use service::serve::{Limits, serve};
    use tokio::net::TcpListener;

    use super::*;

    fn bought(keys: u64, paid: &[&str]) -> Bought {
        let paid = paid
            .iter()
            .map(|order| ("chaos-0".to_owned(), (*order).to_owned()));
        Bought {
            keys,
            paid: paid.collect(),
            open: Vec::new(),
        }
    }

    #[test]
    fn a_key_with_two_orders_is_found_and_one_with_none() {
        let told = bought(3, &["a", "b", "c"]);
        assert!(told.judge(Some(3)).is_empty());
        let more = told.judge(Some(4));
        assert_eq!(more, ["there are 4 orders under 3 keys, each of which makes one"]);
        assert_eq!(told.judge(Some(2)).len(), 1);
        assert_eq!(told.judge(None).len(), 1);
    }

    #[test]
    fn one_order_for_two_keys_is_found() {
        let told = bought(3, &["a", "b", "a"]);
        let found = told.judge(Some(3));
        assert!(found.len() == 1 && found[0].contains("order a was"), "{found:?}");
    }

    /// How often each key has come.
    type Tries = Arc<Mutex<BTreeMap<String, u64>>>;

    /// Whoever left while their orders were open has one for each key in the end, which no other order can hide behind.
    #[tokio::test]
    async fn what_was_open_is_sent_again_with_its_key_until_it_is_answered() {
        const TWICE: u64 = 2;
        let answer = async |State(tries): State<Tries>, headers: HeaderMap| {
            let key = headers["idempotency-key"].to_str().unwrap().to_owned();
            let mut tries = tries.lock().unwrap();
            let tried = tries.entry(key.clone()).or_default();
            *tried += 1;
            let (status, order) = match (key.as_str(), *tried) {
                ("u-2", _) => (StatusCode::PAYMENT_REQUIRED, json!({"code": "card-declined"})),
                ("u-1", 1) => (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    json!({"code": "internal", "request_id": "a-1"}),
                ),
                (_, 1) => (StatusCode::SERVICE_UNAVAILABLE, json!({})),
                (_, TWICE) => (StatusCode::ACCEPTED, json!({"status": "pending"})),
                _ => (StatusCode::CREATED, json!({"status": "paid", "order_id": key})),
            };
            (status, Json(order))
        };
        let tries = Tries::default();
        let app = Router::new().route("/orders", post(answer));
        let app = app.with_state(Arc::clone(&tries));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let market = Market {
            shop: listener.local_addr().unwrap().to_string(),
            token: "token".to_owned(),
            goods: vec!["1".to_owned()],
            cards: vec!["2".to_owned()],
        };
        let (tasks, book) = (Tasks::new(), Book::new());
        tasks.spawn("shop", serve(listener, app, Limits::default(), tasks.clone()));
        let open = (0..3).map(|n| market.errand("u", n)).collect();
        let bought = Bought {
            keys: 3,
            open,
            ..Bought::default()
        };
        let buyers = Buyers {
            market: Arc::new(market),
            bought: Arc::new(Mutex::new(bought)),
        };
        buyers.settle(&book).await;
        tasks.stop();
        let paid = ["u-0", "u-1"].map(|order| ("u".to_owned(), order.to_owned()));
        assert_eq!(buyers.paid(), paid);
        assert_eq!(tries.lock().unwrap()["u-0"], TWICE + 1);
        let pages = book.pages();
        let told = &pages.violations;
        assert!(told.len() == 1 && told[0].contains("card-declined"), "{told:?}");
        assert_eq!(pages.internal["buyer u"], ["a-1"]);
    }
}
