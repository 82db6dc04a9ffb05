//! Orders at a shop, paid by card, while the store below is broken: one shop and one payment service.
//! Invariant: each order has a key of its own and is sent again with it until its end is known, so that it must
//! happen exactly once; what was sold, stored and charged must agree in the end, and there are no more orders than keys.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::join_all;
use payment_client::PaymentClient;
use reqwest::StatusCode;
use serde_json::{Value, json};
use service::tasks::Tasks;

use super::book::Book;
use super::ground::Ground;
use crate::arena::{Server, Start, wait_for};
use crate::bench::{Keeper, open_cards};

const BUYERS: u64 = 2;
const GOODS: u32 = 3;
const CARDS: u32 = 4;
const TRY: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(40);
/// A try alone may take long, and what a lost one has begun goes on with pauses that have grown.
const SERVED: Duration = Duration::from_secs(40);
const START: Duration = Duration::from_secs(40);
const SETTLED: Duration = Duration::from_mins(1);
/// For all orders together, and for each of them.
const READ_BACK: Duration = Duration::from_mins(2);
const READ_BACK_EACH: Duration = Duration::from_millis(10);
const READ_AT_ONCE: usize = 16;

pub(super) struct Checkouts {
    keeper: Keeper,
    bought: Arc<Mutex<Bought>>,
    pub(super) cards: Vec<String>,
    pub(super) servers: Vec<Server>,
}

/// What all buyers have sent, and what they were told.
#[derive(Default)]
pub(super) struct Bought {
    /// So many keys were sent, each once or more often; each makes one order at most.
    keys: u64,
    /// User and number of each order that was acknowledged as paid; each for another key.
    paid: Vec<(String, String)>,
}

impl Bought {
    /// What cannot be when so many orders are in the store.
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
            Some(orders) if orders <= self.keys => {}
            Some(orders) => faults.push(format!("there are {orders} orders under {} keys", self.keys)),
            None => faults.push("the shop does not say how many orders there are".to_owned()),
        }
        faults
    }
}

fn lock(bought: &Mutex<Bought>) -> MutexGuard<'_, Bought> {
    bought.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Checkouts {
    pub(super) async fn start(ground: &Ground, tasks: &Tasks, book: &Arc<Book>) -> anyhow::Result<Self> {
        let store = &ground.store;
        let (shop, pay) = (
            &store.config.shop.addresses[0],
            &store.config.payment.addresses[0],
        );
        let mut servers = Vec::new();
        for (name, address) in [("pay", pay), ("shop", shop)] {
            let config = store.config_file.display().to_string();
            let mut server = Server::new(Start {
                name: format!("{name}1"),
                program: std::env::current_exe().context("find this program's own file")?,
                arguments: ["--config", &config, name, "--id", "1"]
                    .map(str::to_owned)
                    .to_vec(),
                environment: Vec::new(),
                namespace: None,
                log: store.config_file.with_file_name(format!("{name}1.log")),
            });
            server.start()?;
            let http = service::http::client(TRY);
            wait_for(name, START, async || {
                let ready = http.get(format!("http://{address}/readyz")).send().await.ok()?;
                ready.status().is_success().then_some(())
            })
            .await
            .with_context(|| server.last_words())?;
            servers.push(server);
        }
        let secrets = service::secrets::load(&store.config.data).context("read the secrets")?;
        let operator = secrets
            .token("operator")
            .context("find the token of the operator")?;
        let payment = PaymentClient::builder([pay.clone()], operator.expose());
        let cards = open_cards(&payment.deadline(TRY).build()?, CARDS).await?;
        let keeper = Keeper::new(shop, operator.expose())?;
        let goods = keeper.stock_shelves(GOODS).await?;
        let market = Market {
            shop: shop.clone(),
            token: operator.expose().to_owned(),
            goods,
            cards: cards.clone(),
        };
        Ok(Self {
            keeper,
            bought: market.open(tasks, book),
            cards,
            servers,
        })
    }

    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.servers.iter().filter_map(Server::pid)
    }

    /// Waits until nothing is left to be done; then the books must agree, and hold every paid order.
    pub(super) async fn judge(&self, book: &Book) {
        let settled = wait_for("orders under way to end", SETTLED, async || {
            // The keeper is patient with audits of shops that are large; this one is not.
            let audit = tokio::time::timeout(SETTLED, self.keeper.audit()).await;
            let audit = audit.ok()?.ok()?;
            (audit["unfinished"] == 0).then_some(audit)
        });
        match settled.await {
            Ok(audit) => {
                if audit["ok"] != true {
                    book.violation(format!("the shop is not sound: {audit}"));
                }
                for fault in lock(&self.bought).judge(audit["orders"].as_u64()) {
                    book.violation(fault);
                }
            }
            Err(error) => book.violation(format!("the shop: {error:#}")),
        }
        self.read_back(book).await;
    }

    /// Every order that was acknowledged as paid must be there, and be paid. Of a long run there are many.
    async fn read_back(&self, book: &Book) {
        let paid = lock(&self.bought).paid.clone();
        let orders = u32::try_from(paid.len()).unwrap_or(u32::MAX);
        let time = READ_BACK + READ_BACK_EACH * orders;
        let end = Instant::now() + time;
        for some in paid.chunks(READ_AT_ONCE) {
            let asked = some.iter().map(|(user, order)| self.order(user, order));
            let left = end.saturating_duration_since(Instant::now());
            let Ok(found) = tokio::time::timeout(left, join_all(asked)).await else {
                // A shop that hangs would have all of them waited for, some after the others.
                return book.violation(format!(
                    "the orders were not all read back within {} s: {:?} are the first that were not",
                    time.as_secs(),
                    some[0]
                ));
            };
            for ((_, order), found) in some.iter().zip(found) {
                if !found.as_ref().is_ok_and(|found| found["status"] == "paid") {
                    book.violation(format!(
                        "order {order} was acknowledged as paid, and is now: {found:?}"
                    ));
                }
            }
        }
    }

    async fn order(&self, user: &str, order: &str) -> anyhow::Result<Value> {
        let path = format!("/orders/{user}/{order}");
        self.keeper.ask(reqwest::Method::GET, &path, None).await
    }
}

