//! Giving back what was captured, in parts, and never more.

use futures_util::future::join_all;
use insta::assert_snapshot;
use serde_json::json;

use crate::system::{System, VISA, cancel, capture, order, pay, refund, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refunds_add_up_to_the_capture_and_no_further() {
    let system = System::start().await;
    let merchant = system.merchant();
    pay(&merchant, "p", &order(VISA, 10.0, "manual"))
        .await
        .expect(201);
    refund(&merchant, "p", "r", json!(1))
        .await
        .refused(409, "payment-not-captured");
    capture(&merchant, "p", &json!({"amount": 8})).await.expect(200);
    assert_snapshot!(told(&refund(&merchant, "p", "r1", json!(5.5)).await), @r#"
    201
    location: /v1/payments/p
    {"amount":5.5,"amount_minor":550,"created":"[created]","currency":"EUR","id":"r1","payment":"p"}
    "#);
    assert_snapshot!(told(&refund(&merchant, "p", "r1", json!(5.5)).await), @r#"
    200
    idempotent-replayed: true
    location: /v1/payments/p
    {"amount":5.5,"amount_minor":550,"created":"[created]","currency":"EUR","id":"r1","payment":"p"}
    "#);
    refund(&merchant, "p", "r1", json!(5.4))
        .await
        .refused(422, "refund-id-reused");
    assert_snapshot!(told(&refund(&merchant, "p", "r2", json!(2.51)).await), @r#"
    422
    {"code":"refund-exceeds-capture","detail":"All refunds together would be more than was captured.","request_id":"[request_id]","status":422,"title":"Refund exceeds the capture","type":"/problems/refund-exceeds-capture"}
    "#);
    // It left no trace: the same id with a smaller amount is a new refund.
    refund(&merchant, "p", "r2", json!(2.5)).await.expect(201);
    refund(&merchant, "p", "r3", json!(0.01))
        .await
        .refused(422, "refund-exceeds-capture");
    assert_eq!(system.balance(VISA).await, (1_000_000, 0));
    assert_snapshot!(told(&merchant.get("/v1/payments/p").await), @r#"
    200
    {"amount":10.0,"amount_minor":1000,"brand":"visa","capture":"manual","captured":8.0,"captured_minor":800,"created":"[created]","currency":"EUR","expires":"[expires]","id":"p","last4":"4242","merchant":"shop","order_ref":"o-1","refunded":8.0,"refunded_minor":800,"status":"captured","transfers":[{"amount":10.0,"amount_minor":1000,"created":"[created]","currency":"EUR","debit":"card:[card]","kind":"hold"},{"amount":8.0,"amount_minor":800,"created":"[created]","credit":"merchant:shop:7","currency":"EUR","debit":"card:[card]","kind":"capture"},{"amount":5.5,"amount_minor":550,"created":"[created]","credit":"card:[card]","currency":"EUR","debit":"merchant:shop:7","kind":"refund","refund":"r1"},{"amount":2.5,"amount_minor":250,"created":"[created]","credit":"card:[card]","currency":"EUR","debit":"merchant:shop:7","kind":"refund","refund":"r2"}]}
    "#);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_captured_cannot_be_refunded() {
    let system = System::start().await;
    let merchant = system.merchant();
    refund(&merchant, "none", "r", json!(1))
        .await
        .refused(404, "payment-not-found");
    cancel(&merchant, "canceled").await.expect(200);
    refund(&merchant, "canceled", "r", json!(1))
        .await
        .refused(409, "payment-canceled");
    pay(&merchant, "declined", &order(crate::system::EMPTY, 1.0, "manual"))
        .await
        .refused(402, "card-declined");
    refund(&merchant, "declined", "r", json!(1))
        .await
        .refused(409, "payment-declined");
    pay(&merchant, "p", &order(VISA, 1.0, "automatic"))
        .await
        .expect(201);
    for wrong in [json!(null), json!(0), json!("1"), json!(0.001)] {
        let refused = refund(&merchant, "p", "r", wrong)
            .await
            .refused(422, "invalid-request");
        assert_eq!(refused.pointers(), ["/amount"]);
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refunds_at_the_same_time_need_no_second_try() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let merchant = system.merchant();
    pay(&merchant, "p", &order(VISA, 10.0, "automatic"))
        .await
        .expect(201);
    // Thirty of one euro each, every one sent twice through different instances: ten can succeed.
    let all = join_all((0..60).map(|n| {
        let client = system.at(n % 2, "merchant");
        async move { refund(&client, "p", &format!("r{}", n / 2), json!(1)).await }
    }))
    .await;
    let made = all.iter().filter(|answer| answer.status == 201).count();
    let refused = all.iter().filter(|answer| answer.status == 422).count();
    let again = all.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((made, refused, again), (10, 40, 10));
    assert_eq!(system.balance(VISA).await, (1_000_000, 0));
    system.stop().await;
}
