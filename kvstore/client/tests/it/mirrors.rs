//! What a mirror asks of the store when it reads everything.

use crate::canned::{Canned, Reply, problem};
use kvstore_client::Error;
use serde_json::{Value, json};

fn leases(ids: &[u64], has_next: bool) -> Reply {
    let lease = |id: &u64| json!({"id": id, "ttl_ms": 500, "remaining_ms": 1, "owner": "shop", "keys": []});
    let page: Vec<Value> = ids.iter().map(lease).collect();
    let link = ("link", "</v1/leases?cursor=x>; rel=\"next\"".to_owned());
    let headers = if has_next { vec![link] } else { Vec::new() };
    Reply::Answer(200, headers, json!(page).to_string().into())
}

/// Those of a large shop are more than one answer can be.
#[tokio::test]
async fn leases_are_asked_for_page_by_page_and_without_their_keys() {
    const FIRST: &str = "/v1/leases?consistency=at_least%3A7&keyless=1&limit=200";
    let server = Canned::start(|seen| match seen.target.strip_prefix(FIRST) {
        Some("") => leases(&[3, 5], true),
        Some("&cursor=5") => leases(&[7, 9], true),
        Some("&cursor=9") => leases(&[11], false),
        _ => problem(400, "malformed-parameter"),
    })
    .await;
    let granted = server.client().granted(7).await.unwrap();
    let ids: Vec<u64> = granted.iter().map(|lease| lease.id).collect();
    assert_eq!(ids, [3, 5, 7, 9, 11]);
    assert_eq!((granted[4].ttl_ms, granted[4].owner.as_str()), (500, "shop"));
}

#[tokio::test]
async fn pages_of_leases_that_lead_to_themselves_have_an_end() {
    let server = Canned::start(|_| leases(&[3, 5], true)).await;
    let error = server.client().granted(7).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    assert_eq!(server.lines().len(), 2);
}
