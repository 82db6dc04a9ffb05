//! The operator's pages: complete without scripts, escaped, and behind the operator's token.

use payment::Moment::BeforeRead;
use reqwest::Method;
use serde_json::json;

use crate::harness::{Answer, DEADLINE};
use crate::system::{BLOCKED, System, VISA, order, pay};

async fn with_password(system: &System, target: &str, token: &str) -> Answer {
    let password = system.cluster.secrets().token(token).unwrap().expose().to_owned();
    let url = format!("http://{}{target}", system.addresses()[0]);
    let request = service::http::client(DEADLINE).get(url);
    system
        .merchant()
        .send(request.basic_auth("anybody", Some(password)))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_sees_accounts_and_payments() {
    let system = System::start().await;
    let merchant = system.merchant();
    let mut body = order(VISA, 12.34, "automatic");
    body["order_ref"] = json!("<script>alert(1)</script>\"'&");
    pay(&merchant, "p1", &body).await.expect(201);
    pay(&merchant, "p2", &order(BLOCKED, 1.0, "manual"))
        .await
        .refused(402, "card-declined");
    let page = with_password(&system, "/ledger", "operator").await.expect(200);
    let text = page.text();
    for shown in [
        "visa •••• 4242",
        "9987.66",
        "Balanced at revision",
        "blocked",
        "EUR",
    ] {
        assert!(text.contains(shown), "{shown} in {text}");
    }
    let policy = page.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; style-src 'self'") && !policy.contains("unsafe"),
        "{policy}"
    );
    let payments = with_password(&system, "/ledger/payments", "operator")
        .await
        .expect(200)
        .text();
    for shown in [
        "p1",
        "12.34 EUR",
        "captured",
        "charge 12.34 to merchant:shop:",
        "declined: blocked",
    ] {
        assert!(payments.contains(shown), "{shown} in {payments}");
    }
    for page in [&text, &payments] {
        assert!(
            !page.contains("<script") && !page.contains("style=") && !page.contains("http://"),
            "{page}"
        );
        assert!(
            !page.contains("c1_") || page == &payments,
            "no hash of a card among the accounts"
        );
    }
    // Page by page.
    let first = with_password(&system, "/ledger?limit=2", "operator")
        .await
        .expect(200)
        .text();
    let next = first
        .split("href=\"/ledger?")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let next = format!("/ledger?{}", next.replace("&#38;", "&").replace("&amp;", "&"));
    let second = with_password(&system, &next, "operator").await.expect(200).text();
    assert_ne!(first, second);
    // The proof reads the whole ledger: once is enough for all pages of a walk.
    let is_proved = [&first, &second].map(|page| page.contains("Balanced at revision"));
    assert_eq!(is_proved, [true, false]);
    assert!(second.contains(" •••• "), "{second}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_waits_no_longer_for_the_proof_than_a_caller() {
    let mut system = System::start_with(1, 1, |config| config.check_ms_max = 100).await;
    let trap = system.trap(0);
    trap.arm("check", BeforeRead);
    let asked = system.operator().get("/v1/ledger/check").await;
    asked.refused(503, "timeout");
    trap.caught().await;
    trap.arm("check", BeforeRead);
    let page = with_password(&system, "/ledger", "operator").await;
    page.refused(503, "timeout");
    trap.caught().await;
    // What needs no proof is there all the same.
    with_password(&system, "/ledger/payments", "operator")
        .await
        .expect(200);
    system.stop_instance(0).await;
    system.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_does() {
    let system = System::start().await;
    for target in ["/ledger", "/ledger/payments"] {
        let refused = system
            .browse(Method::GET, target, &json!(null))
            .await
            .refused(401, "unauthorized");
        assert!(refused.header("www-authenticate").starts_with("Basic realm="));
        with_password(&system, target, "merchant")
            .await
            .refused(401, "unauthorized");
        with_password(&system, target, "root")
            .await
            .refused(401, "unauthorized");
        system.merchant().get(target).await.refused(401, "unauthorized");
        system.operator().get(target).await.expect(200);
    }
    let style = system
        .browse(Method::GET, "/ledger.css", &json!(null))
        .await
        .expect(200);
    assert!(style.header("content-type").starts_with("text/css"));
    let docs = system
        .browse(Method::GET, "/docs", &json!(null))
        .await
        .expect(200);
    assert!(
        docs.header("content-security-policy")
            .contains("script-src 'sha256-")
    );
    let root = system.browse(Method::GET, "/", &json!(null)).await.expect(307);
    assert_eq!(root.header("location"), "/ledger");
    system.stop().await;
}
