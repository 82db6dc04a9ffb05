//! One keep-alive connection of a load generator: plain requests to one node.
//! Invariant: each has a client, and so a connection, of its own; two never share one.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Request, Url};
use service::http::{self, Timeouts};

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_TTL: HeaderName = HeaderName::from_static("idempotency-ttl");
/// As long as `KvClient` has the store remember its answers.
const TTL: HeaderValue = HeaderValue::from_static("60");

pub(crate) struct Connection {
    client: Client,
    headers: HeaderMap,
}

/// How a request ended, as far as a generator cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Done,
    /// The node answered with this status.
    Refused(u16),
    /// No whole answer came.
    Broken,
    /// There was no connection, and so nothing was sent.
    Unreached,
}

impl Connection {
    pub(crate) fn new(token: &str, deadline: Duration) -> anyhow::Result<Self> {
        let client = http::client(Timeouts {
            connect: deadline,
            call: Some(deadline),
            idle_per_host_max: 1,
            ..Timeouts::default()
        });
        let mut headers = HeaderMap::new();
        let bearer =
            HeaderValue::try_from(format!("Bearer {token}")).context("write the token into a header")?;
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self { client, headers })
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        url: Url,
        body: Option<Bytes>,
        key: Option<HeaderValue>,
    ) -> Outcome {
        let mut request = Request::new(method, url);
        *request.headers_mut() = self.headers.clone();
        if let Some(key) = key {
            request.headers_mut().insert(IDEMPOTENCY_KEY, key);
            request.headers_mut().insert(IDEMPOTENCY_TTL, TTL);
        }
        *request.body_mut() = body.map(Into::into);
        let answer = match self.client.execute(request).await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => return Outcome::Unreached,
            Err(_) => return Outcome::Broken,
        };
        let status = answer.status();
        // The body is read to its end, or the connection could not be used again.
        if answer.bytes().await.is_err() {
            return Outcome::Broken;
        }
        if status.is_success() {
            Outcome::Done
        } else {
            Outcome::Refused(status.as_u16())
        }
    }
}
