//! Orders at a shop, paid by card, while the store below is broken: one shop and one payment service.
//! Invariant: what was sold, stored and charged must agree in the end, with one order for each that was sent, and
//! whoever was told that one is paid finds it so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::join_all;
use payment_client::PaymentClient;
use serde_json::Value;
use service::tasks::Tasks;

use super::book::Book;
use super::buyers::{Buyers, Market, TRY};
use super::ground::Ground;
use crate::arena::{Server, Start, wait_for};
use crate::bench::{Keeper, open_cards};

const GOODS: u32 = 3;
const CARDS: u32 = 4;
const START: Duration = Duration::from_secs(40);
const SETTLED: Duration = Duration::from_mins(1);
/// For all orders together, and for each of them.
const READ_BACK: Duration = Duration::from_mins(2);
const READ_BACK_EACH: Duration = Duration::from_millis(10);
const READ_AT_ONCE: usize = 16;

pub(super) struct Checkouts {
    keeper: Keeper,
    buyers: Buyers,
    pub(super) cards: Vec<String>,
    pub(super) servers: Vec<Server>,
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
            buyers: market.open(tasks, book),
            cards,
            servers,
        })
    }

    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.servers.iter().filter_map(Server::pid)
    }

    /// Has every key answered, and waits until nothing is left to be done; then the books must agree, and hold one order
    /// for each key.
    pub(super) async fn judge(&self, book: &Book) {
        self.buyers.settle(book).await;
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
                for fault in self.buyers.judge(audit["orders"].as_u64()) {
                    book.violation(fault);
                }
            }
            Err(error) => book.violation(format!("the shop: {error:#}")),
        }
        self.read_back(book).await;
    }

    /// Every order that was acknowledged as paid must be there, and be paid. Of a long run there are many.
    async fn read_back(&self, book: &Book) {
        let paid = self.buyers.paid();
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

#[cfg(test)]
mod tests {
    use axum::extract::{Path, State};
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;
    use service::serve::{Limits, serve};
    use tokio::net::TcpListener;
    use tokio::sync::Barrier;

    use super::*;

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
        let checkouts = Checkouts {
            keeper: Keeper::new(&address, "token").unwrap(),
            buyers: Buyers::who_paid("chaos-0", &orders),
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
