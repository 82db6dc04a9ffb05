//! One thing that is bought, as most tests of orders begin, and what they wait for and count in the end.
//! Invariant: what is judged is the whole system: the order, its goods and its money, kept or given back.

use reqwest::Method;
use serde_json::Value;
use service::tasks::Tasks;
use tokio::task::JoinHandle;

use super::system::{System, VISA, order};
use crate::harness::{Answer, Client, wait_for};

/// The steps of an order that is paid.
pub(crate) const PAYING: [&str; 8] = [
    "tokenized",
    "placed",
    "before authorize",
    "after authorize",
    "authorized",
    "before capture",
    "after capture",
    "paid",
];

/// So many there are of a thing, for ten euros each.
pub(crate) const PIECES: i64 = 10;

/// Ada is about to pay for two pieces.
pub(crate) struct Purchase {
    pub(crate) buyer: String,
    pub(crate) client: Client,
    pub(crate) product: String,
    /// On the card before that: available, and held.
    pub(crate) money: (i64, i64),
    pub(crate) body: Value,
}

impl Purchase {
    pub(crate) async fn begin(system: &System) -> Self {
        let (buyer, client) = system.user("ada").await;
        let product = system.product("Thing", 10.0, PIECES).await;
        Self {
            buyer,
            client,
            money: system.balance(VISA).await,
            body: order(&product, 2, VISA),
            product,
        }
    }

    /// Orders at the first shop and is held at this step; it may never hear of it again.
    pub(crate) async fn held_at(&self, system: &System, point: &str) -> JoinHandle<Option<u16>> {
        system.traps[0].arm(point);
        let request = self
            .client
            .request(Method::POST, "/orders")
            .header("idempotency-key", "k");
        let request = request.json(&self.body);
        let first = Tasks::new().spawn("order", async move {
            request.send().await.ok().map(|answer| answer.status().as_u16())
        });
        system.traps[0].caught().await;
        first
    }

    /// There must be one order, and it is kept or everything was given back.
    pub(crate) async fn judge(&self, system: &System, kept: bool) {
        let audit = system.settled().await;
        assert_eq!(audit["orders"], 1, "{audit}");
        let pieces = if kept { 2 } else { 0 };
        sold(system, &self.product, self.money, pieces).await;
    }
}

/// So many pieces of a thing must be sold, and paid for.
pub(crate) async fn sold(system: &System, product: &str, money: (i64, i64), pieces: i64) {
    assert_eq!(system.stock(product).await, PIECES - pieces);
    assert_eq!(system.balance(VISA).await, (money.0 - 1000 * pieces, money.1));
}

/// Waits until the order at this place is so far.
pub(crate) async fn becomes(client: &Client, place: &str, status: &str) {
    wait_for(&format!("the order to be {status}"), async || {
        let seen = client.get(place).await.expect(200).json();
        (seen["status"] == status).then_some(()).ok_or(seen)
    })
    .await;
}

/// Orders and does not wait for what becomes of it.
pub(crate) async fn order_unwaited(client: &Client, body: &Value) -> Answer {
    let request = client
        .request(Method::POST, "/orders")
        .header("prefer", "respond-async");
    client.send(request.json(body)).await.expect(202)
}
