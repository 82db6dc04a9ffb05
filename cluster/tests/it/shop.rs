//! The shop as launched, behind its gateway: sudden deaths of shops cost nobody a request that is safe to repeat, and
//! whatever dies, what was ordered is sold and paid once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use payment_client::wire::CardStatus;
use payment_client::{Currency, Money, PaymentClient};
use serde_json::{Value, json};
use service::config::ShopAuth;

use crate::harness::{Cluster, free_ports, wait_until};
use crate::load::{Random, say};

const WORKERS: usize = 4;
const CARD: &str = "4242 4242 4242 4242";
const STOCK: u64 = 100_000;
const PATIENCE: Duration = Duration::from_secs(30);
/// More than the gateway takes to try everybody.
const DEADLINE: Duration = Duration::from_secs(20);

fn whole() -> Cluster {
    Cluster::with(3, |config| {
        let mut addresses = free_ports(5).into_iter().map(|port| format!("127.0.0.1:{port}"));
        config.gateway.address = addresses.next().unwrap();
        config.shop.addresses = addresses.by_ref().take(2).collect();
        config.payment.addresses = addresses.collect();
        config.shop.auth = ShopAuth::Open;
    })
}

/// One buyer after the other, through the gateway.
struct Buyer {
    number: usize,
    gateway: String,
    http: reqwest::Client,
    product: String,
    stop: Arc<AtomicBool>,
    bought: Arc<AtomicUsize>,
    /// Whether any refusal counts as one too many.
    strict: Arc<AtomicBool>,
}

