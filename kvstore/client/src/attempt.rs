//! One attempt at one node: sent and answered, surely not sent, or lost in between.
//! Invariant: only a connection that was never made counts as not sent.
//! It must not know about other nodes or other attempts.

use crate::call::Request;
use crate::error::Trouble;
use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use reqwest::{Response, StatusCode, Url};
use tokio::time::{Duration, timeout};

/// Pages are at most 4 MiB of values, which base64 and JSON may blow up to six times that.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub(crate) enum Outcome {
    Answer(Answer),
    NotSent(Trouble),
    Lost(Trouble),
}

pub(crate) async fn send(http: &reqwest::Client, base: &str, request: &Request, limit: Duration) -> Outcome {
    let exchange = async {
        match http.execute(outgoing(base, request)).await {
            Ok(response) => read(response).await,
            Err(error) if error.is_connect() => Outcome::NotSent(error.into()),
            Err(error) => Outcome::Lost(error.into()),
        }
    };
    match timeout(limit, exchange).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Outcome::Lost(Trouble::Timeout),
    }
}

pub(crate) fn outgoing(base: &str, request: &Request) -> reqwest::Request {
    let url = Url::parse(&[base, &request.target].concat())
        .expect("the base was checked when the client was built and the target is percent-encoded");
    let mut outgoing = reqwest::Request::new(request.method.clone(), url);
    *outgoing.headers_mut() = request.headers.clone();
    if !request.body.is_empty() {
        *outgoing.body_mut() = Some(request.body.clone().into());
    }
    outgoing
}

async fn read(mut response: Response) -> Outcome {
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    match body(&mut response).await {
        Ok(body) => Outcome::Answer(Answer {
            status,
            headers,
            body,
        }),
        Err(trouble) => Outcome::Lost(trouble),
    }
}

/// The whole body. Most come as one piece, which is handed on as it is.
pub(crate) async fn body(response: &mut Response) -> Result<Bytes, Trouble> {
    let Some(first) = response.chunk().await? else {
        return Ok(Bytes::new());
    };
    let Some(second) = response.chunk().await? else {
        return Ok(first);
    };
    let mut whole = BytesMut::from(first);
    let mut next = Some(second);
    while let Some(piece) = next {
        if whole.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(Trouble::TooLarge {
                bytes_max: ANSWER_BYTES_MAX,
            });
        }
        whole.extend_from_slice(&piece);
        next = response.chunk().await?;
    }
    Ok(whole.freeze())
}
