//! Thousands of requests at random: one after the other exactly as the model says, and many at the same time on two
//! instances with the ledger balanced at every revision that is looked at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use reqwest::Method;
use serde_json::json;

use crate::harness::{Answer, Client, wait_for};
use crate::model::{Model, State, Wish};
use crate::system::{AMEX, EMPTY, MASTERCARD, System, VISA, ask, cancel, capture, order, pay, refund};

const CARDS: [&str; 4] = [AMEX, EMPTY, MASTERCARD, VISA];
const STEPS: usize = 2000;
const CLIENTS: usize = 16;
const STEPS_OF_EACH: usize = 700;

fn wishes(ids: usize) -> impl Strategy<Value = Wish> {
    let amount = prop_oneof![1..=30_i64, 1..=60_000_i64];
    let pay =
        (0..ids, 0..CARDS.len(), amount, any::<bool>()).prop_map(|(id, card, amount, automatic)| Wish::Pay {
            id,
            card,
            amount,
            automatic,
        });
    let small = || prop_oneof![1..=30_i64, 1..=40_000_i64];
    let capture = (0..ids, prop::option::of(small())).prop_map(|(id, amount)| Wish::Capture { id, amount });
    let cancel = (0..ids).prop_map(|id| Wish::Cancel { id });
    let refund =
        (0..ids, 0..3_usize, small()).prop_map(|(id, refund, amount)| Wish::Refund { id, refund, amount });
    prop_oneof![3 => pay, 2 => capture, 1 => cancel, 3 => refund]
}

fn decimal(minor: i64) -> serde_json::Value {
    serde_json::from_str(&format!("{}.{:02}", minor / 100, minor % 100)).unwrap()
}

