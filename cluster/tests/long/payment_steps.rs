//! The store's leader is killed before and behind every call that a payment makes of the store, under load.
//! The payment services run in this process, so that a request can be held at just that point; the store is launched.
//! Invariant: the request gets an answer, here or elsewhere; then it happened exactly once, and the ledger balances.

#[path = "../../../payment/tests/it/subjects.rs"]
mod subjects;
#[path = "../../../payment/tests/it/trap.rs"]
mod trap;

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join_all;
use payment_client::wire::{Capture, CardStatus};
use payment_client::{Currency, Money, NewPayment, PaymentClient, Source};
use reqwest::Method;
use serde_json::{Value, json};
use service::secrets::{self, Secrets};
use service::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::{Cluster, SOON, wait_until};
use crate::load::say;
use subjects::{CARD, Point, Subject, Write, fault, payment, subjects};
use trap::Trap;

const WORKERS: usize = 3;
/// What those others pay with.
const OTHER: &str = "5555 5555 5555 4444";

/// One payment service in this process.
struct Instance {
    url: String,
    token: String,
    trap: Trap,
    tasks: Tasks,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Instance {
    async fn start(cluster: &Cluster, secrets: &Secrets, name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (trap, tasks) = (Trap::new(), Tasks::new());
        let settings = payment::Settings {
            config: cluster.config.clone(),
            name: name.to_owned(),
            address: address.clone(),
            secrets: secrets.clone(),
            points: trap.points(),
        };
        let running = tasks.spawn("pay", Box::pin(payment::run(settings, listener, tasks.clone())));
        Self {
            url: format!("http://{address}"),
            token: secrets.token("merchant").unwrap().expose().to_owned(),
            trap,
            tasks,
            running,
        }
    }

    /// Status and body, if there is an answer.
    async fn send(&self, cluster: &Cluster, id: &str, subject: &Subject) -> Option<(u16, Value)> {
        let (method, target, body) = (subject.request)(id);
        self.ask(cluster, method, &target, &body, id).await
    }

    async fn ask(
        &self,
        cluster: &Cluster,
        method: Method,
        target: &str,
        body: &Value,
        key: &str,
    ) -> Option<(u16, Value)> {
        let mut request = cluster.http.request(method, format!("{}{target}", self.url));
        request = request.bearer_auth(&self.token).json(body);
        if target == "/payments" {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.ok()?))
    }

