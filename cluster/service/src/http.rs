//! The one maker of HTTP clients, so that all of them have bounds and none follows what it should not.
//! Invariant: no proxy from the environment, no redirects, Nagle's algorithm off, connecting is bounded.
//! It must not know whom the client calls; the deadline of a call comes from its caller.

use std::time::Duration;

use reqwest::redirect::Policy;

use crate::tls;

#[derive(Debug, Clone)]
pub struct Timeouts {
    pub connect: Duration,
    /// Of a whole call, answer included; none for streams, whose callers keep their own deadlines.
    pub call: Option<Duration>,
    /// How long an unused connection is kept: less than servers wait for the next request on it.
    pub idle: Duration,
    /// How many unused connections are kept for each host.
    pub idle_per_host_max: usize,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            call: None,
            idle: Duration::from_secs(4),
            idle_per_host_max: 512,
        }
    }
}

impl From<Duration> for Timeouts {
    /// The time of a whole call, and what is usual for the rest.
    fn from(call: Duration) -> Self {
        Self {
            connect: call.min(Self::default().connect),
            call: Some(call),
            ..Self::default()
        }
    }
}

/// What the processes speak.
pub fn scheme() -> &'static str {
    if tls::of_process().is_some() {
        "https"
    } else {
        "http"
    }
}

/// `http://host:port`, or `https://host:port` where the processes speak TLS.
pub fn base(address: &str) -> String {
    format!("{}://{address}", scheme())
}

pub fn client(timeouts: impl Into<Timeouts>) -> reqwest::Client {
    let timeouts = timeouts.into();
    let tls = tls::of_process().map_or_else(tls::trusting_nobody, tls::Tls::calls);
    #[expect(clippy::disallowed_methods, reason = "this is the one maker of HTTP clients")]
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(Policy::none())
        .tcp_nodelay(true)
        .connect_timeout(timeouts.connect)
        .pool_idle_timeout(timeouts.idle)
        .pool_max_idle_per_host(timeouts.idle_per_host_max);
    if let Some(call) = timeouts.call {
        builder = builder.timeout(call);
    }
    builder
        .build()
        .expect("a client with its TLS made and without a proxy reads nothing that could fail")
}
