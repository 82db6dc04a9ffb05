//! Which failures are repeated, with what, and what a call says when its time is over.

use crate::canned::{Canned, Reply, nobody, ok, problem};
use kvstore_client::{Error, KvClient, PutOptions, ReadOptions};
use serde_json::json;
use std::time::{Duration, Instant};

fn put_answer() -> Reply {
    ok(json!({"key": "a", "revision": 7, "version": 1, "created": true}))
}

fn short(client: &KvClient) -> KvClient {
    client.with_deadline(Duration::from_millis(300))
}

#[tokio::test]
async fn a_write_is_repeated_with_one_key_until_it_is_answered() {
    let server = Canned::replies(vec![
        || Reply::Cut,
        || problem(503, "no-leader"),
        || problem(503, "outcome-unknown"),
        put_answer,
    ])
    .await;
    let put = server.client().put("a", "1").await.unwrap();
    assert_eq!(put.revision, 7);
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    let key = seen[0].header("idempotency-key");
    assert_eq!(key.len(), 32);
    for request in &seen {
        assert_eq!(request.line(), "PUT /v1/kv/a");
        assert_eq!(request.header("idempotency-key"), key);
        assert_eq!(request.header("idempotency-ttl"), "60");
        assert_eq!(request.header("authorization"), "Bearer secret");
        assert_eq!(request.header("x-request-id"), seen[0].header("x-request-id"));
        assert_eq!(&request.body[..], b"1");
    }
}

#[tokio::test]
async fn each_write_draws_its_own_key_unless_the_caller_has_one() {
    let server = Canned::replies(vec![put_answer]).await;
    let client = server.client();
    client.put("a", "1").await.unwrap();
    client.put("a", "1").await.unwrap();
    client
        .with_idempotency_key("order-7")
        .unwrap()
        .put("a", "1")
        .await
        .unwrap();
    let seen = server.seen();
    assert_ne!(
        seen[0].header("idempotency-key"),
        seen[1].header("idempotency-key")
    );
    assert_eq!(seen[2].header("idempotency-key"), "order-7");
    // The last repetition may be under way when the deadline passes; more than a day the store does not promise.
    for (hours, ttl_s) in [(1, "7200"), (13, "86400")] {
        let patient = client.with_deadline(Duration::from_hours(hours));
        patient.put("a", "1").await.unwrap();
        assert_eq!(server.seen().last().unwrap().header("idempotency-ttl"), ttl_s);
    }
    // How long a caller's key is to be remembered is not ours to say, unless the call itself may take longer.
    assert_eq!(seen[2].header("idempotency-ttl"), "");
    let patient = client.with_deadline(Duration::from_hours(1));
    let patient = patient.with_idempotency_key("order-7").unwrap();
    patient.put("a", "1").await.unwrap();
    assert_eq!(server.seen().last().unwrap().header("idempotency-ttl"), "7200");
    for odd in ["", "a b", "ü", "a\n"] {
        assert!(
            matches!(client.with_idempotency_key(odd), Err(Error::Invalid { .. })),
            "{odd:?}"
        );
    }
}

#[tokio::test]
async fn a_lasting_key_is_kept_as_long_as_one_of_the_callers() {
    let server = Canned::replies(vec![put_answer]).await;
    let client = server.client();
    let (one, another) = (client.with_lasting_key(), client.with_lasting_key());
    let own = client.with_idempotency_key("order-7").unwrap().with_lasting_key();
    for client in [&one, &one, &another, &own] {
        client.put("a", "1").await.unwrap();
    }
    let seen = server.seen();
    let keys: Vec<&str> = seen
        .iter()
        .map(|request| request.header("idempotency-key"))
        .collect();
    assert_eq!(keys[0].len(), 32);
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[0], keys[2]);
    assert_eq!(keys[3], "order-7");
    for request in &seen {
        assert_eq!(request.header("idempotency-ttl"), "");
    }
}

#[tokio::test]
async fn a_write_that_may_have_arrived_ends_unknown() {
    for replies in [
        vec![(|| Reply::Cut) as fn() -> Reply],
        vec![|| Reply::Hang],
        vec![|| problem(503, "outcome-unknown")],
        vec![|| problem(503, "timeout")],
        vec![|| problem(503, "a-word-of-the-future")],
        vec![|| problem(500, "internal")],
        // Not taken at last, but an earlier attempt may have been.
        vec![|| Reply::Cut, || problem(503, "no-leader")],
        vec![|| Reply::Cut, || problem(401, "unauthorized")],
        // It is said before anybody looks what became of the first.
        vec![|| Reply::Cut, || problem(413, "too-large")],
        vec![|| Reply::Cut, || problem(422, "invalid-request")],
        vec![|| Reply::Cut, || problem(404, "not-found")],
        vec![|| Reply::Cut, || problem(400, "a-word-of-the-future")],
        vec![|| Reply::Cut, || problem(507, "disk-full")],
    ] {
        let server = Canned::replies(replies).await;
        let error = short(&server.client()).put("a", "1").await.unwrap_err();
        let key = server.seen()[0].header("idempotency-key").to_owned();
        match error {
            Error::Unknown { idempotency_key, .. } => assert_eq!(idempotency_key, Some(key)),
            other => panic!("{other:?}"),
        }
    }
}

