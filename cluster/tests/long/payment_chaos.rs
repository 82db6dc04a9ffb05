//! Minutes of sudden deaths of payment services and nodes, while payments are contested by several callers at once.
//! Invariant: every call is repeated until it is answered. Then each id has ended once, in the way that was answered;
//! no acknowledged charge is lost, none doubled, and the ledger balances.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use payment_client::wire::{Capture, CardStatus, Status, TransferKind};
use payment_client::{Currency, Error, Money, NewPayment, PaymentClient, Source};

use crate::ALL;
use crate::harness::{Cluster, free_ports, wait_until};
use crate::load::{Random, say};

const LENGTH: Duration = Duration::from_mins(3);
const KILLS_MIN: usize = 40;
const WORKERS: u64 = 6;
const CARDS: [&str; 2] = ["4242 4242 4242 4242", "5555 5555 5555 4444"];
const BALANCE_MINOR: i64 = 100_000_000;
const PATIENCE: Duration = Duration::from_mins(1);

fn euro(minor: i64) -> Money {
    Money::new(minor, Currency::EUR)
}

/// Repeats until there is an answer: only an unknown outcome is none.
async fn settled<T>(
    what: &str,
    mut call: impl AsyncFnMut() -> payment_client::Result<T>,
) -> Result<T, Error> {
    wait_until(what, PATIENCE, async || match call().await {
        Err(error @ Error::Unknown { .. }) => Err(format!("{error:?}")),
        answer => Ok(answer),
    })
    .await
}

/// What became of a payment by what was answered.
struct Told {
    id: String,
    card: usize,
    captured: i64,
    refunded: i64,
    status: Status,
}

struct Worker<'a> {
    number: u64,
    client: PaymentClient,
    random: Random,
    stop: &'a Cell<bool>,
    count: &'a Cell<usize>,
}

impl Worker<'_> {
    async fn work(mut self) -> Vec<Told> {
        let mut all = Vec::new();
        while !self.stop.get() {
            let id = format!("c{}-{}", self.number, all.len());
            all.push(self.payment(id).await);
            self.count.set(self.count.get() + 1);
        }
        all
    }

    /// Made by twins; a capture and a cancel race for it; two refunds that exceed it together follow.
    async fn payment(&mut self, id: String) -> Told {
        let amount = 10 + i64::try_from(self.random.below(90)).unwrap();
        let card = usize::from(self.random.below(2) == 0);
        let automatic = self.random.below(3) == 0;
        let new = NewPayment {
            source: Source::CardNumber(CARDS[card].to_owned()),
            amount: euro(amount),
            merchant: format!("shop{}", self.number % 2),
            order_ref: Some(id.clone()),
            capture: if automatic {
                Capture::Automatic
            } else {
                Capture::Manual
            },
        };
        let client = &self.client;
        let pay = || settled("pay", async || client.pay(&id, &new).await);
        let (one, two) = tokio::join!(pay(), pay());
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(
            format!("{one:?}"),
            format!("{two:?}"),
            "{id}: twins were answered differently"
        );
        let mut told = Told {
            id: id.clone(),
            card,
            captured: amount,
            refunded: 0,
            status: Status::Captured,
        };
        if !automatic {
            let part = amount - 1;
            let capture = settled("capture", async || client.capture(&id, Some(euro(part))).await);
            let cancel = settled("cancel", async || client.cancel(&id).await);
            (told.captured, told.status) = match tokio::join!(capture, cancel) {
                (Ok(_), Err(lost)) if lost.code() == "payment-captured" => (part, Status::Captured),
                (Err(lost), Ok(_)) if lost.code() == "payment-canceled" => (0, Status::Canceled),
                (capture, cancel) => panic!("{id} ended as {capture:?} and {cancel:?}"),
            };
        }
        if told.status == Status::Captured && self.random.below(2) == 0 {
            let most = told.captured - 1;
            let id = &id;
            let refund = |name: &'static str| {
                settled("refund", async move || client.refund(id, name, euro(most)).await)
            };
            let (one, two) = tokio::join!(refund("r1"), refund("r2"));
            told.refunded = match (one, two) {
                (Ok(_), Err(lost)) | (Err(lost), Ok(_)) if lost.code() == "refund-exceeds-capture" => most,
                (one, two) => panic!("{}: refunds ended as {one:?} and {two:?}", told.id),
            };
        }
        told
    }
}

/// Mostly one of them, sometimes two at once.
async fn victims(random: &mut Random, cluster: &Cluster) -> Vec<String> {
    let name = |name: &str| vec![name.to_owned()];
    match random.below(10) {
        0..2 => name("pay1"),
        2..4 => name("pay2"),
        4..7 => vec![cluster.leader().await],
        7 => name(random.choose::<&str>(&ALL)),
        8 => vec!["pay1".to_owned(), "pay2".to_owned()],
        _ => vec![cluster.leader().await, "pay1".to_owned()],
    }
}

