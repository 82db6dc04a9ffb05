//! The beginning of a long answer: one attempt at one node, bounded up to the headers, and to the end of a refusal.
//! It must not know what the answer is for, nor what comes after its headers.

use crate::attempt;
use crate::call::Request;
use crate::client::{KvClient, TRY_TIME_MAX};
use crate::endpoints::{Endpoint, Tried};
use crate::error::{Error, Result, Trouble};
use crate::verdict;
use reqwest::Response;
use std::sync::Arc;
use tokio::time::{Duration, Instant, timeout_at};

impl KvClient {
    /// The next node and its answer, for what begins at once where it begins at all.
    pub(crate) async fn open(
        &self,
        request: Request,
        tried: &mut Tried,
    ) -> Result<(Arc<Endpoint>, Response)> {
        let endpoint = self.shared.endpoints.choose(request.prefer, tried);
        // However patient the caller is: one that stands still is to be left for another.
        let try_time = self.shared.try_time_max.min(TRY_TIME_MAX);
        let limit = self.deadline().min(try_time);
        let response = self.open_at(&endpoint, request, limit).await?;
        Ok((endpoint, response))
    }

    /// The answer of this node, if it begins within `limit`.
    pub(crate) async fn open_at(
        &self,
        endpoint: &Endpoint,
        request: Request,
        limit: Duration,
    ) -> Result<Response> {
        let (endpoints, ends) = (&self.shared.endpoints, Instant::now() + limit);
        let request = self.shared.finish(request);
        let outgoing = attempt::outgoing(&endpoint.base, &request);
        let unavailable = |source| {
            endpoints.failed(endpoint);
            Err(Error::Unavailable { source })
        };
        let mut response = match timeout_at(ends, self.shared.http.execute(outgoing)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return unavailable(Trouble::Connection(error)),
            Err(_elapsed) => return unavailable(Trouble::Timeout),
        };
        endpoint.answered();
        let status = response.status();
        if status.is_success() {
            endpoints.served(endpoint);
            return Ok(response);
        }
        let body = match timeout_at(ends, attempt::body(&mut response)).await {
            Ok(Ok(body)) => body,
            Ok(Err(trouble)) => return unavailable(trouble),
            Err(_elapsed) => return unavailable(Trouble::Timeout),
        };
        let problem = verdict::problem_of(status, &body);
        if status.is_server_error() || status.as_u16() == 429 {
            return Err(Error::Unavailable {
                source: Trouble::Problem(problem),
            });
        }
        Err(verdict::error_of(problem, Some(response.headers())))
    }
}
