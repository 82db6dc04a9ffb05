//! The text that Prometheus reads.

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use insta::assert_snapshot;
use service::metrics::Metrics;

use crate::harness::Server;

#[test]
fn the_text_lists_what_was_counted() {
    let metrics = Metrics::new();
    metrics.counter("kv_proposals_total", "Proposals made.").inc_by(3);
    metrics
        .gauges("kv_lag", "Entries behind.", &["node"])
        .with_label_values(&["n2"])
        .set(7);
    metrics
        .histogram("kv_batch", "Entries in one sync.", &[1.0, 8.0])
        .observe(2.0);
    assert_snapshot!(metrics.text(), @r#"
    # HELP kv_batch Entries in one sync.
    # TYPE kv_batch histogram
    kv_batch_bucket{le="1"} 0
    kv_batch_bucket{le="8"} 1
    kv_batch_bucket{le="+Inf"} 1
    kv_batch_sum 2
    kv_batch_count 1
    # HELP kv_lag Entries behind.
    # TYPE kv_lag gauge
    kv_lag{node="n2"} 7
    # HELP kv_proposals_total Proposals made.
    # TYPE kv_proposals_total counter
    kv_proposals_total 3
    "#);
}

#[test]
fn latencies_have_buckets_from_50_microseconds_to_10_seconds() {
    let metrics = Metrics::new();
    metrics.latency("kv_commit_seconds", "Commit.").observe(0.000_07);
    let text = metrics.text();
    assert!(
        text.contains("kv_commit_seconds_bucket{le=\"0.00005\"} 0"),
        "{text}"
    );
    assert!(
        text.contains("kv_commit_seconds_bucket{le=\"0.0001\"} 1"),
        "{text}"
    );
    assert!(text.contains("le=\"10\"} 1"), "{text}");
    let content_type = metrics.response().headers()["content-type"].clone();
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
}

#[tokio::test]
async fn answers_are_counted_by_route_and_class() {
    let metrics = Metrics::new();
    let number = get(async |Path(number): Path<u8>| number.to_string());
    let counted = metrics
        .requests("x_requests_total")
        .counted("/number/{number}", number);
    let server = Server::start(Router::new().route("/number/{number}", counted)).await;
    for path in ["/number/1", "/number/2", "/number/many", "/nowhere"] {
        server.get(path).await;
    }
    // Of the wrong method, and without a body.
    for request in [
        server.http.delete(server.url("/number/1")),
        server.http.head(server.url("/number/1")),
    ] {
        request.send().await.unwrap();
    }
    assert_snapshot!(metrics.text(), @r#"
    # HELP x_requests_total Answers by route and class of status
    # TYPE x_requests_total counter
    x_requests_total{route="/number/{number}",status="1xx"} 0
    x_requests_total{route="/number/{number}",status="2xx"} 3
    x_requests_total{route="/number/{number}",status="3xx"} 0
    x_requests_total{route="/number/{number}",status="4xx"} 2
    x_requests_total{route="/number/{number}",status="5xx"} 0
    "#);
}