async fn send(client: &Client, wish: &Wish) -> Answer {
    match *wish {
        Wish::Pay {
            id,
            card,
            amount,
            automatic,
        } => {
            let mode = if automatic { "automatic" } else { "manual" };
            let body = json!({"card_number": CARDS[card], "amount": decimal(amount), "currency": "EUR",
                "merchant": format!("m{}", id % 3), "order_ref": format!("o{id}"), "capture": mode});
            ask(client, Method::PUT, &format!("/v1/payments/p{id}"), &body).await
        }
        Wish::Capture { id, amount } => {
            let body = amount.map_or(json!({}), |amount| json!({"amount": decimal(amount)}));
            capture(client, &format!("p{id}"), &body).await
        }
        Wish::Cancel { id } => cancel(client, &format!("p{id}")).await,
        Wish::Refund {
            id,
            refund: number,
            amount,
        } => refund(client, &format!("p{id}"), &format!("r{number}"), decimal(amount)).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_after_the_other_is_what_the_model_says() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let clients = [system.at(0, "merchant"), system.at(1, "merchant")];
    let mut model = Model::new(vec![5000, 0, 50_000, 1_000_000]);
    let mut runner = TestRunner::default();
    let mut last: Option<Wish> = None;
    for step in 0..STEPS {
        // Every fifth is the last request once more, at the other instance.
        let repeated = last.take().filter(|_| step % 5 == 4);
        let wish = repeated.unwrap_or_else(|| wishes(STEPS / 10).new_tree(&mut runner).unwrap().current());
        let (status, code, replayed) = model.answer(&wish);
        let answer = send(&clients[step % 2], &wish).await;
        assert_eq!(answer.status, status, "step {step}, {wish:?}: {}", answer.text());
        if !code.is_empty() {
            assert_eq!(answer.code(), code, "step {step}, {wish:?}");
        }
        let marked = answer.header("idempotent-replayed") == "true";
        assert_eq!(marked, replayed, "step {step}, {wish:?}: {}", answer.text());
        if step % 250 == 0 {
            system.check().await;
        }
        last = Some(wish);
    }
    for (card, available) in CARDS.iter().zip(&model.cards) {
        assert_eq!(system.balance(card).await.0, *available, "{card}");
    }
    for (id, paid) in &model.payments {
        let shown = clients[0]
            .get(&format!("/v1/payments/p{id}"))
            .await
            .expect(200)
            .json();
        let (status, captured) = match paid.state {
            State::Authorized => ("authorized", 0),
            State::Captured(captured) => ("captured", captured),
            State::Canceled => ("canceled", 0),
            State::Declined => ("declined", 0),
        };
        assert_eq!(
            (&shown["status"], &shown["captured_minor"]),
            (&json!(status), &json!(captured)),
            "{shown}"
        );
        assert_eq!(
            shown["refunded_minor"],
            paid.refunds.values().sum::<i64>(),
            "{shown}"
        );
    }
    system.stop().await;
}

/// What was answered for the first time, by payment: such an answer must be given once at most.
#[derive(Debug, Default)]
struct Firsts {
    paid: usize,
    declined: usize,
    captured: Vec<i64>,
    canceled: usize,
    refunds: BTreeMap<usize, Vec<i64>>,
}

impl Firsts {
    fn note(&mut self, wish: &Wish, answer: &Answer) {
        if answer.header("idempotent-replayed") == "true" {
            return;
        }
        match (wish, answer.status) {
            (Wish::Pay { .. }, 201) => self.paid += 1,
            (Wish::Pay { .. }, 402) => self.declined += 1,
            (Wish::Capture { .. }, 200) => {
                self.captured
                    .push(answer.json()["captured_minor"].as_i64().unwrap());
            }
            (Wish::Cancel { .. }, 200) => self.canceled += 1,
            (Wish::Refund { refund, amount, .. }, 201) => {
                self.refunds.entry(*refund).or_default().push(*amount);
            }
            _ => {}
        }
    }

    fn merge(&mut self, other: Self) {
        self.paid += other.paid;
        self.declined += other.declined;
        self.captured.extend(other.captured);
        self.canceled += other.canceled;
        for (refund, amounts) in other.refunds {
            self.refunds.entry(refund).or_default().extend(amounts);
        }
    }
}

async fn work(client: Client, ids: usize) -> BTreeMap<usize, Firsts> {
    let mut runner = TestRunner::default();
    let mut firsts: BTreeMap<usize, Firsts> = BTreeMap::new();
    for _ in 0..STEPS_OF_EACH {
        let wish = wishes(ids).new_tree(&mut runner).unwrap().current();
        let answer = send(&client, &wish).await;
        assert!(answer.status < 500, "{wish:?}: {}", answer.text());
        let (Wish::Pay { id, .. } | Wish::Capture { id, .. } | Wish::Cancel { id } | Wish::Refund { id, .. }) =
            wish;
        firsts.entry(id).or_default().note(&wish, &answer);
    }
    firsts
}

/// Holds that either instance has ended because their time was over.
async fn expired(system: &System) -> u64 {
    let mut expired = 0;
    for instance in 0..2 {
        let metrics = system.at(instance, "merchant").get("/metrics").await.expect(200);
        let text = metrics.text();
        let mut counts = text
            .lines()
            .filter_map(|line| line.strip_prefix("payment_swept_total{kind=\"hold\"} "));
        expired += counts.next().map_or(0, |count| count.parse::<u64>().unwrap());
    }
    expired
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_the_same_time_leave_a_ledger_that_balances() {
    // Holds end by themselves too, in the middle of everything.
    let system = System::start_with(1, 2, |config| {
        config.hold_s = 1;
        config.sweep_every_ms = 50;
    })
    .await;
    let ids = 400;
    let done = Arc::new(AtomicBool::new(false));
    let checks = async {
        let mut revisions = Vec::new();
        while !done.load(Ordering::Relaxed) {
            revisions.push(system.check().await["revision"].as_u64().unwrap());
        }
        revisions
    };
    let load = async {
        let clients = (0..CLIENTS).map(|n| work(system.at(n % 2, "merchant"), ids));
        let all = join_all(clients).await;
        done.store(true, Ordering::Relaxed);
        all
    };
    let (revisions, all) = tokio::join!(checks, load);
    // On a fast machine every hold is captured or canceled before its time: these are left to it.
    for (n, card) in CARDS.into_iter().enumerate() {
        pay(
            &system.merchant(),
            &format!("left{n}"),
            &order(card, 1.0, "manual"),
        )
        .await;
    }
    assert!(revisions.len() > 3, "looked only at {revisions:?}");
    // And once more at revisions in between, from the history.
    for revision in revisions
        .windows(2)
        .map(|pair| u64::midpoint(pair[0], pair[1]))
        .take(20)
    {
        let target = format!("/v1/ledger/check?revision={revision}");
        let past = system.merchant().get(&target).await.expect(200).json();
        assert_eq!(past["violations"], json!([]), "{past}");
    }
    wait_for("a hold to expire", async || {
        let expired = expired(&system).await;
        (expired > 0).then_some(()).ok_or(expired)
    })
    .await;
    judge(&system, all.into_iter().flatten()).await;
    system.stop().await;
}

/// Nothing was answered for the first time twice, and what was answered is what is there.
async fn judge(system: &System, all: impl Iterator<Item = (usize, Firsts)>) {
    let mut firsts: BTreeMap<usize, Firsts> = BTreeMap::new();
    for (id, one) in all {
        firsts.entry(id).or_default().merge(one);
    }
    for (id, firsts) in firsts {
        let target = format!("/v1/payments/p{id}");
        let answer = system.merchant().get(&target).await;
        let decided = firsts.paid + firsts.declined;
        assert!(
            decided <= 1 && firsts.captured.len() <= 1 && firsts.canceled <= 1,
            "p{id}: {firsts:?}"
        );
        assert!(
            firsts.captured.len() + firsts.canceled <= 1,
            "p{id} ended twice: {firsts:?}"
        );
        let Ok(shown) = serde_json::from_slice::<serde_json::Value>(&answer.body) else {
            panic!("{answer:?}")
        };
        if let Some(captured) = firsts.captured.first() {
            assert_eq!(
                shown["captured_minor"], *captured,
                "p{id}: {firsts:?} but {shown}"
            );
        }
        let refunds: Vec<i64> = firsts.refunds.values().flatten().copied().collect();
        assert!(
            firsts.refunds.values().all(|one| one.len() == 1),
            "p{id}: {firsts:?}"
        );
        let sum: i64 = refunds.iter().sum();
        assert_eq!(
            shown["refunded_minor"].as_i64().unwrap_or(0),
            sum,
            "p{id}: {firsts:?} but {shown}"
        );
    }
}
