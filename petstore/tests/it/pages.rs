//! The document and the page for it, and the routes that every service has.

use reqwest::Method;
use serde_json::{Value, json};

use super::system::System;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_has_these() {
    let system = System::start().await;
    let open = async |target: &str| system.browse(Method::GET, target, &json!(null)).await;
    assert_eq!(
        open("/hello").await.expect(200).json(),
        json!({"message": "Hello, World!"})
    );
    assert_eq!(open("/livez").await.expect(200).text(), "alive\n");
    let ready = open("/readyz").await.expect(200);
    assert_eq!(ready.header("x-served-by"), "shop1");
    assert!(
        open("/docs")
            .await
            .expect(200)
            .header("content-security-policy")
            .contains("script-src 'sha256-")
    );
    open("/problems/out-of-stock").await.expect(200);
    let metrics = system.operator().get("/metrics").await.expect(200).text();
    assert!(metrics.contains("shop_requests_total"), "{metrics}");
    // Whoever looks for a shop finds this one.
    let root = system.cluster.client(0);
    crate::harness::wait_for("the registration", async || {
        let found = root.get("/v1/kv/registry/petstore/shop1").await;
        if found.status == 200 {
            Ok(())
        } else {
            Err(found.text())
        }
    })
    .await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_code_of_the_document_is_a_kind_of_problem() {
    let system = System::start().await;
    let document = system
        .browse(Method::GET, "/openapi.json", &json!(null))
        .await
        .expect(200)
        .json();
    let codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
        .as_array()
        .unwrap();
    let mut told = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let operations = item
            .as_object()
            .unwrap()
            .values()
            .filter(|value| value.is_object());
        for (status, answer) in operations.flat_map(|operation| operation["responses"].as_object().unwrap()) {
            let Some(list) = answer["description"].as_str().unwrap().strip_prefix("Refused: ") else {
                continue;
            };
            for code in list.split('`').skip(1).step_by(2) {
                let kind = service::problem::by_code(code).unwrap_or_else(|| panic!("{code} of {path}"));
                assert_eq!(kind.status.to_string(), *status, "{code} of {path}");
                assert!(codes.contains(&Value::from(code)), "{code}");
                told += 1;
            }
        }
    }
    assert!(told > 60, "only {told}");
    system.stop().await;
}