/// Chance chooses the moments, since the deaths are to meet every step of a payment.
async fn deaths(cluster: &Cluster, count: &Cell<usize>) -> usize {
    let mut random = Random::seeded();
    let (end, mut kills) = (Instant::now() + LENGTH, 0);
    while Instant::now() < end || kills < KILLS_MIN {
        tokio::time::sleep(Duration::from_millis(random.below(1500))).await;
        let victims = victims(&mut random, cluster).await;
        for name in &victims {
            cluster.kill(name).await;
        }
        kills += victims.len();
        tokio::time::sleep(Duration::from_millis(random.below(800))).await;
        for name in &victims {
            cluster.start_node(name).await;
        }
        for name in &victims {
            cluster.wait_for_state(name, "running").await;
        }
        let before = count.get();
        wait_until("payments go on", PATIENCE, async || {
            let now = count.get();
            if now > before {
                Ok(())
            } else {
                Err(now.to_string())
            }
        })
        .await;
    }
    kills
}

#[tokio::test]
async fn minutes_of_deaths_lose_no_charge_and_double_none() {
    let cluster = Cluster::with(3, |config| {
        let addresses = free_ports(2).into_iter().map(|port| format!("127.0.0.1:{port}"));
        config.payment.addresses = addresses.collect();
    });
    cluster.up().await;
    let client = |token: &str| {
        let addresses = cluster.config.payment.addresses.clone();
        let client = PaymentClient::builder(addresses, cluster.token(token));
        client.deadline(Duration::from_secs(10)).build().unwrap()
    };
    let operator = client("operator");
    for card in CARDS {
        let open = async || {
            operator
                .open_card(card, euro(BALANCE_MINOR), CardStatus::Active)
                .await
        };
        settled("open the card", open).await.unwrap();
    }
    let (stop, count) = (Cell::new(false), Cell::new(0));
    let workers = (0..WORKERS).map(|number| Worker {
        number,
        client: client("merchant"),
        random: Random::from(number),
        stop: &stop,
        count: &count,
    });
    let load = join_all(workers.map(Worker::work));
    let kill = async {
        let kills = deaths(&cluster, &count).await;
        stop.set(true);
        kills
    };
    let (all, kills) = tokio::join!(load, kill);
    let all: Vec<Told> = all.into_iter().flatten().collect();
    say(&format!("{} payments under {kills} deaths", all.len()));
    verify(&client("merchant"), &all).await;
    search(&cluster.data());
}

/// What was answered is there, once, and nothing else.
async fn verify(client: &PaymentClient, all: &[Told]) {
    let mut spent = [0, 0];
    for told in all {
        let id = &told.id;
        let shown = settled("show", async || client.payment(id).await)
            .await
            .unwrap()
            .unwrap();
        let seen = (shown.status, shown.captured_minor, shown.refunded_minor);
        assert_eq!(
            seen,
            (told.status, told.captured, told.refunded),
            "{id}: {shown:?}"
        );
        let transfers = shown.transfers.as_deref().unwrap_or_default();
        let count = |kinds: &[TransferKind]| transfers.iter().filter(|one| kinds.contains(&one.kind)).count();
        let charges = count(&[TransferKind::Charge, TransferKind::Capture]);
        assert_eq!(charges, usize::from(told.captured > 0), "{id}: {shown:?}");
        assert_eq!(
            count(&[TransferKind::Refund]),
            usize::from(told.refunded > 0),
            "{id}: {shown:?}"
        );
        spent[told.card] += told.captured - told.refunded;
    }
    for (card, spent) in CARDS.into_iter().zip(spent) {
        let balance = client.balance(card).await.unwrap().unwrap();
        assert_eq!(
            (balance.balance_minor, balance.held_minor),
            (BALANCE_MINOR - spent, 0)
        );
    }
    let check = client.check_ledger(None).await.unwrap();
    assert!(check.balanced, "{check:?}");
    assert_eq!(check.violations, Vec::<String>::new());
}

/// Deaths leave no card number behind either: neither in what is stored nor in a log.
fn search(folder: &std::path::Path) {
    let needles = CARDS.iter().flat_map(|card| {
        let spelled = [' ', '-'].map(|between| card.replace(' ', &between.to_string()));
        spelled.into_iter().chain([card.replace(' ', "")])
    });
    let needles: Vec<String> = needles.collect();
    let (mut folders, mut files) = (vec![folder.to_owned()], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // What the store is just replacing may be gone by now.
            let Ok(content) = std::fs::read(&path) else {
                continue;
            };
            files += 1;
            let text = String::from_utf8_lossy(&content);
            for needle in &needles {
                assert!(!text.contains(needle), "{needle} in {}", path.display());
            }
        }
    }
    assert!(files > 10, "searched only {files} files");
}
