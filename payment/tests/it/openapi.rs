//! The document is complete: every answer that a test sees has a status that the document knows.

use serde_json::Value;

use crate::system::System;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_code_of_the_document_is_a_kind_of_problem() {
    let system = System::start().await;
    let document = system.merchant().get("/openapi.json").await.expect(200).json();
    let codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
        .as_array()
        .unwrap();
    let mut told = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item
            .as_object()
            .unwrap()
            .values()
            .filter(|value| value.is_object())
        {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let text = answer["description"].as_str().unwrap();
                let Some(list) = text.strip_prefix("Refused: ") else {
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
    }
    assert!(told > 100, "only {told}");
    system.stop().await;
}