impl Buyer {
    /// Answers the ids of what was ordered.
    async fn buy_until_stopped(self) -> Vec<String> {
        let mut orders = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            self.read().await;
            orders.push(self.order(orders.len()).await);
            self.bought.fetch_add(1, Ordering::Relaxed);
        }
        orders
    }

    async fn read(&self) {
        let url = format!("{}/products/{}", self.gateway, self.product);
        wait_until("a product", PATIENCE, async || {
            let strict = self.strict.load(Ordering::Relaxed);
            let answer = self.http.get(&url).timeout(DEADLINE).send().await;
            let said = match answer {
                Ok(answer) if answer.status() == 200 => return Ok(()),
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            assert!(!strict, "a read failed: {said}");
            Err(said)
        })
        .await;
    }

    async fn order(&self, n: usize) -> String {
        let key = format!("buyer{}-{n}", self.number);
        let body = json!({"userId": format!("user{}", self.number), "cardNumber": CARD,
            "items": [{"productId": self.product, "quantity": 1}]});
        let url = format!("{}/orders", self.gateway);
        wait_until("an order", PATIENCE, async || {
            let strict = self.strict.load(Ordering::Relaxed);
            let request = self.http.post(&url).timeout(DEADLINE);
            let request = request.header("idempotency-key", &key).json(&body);
            let said = match request.send().await {
                Ok(answer) if matches!(answer.status().as_u16(), 200..=202) => {
                    let order: Value = answer.json().await.map_err(|error| error.to_string())?;
                    return Ok(order["order_id"].as_str().unwrap().to_owned());
                }
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            assert!(!strict, "an order with a key failed: {said}");
            Err(said)
        })
        .await
    }
}

async fn prepare(cluster: &Cluster, gateway: &str) -> String {
    let payment = PaymentClient::builder(
        cluster.config.payment.addresses.clone(),
        cluster.token("operator"),
    );
    let payment = payment.deadline(Duration::from_secs(10)).build().unwrap();
    let much = Money::new(1_000_000_000, Currency::EUR);
    wait_until("the card to be opened", PATIENCE, async || {
        let opened = payment.open_card(CARD, much, CardStatus::Active).await;
        opened.map(drop).map_err(|error| error.to_string())
    })
    .await;
    let body = json!({"name": "Goldfish", "species": "fish", "price": 2.5, "stock": STOCK});
    wait_until("the goods to be on the shelf", PATIENCE, async || {
        let made = cluster
            .http
            .post(format!("{gateway}/products"))
            .header("idempotency-key", "goldfish")
            .json(&body);
        let made = made.send().await.map_err(|error| error.to_string())?;
        let status = made.status();
        let made: Value = made.json().await.map_err(|error| error.to_string())?;
        let id = made["id"].as_str().map(str::to_owned);
        id.ok_or(format!("{status} {made}"))
    })
    .await
}

async fn goes_on(bought: &AtomicUsize) {
    let before = bought.load(Ordering::Relaxed);
    wait_until("orders go on", PATIENCE, async || {
        let now = bought.load(Ordering::Relaxed);
        (now > before + 10)
            .then_some(())
            .ok_or(format!("{now} after {before}"))
    })
    .await;
}

#[tokio::test]
async fn sudden_deaths_cost_no_order_and_charge_none_twice() {
    let cluster = whole();
    cluster.up().await;
    let gateway = format!("http://{}", cluster.config.gateway.address);
    let product = prepare(&cluster, &gateway).await;
    let flag = |value| Arc::new(AtomicBool::new(value));
    let (stop, strict, bought) = (flag(false), flag(true), Arc::new(AtomicUsize::new(0)));
    let buyers = (0..WORKERS).map(|number| Buyer {
        number,
        gateway: gateway.clone(),
        http: cluster.http.clone(),
        product: product.clone(),
        stop: Arc::clone(&stop),
        bought: Arc::clone(&bought),
        strict: Arc::clone(&strict),
    });
    let load = join_all(buyers.map(Buyer::buy_until_stopped));
    let deaths = async {
        let mut random = Random::seeded();
        for (victim, how) in [("shop1", "kill"), ("shop2", "kill"), ("shop1", "term")] {
            goes_on(&bought).await;
            tokio::time::sleep(Duration::from_millis(random.below(200))).await;
            cluster.run(&[how, victim]).await.ok();
            goes_on(&bought).await;
            cluster.run(&["start", victim, "--wait"]).await.ok();
        }
        // From here on an order may be told to try again, and does so with its key.
        strict.store(false, Ordering::Relaxed);
        for victim in ["pay1".to_owned(), cluster.leader().await, "shop2".to_owned()] {
            tokio::time::sleep(Duration::from_millis(random.below(200))).await;
            cluster.kill(&victim).await;
            goes_on(&bought).await;
            cluster.run(&["start", &victim, "--wait"]).await.ok();
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (orders, ()) = tokio::join!(load, deaths);
    let mut orders: Vec<String> = orders.into_iter().flatten().collect();
    let count = orders.len();
    say(&format!("{count} orders under six deaths"));
    orders.sort();
    orders.dedup();
    assert_eq!(orders.len(), count, "each key made an order of its own");
    verify(&cluster, &gateway, &product, count as u64).await;
}

/// Everything came to its end, nothing was sold that was not ordered, and the books agree.
async fn verify(cluster: &Cluster, gateway: &str, product: &str, count: u64) {
    let operator = cluster.token("operator");
    let get = async |path: &str| -> Value {
        let request = cluster.http.get(format!("{gateway}{path}"));
        let answer = request.bearer_auth(&operator).send().await.unwrap();
        answer.json().await.unwrap()
    };
    let audit = wait_until("the audit to find nothing", PATIENCE, async || {
        let audit = get("/admin/audit").await;
        (audit["ok"] == true)
            .then(|| audit.clone())
            .ok_or(audit.to_string())
    })
    .await;
    assert_eq!(audit["violations"], json!([]));
    wait_until("all orders to be paid", PATIENCE, async || {
        let mut open = 0;
        for number in 0..WORKERS {
            let orders = get(&format!("/orders/user{number}")).await;
            let orders = orders.as_array().unwrap();
            open += orders.iter().filter(|order| order["status"] != "paid").count();
        }
        (open == 0).then_some(()).ok_or(format!("{open} are not"))
    })
    .await;
    let checked = cluster.run(&["check", "--json"]).await.json();
    let proofs: Vec<(&Value, &Value)> = checked
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["of"], &one["ok"]))
        .collect();
    assert_eq!(
        proofs,
        [(&json!("shop"), &json!(true)), (&json!("payments"), &json!(true))]
    );
    let left = get(&format!("/products/{product}")).await["stock"].as_u64();
    assert_eq!(left, Some(STOCK - count));
}
