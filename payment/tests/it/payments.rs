//! Payments by the caller's id: authorize, capture, cancel, and every way to be refused.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::system::{
    AMEX, BLOCKED, EMPTY, MASTERCARD, STRANGER, System, VISA, cancel, capture, order, pay, told,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_is_made_captured_and_shown() {
    let system = System::start().await;
    let merchant = system.merchant();
    let body = order(VISA, 299.99, "manual");
    assert_snapshot!(told(&pay(&merchant, "p1", &body).await), @r#"
    201
    location: /v1/payments/p1
    {"amount":299.99,"amount_minor":29999,"brand":"visa","capture":"manual","captured":0.0,"captured_minor":0,"created":"[created]","currency":"EUR","expires":"[expires]","id":"p1","last4":"4242","merchant":"shop","order_ref":"o-1","refunded":0.0,"refunded_minor":0,"status":"authorized"}
    "#);
    assert_eq!(system.balance(VISA).await, (1_000_000 - 29_999, 29_999));
    // Repeated, it is the same payment, also with the number written in another way.
    let again = pay(&merchant, "p1", &order("4242-4242-4242-4242", 299.99, "manual")).await;
    assert_snapshot!(told(&again), @r#"
    200
    idempotent-replayed: true
    location: /v1/payments/p1
    {"amount":299.99,"amount_minor":29999,"brand":"visa","capture":"manual","captured":0.0,"captured_minor":0,"created":"[created]","currency":"EUR","expires":"[expires]","id":"p1","last4":"4242","merchant":"shop","order_ref":"o-1","refunded":0.0,"refunded_minor":0,"status":"authorized"}
    "#);
    assert_eq!(system.balance(VISA).await, (1_000_000 - 29_999, 29_999));
    let captured = capture(&merchant, "p1", &json!({"amount": 200})).await;
    assert_snapshot!(told(&captured), @r#"
    200
    {"amount":299.99,"amount_minor":29999,"brand":"visa","capture":"manual","captured":200.0,"captured_minor":20000,"created":"[created]","currency":"EUR","expires":"[expires]","id":"p1","last4":"4242","merchant":"shop","order_ref":"o-1","refunded":0.0,"refunded_minor":0,"status":"captured"}
    "#);
    assert_eq!(system.balance(VISA).await, (1_000_000 - 20_000, 0));
    assert_snapshot!(told(&capture(&merchant, "p1", &json!({"amount": 200.00})).await), @r#"
    200
    idempotent-replayed: true
    {"amount":299.99,"amount_minor":29999,"brand":"visa","capture":"manual","captured":200.0,"captured_minor":20000,"created":"[created]","currency":"EUR","expires":"[expires]","id":"p1","last4":"4242","merchant":"shop","order_ref":"o-1","refunded":0.0,"refunded_minor":0,"status":"captured"}
    "#);
    assert_eq!(
        capture(&merchant, "p1", &json!({}))
            .await
            .expect(200)
            .header("idempotent-replayed"),
        "true"
    );
    // The request that made it still hears what it heard first; who looks sees what became of it.
    assert_eq!(
        pay(&merchant, "p1", &body).await.expect(200).json()["status"],
        "authorized"
    );
    assert_snapshot!(told(&merchant.get("/v1/payments/p1").await), @r#"
    200
    {"amount":299.99,"amount_minor":29999,"brand":"visa","capture":"manual","captured":200.0,"captured_minor":20000,"created":"[created]","currency":"EUR","expires":"[expires]","id":"p1","last4":"4242","merchant":"shop","order_ref":"o-1","refunded":0.0,"refunded_minor":0,"status":"captured","transfers":[{"amount":299.99,"amount_minor":29999,"created":"[created]","currency":"EUR","debit":"card:[card]","kind":"hold"},{"amount":200.0,"amount_minor":20000,"created":"[created]","credit":"merchant:shop:2","currency":"EUR","debit":"card:[card]","kind":"capture"}]}
    "#);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_automatic_payment_is_captured_at_once() {
    let system = System::start().await;
    let merchant = system.merchant();
    assert_snapshot!(told(&pay(&merchant, "p1", &order(MASTERCARD, 500.0, "automatic")).await), @r#"
    201
    location: /v1/payments/p1
    {"amount":500.0,"amount_minor":50000,"brand":"mastercard","capture":"automatic","captured":500.0,"captured_minor":50000,"created":"[created]","currency":"EUR","id":"p1","last4":"4444","merchant":"shop","order_ref":"o-1","refunded":0.0,"refunded_minor":0,"status":"captured"}
    "#);
    assert_eq!(system.balance(MASTERCARD).await, (0, 0));
    let replayed = capture(&merchant, "p1", &json!({"amount": 500}))
        .await
        .expect(200);
    assert_eq!(replayed.header("idempotent-replayed"), "true");
    assert_snapshot!(told(&cancel(&merchant, "p1").await), @r#"
    409
    {"code":"payment-captured","detail":"The payment was captured already; refund it instead.","request_id":"[request_id]","status":409,"title":"Payment captured","type":"/problems/payment-captured"}
    "#);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn declines_are_final_for_their_id() {
    let system = System::start().await;
    let merchant = system.merchant();
    let mut yen = order(VISA, 5.0, "manual");
    yen["currency"] = json!("JPY");
    let declined = [
        ("poor", order(AMEX, 50.01, "manual"), "insufficient-funds"),
        ("empty", order(EMPTY, 0.01, "automatic"), "insufficient-funds"),
        ("strange", order(STRANGER, 1.0, "automatic"), "unknown-card"),
        ("blocked", order(BLOCKED, 1.0, "manual"), "blocked"),
        ("yen", yen, "currency-mismatch"),
    ];
    for (id, body, code) in &declined {
        let answer = pay(&merchant, id, body).await.refused(402, "card-declined");
        assert_eq!(answer.json()["decline_code"], *code);
        assert_eq!(answer.header("idempotent-replayed"), "");
        let again = pay(&merchant, id, body).await.refused(402, "card-declined");
        assert_eq!(again.json()["decline_code"], *code);
        assert_eq!(again.header("idempotent-replayed"), "true");
        let shown = merchant
            .get(&format!("/v1/payments/{id}"))
            .await
            .expect(200)
            .json();
        assert_eq!(
            (&shown["status"], &shown["decline_code"]),
            (&json!("declined"), &json!(code))
        );
        capture(&merchant, id, &json!({}))
            .await
            .refused(409, "payment-declined");
        assert_eq!(
            cancel(&merchant, id).await.expect(200).json()["status"],
            "declined"
        );
    }
    assert_snapshot!(told(&pay(&merchant, "poor", &declined[0].1).await), @r#"
    402
    idempotent-replayed: true
    {"code":"card-declined","decline_code":"insufficient-funds","detail":"The card does not have this much available.","request_id":"[request_id]","status":402,"title":"Card declined","type":"/problems/card-declined"}
    "#);
    // Money that comes later does not make the declined id succeed.
    crate::cards::open(&system.operator(), AMEX, 100.0)
        .await
        .expect(200);
    pay(&merchant, "poor", &declined[0].1)
        .await
        .refused(402, "card-declined");
    pay(&merchant, "rich", &declined[0].1).await.expect(201);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canceled_id_stays_canceled() {
    let system = System::start().await;
    let merchant = system.merchant();
    pay(&merchant, "held", &order(VISA, 10.0, "manual"))
        .await
        .expect(201);
    assert_snapshot!(told(&cancel(&merchant, "held").await), @r#"
    200
    {"amount":10.0,"amount_minor":1000,"brand":"visa","capture":"manual","captured":0.0,"captured_minor":0,"created":"[created]","currency":"EUR","expires":"[expires]","id":"held","last4":"4242","merchant":"shop","order_ref":"o-1","refunded":0.0,"refunded_minor":0,"status":"canceled"}
    "#);
    assert_eq!(system.balance(VISA).await, (1_000_000, 0));
    assert_eq!(
        cancel(&merchant, "held")
            .await
            .expect(200)
            .header("idempotent-replayed"),
        "true"
    );
    capture(&merchant, "held", &json!({}))
        .await
        .refused(409, "payment-canceled");
    // An id never seen.
    assert_snapshot!(told(&cancel(&merchant, "never").await), @r#"
    200
    {"captured_minor":0,"created":"[created]","id":"never","refunded_minor":0,"status":"canceled"}
    "#);
    assert_snapshot!(told(&pay(&merchant, "never", &order(VISA, 10.0, "manual")).await), @r#"
    409
    {"code":"payment-canceled","detail":"This payment was canceled before it arrived.","request_id":"[request_id]","status":409,"title":"Payment canceled","type":"/problems/payment-canceled"}
    "#);
    capture(&merchant, "never", &json!({}))
        .await
        .refused(409, "payment-canceled");
    assert_eq!(
        merchant.get("/v1/payments/never").await.expect(200).json()["status"],
        "canceled"
    );
    assert_eq!(system.balance(VISA).await, (1_000_000, 0));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_belongs_to_one_content() {
    let system = System::start().await;
    let merchant = system.merchant();
    let body = order(VISA, 10.0, "manual");
    pay(&merchant, "p", &body).await.expect(201);
    let others = [
        ("amount", json!(10.01)),
        ("card_number", json!(MASTERCARD)),
        ("currency", json!("USD")),
        ("merchant", json!("other")),
        ("order_ref", json!("o-2")),
        ("capture", json!("automatic")),
    ];
    for (name, value) in others {
        let mut other = body.clone();
        other[name] = value;
        pay(&merchant, "p", &other)
            .await
            .refused(422, "payment-id-reused");
    }
    let mut same = body.clone();
    same["amount"] = json!(10);
    same["note"] = json!("unknown members are ignored");
    pay(&merchant, "p", &same).await.expect(200);
    assert_eq!(system.balance(VISA).await, (999_000, 1000));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn captures_are_bounded_and_happen_once() {
    let system = System::start().await;
    let merchant = system.merchant();
    capture(&merchant, "p", &json!({}))
        .await
        .refused(404, "payment-not-found");
    pay(&merchant, "p", &order(VISA, 10.0, "manual"))
        .await
        .expect(201);
    assert_snapshot!(told(&capture(&merchant, "p", &json!({"amount": 10.01})).await), @r#"
    422
    {"code":"capture-exceeds-hold","detail":"The amount is more than is held.","request_id":"[request_id]","status":422,"title":"Capture exceeds the hold","type":"/problems/capture-exceeds-hold"}
    "#);
    for (wrong, detail) in [
        (json!(0), "must be more than 0"),
        (json!(-1), "must not be negative"),
        (json!("5"), "must be a number"),
        (json!([]), "must be a number"),
        (json!(1.005), "more than 2 digits"),
    ] {
        let refused = capture(&merchant, "p", &json!({"amount": wrong})).await;
        let refused = refused.refused(422, "invalid-request");
        assert_eq!(refused.pointers(), ["/amount"]);
        assert!(refused.text().contains(detail), "{}", refused.text());
    }
    assert_eq!(system.balance(VISA).await, (999_000, 1000));
    capture(&merchant, "p", &json!({"amount": 4})).await.expect(200);
    capture(&merchant, "p", &json!({"amount": 5}))
        .await
        .refused(422, "capture-amount-changed");
    cancel(&merchant, "p").await.refused(409, "payment-captured");
    assert_eq!(system.balance(VISA).await, (999_600, 0));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_paged_at_one_revision() {
    let system = System::start().await;
    let merchant = system.merchant();
    for n in 0..7 {
        let mut body = order(VISA, 1.0, "manual");
        body["order_ref"] = json!(format!("o-{}", n % 2));
        pay(&merchant, &format!("p{n}"), &body).await.expect(201);
    }
    let of_order = merchant
        .get("/v1/payments?merchant=shop&order_ref=o-1")
        .await
        .expect(200)
        .json();
    let ids: Vec<&Value> = of_order
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["id"])
        .collect();
    assert_eq!(ids, ["p1", "p3", "p5"]);
    assert_eq!(of_order[0]["transfers"][0]["kind"], "hold");
    let mut target = "/v1/payments?merchant=shop&limit=3".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = merchant.get(&target).await.expect(200);
        for one in page.json().as_array().unwrap() {
            assert_eq!(one["status"], "authorized", "of the revision of the first page");
            seen.push(one["id"].as_str().unwrap().to_owned());
        }
        // Others write while the walk goes on.
        cancel(&merchant, "p6").await.expect(200);
        pay(&merchant, "late", &order(VISA, 1.0, "automatic")).await;
        let link = page.header("link");
        let Some(next) = link.strip_prefix('<').and_then(|link| link.split_once('>')) else {
            break;
        };
        next.0.clone_into(&mut target);
    }
    seen.sort();
    assert_eq!(seen, ["p0", "p1", "p2", "p3", "p4", "p5", "p6"]);
    let nobody = merchant.get("/v1/payments?merchant=nobody").await.expect(200);
    assert_eq!(nobody.text(), "[]");
    let revision = system.check().await["revision"].as_u64().unwrap();
    cancel(&merchant, "p0").await.expect(200);
    let past = merchant
        .get(&format!("/v1/payments/p0?revision={revision}"))
        .await
        .expect(200)
        .json();
    assert_eq!(past["status"], "authorized");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_filter_works_alone() {
    let system = System::start().await;
    let merchant = system.merchant();
    for n in 0..12 {
        let mut body = order(VISA, 1.0, "automatic");
        body["merchant"] = json!(format!("m{}", n % 4));
        body["order_ref"] = json!(["o 1", "o/2", ""][n % 3]);
        if n % 3 == 2 {
            body["order_ref"] = Value::Null;
        }
        pay(&merchant, &format!("p{n:02}"), &body).await.expect(201);
    }
    let list = async |query: &str| {
        let page = merchant.get(&format!("/v1/payments?{query}")).await.expect(200);
        let ids: Vec<String> = page
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect();
        let next = page.header("link").split_once("/v1/payments?").map(|(_, next)| {
            let (next, _) = next.split_once('>').unwrap();
            next.to_owned()
        });
        (ids, next)
    };
    // By merchant, whose entries stand together.
    assert_eq!(
        list("order_ref=o+1").await,
        (["p00", "p09", "p06", "p03"].map(str::to_owned).to_vec(), None)
    );
    let mut query = "order_ref=o%2F2&merchant=&limit=1".to_owned();
    let mut seen = Vec::new();
    loop {
        let (ids, next) = list(&query).await;
        assert!(ids.len() <= 1, "{ids:?}");
        seen.extend(ids);
        let Some(next) = next else { break };
        query = next;
        // Others pay for the same order while the walk goes on.
        let mut late = order(VISA, 1.0, "automatic");
        late["order_ref"] = json!("o/2");
        pay(&merchant, &format!("late{}", seen.len()), &late)
            .await
            .expect(201);
    }
    assert_eq!(seen, ["p04", "p01", "p10", "p07"]);
    assert_eq!(
        list("order_ref=&merchant=m1").await.0,
        ["p05", "p09", "p01"].map(str::to_owned)
    );
    assert_eq!(list("order_ref=nothing").await, (Vec::new(), None));
    system.stop().await;
}
