//! What all routes share: the ledger, the vault, the settings, the counters.
//! Invariant: nothing here remembers a request; only `throttle` knows how many there were.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::Bytes;
use payment_client::Currency;
use prometheus::IntCounterVec;
use service::config::PaymentConfig;
use service::metrics::{Metrics, Requests};
use service::secrets::Secret;
use service::{body, problem};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::throttle::Throttle;
use crate::domain::MerchantName;
use crate::ledger::Ledger;
use crate::vault::Vault;

/// Each of them reads the whole ledger.
const CHECKS_AT_ONCE: usize = 2;

pub(crate) struct App {
    pub(crate) ledger: Ledger,
    pub(crate) vault: Vault,
    pub(crate) config: PaymentConfig,
    /// Of payments that name none.
    pub(crate) merchant: MerchantName,
    pub(crate) currency: Currency,
    pub(crate) merchant_token: Secret,
    pub(crate) operator_token: Secret,
    pub(crate) metrics: Metrics,
    pub(crate) counters: Counters,
    pub(crate) checks: Semaphore,
    pub(crate) throttle: Throttle,
}

impl App {
    pub(crate) fn checks() -> Semaphore {
        Semaphore::new(CHECKS_AT_ONCE)
    }

    pub(crate) async fn body(&self, body: Body) -> problem::Result<Bytes> {
        let deadline = Instant::now() + Duration::from_millis(self.config.request_ms_max);
        body::read(body, self.config.body_bytes_max, deadline).await
    }

    /// A body of JSON, member by member.
    pub(crate) async fn fields(
        &self,
        headers: &HeaderMap,
        body: Body,
    ) -> problem::Result<(service::fields::Fields, Bytes)> {
        let body = self.body(body).await?;
        Ok((service::fields::Fields::read(headers, &body)?, body))
    }
}

/// What is counted. Labels come from the code alone.
#[derive(Clone)]
pub(crate) struct Counters {
    pub(crate) requests: Requests,
    pub(crate) payments: IntCounterVec,
    pub(crate) swept: IntCounterVec,
}

impl Counters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            requests: metrics.requests("payment_requests_total"),
            payments: metrics.counters(
                "payment_payments_total",
                "Payments decided here, by outcome; repetitions do not count",
                &["outcome"],
            ),
            swept: metrics.counters(
                "payment_swept_total",
                "What ran out and was swept here, by kind",
                &["kind"],
            ),
        }
    }
}
