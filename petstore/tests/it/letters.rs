//! What only the checkout by letters can get wrong: deaths and double owners at every step of every actor, mailboxes
//! that are full, letters that nobody can do anything with, shards that change hands, and a change of the way.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use service::config::{Checkout, ShopAuth};
use service::tasks::Tasks;

use super::purchase::{PIECES, order_unwaited, sold};
use super::system::{System, VISA, ask, keyed, order};
use crate::harness::{Answer, Client, wait_for};

const PAID: [&str; 6] = [
    "the order has decided",
    "the order has written",
    "the inventory has decided",
    "the inventory has written",
    "the card has decided",
    "the card has written",
];
const OF_A_CART: [&str; 2] = ["the cart has decided", "the cart has written"];
const REFUSED: [&str; 2] = ["the notice is due", "the notice is written"];

/// What happens to the shop that is held in the middle of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Dies,
    /// It is taken for dead: another one takes its shards, and then it goes on with what it had decided.
    IsDoubled,
}

/// Ada pays for so many.
fn wish(product: &str, pieces: i64) -> Value {
    let mut body = order(product, pieces, VISA);
    body["userId"] = json!("ada");
    body
}

async fn system() -> System {
    System::start_with(1, 2, |config| config.auth = ShopAuth::Open).await
}

/// Asks at one shop, and lets fate take the one whose actor gets to the point; the answer of the other.
async fn meet(system: &mut System, point: &str, fate: Fate, body: &Value) -> Answer {
    for trap in &system.traps {
        trap.arm(point);
    }
    let first = system.operator().request(Method::POST, "/orders").json(body);
    let first = first.header("idempotency-key", "k");
    let first = Tasks::new().spawn("order", async move { first.send().await.is_ok() });
    let victim = system.caught_any().await;
    let other = 1 - victim;
    // It holds nobody who comes the same way later.
    system.traps[other].disarm();
    match fate {
        Fate::Dies => system.shops[victim].kill(),
        Fate::IsDoubled => system.takes_for_dead(victim).await,
    }
    let elsewhere = system.operator_at(other);
    let answer = wait_for("the order to end", async || {
        let answer = keyed(&elsewhere, "/orders", "k", body).await;
        if answer.status == 202 || answer.status == 503 {
            Err(answer.text())
        } else {
            Ok(answer)
        }
    })
    .await;
    system.traps[victim].release();
    drop(first.await);
    answer
}

async fn judge(system: System, product: &str, money: (i64, i64), pieces: i64) {
    let audit = system.settled().await;
    assert_eq!(audit["orders"], i64::from(pieces > 0), "{audit}");
    sold(&system, product, money, pieces).await;
    wait_for("the last letter", async || {
        let letters = system.letters("").await;
        if letters.is_empty() { Ok(()) } else { Err(letters) }
    })
    .await;
    system.stop().await;
}

