//! Who calls without a credential calls only so often; who has one is not held back.

use insta::{allow_duplicates, assert_snapshot};
use reqwest::Method;
use serde_json::json;

use crate::system::{System, VISA, ask, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_slowed_down_on_every_open_route() {
    let system = System::start_with(1, 1, |config| config.open_per_s_max = 1).await;
    let card = json!({"card_number": VISA});
    let routes = [
        ("/v1/cards/balance", card.clone(), 200),
        ("/v1/tokens", card, 201),
        ("/payments", json!({"card_number": VISA, "amount": 1}), 201),
    ];
    let mut paid = 0;
    for (route, body, fine) in &routes {
        // A burst is let through, and then nothing more; the bucket is one for all routes together.
        let mut refused = None;
        for _ in 0..20 {
            let answer = system.browse(Method::POST, route, body).await;
            if answer.status == 429 {
                refused = Some(answer);
                break;
            }
            paid += i64::from(*route == "/payments");
            answer.expect(*fine);
        }
        let refused = refused.unwrap_or_else(|| panic!("{route} was never refused"));
        assert_eq!(refused.header("retry-after"), "1", "{route}");
        // A page of another origin may read why.
        assert_eq!(refused.header("access-control-allow-origin"), "*", "{route}");
        let mut told = told(&refused);
        let waits = refused.json()["retry_after_ms"].to_string();
        told = told.replace(&waits, "[ms]");
        allow_duplicates! {
            assert_snapshot!(told, @r#"
            429
            retry-after: 1
            {"code":"too-many-requests","detail":"This address calls too often without a credential.","request_id":"[request_id]","retry_after_ms":[ms],"status":429,"title":"Too many requests","type":"/problems/too-many-requests"}
            "#);
        }
    }
    // What was refused has done nothing, and whoever has a token goes on.
    for (route, body, fine) in &routes {
        for _ in 0..20 {
            ask(&system.merchant(), Method::POST, route, body)
                .await
                .expect(*fine);
        }
    }
    assert_eq!(system.balance(VISA).await, (1_000_000 - 100 * (paid + 20), 0));
    system.stop().await;
}
