//! How requests are read: strictly, every fault at once, money digit by digit, names of any text.

use insta::assert_snapshot;
use serde_json::json;

use crate::system::{System, VISA, ask_text, order, pay, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_told_at_once() {
    let system = System::start().await;
    let merchant = system.merchant();
    let nothing = pay(&merchant, "p", &json!({})).await;
    assert_snapshot!(told(&nothing), @r#"
    422
    {"code":"invalid-request","detail":"The JSON can be read, but is not what this route takes; `errors` lists every fault.","errors":[{"detail":"is missing","pointer":"/card_number"},{"detail":"is missing","pointer":"/currency"},{"detail":"is missing","pointer":"/amount"},{"detail":"is missing","pointer":"/merchant"}],"request_id":"[request_id]","status":422,"title":"Invalid request","type":"/problems/invalid-request"}
    "#);
    let wrong = json!({"card_number": "4242 4242 4242 4241", "amount": 1.005, "currency": "euro", "merchant": "a\nb",
        "order_ref": "4242424242424242", "capture": "later"});
    assert_snapshot!(told(&pay(&merchant, "p", &wrong).await), @r#"
    422
    {"code":"invalid-card-number","detail":"The JSON can be read, but is not what this route takes; `errors` lists every fault.","errors":[{"detail":"is no valid card number","pointer":"/card_number"},{"detail":"must be a currency of ISO 4217 in capitals, such as \"EUR\"","pointer":"/currency"},{"detail":"has more than 2 digits behind the point, which EUR does not have","pointer":"/amount"},{"detail":"must have no control characters","pointer":"/merchant"},{"detail":"has a card number in it, which must not stand in a name","pointer":"/order_ref"},{"detail":"must be \"manual\" or \"automatic\"","pointer":"/capture"}],"request_id":"[request_id]","status":422,"title":"Invalid card number","type":"/problems/invalid-card-number"}
    "#);
    let mut both = order(VISA, 1.0, "manual");
    both["token"] = json!("tok_x");
    assert_eq!(
        pay(&merchant, "p", &both)
            .await
            .refused(422, "invalid-request")
            .pointers(),
        ["/token"]
    );
    let strange = json!({"token": "tok_x", "amount": 1, "currency": "EUR", "merchant": "m"});
    assert_eq!(
        pay(&merchant, "p", &strange)
            .await
            .refused(422, "invalid-request")
            .pointers(),
        ["/token"]
    );
    let brand = order("9999999999999995", 1.0, "manual");
    pay(&merchant, "p", &brand)
        .await
        .refused(422, "unsupported-brand");
    for amount in ["0", "0.00", "10000000000.01", "1e11", "1e400"] {
        let text = serde_json::to_string(&order(VISA, 7.25, "manual"))
            .unwrap()
            .replace("7.25", amount);
        let refused = ask_text(&merchant, reqwest::Method::PUT, "/v1/payments/p", &text).await;
        assert_eq!(
            refused.refused(422, "invalid-request").pointers(),
            ["/amount"],
            "{amount}"
        );
    }
    for id in ["4242424242424242", "a%0Ab", &"x".repeat(129)] {
        pay(&merchant, id, &order(VISA, 1.0, "manual"))
            .await
            .refused(422, "invalid-request");
    }
    // None of it left a trace.
    merchant
        .get("/v1/payments/p")
        .await
        .refused(404, "payment-not-found");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_read_strictly() {
    let system = System::start().await;
    let merchant = system.merchant();
    let put = async |text: &str| ask_text(&merchant, reqwest::Method::PUT, "/v1/payments/p", text).await;
    put("{").await.refused(400, "malformed-json");
    put(&"[".repeat(100)).await.refused(400, "malformed-json");
    put("[]").await.refused(422, "invalid-request");
    put(&format!("{{\"a\": \"{}\"}}", "x".repeat(70_000)))
        .await
        .refused(413, "too-large");
    let request = merchant.request(reqwest::Method::PUT, "/v1/payments/p");
    let request = request.header("content-type", "text/plain").body("{}");
    merchant
        .send(request)
        .await
        .refused(415, "unsupported-media-type");
    let wrong = merchant
        .send(merchant.request(reqwest::Method::DELETE, "/v1/payments/p"))
        .await;
    assert_eq!(
        wrong.refused(405, "method-not-allowed").header("allow"),
        "PUT,GET,HEAD"
    );
    merchant.get("/v1/nothing").await.refused(404, "not-found");
    merchant
        .get("/v1/payments?limit=0")
        .await
        .refused(400, "malformed-parameter");
    merchant
        .get("/v1/payments?limit=201")
        .await
        .refused(400, "malformed-parameter");
    merchant
        .get("/v1/payments?order_ref=4242424242424242")
        .await
        .refused(400, "malformed-parameter");
    merchant
        .get("/v1/payments?cursor=zzz")
        .await
        .refused(400, "malformed-parameter");
    // The store would not even read it, since on its way there it becomes three times as long.
    let long = format!("/v1/payments?cursor={}", "!".repeat(6000));
    merchant.get(&long).await.refused(400, "malformed-parameter");
    merchant
        .get("/v1/payments?revision=9999999")
        .await
        .refused(422, "future-revision");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amounts_never_pass_through_a_float() {
    let system = System::start().await;
    let merchant = system.merchant();
    let text = serde_json::to_string(&order(VISA, 7.25, "automatic")).unwrap();
    for (n, (literal, minor)) in [
        ("0.29", 29),
        ("1.10", 110),
        ("1e1", 1000),
        ("4503.30", 450_330),
        ("0.070", 7),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("/v1/payments/p{n}");
        let paid = ask_text(
            &merchant,
            reqwest::Method::PUT,
            &target,
            &text.replace("7.25", literal),
        )
        .await;
        let paid = paid.expect(201);
        assert_eq!(paid.json()["amount_minor"], minor, "{literal}");
        if literal == "1.10" {
            assert!(paid.text().contains("\"amount\":1.10,"), "{}", paid.text());
        }
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_may_be_any_text() {
    let system = System::start().await;
    let merchant = system.merchant();
    let mut body = order(VISA, 1.0, "automatic");
    body["merchant"] = json!("Käse/& Söhne");
    body["order_ref"] = json!("a b/c?d#e%");
    let made = pay(&merchant, "p%2F1%20%C3%BC", &body).await.expect(201);
    assert_eq!(made.json()["id"], "p/1 ü");
    let shown = merchant.get(made.header("location")).await.expect(200).json();
    assert_eq!(shown["order_ref"], "a b/c?d#e%");
    let found = merchant
        .get("/v1/payments?merchant=K%C3%A4se%2F%26+S%C3%B6hne&order_ref=a+b/c%3Fd%23e%25")
        .await
        .expect(200)
        .json();
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    system.stop().await;
}