/// Where the buyers buy, what, and by which cards.
pub(super) struct Market {
    pub(super) shop: String,
    pub(super) token: String,
    pub(super) goods: Vec<String>,
    pub(super) cards: Vec<String>,
}

impl Market {
    /// Lets the buyers in; what they buy is written down.
    pub(super) fn open(self, tasks: &Tasks, book: &Arc<Book>) -> Arc<Mutex<Bought>> {
        let (market, bought) = (Arc::new(self), Arc::<Mutex<Bought>>::default());
        for number in 0..BUYERS {
            let user = format!("chaos-{number}");
            let buyer = Buyer {
                name: format!("buyer {user}"),
                user,
                market: Arc::clone(&market),
                bought: Arc::clone(&bought),
                book: Arc::clone(book),
            };
            book.expects(&buyer.name, SERVED);
            tasks.spawn("chaos buyer", buyer.run(tasks.clone()));
        }
        bought
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
        let Market {
            shop,
            token,
            goods,
            cards,
        } = &*self.market;
        let body = json!({
            "userId": self.user,
            "items": [{"productId": goods[n % goods.len()], "quantity": 1}],
            "cardNumber": cards[n % cards.len()],
        });
        let http = service::http::client(TRY);
        lock(&self.bought).keys += 1;
        while !tasks.is_stopping() {
            let request = http.post(format!("http://{shop}/orders")).bearer_auth(token);
            let request = request
                .header("idempotency-key", format!("{}-{n}", self.user))
                .json(&body);
            if let Ok(answer) = request.send().await {
                let status = answer.status();
                let told: Value = answer.json().await.unwrap_or_default();
                if status == StatusCode::CREATED && told["status"] == "paid" {
                    let order = told["order_id"].as_str().unwrap_or_default().to_owned();
                    lock(&self.bought).paid.push((self.user.clone(), order));
                    self.book.success();
                    self.book.served(&self.name);
                    return self.book.count("checkouts");
                }
                // Anything else that is final is not what goods in plenty and cards with money lead to.
                let passing = status.is_server_error()
                    || status.is_success()
                    || status == StatusCode::TOO_MANY_REQUESTS;
                if !passing {
                    return self
                        .book
                        .violation(format!("an order was answered with {status}: {told}"));
                }
            }
            self.book.count("checkouts tried again");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::{Path, State};
    use axum::routing::get;
    use axum::{Json, Router};
    use service::serve::{Limits, serve};
    use tokio::net::TcpListener;
    use tokio::sync::Barrier;

    use super::*;

    fn bought(keys: u64, paid: &[&str]) -> Bought {
        let paid = paid
            .iter()
            .map(|order| ("chaos-0".to_owned(), (*order).to_owned()));
        Bought {
            keys,
            paid: paid.collect(),
        }
    }

    #[test]
    fn two_orders_under_one_key_are_found() {
        // Of one key nobody was told; it may have made an order or not.
        let told = bought(3, &["a", "b"]);
        assert!(told.judge(Some(2)).is_empty());
        assert!(told.judge(Some(3)).is_empty());
        assert_eq!(told.judge(Some(4)), ["there are 4 orders under 3 keys"]);
        assert_eq!(told.judge(None).len(), 1);
    }

    #[test]
    fn one_order_for_two_keys_is_found() {
        let told = bought(3, &["a", "b", "a"]);
        let found = told.judge(Some(2));
        assert!(found.len() == 1 && found[0].contains("order a was"), "{found:?}");
    }

    /// The shop answers only when many ask at the same time: one after the other, a long run would take too long.
    #[tokio::test]
    async fn orders_are_read_back_many_at_a_time() {
        let answer = async |State(many): State<Arc<Barrier>>, Path((_, order)): Path<(String, String)>| {
            many.wait().await;
            let status = if order == "o7" { "pending" } else { "paid" };
            Json(json!({"status": status}))
        };
        let app = Router::new().route("/orders/{user}/{order}", get(answer));
        let app = app.with_state(Arc::new(Barrier::new(READ_AT_ONCE)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tasks = Tasks::new();
        tasks.spawn("shop", serve(listener, app, Limits::default(), tasks.clone()));
        let orders: Vec<String> = (0..2 * READ_AT_ONCE).map(|n| format!("o{n}")).collect();
        let orders: Vec<&str> = orders.iter().map(String::as_str).collect();
        let checkouts = Checkouts {
            keeper: Keeper::new(&address, "token").unwrap(),
            bought: Arc::new(Mutex::new(bought(0, &orders))),
            cards: Vec::new(),
            servers: Vec::new(),
        };
        let book = Book::new();
        checkouts.read_back(&book).await;
        let told = book.pages().violations.clone();
        assert!(told.len() == 1 && told[0].contains("order o7 was"), "{told:?}");
        tasks.stop();
    }
}