    /// Repeats until the store answers.
    async fn settled(&self, cluster: &Cluster, (method, target, body): Write, key: &str) -> (u16, Value) {
        wait_until(&target, SOON, async || {
            match self.ask(cluster, method.clone(), &target, &body, key).await {
                Some(answer) if answer.0 < 500 => Ok(answer),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    async fn on_card(&self, cluster: &Cluster) -> (i64, i64) {
        let body = json!({"card_number": CARD});
        let ask = (Method::POST, "/v1/cards/balance".to_owned(), body);
        let (_, shown) = self.settled(cluster, ask, "").await;
        let number = |name: &str| shown[name].as_i64().unwrap();
        (number("balance_minor"), number("held_minor"))
    }
}

/// Others pay all the time: each payment is captured, given back in part, and never seen twice.
async fn work(client: PaymentClient, worker: usize, count: &Cell<usize>, stop: &Cell<bool>) -> i64 {
    let cent = |minor| Money::new(minor, Currency::EUR);
    let mut spent = 0;
    while !stop.get() {
        let id = format!("load{worker}-{spent}");
        let new = NewPayment {
            source: Source::CardNumber(OTHER.to_owned()),
            amount: cent(2),
            merchant: "load".to_owned(),
            order_ref: None,
            capture: Capture::Manual,
        };
        client.pay(&id, &new).await.unwrap();
        client.capture(&id, None).await.unwrap();
        client.refund(&id, "r", cent(1)).await.unwrap();
        spent += 1;
        count.set(count.get() + 1);
    }
    spent
}

struct Scene<'a> {
    cluster: &'a Cluster,
    /// At the first one requests are held.
    instances: [Instance; 2],
    count: &'a Cell<usize>,
}

impl Scene<'_> {
    async fn play(&self, subject: &Subject, (step, moment, _): Point, id: &str) {
        let told = format!("{} at {step} {moment:?}", subject.name);
        let (cluster, [held, other]) = (self.cluster, &self.instances);
        let before = other.on_card(cluster).await;
        if let Some(capture) = subject.before {
            let make = (Method::PUT, format!("/v1/payments/{id}"), payment(CARD, capture));
            let (status, made) = other.settled(cluster, make, id).await;
            assert!([200, 201].contains(&status), "{told}: {made}");
        }
        held.trap.arm(step, moment);
        let mut leader = String::new();
        let kill = async {
            held.trap.caught().await;
            leader = cluster.leader().await;
            cluster.kill(&leader).await;
            held.trap.release();
        };
        let (first, ()) = tokio::join!(held.send(cluster, id, subject), kill);
        let (new, known) = subject.answers;
        let status = first.as_ref().map(|(status, _)| *status);
        let is_told = status.is_some_and(|status| [new, known, 503].contains(&status));
        assert!(is_told, "{told}: {first:?}");
        let (status, answer) = other.settled(cluster, (subject.request)(id), id).await;
        assert!([new, known].contains(&status), "{told}: {status} {answer}");
        self.judge(subject, id, &told, &answer).await;
        let after = other.on_card(cluster).await;
        assert_eq!((after.0 - before.0, after.1 - before.1), subject.moved, "{told}");
        let paid = self.count.get();
        wait_until("the others to pay", SOON, async || {
            let now = self.count.get();
            if now > paid + WORKERS {
                Ok(())
            } else {
                Err(now.to_string())
            }
        })
        .await;
        cluster.start_node(&leader).await;
        cluster.wait_for_state(&leader, "running").await;
    }

    async fn judge(&self, subject: &Subject, id: &str, told: &str, answer: &Value) {
        let id = match answer["id"].as_str() {
            Some(made) if made.starts_with("key_") => made,
            _ => id,
        };
        let show = (Method::GET, format!("/v1/payments/{id}"), Value::Null);
        let (_, shown) = self.instances[1].settled(self.cluster, show, "").await;
        assert_eq!(fault(subject, &shown), None, "{told}");
    }
}

#[tokio::test]
async fn the_leader_of_the_store_dies_at_each_step_of_every_write() {
    let cluster = Cluster::start(3).await;
    let secrets = secrets::load_or_create(&cluster.data()).unwrap();
    let instances = [
        Instance::start(&cluster, &secrets, "pay1").await,
        Instance::start(&cluster, &secrets, "pay2").await,
    ];
    let client = |token: &str| {
        let client = PaymentClient::builder([instances[1].url.as_str()], cluster.token(token));
        client.deadline(Duration::from_secs(30)).build().unwrap()
    };
    let operator = client("operator");
    let money = Money::new(10_000_000, Currency::EUR);
    for card in [CARD, OTHER] {
        operator.open_card(card, money, CardStatus::Active).await.unwrap();
    }
    wait_until("the cards for trying out", SOON, async || {
        let blocked = operator.balance("4000 0000 0000 0002").await;
        blocked
            .map_err(|error| format!("{error:?}"))?
            .ok_or_else(String::new)
    })
    .await;
    let merchant = client("merchant");
    let (count, stop) = (Cell::new(0), Cell::new(false));
    let load = join_all((0..WORKERS).map(|worker| work(merchant.clone(), worker, &count, &stop)));
    let scene = Scene {
        cluster: &cluster,
        instances,
        count: &count,
    };
    let play = async {
        let mut deaths = 0;
        for subject in subjects() {
            for point in &subject.points {
                say(&format!("{} {point:?}", subject.name));
                scene.play(&subject, *point, &format!("death{deaths}")).await;
                deaths += 1;
            }
        }
        stop.set(true);
        deaths
    };
    let (spent, deaths) = tokio::join!(load, play);
    let spent: i64 = spent.into_iter().sum();
    say(&format!(
        "{deaths} leaders were killed, {spent} other payments made"
    ));
    assert!(deaths >= 28, "only {deaths}");
    let left = merchant.balance(OTHER).await.unwrap().unwrap();
    assert_eq!((left.balance_minor, left.held_minor), (money.minor - spent, 0));
    let check = merchant.check_ledger(None).await.unwrap();
    assert!(check.balanced, "{check:?}");
    for instance in scene.instances {
        instance.tasks.stop();
        instance.running.await.unwrap().unwrap();
    }
}
