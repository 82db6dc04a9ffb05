//! The shop by letters between actors, while chance kills shops, payments and the leader of the store, for
//! `MENAGERIE_LETTERS_MINUTES` (10 unless set).
//! Invariant: no letter is lost or acted on twice: every order that was sent comes to the end it was told, exactly the
//! goods of the paid ones are gone and exactly their sums were charged, and no letter is left anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use payment_client::wire::CardStatus;
use payment_client::{Currency, Money, PaymentClient};
use reqwest::StatusCode;
use serde_json::{Value, json};
use service::config::{Checkout, ShopAuth};

use crate::harness::{Cluster, SOON, free_ports, wait_until};
use crate::load::{Random, say};

const MINUTES: &str = "MENAGERIE_LETTERS_MINUTES";
const BUYERS: u64 = 6;
/// So that the list of a user's orders stays short.
const ORDERS_EACH_USER: usize = 40;
const CARDS: [&str; 3] = ["4242424242424242", "5555555555554444", "378282246310005"];
const EMPTY_CARD: &str = "4000000000009995";
const MONEY: i64 = 1_000_000_000;
const PRODUCTS: u64 = 5;
const STOCK: i64 = 1_000_000;
/// Of the last product there is little, so that orders that also want it have to give the others back.
const SCARCE: i64 = 30;
const PRICE_MINOR: i64 = 250;
const DEADLINE: Duration = Duration::from_secs(10);
/// The longest that orders may stand still: several deaths at once, leases that end, growing pauses.
const GOES_ON_WITHIN: Duration = Duration::from_secs(90);
const SETTLED_WITHIN: Duration = Duration::from_mins(3);

fn length() -> Duration {
    let minutes = std::env::var(MINUTES).map_or(10.0, |text| {
        text.parse()
            .expect("MENAGERIE_LETTERS_MINUTES is a number of minutes")
    });
    Duration::from_secs_f64(60.0 * minutes)
}

fn system() -> Cluster {
    Cluster::with(3, |config| {
        let mut addresses = free_ports(4).into_iter().map(|port| format!("127.0.0.1:{port}"));
        config.shop.addresses = addresses.by_ref().take(2).collect();
        config.payment.addresses = addresses.collect();
        config.shop.auth = ShopAuth::Open;
        config.shop.checkout = Checkout::Mailbox;
        config.shop.demo = false;
        // Snapshots and nodes that need one happen too.
        config.store.snapshot_log_entries = 5000;
        config.store.log_keep_entries = 500;
    })
}

/// What the buyers were told.
#[derive(Default)]
struct Told {
    /// The orders of each user that were answered as paid, with what they cost.
    paid: BTreeMap<String, BTreeMap<String, i64>>,
    /// Pieces of each product that were paid for.
    sold: BTreeMap<String, i64>,
    declined: usize,
    out_of_stock: usize,
    tries: usize,
}

struct Buyer<'test> {
    number: u64,
    shops: Vec<String>,
    products: &'test [String],
    http: reqwest::Client,
    random: Random,
    ended: &'test AtomicUsize,
    told: Told,
}

impl Buyer<'_> {
    async fn buy_until(mut self, end: &AtomicBool) -> Told {
        for n in 0_usize.. {
            if end.load(Ordering::Relaxed) {
                break;
            }
            self.order(n).await;
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        self.told
    }

    /// One to three products, mostly with a card that can pay.
    fn wish(&mut self, user: &str) -> (Value, BTreeMap<String, i64>) {
        let mut pieces = BTreeMap::new();
        for _ in 0..=self.random.below(3) {
            let product = self.random.choose(self.products).clone();
            pieces.insert(product, 1 + i64::try_from(self.random.below(2)).unwrap());
        }
        let items: Vec<Value> = pieces
            .iter()
            .map(|(product, quantity)| json!({"productId": product, "quantity": quantity}))
            .collect();
        let card = if self.random.below(10) == 0 {
            EMPTY_CARD
        } else {
            self.random.choose(&CARDS)
        };
        (
            json!({"userId": user, "items": items, "cardNumber": card}),
            pieces,
        )
    }

    /// Sends one order with its key to this shop and that until it is told how it ended.
    async fn order(&mut self, n: usize) {
        let user = format!("user-{}-{}", self.number, n / ORDERS_EACH_USER);
        let (body, pieces) = self.wish(&user);
        let key = format!("letters-{}-{n}", self.number);
        let mut shop = usize::try_from(self.random.below(2)).unwrap();
        let mut tries = 0;
        let (http, shops) = (&self.http, &self.shops);
        let (status, answer) = wait_until("an order to end", GOES_ON_WITHIN, async || {
            shop = (shop + 1) % shops.len();
            tries += 1;
            let request = http.post(format!("http://{}/orders", shops[shop]));
            let request = request.timeout(DEADLINE).header("idempotency-key", &key);
            let answer = request
                .json(&body)
                .send()
                .await
                .map_err(|error| error.to_string())?;
            let status = answer.status();
            let told: Value = answer.json().await.map_err(|error| error.to_string())?;
            let ended = [
                StatusCode::CREATED,
                StatusCode::PAYMENT_REQUIRED,
                StatusCode::CONFLICT,
            ];
            let open = status.is_server_error() || status == StatusCode::ACCEPTED;
            assert!(open || ended.contains(&status), "{key}: {status} {told}");
            if open {
                return Err(format!("{status} {told}"));
            }
            Ok((status, told))
        })
        .await;
        self.told.tries += tries;
        match status {
            StatusCode::CREATED => {
                assert_eq!(answer["status"], "paid", "{answer}");
                let total = PRICE_MINOR * pieces.values().sum::<i64>();
                assert_eq!(answer["total_minor"], total, "{answer}");
                let id = answer["order_id"].as_str().unwrap().to_owned();
                let orders = self.told.paid.entry(user).or_default();
                assert_eq!(orders.insert(id, total), None, "two keys, one order: {answer}");
                for (product, quantity) in pieces {
                    *self.told.sold.entry(product).or_default() += quantity;
                }
            }
            StatusCode::PAYMENT_REQUIRED => {
                assert_eq!(body["cardNumber"], EMPTY_CARD, "{answer}");
                self.told.declined += 1;
            }
            _ => {
                assert_eq!(answer["code"], "out-of-stock", "{answer}");
                self.told.out_of_stock += 1;
            }
        }
    }
}