async fn each_step_of_paying(fate: Fate) {
    for point in PAID {
        eprintln!("{fate:?} when {point}");
        let mut system = system().await;
        let product = system.product("Thing", 10.0, PIECES).await;
        let money = system.balance(VISA).await;
        let answer = meet(&mut system, point, fate, &wish(&product, 2)).await;
        assert_eq!(answer.status, 201, "{point}: {}", answer.text());
        judge(system, &product, money, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_dies_at_each_step() {
    each_step_of_paying(Fate::Dies).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_owners_at_once_do_no_harm() {
    each_step_of_paying(Fate::IsDoubled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_is_taken_once() {
    for (point, fate) in OF_A_CART
        .into_iter()
        .flat_map(|point| [(point, Fate::Dies), (point, Fate::IsDoubled)])
    {
        eprintln!("{fate:?} when {point}");
        let mut system = system().await;
        let product = system.product("Thing", 10.0, PIECES).await;
        let money = system.balance(VISA).await;
        let line = json!({"productId": product, "quantity": 3});
        system.operator().post("/cart/ada", &line).await.expect(200);
        let body = json!({"userId": "ada", "cardNumber": VISA});
        let answer = meet(&mut system, point, fate, &body).await;
        assert_eq!(answer.status, 201, "{point}: {}", answer.text());
        let alive = usize::from(!system.shops[0].is_alive());
        let cart = system
            .operator_at(alive)
            .get("/cart/ada")
            .await
            .expect(200)
            .json();
        assert_eq!(cart["items"], json!([]), "{cart}");
        judge(system, &product, money, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_told_whoever_dies() {
    for (point, fate) in REFUSED
        .into_iter()
        .flat_map(|point| [(point, Fate::Dies), (point, Fate::IsDoubled)])
    {
        eprintln!("{fate:?} when {point}");
        let mut system = system().await;
        let product = system.product("Thing", 10.0, PIECES).await;
        let scarce = system.product("Scarce", 10.0, 1).await;
        let money = system.balance(VISA).await;
        let body = json!({"userId": "ada", "cardNumber": VISA, "items": [
            {"productId": product, "quantity": 4}, {"productId": scarce, "quantity": 2}]});
        let answer = meet(&mut system, point, fate, &body).await;
        let answer = answer.refused(409, "out-of-stock").json();
        assert_eq!(answer["lines"][0]["available"], 1, "{answer}");
        assert_eq!(answer["lines"][0]["productId"], *scarce, "{answer}");
        judge(system, &product, money, 0).await;
    }
}

/// Who comes back to where a 202 sent them learns that nothing was ordered, and why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_refusal_is_told_where_the_order_would_be() {
    let system = System::start_with(1, 1, |config| {
        config.auth = ShopAuth::Open;
        config.order_wait_ms = 200;
    })
    .await;
    let product = system.product("Thing", 10.0, 1).await;
    system.traps[0].arm("the inventory has decided");
    let accepted = system
        .operator()
        .post("/orders", &wish(&product, 2))
        .await
        .expect(202);
    let place = accepted.header("location").to_owned();
    assert_eq!(
        system.operator().get(&place).await.expect(200).json()["status"],
        "pending"
    );
    system.traps[0].caught().await;
    system.traps[0].release();
    wait_for("the refusal", async || {
        let answer = system.operator().get(&place).await;
        (answer.status != 200).then_some(answer).ok_or("it is there")
    })
    .await
    .refused(409, "out-of-stock");
    system.stop().await;
}

/// Whoever was to act on it may be dead, and its heir not there yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_told_while_its_letter_lies_there() {
    let system = system().await;
    let scarce = system.product("Scarce", 10.0, 1).await;
    for trap in &system.traps {
        trap.arm("the notice is due");
    }
    let body = wish(&scarce, 2);
    let first = system.operator().request(Method::POST, "/orders").json(&body);
    let first = first.header("idempotency-key", "k");
    let first = Tasks::new().spawn("order", async move { first.send().await.is_ok() });
    let held = system.caught_any().await;
    for shop in [held, 1 - held] {
        let again = keyed(&system.operator_at(shop), "/orders", "k", &body).await;
        again.refused(409, "out-of-stock");
    }
    system.traps[held].release();
    assert!(first.await.unwrap(), "nobody answers who ordered");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_mailbox_asks_to_come_again() {
    let system = System::start_with(1, 1, |config| {
        config.auth = ShopAuth::Open;
        config.mailbox_max = 2;
    })
    .await;
    let product = system.product("Thing", 10.0, PIECES).await;
    let body = wish(&product, 1);
    let (client, money) = (system.operator(), system.balance(VISA).await);
    for _ in 0..2 {
        system.traps[0].arm("before authorize");
        order_unwaited(&client, &body).await;
        system.traps[0].caught().await;
    }
    let full = ask(&client, Method::POST, "/orders", &body).await;
    assert_eq!(full.header("retry-after"), "1");
    full.refused(503, "overloaded");
    wait_for("both to be let go", async || {
        system.traps[0].release();
        let audit = system.audit().await;
        if audit["unfinished"] == 0 {
            Ok(())
        } else {
            Err(audit)
        }
    })
    .await;
    client.post("/orders", &body).await.expect(201);
    sold(&system, &product, money, 3).await;
    system.stop().await;
}

async fn page(client: &Client) -> String {
    client.get("/shop/admin").await.expect(200).text()
}

async fn send_again(system: &System, page: &str) {
    let (_, rest) = page
        .split_once("value=\"send-again\"")
        .expect("a letter is laid aside");
    let id = rest
        .split("name=\"id\" value=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let client = system.operator();
    let request = client.request(Method::POST, "/shop/admin");
    let request = request
        .header("content-type", "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "same-origin")
        .header("idempotency-key", "again")
        .body(format!("action=send-again&id={id}"));
    let repeated = request.try_clone().unwrap();
    client.send(request).await.expect(303);
    // Under its key it is not refused for being done already.
    let answer = client.send(repeated).await.expect(303);
    assert_eq!(answer.header("idempotent-replayed"), "true");
}

/// A shelf that cannot be read fails the letter ten times; repaired, the letter is sent again and the order is paid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_fails_is_laid_aside_and_sent_again() {
    let system = System::start_with(1, 1, |config| {
        config.auth = ShopAuth::Open;
        config.order_wait_ms = 200;
    })
    .await;
    let product = system.product("Thing", 10.0, PIECES).await;
    let (root, money) = (system.cluster.client(0), system.balance(VISA).await);
    let stock = format!("/v1/kv/shop/menagerie/live/goods/{product}/stock");
    // What the shop reads near must stay readable until the order is placed.
    system.traps[0].arm("the order has decided");
    let body = wish(&product, 2);
    let client = system.operator();
    let placing = keyed(&client, "/orders", "k", &body).await.expect(202).json();
    system.traps[0].caught().await;
    root.send(root.request(Method::PUT, &stock).body("many"))
        .await
        .expect(200);
    system.traps[0].release();
    let dead = wait_for("the letter to be laid aside", async || {
        let target = "/v1/kv?prefix=shop/menagerie/dead/";
        let seen = root.get(target).await.expect(200).json();
        if seen["count"] == 1 { Ok(seen) } else { Err(seen) }
    })
    .await;
    let record = dead["kvs"][0]["value"].as_str().unwrap();
    assert!(
        record.contains("\\\"reserve\\\"") && record.contains("internal"),
        "{record}"
    );
    root.send(root.request(Method::PUT, &stock).body(PIECES.to_string()))
        .await
        .expect(200);
    // The audit understands a letter that is laid aside, and the page offers to send it again.
    system.audit().await;
    let shown = wait_for("the page to be whole again", async || {
        let shown = client.get("/shop/admin").await;
        if shown.status == 200 {
            Ok(shown.text())
        } else {
            Err(shown.text())
        }
    })
    .await;
    assert!(shown.contains("Letters laid aside") && shown.contains(&format!("To the inventory {product}")));
    send_again(&system, &shown).await;
    system.settled().await;
    let target = format!("/orders/ada/{}", placing["order_id"].as_str().unwrap());
    assert_eq!(client.get(&target).await.expect(200).json()["status"], "paid");
    assert_eq!(system.balance(VISA).await, (money.0 - 2000, money.1));
    assert!(!page(&client).await.contains("Letters laid aside"));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_cannot_be_read_is_laid_aside_at_once() {
    let system = System::start_with(1, 1, |_config| {}).await;
    let root = system.cluster.client(0);
    // One that is due holds up nobody who comes after it.
    for (before, key) in ["timer/0000000000001/x", "mail/07/order/x/y/z"]
        .iter()
        .enumerate()
    {
        let key = format!("/v1/kv/shop/menagerie/{key}");
        root.send(root.request(Method::PUT, &key).body("{}"))
            .await
            .expect(200);
        wait_for("the page to show it", async || {
            let shown = page(&system.operator()).await;
            if shown.matches("row\">It cannot be read").count() > before {
                Ok(())
            } else {
                Err(shown)
            }
        })
        .await;
        root.get(&key).await.refused(404, "key-not-found");
    }
    let audit = system.operator().get("/admin/audit").await.expect(200).json();
    assert_eq!(
        audit["ok"], false,
        "what cannot be read may stand for goods: {audit}"
    );
    root.delete("/v1/kv?prefix=shop/menagerie/dead/")
        .await
        .expect(200);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_of_a_dead_shop_are_taken_over_in_time() {
    let mut system = System::start_with(1, 2, |config| config.registration_ms = 3000).await;
    let died = Instant::now();
    system.shops[1].kill();
    system.shared_out().await;
    let taken = died.elapsed();
    eprintln!("taken over after {} ms", taken.as_millis());
    // Half a second for a busy machine.
    assert!(taken < Duration::from_millis(3500), "{taken:?}");
    // One that joins gets its share at once, which the start of a shop here waits for.
    system.start_shop().await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_begun_by_letters_is_finished_by_shops_that_call() {
    let mut system = System::start_with(1, 1, |config| config.auth = ShopAuth::Open).await;
    let product = system.product("Thing", 10.0, PIECES).await;
    let money = system.balance(VISA).await;
    system.traps[0].arm("before authorize");
    order_unwaited(&system.operator(), &wish(&product, 2)).await;
    system.traps[0].caught().await;
    system.config.shop.checkout = Checkout::Direct;
    system.start_shop().await;
    system.shops[0].kill();
    system
        .operator_at(1)
        .post("/orders", &wish(&product, 1))
        .await
        .expect(201);
    let audit = system.settled().await;
    assert_eq!(audit["orders"], 2, "{audit}");
    sold(&system, &product, money, 3).await;
    system.stop().await;
}
