//! No card number is anywhere but in the request that brought it: not in a value, a file, an answer or a metric.

use reqwest::Method;
use serde_json::json;

use crate::harness::Client;
use crate::numbers::{Written, spellings};
use crate::system::{AMEX, STRANGER, System, VISA, ask, capture, order, pay, refund};

const CARDS: [&str; 3] = [VISA, AMEX, STRANGER];

/// Names that hold a card number by mistake, wherever there are names. None of them is taken.
async fn names_with(client: &Client, card: &str) -> String {
    let mut answers = String::new();
    for spelling in spellings(card) {
        for name in [
            spelling.clone(),
            format!("{spelling}-1"),
            format!("card {spelling}"),
        ] {
            let in_path = name.replace(' ', "%20");
            let mut merchant = order(STRANGER, 2.0, "manual");
            merchant["merchant"] = json!(name);
            let mut order_ref = order(STRANGER, 2.0, "manual");
            order_ref["order_ref"] = json!(name);
            let fine = order(STRANGER, 2.0, "manual");
            for (method, target, body) in [
                (Method::PUT, format!("/v1/payments/{in_path}"), &fine),
                (Method::PUT, "/v1/payments/named".to_owned(), &merchant),
                (Method::PUT, "/v1/payments/named".to_owned(), &order_ref),
                (Method::POST, format!("/v1/payments/{in_path}/cancel"), &fine),
                (Method::PUT, format!("/v1/payments/p0/refunds/{in_path}"), &fine),
            ] {
                let request = client.request(method, &target).json(body);
                let sent = request.header("x-request-id", name.replace(' ', "."));
                let refused = client.send(sent).await.refused(422, "invalid-request");
                answers += &(refused.text() + refused.header("x-request-id"));
            }
        }
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn card_numbers_are_in_no_file_and_no_answer() {
    let mut system = System::start().await;
    let merchant = system.merchant();
    let mut answers = String::new();
    for (n, card) in CARDS.into_iter().enumerate() {
        let id = format!("p{n}");
        for spelling in spellings(card) {
            let whole = json!({"card_number": spelling, "exp_month": 12, "exp_year": 2099, "cvc": "987"});
            let simple = json!({"card_number": spelling, "amount": 1, "order_ref": spelling});
            for (method, target, body) in [
                (Method::POST, "/v1/tokens", &whole),
                (Method::POST, "/v1/cards/balance", &whole),
                (Method::POST, "/payments", &whole),
                (Method::POST, "/payments", &simple),
                (Method::PUT, "/v1/payments/wrong", &whole),
            ] {
                answers += &ask(&merchant, method, target, body).await.text();
            }
        }
        answers += &names_with(&merchant, card).await;
        answers += &pay(&merchant, &id, &order(card, 2.0, "manual")).await.text();
        answers += &capture(&merchant, &id, &json!({})).await.text();
        answers += &refund(&merchant, &id, "r", json!(1)).await.text();
        answers += &merchant.get(&format!("/v1/payments/{id}")).await.text();
    }
    answers += &merchant.get("/metrics").await.text();
    answers += &system.operator().get("/ledger").await.text();
    answers += &system.operator().get("/ledger/payments").await.text();
    // Stopping writes everything out.
    let folder = system.cluster.folder().to_owned();
    system.stop_instance(0).await;
    system.cluster.stop_node(0).await;
    let written = Written::below(&folder);
    let marker = written.place_of("pay/payment/p0/record");
    assert!(marker.is_some(), "the search finds what is there");
    for spelling in CARDS.into_iter().flat_map(spellings) {
        assert!(!answers.contains(&spelling), "{spelling} in an answer");
        assert_eq!(written.place_of(&spelling), None, "{spelling}");
    }
}
