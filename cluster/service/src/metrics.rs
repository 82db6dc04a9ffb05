//! Counters and latencies of a process, in the text format of Prometheus.
//! Invariant: a name is registered once; names and label values come from the code, never from a request,
//! so that their number is bounded.
//! It must not know what is counted.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, Route};
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use tower::layer::layer_fn;
use tower::{Service as _, service_fn};

/// From 50 µs to 10 s, for latencies in seconds.
pub const LATENCY_BUCKETS_S: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// The metrics of one process or of one part of it. Clones show the same numbers.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// Answers by route and class of status.
    pub fn requests(&self, name: &str) -> Requests {
        Requests(self.counters(name, "Answers by route and class of status", &["route", "status"]))
    }

    /// Of latencies in seconds; the name ends in `_seconds`.
    pub fn latency(&self, name: &str, help: &str) -> Histogram {
        self.histogram(name, help, &LATENCY_BUCKETS_S)
    }

    pub fn latencies(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS_S.to_vec());
        self.add(HistogramVec::new(options, labels))
    }

    /// Of anything else, such as the entries of a batch.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(options))
    }

    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let metric = made.expect("names and labels of metrics are constants of valid form");
        self.registry
            .register(Box::new(metric.clone()))
            .expect("each metric is registered once");
        metric
    }

    /// All numbers as they are now.
    pub fn text(&self) -> String {
        let mut text = String::new();
        TextEncoder::new()
            .encode_utf8(&self.registry.gather(), &mut text)
            .expect("writing to memory does not fail");
        text
    }

    /// The answer of `GET /metrics`.
    pub fn response(&self) -> Response {
        let mut response = self.text().into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
        );
        response
    }
}

/// Counts the answers of each route. A route is a constant of the code, never a path that somebody asked for.
#[derive(Debug, Clone)]
pub struct Requests(IntCounterVec);

impl Requests {
    /// The route with its answers counted.
    pub fn counted<S>(&self, path: &str, methods: MethodRouter<S>) -> MethodRouter<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        counted(&self.0, path, methods)
    }
}

/// The route with its answers counted under its path and the class of their status, by counters that are looked up once
/// and not for each request. It stands on each route, since nothing outside of them knows which one answers.
pub fn counted<S>(answers: &IntCounterVec, path: &str, methods: MethodRouter<S>) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    let counters: Arc<[IntCounter]> = classes
        .iter()
        .map(|class| answers.with_label_values(&[path, class]))
        .collect();
    // As `map_response` does it, without a copy of the route and a box for the future more for each request.
    methods.layer(layer_fn(move |mut route: Route| {
        let counters = Arc::clone(&counters);
        service_fn(move |request: Request| {
            let (answering, counters) = (route.call(request), Arc::clone(&counters));
            async move {
                let response = answering.await?;
                let class = usize::from(response.status().as_u16() / 100).clamp(1, counters.len());
                counters[class - 1].inc();
                Ok::<Response, Infallible>(response)
            }
        })
    }))
}
