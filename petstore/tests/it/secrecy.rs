//! No card number is anywhere but in the request that brought it, in whatever place somebody typed it: not in a value,
//! a file or an answer.

use serde_json::{Value, json};
use service::config::{Checkout, ShopAuth};

use super::system::{PASSWORD, System, VISA, order};
use crate::harness::Client;
use crate::numbers::{Written, spellings};

const AMEX: &str = "3782 822463 10005";
const CARDS: [&str; 2] = [VISA, AMEX];

/// What somebody sends who mistakes one place for another, the place in which it is refused, and where it goes.
fn mistakes(text: &str) -> [(String, &'static str, Value); 9] {
    let (in_path, items) = (text.replace(' ', "%20"), json!([{"productId": "6"}]));
    let token = |token: &str| json!({"userId": "ada", "items": items, "paymentToken": token});
    let product = |name: &str| {
        let mut product = json!({"name": "Ball", "price": 1});
        product[name] = json!(text);
        ("/products".to_owned(), product)
    };
    let [name, species, category, description] = ["name", "species", "category", "description"].map(product);
    [
        ("/orders".to_owned(), "/paymentToken", token(text)),
        (
            "/orders".to_owned(),
            "/paymentToken",
            token(&format!("tok_{text}")),
        ),
        (
            "/orders".to_owned(),
            "user",
            json!({"userId": text, "items": items, "cardNumber": VISA}),
        ),
        (format!("/cart/{in_path}"), "user", json!({"productId": "6"})),
        (
            "/users".to_owned(),
            "/username",
            json!({"username": text, "password": PASSWORD}),
        ),
        (name.0, "/name", name.1),
        (species.0, "/species", species.1),
        (category.0, "/category", category.1),
        (description.0, "/description", description.1),
    ]
}

/// Everything that is answered to a number in the wrong place, and to the same in the right one. Nobody can sign in
/// with it as a name, but it may be tried.
async fn told_of(client: &Client, card: &str) -> String {
    let mut told = String::new();
    for spelling in spellings(card) {
        for text in [
            spelling.clone(),
            format!("{spelling}-1"),
            format!("card {spelling}"),
        ] {
            for (target, pointer, body) in mistakes(&text) {
                let answer = client.post(&target, &body).await;
                let refused = answer.refused(422, "invalid-request");
                assert_eq!(refused.pointers(), [pointer], "{target} {body}");
                told += &refused.text();
            }
        }
    }
    let digits = card.replace(' ', "").parse::<u64>().unwrap();
    let mut body = order("6", 1, card);
    body["userId"] = json!(digits);
    let refused = client.post("/orders", &body).await;
    told += &refused.refused(422, "invalid-request").text();
    let typed = json!({"username": card, "password": PASSWORD});
    let refused = client.post("/login", &typed).await;
    told += &refused.refused(401, "invalid-credentials").text();
    body["userId"] = json!("ada");
    told += &client.post("/orders", &body).await.expect(201).text();
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn card_numbers_are_in_no_file_and_no_answer() {
    let mut system = System::start().await;
    // The same goods once more, where everybody is trusted.
    system.config.shop.auth = ShopAuth::Open;
    system.config.shop.checkout = Checkout::Mailbox;
    system.start_shop().await;
    let mut answers = String::new();
    for client in [system.operator_at(0), system.operator_at(1)] {
        for card in CARDS {
            answers += &told_of(&client, card).await;
        }
        answers += &client.get("/orders/ada").await.expect(200).text();
        answers += &client.get("/metrics").await.expect(200).text();
    }
    system.settled().await;
    // Stopping writes everything out.
    let folder = system.cluster.folder().to_owned();
    for vessel in system.shops.iter_mut().chain(&mut system.payments) {
        vessel.stop().await;
    }
    system.cluster.stop_node(0).await;
    let written = Written::below(&folder);
    let marker = written.place_of("shop/menagerie/live/order/ada/");
    assert!(marker.is_some(), "the search finds what is there");
    for card in CARDS {
        // Spaces are written like this in keys.
        let in_key = card.replace(' ', "%20");
        for spelling in spellings(card).into_iter().chain([in_key]) {
            assert!(!answers.contains(&spelling), "{spelling} in an answer");
            assert_eq!(written.place_of(&spelling), None, "{spelling}");
        }
    }
}
