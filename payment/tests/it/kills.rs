//! An instance dies before and behind every call of the store, under load; whoever got no answer repeats the request
//! at another instance.
//! Invariant: in the end it happened exactly once, nothing else did, and the ledger balances.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use payment::Moment::{AfterCommit, AfterRead, BeforeCommit, BeforeRead};
use reqwest::Method;
use serde_json::json;
use service::tasks::Tasks;
use service::time::now_ms;
use tokio::task::JoinHandle;

use crate::harness::{Answer, Client, wait_for};
use crate::subjects::{CARD, Point, Subject, Write, fault, payment, subjects};
use crate::system::{MASTERCARD, System, ask, order, pay, refund};
use crate::trap::Trap;

const WORKERS: usize = 3;

/// Payments that go on at the instance that lives: a cent each, given back at once.
struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    workers: Vec<JoinHandle<usize>>,
}

impl Load {
    fn start(system: &System, instance: usize) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let workers = (0..WORKERS).map(|worker| {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            let client = system.at(instance, "merchant");
            Tasks::new().spawn("load", async move {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    let id = format!("load{worker}-{done}");
                    pay(&client, &id, &order(MASTERCARD, 0.01, "automatic"))
                        .await
                        .expect(201);
                    refund(&client, &id, "r", json!(0.01)).await.expect(201);
                    done += 1;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                done
            })
        });
        Self {
            workers: workers.collect(),
            stop,
            count,
        }
    }

    /// The others pay on whatever has died.
    async fn goes_on(&self) {
        let before = self.count.load(Ordering::Relaxed);
        wait_for("the others to pay", async || {
            let now = self.count.load(Ordering::Relaxed);
            if now > before + WORKERS { Ok(()) } else { Err(now) }
        })
        .await;
    }

    async fn end(self, system: &System, instance: usize) {
        self.stop.store(true, Ordering::Relaxed);
        let client = system.at(instance, "merchant");
        for (worker, load) in self.workers.into_iter().enumerate() {
            let done = load.await.unwrap();
            assert!(done > 0, "worker {worker} did nothing");
            for n in 0..done {
                let target = format!("/v1/payments/load{worker}-{n}");
                let shown = client.get(&target).await.expect(200).json();
                assert_eq!(
                    (&shown["captured_minor"], &shown["refunded_minor"]),
                    (&json!(1), &json!(1))
                );
            }
        }
    }
}

async fn send(client: &Client, id: &str, (method, target, body): Write) -> Option<Answer> {
    let mut request = client.request(method, &target).json(&body);
    if target == "/payments" {
        request = request.header("idempotency-key", id);
    }
    let sent = request.send().await.ok()?;
    let (status, headers) = (sent.status().as_u16(), sent.headers().clone());
    let body = sent.bytes().await.ok()?;
    Some(Answer {
        status,
        headers,
        body,
    })
}

/// What is on the card, asked at the instance that lives.
async fn on_card(client: &Client) -> (i64, i64) {
    let body = json!({"card_number": CARD});
    let shown = ask(client, Method::POST, "/v1/cards/balance", &body).await;
    let shown = shown.expect(200).json();
    let number = |name: &str| shown[name].as_i64().unwrap();
    (number("balance_minor"), number("held_minor"))
}