fn payment(cluster: &Cluster) -> PaymentClient {
    let addresses = cluster.config.payment.addresses.clone();
    let builder = PaymentClient::builder(addresses, cluster.token("operator"));
    builder.deadline(DEADLINE).build().unwrap()
}

/// Cards with much money, goods on the shelves; answers the products.
async fn prepare(cluster: &Cluster) -> Vec<String> {
    let payment = payment(cluster);
    for card in CARDS {
        let much = Money::new(MONEY, Currency::EUR);
        wait_until("a card to be opened", SOON, async || {
            let opened = payment.open_card(card, much, CardStatus::Active).await;
            opened.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }
    let mut products = Vec::new();
    for n in 0..PRODUCTS {
        let stock = if n + 1 == PRODUCTS { SCARCE } else { STOCK };
        let body = json!({"name": format!("Thing {n}"), "price": 2.5, "stock": stock});
        let made = wait_until("goods to be on the shelf", SOON, async || {
            let url = format!("http://{}/products", cluster.config.shop.addresses[0]);
            let request = cluster
                .http
                .post(url)
                .header("idempotency-key", format!("thing-{n}"));
            let answer = request
                .json(&body)
                .send()
                .await
                .map_err(|error| error.to_string())?;
            let made: Value = answer.json().await.map_err(|error| error.to_string())?;
            let id = made["id"].as_str().map(str::to_owned);
            id.ok_or_else(|| made.to_string())
        })
        .await;
        products.push(made);
    }
    products
}

/// One or two who die at the same moment.
async fn victims(random: &mut Random, cluster: &Cluster) -> Vec<String> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    match random.below(8) {
        0 | 1 => names(&["shop1"]),
        2 => names(&["shop2"]),
        3 => names(&["pay1"]),
        4 => names(&["shop1", "shop2"]),
        5 => names(&["pay1", "pay2"]),
        6 => vec![cluster.leader().await],
        _ => vec![cluster.leader().await, "shop2".to_owned()],
    }
}

/// Kills until the time is over; how often each was killed. In between, orders must go on.
async fn kill_at_random(
    cluster: &Cluster,
    mut random: Random,
    ended: &AtomicUsize,
) -> BTreeMap<String, usize> {
    let mut kills: BTreeMap<String, usize> = BTreeMap::new();
    let began = Instant::now();
    // Short runs cannot have everything; they have something of each kind.
    let enough = |kills: &BTreeMap<String, usize>| {
        ["shop", "pay", "n"]
            .iter()
            .all(|kind| kills.keys().any(|name| name.starts_with(kind)))
    };
    while began.elapsed() < length() || !enough(&kills) {
        let victims = victims(&mut random, cluster).await;
        // Chance chooses the moment, since the deaths are to meet every step of an order.
        tokio::time::sleep(Duration::from_millis(random.below(1500))).await;
        for name in &victims {
            cluster.kill(name).await;
            *kills.entry(name.clone()).or_default() += 1;
        }
        tokio::time::sleep(Duration::from_millis(random.below(1500))).await;
        for name in &victims {
            cluster.start_node(name).await;
        }
        for name in &victims {
            cluster.wait_for_state(name, "running").await;
        }
        let before = ended.load(Ordering::Relaxed);
        wait_until("orders go on", GOES_ON_WITHIN, async || {
            let now = ended.load(Ordering::Relaxed);
            (now > before + 5)
                .then_some(())
                .ok_or_else(|| format!("{now} after {before}, when {victims:?} had been killed"))
        })
        .await;
    }
    kills
}

/// An audit reads every order and every letter of the last hour, which takes a while on a busy machine.
async fn get(cluster: &Cluster, path: &str) -> Value {
    wait_until(path, SETTLED_WITHIN, async || {
        let url = format!("http://{}{path}", cluster.config.shop.addresses[1]);
        let request = cluster.http.get(url).bearer_auth(cluster.token("operator"));
        let answer = request.timeout(SETTLED_WITHIN).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let answer = answer.error_for_status().map_err(|error| error.to_string())?;
        answer.json().await.map_err(|error| error.to_string())
    })
    .await
}

#[tokio::test]
async fn whoever_is_killed_no_letter_is_lost_or_acted_on_twice() {
    let cluster = system();
    cluster.up().await;
    let products = prepare(&cluster).await;
    let mut money = Vec::new();
    for card in CARDS {
        money.push(
            payment(&cluster)
                .balance(card)
                .await
                .unwrap()
                .unwrap()
                .balance_minor,
        );
    }
    let (ended, end) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut random = Random::seeded();
    let chance = Random::from(random.next());
    let buyers: Vec<Buyer<'_>> = (0..BUYERS)
        .map(|number| Buyer {
            number,
            shops: cluster.config.shop.addresses.clone(),
            products: &products,
            http: cluster.http.clone(),
            random: Random::from(random.next()),
            ended: &ended,
            told: Told::default(),
        })
        .collect();
    let load = join_all(buyers.into_iter().map(|buyer| buyer.buy_until(&end)));
    let deaths = async {
        let kills = kill_at_random(&cluster, chance, &ended).await;
        end.store(true, Ordering::Relaxed);
        kills
    };
    let (told, kills) = tokio::join!(load, deaths);
    let all = sum(told);
    say(&format!(
        "killed: {kills:?}; {} orders ended: {} paid, {} declined, {} out of stock; {} tries",
        ended.load(Ordering::Relaxed),
        all.paid.values().map(BTreeMap::len).sum::<usize>(),
        all.declined,
        all.out_of_stock,
        all.tries
    ));
    assert!(
        !all.paid.is_empty() && all.declined > 0 && all.out_of_stock > 0,
        "not every way to end was taken, which proves little"
    );
    verify(&cluster, &products, &all, money.iter().sum()).await;
}

fn sum(told: Vec<Told>) -> Told {
    let mut all = Told::default();
    for one in told {
        all.paid.extend(one.paid);
        for (product, pieces) in one.sold {
            *all.sold.entry(product).or_default() += pieces;
        }
        all.declined += one.declined;
        all.out_of_stock += one.out_of_stock;
        all.tries += one.tries;
    }
    all
}

async fn verify(cluster: &Cluster, products: &[String], all: &Told, money: i64) {
    let audit = wait_until("everything to have ended", SETTLED_WITHIN, async || {
        let audit = get(cluster, "/admin/audit").await;
        assert_eq!(audit["ok"], true, "{audit}");
        if audit["unfinished"] == 0 {
            Ok(audit)
        } else {
            Err(audit.to_string())
        }
    })
    .await;
    say(&format!("the audit: {audit}"));
    let client = cluster.client();
    let shop = format!("shop/{}", cluster.config.shop.name);
    wait_until("no letter to be left", SOON, async || {
        let left = client.scan(&format!("{shop}/mail/")).await;
        let left = left.map_err(|error| format!("{error:?}"))?.kvs;
        left.is_empty().then_some(()).ok_or_else(|| format!("{left:?}"))
    })
    .await;
    let dead = client.scan(&format!("{shop}/dead/")).await.unwrap().kvs;
    assert!(dead.is_empty(), "laid aside: {dead:?}");
    let mut charged = 0;
    for (user, paid) in &all.paid {
        let orders = get(cluster, &format!("/orders/{user}?limit=200")).await;
        let found = orders.as_array().unwrap().iter();
        let found: BTreeSet<&str> = found
            .filter(|order| order["status"] == "paid")
            .map(|order| order["order_id"].as_str().unwrap())
            .collect();
        let told: BTreeSet<&str> = paid.keys().map(String::as_str).collect();
        assert_eq!(found, told, "the paid orders of {user}: found, and told");
        charged += paid.values().sum::<i64>();
    }
    for (n, product) in products.iter().enumerate() {
        let stock = if n + 1 == products.len() { SCARCE } else { STOCK };
        let sold = all.sold.get(product).copied().unwrap_or_default();
        let left = get(cluster, &format!("/products/{product}")).await["stock"]
            .as_i64()
            .unwrap();
        assert_eq!(left, stock - sold, "of product {n}, {sold} were sold");
    }
    let (mut left, mut held) = (0, 0);
    for card in CARDS {
        let balance = payment(cluster).balance(card).await.unwrap().unwrap();
        left += balance.balance_minor;
        held += balance.held_minor;
    }
    assert_eq!((money - left, held), (charged, 0), "charged, and still held");
}