/// What the state decides holds for each attempt of one key, so also for the one that was lost.
#[tokio::test]
async fn what_the_state_decides_is_final_also_after_a_lost_attempt() {
    for reply in [
        (|| problem(412, "precondition-failed")) as fn() -> Reply,
        || problem(404, "lease-not-found"),
        || problem(422, "idempotency-key-reused"),
    ] {
        let server = Canned::replies(vec![(|| Reply::Cut) as fn() -> Reply, reply]).await;
        let error = short(&server.client()).put("a", "1").await.unwrap_err();
        assert!(!error.is_unknown(), "{error:?}");
        assert_eq!(server.seen().len(), 2);
    }
}

#[tokio::test]
async fn a_body_that_did_not_arrive_whole_is_sent_again() {
    let server = Canned::replies(vec![
        || problem(400, "body-timeout"),
        || problem(400, "malformed-body"),
        put_answer,
    ])
    .await;
    assert_eq!(server.client().put("a", "1").await.unwrap().revision, 7);
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_write_that_surely_did_not_happen_ends_unavailable() {
    for code in [
        "no-leader",
        "overloaded",
        "not-ready",
        "shutting-down",
        "mirror-lost",
    ] {
        let server = Canned::start(move |_| problem(503, code)).await;
        let error = short(&server.client()).put("a", "1").await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert_eq!(error.code(), code);
        assert!(server.seen().len() > 1, "{code} was not repeated");
    }
    let client = KvClient::builder([nobody().await]).build().unwrap();
    let error = short(&client).put("a", "1").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(error.code(), "connection");
}

#[tokio::test]
async fn a_read_is_never_unknown() {
    for reply in [
        (|| Reply::Cut) as fn() -> Reply,
        || Reply::Hang,
        || problem(503, "timeout"),
    ] {
        let server = Canned::replies(vec![reply]).await;
        let error = short(&server.client()).get("a").await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert_eq!(server.seen()[0].header("idempotency-key"), "");
    }
}

#[tokio::test]
async fn refusals_are_final_and_keep_what_the_store_said() {
    type Expected = fn(&Error) -> bool;
    let cases: [(u16, &str, Expected); 8] = [
        (400, "malformed-json", |error| matches!(error, Error::Problem(_))),
        (401, "unauthorized", |error| {
            matches!(error, Error::Unauthorized(_))
        }),
        (403, "forbidden", |error| matches!(error, Error::Forbidden(_))),
        (410, "compacted", Error::is_compacted),
        (412, "precondition-failed", Error::is_conflict),
        (413, "too-large", |error| matches!(error, Error::Problem(_))),
        (422, "invalid-key", |error| matches!(error, Error::Problem(_))),
        (507, "disk-full", |error| matches!(error, Error::Problem(_))),
    ];
    for (status, code, expected) in cases {
        let server = Canned::start(move |_| problem(status, code)).await;
        let error = server.client().put("a", "1").await.unwrap_err();
        assert!(expected(&error), "{error:?}");
        assert_eq!(error.code(), code);
        assert_eq!(error.problem().unwrap().status, status);
        assert_eq!(server.seen().len(), 1, "{code} was repeated");
    }
}

/// A full disk concerns one node: the others are asked before a caller is told.
#[tokio::test]
async fn a_node_without_room_is_passed_over() {
    const CLIENTS: usize = 32;
    let full = Canned::start(|_| problem(507, "disk-full")).await;
    let well = Canned::start(|_| put_answer()).await;
    let client = |servers: [&Canned; 2]| {
        let endpoints = servers.map(|server| server.address.clone());
        KvClient::builder(endpoints).build().unwrap()
    };
    // Each begins at a node of its own choice.
    for _ in 0..CLIENTS {
        let written = client([&full, &well]).put("a", "1").await.unwrap();
        assert_eq!(written.revision, 7);
    }
    assert!(!full.seen().is_empty(), "none began at the node that is full");
    assert_eq!(well.seen().len(), CLIENTS);
    let full_too = Canned::start(|_| problem(507, "disk-full")).await;
    let error = client([&full, &full_too]).put("a", "1").await.unwrap_err();
    assert_eq!(error.code(), "disk-full");
}

#[tokio::test]
async fn a_conflict_tells_the_present_revision() {
    let body = json!({"code": "precondition-failed", "revision": 9}).to_string();
    let from_tag = body.clone();
    let tagged = Canned::start(move |_| {
        Reply::Answer(412, vec![("etag", "\"8\"".to_owned())], from_tag.clone().into())
    })
    .await;
    let untagged = Canned::start(move |_| Reply::Answer(412, Vec::new(), body.clone().into())).await;
    let absent = Canned::start(|_| problem(412, "precondition-failed")).await;
    for (server, expected) in [(&tagged, Some(8)), (&untagged, Some(9)), (&absent, None)] {
        let options = PutOptions {
            if_match: Some(3),
            ..PutOptions::default()
        };
        match server.client().put_with("a", "1", options).await.unwrap_err() {
            Error::Conflict { revision, .. } => assert_eq!(revision, expected),
            other => panic!("{other:?}"),
        }
        assert_eq!(server.seen()[0].header("if-match"), "\"3\"");
    }
}

#[tokio::test]
async fn a_dead_node_costs_no_wait_and_rests() {
    let server = Canned::replies(vec![put_answer]).await;
    for _ in 0..8 {
        let client = KvClient::builder([nobody().await, server.address.clone()])
            .build()
            .unwrap();
        let began = Instant::now();
        client.put("a", "1").await.unwrap();
        client.put("a", "1").await.unwrap();
        assert!(
            began.elapsed() < Duration::from_millis(250),
            "{:?}",
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn writes_go_to_the_leader_that_answers_name() {
    let leader = Canned::replies(vec![put_answer]).await;
    let address = leader.address.clone();
    let follower = Canned::start(move |_| {
        let body = json!({"key": "a", "revision": 7, "version": 1, "created": true}).to_string();
        Reply::Answer(200, vec![("x-kv-leader", address.clone())], body.into())
    })
    .await;
    let client = follower.client();
    for _ in 0..4 {
        client.put("a", "1").await.unwrap();
    }
    assert_eq!((follower.seen().len(), leader.seen().len()), (1, 3));
}

#[tokio::test]
async fn a_silent_node_is_left_for_another() {
    let silent = Canned::start(|_| Reply::Hang).await;
    let server = Canned::replies(vec![put_answer]).await;
    let client = KvClient::builder([&silent.address, &server.address])
        .build()
        .unwrap();
    let began = Instant::now();
    client.put("a", "1").await.unwrap();
    client.put("a", "2").await.unwrap();
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn what_must_not_be_repeated_is_not() {
    let server = Canned::start(|_| Reply::Cut).await;
    let error = server.client().token_put("t", Vec::new()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unknown {
                idempotency_key: None,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(server.lines(), ["PUT /v1/tokens/t"]);
    assert_eq!(server.seen()[0].header("idempotency-key"), "");
}

#[tokio::test]
async fn a_single_read_is_put_together_from_headers() {
    let server = Canned::start(|seen| {
        if seen.target.starts_with("/v1/kv/gone") {
            let code = json!({"code": "key-not-found"}).to_string();
            return Reply::Answer(404, vec![("x-kv-revision", "12".to_owned())], code.into());
        }
        let headers = [
            ("etag", "\"9\""),
            ("x-kv-revision", "12"),
            ("x-kv-create-revision", "4"),
            ("x-kv-version", "3"),
            ("x-kv-lease", "77"),
            ("x-kv-consistency", "at_least:11"),
        ];
        let headers = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
        Reply::Answer(200, headers, vec![0xFF, 0x00].into())
    })
    .await;
    let options = ReadOptions {
        consistency: "at_least:11".parse().unwrap(),
        revision: Some(12),
    };
    let read = server.client().read("a b", options).await.unwrap();
    assert_eq!((read.revision, read.consistency), (12, options.consistency));
    let kv = read.kv.unwrap();
    assert_eq!(
        (kv.mod_revision, kv.create_revision, kv.version, kv.lease),
        (9, 4, 3, 77)
    );
    assert_eq!(kv.bytes().as_ref(), [0xFF, 0x00]);
    assert_eq!(server.client().get("gone").await.unwrap(), None);
    assert_eq!(
        server.lines(),
        [
            "GET /v1/kv/a%20b?consistency=at_least%3A11&revision=12",
            "GET /v1/kv/gone"
        ]
    );
}
