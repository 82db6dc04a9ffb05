//! What all routes share: the shop once it is there, the settings, the counters.
//! Invariant: nothing here remembers a request.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use bytes::Bytes;
use prometheus::IntCounterVec;
use service::config::ShopConfig;
use service::fields::Fields;
use service::metrics::{Metrics, Requests};
use service::problem::{self, Problem};
use service::secrets::Secret;
use service::{body, idempotency, peer};
use tokio::time::Instant;

use super::caller::{Caller, stranger};
use crate::shop::Shop;
use crate::store::Once;

pub(crate) struct App {
    /// Empty until the store could be reached for the first time.
    pub(crate) shop: Arc<OnceLock<Shop>>,
    pub(crate) config: ShopConfig,
    /// Of this instance.
    pub(crate) name: String,
    /// Of `menagerie` itself: measuring, checking, looking at the counters.
    pub(crate) operator_token: Secret,
    pub(crate) metrics: Metrics,
    pub(crate) counters: Counters,
}

/// A request with a JSON body, read once.
pub(super) struct Read {
    pub(super) parts: Parts,
    pub(super) body: Bytes,
}

impl App {
    pub(super) fn shop(&self) -> problem::Result<&Shop> {
        self.shop.get().ok_or_else(|| {
            Problem::new(
                problem::NOT_READY,
                "The shop has not reached its store yet. Nothing was done.",
            )
        })
    }

    pub(super) async fn read(&self, request: Request) -> problem::Result<Read> {
        let (parts, body) = request.into_parts();
        let body = self.body(body).await?;
        Ok(Read { parts, body })
    }

    async fn body(&self, body: Body) -> problem::Result<Bytes> {
        let deadline = Instant::now() + Duration::from_millis(self.config.request_ms_max);
        body::read(body, self.config.body_bytes_max, deadline).await
    }
}

impl Read {
    /// The members of the JSON body.
    pub(super) fn fields(&self) -> problem::Result<Fields> {
        Fields::read(&self.parts.headers, &self.body)
    }

    /// The request as one that happens once, if it carries an idempotency key. `named` is the user that it is for.
    pub(super) fn once(
        &self,
        shop: &Shop,
        caller: &Caller,
        named: Option<&str>,
    ) -> problem::Result<Option<Once>> {
        let Some(key) = idempotency::key(&self.parts.headers)? else {
            return Ok(None);
        };
        let owner = caller.owner();
        let is_stranger = owner.is_none();
        let owner = owner.unwrap_or_else(|| stranger(peer::network(&self.parts), named));
        let (method, path) = (self.parts.method.as_str(), self.parts.uri.path());
        let tag = self.parts.headers.get(axum::http::header::IF_MATCH);
        let tag = tag.map(axum::http::HeaderValue::as_bytes).unwrap_or_default();
        let once = Once::new(
            &shop.secret,
            &owner,
            key,
            &[method.as_bytes(), path.as_bytes(), tag, &self.body],
        );
        Ok(Some(if is_stranger {
            once.of_stranger(&shop.secret, key)
        } else {
            once
        }))
    }
}

/// What is counted. Labels come from the code alone.
#[derive(Clone)]
pub(crate) struct Counters {
    pub(crate) requests: Requests,
    pub(crate) orders: IntCounterVec,
}

impl Counters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            requests: metrics.requests("shop_requests_total"),
            orders: metrics.counters(
                "shop_orders_total",
                "Orders that were brought to an end here, by how",
                &["status"],
            ),
        }
    }
}
