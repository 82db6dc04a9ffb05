//! Payments as launched: sudden deaths of services and of the store's leader under load, and no card number anywhere.
//! Invariant: every call is repeated until it is answered; then each id has one outcome and the ledger balances.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use payment_client::wire::{Capture, CardStatus, Status};
use payment_client::{Currency, Error, Money, NewPayment, PaymentClient, Source};
use serde_json::json;

use crate::harness::{Cluster, free_ports, wait_until};
use crate::load::{Random, say};

const WORKERS: usize = 6;
const KILLS: usize = 6;
const CARD: &str = "4242 4242 4242 4242";
/// The first card of `menagerie bench`.
const MEASURED_WITH: &str = "4971675348322617";
const BALANCE_MINOR: i64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(30);

fn with_payments(nodes: u64) -> Cluster {
    Cluster::with(nodes, |config| {
        config.payment.addresses = free_ports(2)
            .into_iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
    })
}

fn client(cluster: &Cluster, token: &str) -> PaymentClient {
    let addresses = cluster.config.payment.addresses.clone();
    let client = PaymentClient::builder(addresses, cluster.token(token));
    client.deadline(Duration::from_secs(10)).build().unwrap()
}

fn euro(minor: i64) -> Money {
    Money::new(minor, Currency::EUR)
}

/// Repeats until there is an answer: only an unknown outcome is none.
async fn settled<T>(what: &str, mut call: impl AsyncFnMut() -> payment_client::Result<T>) -> T {
    wait_until(what, PATIENCE * 2, async || match call().await {
        Ok(answer) => Ok(answer),
        Err(error @ Error::Unknown { .. }) => Err(format!("{error:?}")),
        Err(error) => panic!("{what}: {error:?}"),
    })
    .await
}

/// What a worker did with one payment, all of it acknowledged.
struct Done {
    id: String,
    held: i64,
    captured: i64,
    refunded: i64,
    status: Status,
}

struct Worker {
    number: usize,
    client: PaymentClient,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
}

impl Worker {
    async fn work(self) -> Vec<Done> {
        let mut all = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let n = all.len();
            all.push(self.payment(n).await);
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        all
    }

    /// Each third payment is taken at once, each third captured in part and refunded in part, each third canceled.
    async fn payment(&self, n: usize) -> Done {
        let (client, id) = (&self.client, format!("w{}-{n}", self.number));
        let held = 10 + i64::try_from(n % 7).unwrap();
        let automatic = n.is_multiple_of(3);
        let payment = NewPayment {
            source: Source::CardNumber(CARD.to_owned()),
            amount: euro(held),
            merchant: "shop".to_owned(),
            order_ref: Some(format!("order-{id}")),
            capture: if automatic {
                Capture::Automatic
            } else {
                Capture::Manual
            },
        };
        settled("pay", async || client.pay(&id, &payment).await).await;
        let mut done = Done {
            id: id.clone(),
            held,
            captured: held,
            refunded: 0,
            status: Status::Captured,
        };
        if automatic {
            return done;
        }
        if n % 3 == 1 {
            done.captured = held - 1;
            let amount = Some(euro(done.captured));
            let captured = settled("capture", async || client.capture(&id, amount).await).await;
            assert_eq!(captured.captured_minor, done.captured);
            settled("refund", async || client.refund(&id, "r", euro(2)).await).await;
            done.refunded = 2;
        } else {
            settled("cancel", async || client.cancel(&id).await).await;
            (done.captured, done.status) = (0, Status::Canceled);
        }
        done
    }
}

