//! Who may call what: enumerated from the document, so that no route is forgotten.

use std::collections::BTreeSet;

use insta::assert_snapshot;
use reqwest::Method;
use serde_json::{Value, json};

use crate::system::{System, VISA, ask, order, pay, told};

const METHODS: [&str; 3] = ["get", "put", "post"];

fn concrete(path: &str) -> String {
    path.replace("{id}", "p1")
        .replace("{rid}", "r1")
        .replace("{code}", "card-declined")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_documented_with_its_methods_and_guarded() {
    let system = System::start_with(1, 1, |config| config.demo = false).await;
    let client = system.merchant();
    let stranger = client.with_token("0000000000000000000000000000000000000000000000000000000000000000");
    let document = client.get("/openapi.json").await.expect(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, item) in document["paths"].as_object().unwrap() {
        let described: BTreeSet<&str> = METHODS
            .into_iter()
            .filter(|method| item.get(*method).is_some())
            .collect();
        let refused = client.send(client.request(Method::TRACE, &concrete(path))).await;
        let allowed = refused
            .refused(405, "method-not-allowed")
            .header("allow")
            .to_lowercase();
        let served: BTreeSet<&str> = allowed.split(',').filter(|method| *method != "head").collect();
        assert_eq!(described, served, "{path}");
        for name in described {
            let method = Method::from_bytes(name.to_uppercase().as_bytes()).unwrap();
            let answer = stranger.send(stranger.request(method, &concrete(path))).await;
            let open = item[name]["security"] == json!([]);
            assert_eq!(answer.status == 401, !open, "{name} {path}: {}", answer.text());
            let codes = item[name]["responses"].as_object().unwrap();
            assert!(
                codes.contains_key(&answer.status.to_string()),
                "{name} {path} answers {}",
                answer.status
            );
        }
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merchant_and_operator_have_their_own_routes() {
    let system = System::start().await;
    let (merchant, operator) = (system.merchant(), system.operator());
    let card = json!({"card_number": VISA, "currency": "EUR", "balance": 1});
    assert_snapshot!(told(&ask(&merchant, Method::PUT, "/v1/cards", &card).await), @r#"
    403
    {"code":"forbidden","detail":"Only the operator's token may do this.","request_id":"[request_id]","status":403,"title":"Not allowed","type":"/problems/forbidden"}
    "#);
    assert_snapshot!(told(&pay(&operator, "p", &order(VISA, 1.0, "manual")).await), @r#"
    403
    {"code":"forbidden","detail":"Only the merchant's token may do this.","request_id":"[request_id]","status":403,"title":"Not allowed","type":"/problems/forbidden"}
    "#);
    for token in [&merchant, &operator] {
        token.get("/v1/ledger/check").await.expect(200);
        token.get("/v1/payments").await.expect(200);
        token.get("/metrics").await.expect(200);
    }
    // Tokens of the store open nothing here.
    for name in ["root", "payment", "petstore"] {
        let strange = system.at(0, name);
        strange.get("/v1/ledger/check").await.refused(401, "unauthorized");
        ask(&strange, Method::POST, "/payments", &json!({}))
            .await
            .refused(401, "unauthorized");
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_routes_are_open_on_a_demo_system_only() {
    let demo = System::start().await;
    let body = json!({"card_number": VISA, "amount": 1});
    demo.browse(Method::POST, "/payments", &body).await.expect(201);
    demo.browse(Method::POST, "/v1/cards/balance", &body)
        .await
        .expect(200);
    demo.browse(Method::POST, "/v1/tokens", &body).await.expect(201);
    demo.browse(Method::PUT, "/v1/payments/p", &body)
        .await
        .refused(401, "unauthorized");
    demo.browse(Method::GET, "/v1/ledger/check", &Value::Null)
        .await
        .refused(401, "unauthorized");
    // A credential that is given must be right, also where none is needed.
    let stranger = demo.merchant().with_token("no-token-of-this-system");
    ask(&stranger, Method::POST, "/payments", &body)
        .await
        .refused(401, "unauthorized");
    demo.stop().await;

    let real = System::start_with(1, 1, |config| config.demo = false).await;
    for target in ["/payments", "/v1/cards/balance", "/v1/tokens"] {
        let refused = real
            .browse(Method::POST, target, &body)
            .await
            .refused(401, "unauthorized");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
        assert_eq!(refused.header("access-control-allow-origin"), "");
    }
    let unknown = ask(&real.merchant(), Method::POST, "/v1/cards/balance", &body).await;
    unknown.refused(404, "unknown-card");
    real.stop().await;
}