/// The first instance dies at the point; the second is asked again.
async fn dies(system: &mut System, subject: &Subject, point: Point, id: &str) {
    let (step, moment, is_done) = point;
    let told = format!("{} at {step} {moment:?}", subject.name);
    let there = system.at(1, "merchant");
    let before = on_card(&there).await;
    if let Some(capture) = subject.before {
        pay(&there, id, &payment(CARD, capture)).await.expect(201);
    }
    system.trap(0).arm(step, moment);
    let (here, write, name) = (system.at(0, "merchant"), (subject.request)(id), id.to_owned());
    let first = Tasks::new().spawn("first", async move { send(&here, &name, write).await });
    system.trap(0).caught().await;
    system.kill(0);
    assert!(first.await.unwrap().is_none(), "{told}: the answer is lost");
    let answer = send(&there, id, (subject.request)(id)).await.expect("it lives");
    let replayed = answer.header("idempotent-replayed") == "true";
    assert_eq!(replayed, is_done, "{told}: {}", answer.text());
    let (new, known) = subject.answers;
    assert_eq!(
        answer.status,
        if is_done { known } else { new },
        "{told}: {}",
        answer.text()
    );
    system.restart(0, Trap::new(), |_config| {}).await;
    let again = send(&system.at(0, "merchant"), id, (subject.request)(id)).await;
    let again = again.expect("it lives again");
    assert_eq!(
        (again.status, again.header("idempotent-replayed")),
        (known, "true"),
        "{told}"
    );
    let is_simple = (subject.request)(id).1 == "/payments";
    let target = if is_simple {
        again.header("location").to_owned()
    } else {
        format!("/v1/payments/{id}")
    };
    let shown = there.get(&target).await.expect(200).json();
    assert_eq!(fault(subject, &shown), None, "{told}");
    let after = on_card(&there).await;
    assert_eq!((after.0 - before.0, after.1 - before.1), subject.moved, "{told}");
    system.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_dies_at_each_step_of_every_write() {
    let mut system = System::start_with(1, 2, |_config| {}).await;
    let load = Load::start(&system, 1);
    let mut deaths = 0;
    for subject in subjects() {
        for point in &subject.points {
            eprintln!("{} {point:?}", subject.name);
            dies(&mut system, &subject, *point, &format!("death{deaths}")).await;
            load.goes_on().await;
            deaths += 1;
        }
    }
    assert!(deaths >= 28, "only {deaths}");
    load.end(&system, 1).await;
    system.stop().await;
}

/// What a sweep passes, and whether the hold has ended by then.
const SWEEP: [Point; 8] = [
    ("sweep", BeforeRead, false),
    ("sweep", AfterRead, false),
    ("expire", BeforeRead, false),
    ("expire", AfterRead, false),
    ("expire", BeforeCommit, false),
    ("expire", AfterCommit, true),
    ("sweep", BeforeCommit, true),
    ("sweep", AfterCommit, true),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_dies_at_each_step_of_a_sweep() {
    // Only the instance that dies sweeps.
    let mut system = System::start_with(1, 2, |config| {
        config.hold_s = 1;
        config.sweep_every_ms = 3_600_000;
    })
    .await;
    let load = Load::start(&system, 1);
    let client = system.at(1, "merchant");
    let money = on_card(&client).await;
    for (n, (step, moment, is_done)) in SWEEP.into_iter().enumerate() {
        let told = format!("{step} {moment:?}");
        // Nobody sweeps before the trap is there.
        system.kill(0);
        let id = format!("held{n}");
        let held = pay(&client, &id, &payment(CARD, "manual")).await.expect(201);
        assert_eq!(held.json()["status"], "authorized");
        let due_ms = now_ms() + 1000;
        wait_for("the hold to run out", async || {
            if now_ms() > due_ms { Ok(()) } else { Err(due_ms) }
        })
        .await;
        let show = async || client.get(&format!("/v1/payments/{id}")).await.expect(200).json();
        let trap = Trap::new();
        trap.arm(step, moment);
        system
            .restart(0, trap.clone(), |config| config.sweep_every_ms = 50)
            .await;
        trap.caught().await;
        system.kill(0);
        let status = if is_done { "expired" } else { "authorized" };
        assert_eq!(show().await["status"], status, "{told}");
        system
            .restart(0, Trap::new(), |config| config.sweep_every_ms = 50)
            .await;
        let shown = wait_for("another sweep", async || {
            let shown = show().await;
            if shown["status"] == "expired" {
                Ok(shown)
            } else {
                Err(shown)
            }
        })
        .await;
        let transfers = shown["transfers"].as_array().unwrap();
        let kinds: Vec<_> = transfers
            .iter()
            .map(|one| one["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["hold", "release"], "{told}");
        assert_eq!(on_card(&client).await, money, "{told}");
        system.check().await;
        load.goes_on().await;
    }
    load.end(&system, 1).await;
    system.stop().await;
}