#[tokio::test]
async fn sudden_deaths_lose_no_charge_and_double_none() {
    let cluster = with_payments(3);
    cluster.up().await;
    let operator = client(&cluster, "operator");
    settled("open the card", async || {
        operator
            .open_card(CARD, euro(BALANCE_MINOR), CardStatus::Active)
            .await
    })
    .await;
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let workers = (0..WORKERS).map(|number| Worker {
        number,
        client: client(&cluster, "merchant"),
        stop: Arc::clone(&stop),
        count: Arc::clone(&count),
    });
    let load = join_all(workers.map(Worker::work));
    let kills = async {
        let mut random = Random::seeded();
        for kill in 0..KILLS {
            let victim = match kill % 3 {
                0 => "pay1".to_owned(),
                1 => cluster.leader().await,
                _ => "pay2".to_owned(),
            };
            // Chance chooses the moment, so that every step of a payment is met.
            tokio::time::sleep(Duration::from_millis(random.below(300))).await;
            cluster.kill(&victim).await;
            let before = count.load(Ordering::Relaxed);
            wait_until("payments go on", PATIENCE, async || {
                let now = count.load(Ordering::Relaxed);
                if now > before + 10 {
                    Ok(())
                } else {
                    Err(format!("{now} after {before}"))
                }
            })
            .await;
            cluster.run(&["start", &victim, "--wait"]).await.ok();
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (all, ()) = tokio::join!(load, kills);
    let all: Vec<Done> = all.into_iter().flatten().collect();
    say(&format!("{} payments under {KILLS} kills", all.len()));
    verify(&cluster, &all).await;
}

/// What was acknowledged is there, and nothing else.
async fn verify(cluster: &Cluster, all: &[Done]) {
    let merchant = client(cluster, "merchant");
    let mut spent = 0;
    for done in all {
        let id = &done.id;
        let shown = merchant.payment(id).await.unwrap().unwrap();
        assert_eq!(shown.status, done.status, "{id}: {shown:?}");
        assert_eq!(shown.amount_minor, Some(done.held), "{id}: {shown:?}");
        assert_eq!(shown.captured_minor, done.captured, "{id}: {shown:?}");
        assert_eq!(shown.refunded_minor, done.refunded, "{id}: {shown:?}");
        spent += done.captured - done.refunded;
    }
    let balance = merchant.balance(CARD).await.unwrap().unwrap();
    assert_eq!(
        (balance.balance_minor, balance.held_minor),
        (BALANCE_MINOR - spent, 0)
    );
    let check = merchant.check_ledger(None).await.unwrap();
    assert!(check.balanced, "{check:?}");
}

#[tokio::test]
async fn the_launched_service_pays_and_keeps_no_card_number() {
    let cluster = with_payments(1);
    cluster.up().await;
    let status = cluster.status().await;
    let kinds: Vec<_> = status["processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["kind"].clone())
        .collect();
    assert_eq!(kinds, ["node", "payment", "payment"]);
    // The line a classroom types, without any credential.
    let url = format!("http://{}/payments", cluster.config.payment.addresses[0]);
    let body = json!({"card_number": CARD, "amount": 12.5});
    let ready = async || {
        let paid = cluster.http.post(&url).json(&body).send().await.unwrap();
        if paid.status() == 201 {
            Ok(())
        } else {
            Err(paid.text().await.unwrap())
        }
    };
    wait_until("the cards for trying out", PATIENCE, ready).await;
    for wrong in ["4242 4242 4242 4241", CARD] {
        let refused = cluster
            .http
            .post(&url)
            .json(&json!({"card_number": wrong, "amount": "x"}));
        assert_eq!(refused.send().await.unwrap().status(), 422);
    }
    let bench = ["bench", "pay", "--clients", "4", "--seconds", "1", "--json"];
    for work in ["spread", "one-card", "one-merchant"] {
        let arguments: Vec<&str> = bench.into_iter().chain(["--work", work]).collect();
        let report = cluster.run(&arguments).await.json();
        assert!(report["operations"].as_u64().unwrap() > 0, "{report}");
        assert_eq!(
            (&report["balanced"], &report["errors"]),
            (&json!(true), &json!({})),
            "{report}"
        );
    }
    cluster.down().await;
    let digits: String = CARD.chars().filter(char::is_ascii_digit).collect();
    let mut files = 0;
    search(
        &cluster.data(),
        &[digits.as_bytes(), CARD.as_bytes(), MEASURED_WITH.as_bytes()],
        &mut files,
    );
    assert!(files > 10, "searched only {files} files");
}

fn search(folder: &Path, needles: &[&[u8]], files: &mut usize) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, needles, files);
        } else if let Ok(content) = std::fs::read(&path) {
            *files += 1;
            for needle in needles {
                let found = content.windows(needle.len()).any(|window| window == *needle);
                assert!(
                    !found,
                    "{} in {}",
                    String::from_utf8_lossy(needle),
                    path.display()
                );
            }
        }
    }
}
