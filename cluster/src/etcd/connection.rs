//! One HTTP/2 connection to a member, and a call of gRPC on it: as bare as a generator's connection to the store, since
//! what either takes of the processors it takes from those that are measured.
//! Invariant: a call is sent once, and has succeeded only when the last that is said of it is the status zero.

use std::future::poll_fn;

use anyhow::Context as _;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use hyper::http::uri::{Authority, Parts, PathAndQuery, Scheme};
use hyper::{Method, Request, Uri};
use tokio::net::TcpStream;

use crate::moving::{Moving, beside};

/// A page of a thousand large values takes some of it.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// What the member may send before it is told that it was read: as much as hyper lets a server send, since windows of
/// the least size would have pages of many rows wait for that.
const WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 5 << 20;
/// What gRPC writes before each message: a byte that says whether it is compressed, and its length.
pub(super) const PREFIX_BYTES: usize = 5;
const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Why a call came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failed {
    #[error("there is no connection, and so nothing was sent")]
    Unreached,
    #[error("no whole answer came")]
    Broken,
    /// With this code of gRPC.
    #[error("the member refused it with code {0}")]
    Refused(u16),
}

impl From<h2::Error> for Failed {
    fn from(_error: h2::Error) -> Self {
        Self::Broken
    }
}

/// Whom to ask for what.
pub(super) fn request(to: &Authority, path: &'static str) -> Request<()> {
    let mut parts = Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(to.clone());
    parts.path_and_query = Some(PathAndQuery::from_static(path));
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_parts(parts).expect("it has a scheme, a host and a path");
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    request
}

/// A message as it is sent.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("messages of ours are far below 4 GiB");
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(length);
    framed.put_slice(message);
    framed.freeze()
}

/// The first message, once it is whole; one that is compressed or too long is none of those that were asked for.
pub(super) fn take_message(rest: &mut BytesMut) -> Result<Option<Bytes>, Failed> {
    let Some(&[compressed, ref length @ ..]) = rest.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if compressed != 0 || length > ANSWER_BYTES_MAX {
        return Err(Failed::Broken);
    }
    if rest.len() < PREFIX_BYTES + length {
        return Ok(None);
    }
    rest.advance(PREFIX_BYTES);
    Ok(Some(rest.split_to(length).freeze()))
}

/// What has come in of an answer, which makes room for more; `None` at its end.
pub(super) async fn piece(body: &mut RecvStream) -> Result<Option<Bytes>, Failed> {
    let Some(piece) = body.data().await else {
        return Ok(None);
    };
    let piece = piece?;
    body.flow_control().release_capacity(piece.len())?;
    Ok(Some(piece))
}

pub(super) struct Open {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) moving: Moving,
}

impl Open {
    pub(super) async fn new(to: &Authority) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(to.as_str()).await?;
        stream.set_nodelay(true)?;
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let opened = builder.handshake(stream).await;
        let (sender, connection) = opened.context("speak HTTP/2")?;
        let moving = connection.map(drop).boxed().fuse();
        Ok(Self { sender, moving })
    }

    /// Whether it still stands.
    pub(super) async fn is_ready(&mut self) -> bool {
        let ready = poll_fn(|context| self.sender.poll_ready(context));
        beside(&mut self.moving, ready).await.is_ok()
    }

    pub(super) async fn ask(&mut self, request: Request<()>, framed: Bytes) -> Result<Bytes, Failed> {
        beside(&mut self.moving, exchange(&mut self.sender, request, framed)).await
    }
}

async fn exchange(
    sender: &mut SendRequest<Bytes>,
    request: Request<()>,
    framed: Bytes,
) -> Result<Bytes, Failed> {
    let (answer, mut message) = sender.send_request(request, false)?;
    message.send_data(framed, true)?;
    let (head, mut body) = answer.await?.into_parts();
    let mut whole = BytesMut::new();
    while let Some(piece) = piece(&mut body).await? {
        if whole.len() + piece.len() > PREFIX_BYTES + ANSWER_BYTES_MAX {
            return Err(Failed::Broken);
        }
        whole.extend_from_slice(&piece);
    }
    let trailers = body.trailers().await?;
    // What refuses at once has a head and no more.
    succeeded(trailers.as_ref().unwrap_or(&head.headers))?;
    let answer = take_message(&mut whole)?;
    answer.filter(|_| whole.is_empty()).ok_or(Failed::Broken)
}

fn succeeded(told: &HeaderMap) -> Result<(), Failed> {
    let status = told.get(STATUS).and_then(|status| status.to_str().ok());
    match status.and_then(|digits| digits.parse().ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(Failed::Refused(code)),
        None => Err(Failed::Broken),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use h2::server::SendResponse;
    use hyper::Response;
    use service::tasks::Tasks;
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::super::proto::Message;
    use super::super::{Call, Client};
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Answers as each path says; how often it was connected to.
    async fn member() -> (String, watch::Receiver<u32>, Tasks) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (count, counted) = watch::channel(0);
        let tasks = Tasks::new();
        tasks.spawn("member", async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.send_modify(|count| *count += 1);
                let mut connection = h2::server::handshake(stream).await.unwrap();
                // One that was dropped before its message has come in would be reset.
                let mut requests = Vec::new();
                while let Some(Ok((request, answer))) = connection.accept().await {
                    assert_eq!(request.headers()[CONTENT_TYPE], "application/grpc");
                    assert_eq!(request.headers()[TE], "trailers");
                    reply(request.uri().path(), answer);
                    requests.push(request);
                }
            }
        });
        (address, counted, tasks)
    }

    fn reply(path: &str, mut answer: SendResponse<Bytes>) {
        let told = |code: &'static str| HeaderMap::from_iter([(STATUS, HeaderValue::from_static(code))]);
        let mut head = Response::new(());
        if path == "/refused" {
            *head.headers_mut() = told("9");
            answer.send_response(head, true).unwrap();
            return;
        }
        let mut body = answer.send_response(head, false).unwrap();
        let whole = framed(b"answer");
        let (first, rest) = whole.split_at(3);
        body.send_data(Bytes::copy_from_slice(first), false).unwrap();
        if path != "/cut" {
            body.send_data(Bytes::copy_from_slice(rest), false).unwrap();
        }
        body.send_trailers(told(if path == "/late" { "14" } else { "0" }))
            .unwrap();
    }

    async fn call(client: &Client, path: &'static str) -> Result<Bytes, Failed> {
        client.call(&Call::new(path, Message::default())).await
    }

    #[tokio::test]
    async fn one_connection_serves_all_calls_until_one_breaks() {
        let (address, counted, _tasks) = member().await;
        let client = Client::new(&address, DEADLINE).unwrap();
        for _ in 0..3 {
            assert_eq!(call(&client, "/whole").await.unwrap(), "answer");
            assert_eq!(call(&client, "/refused").await, Err(Failed::Refused(9)));
            assert_eq!(call(&client, "/late").await, Err(Failed::Refused(14)));
        }
        assert_eq!(*counted.borrow(), 1);
        assert_eq!(call(&client, "/cut").await, Err(Failed::Broken));
        assert_eq!(call(&client, "/whole").await.unwrap(), "answer");
        assert_eq!(*counted.borrow(), 2);
    }

    #[tokio::test]
    async fn nobody_and_silence_are_told_apart() {
        // The kernel takes the connection and the call; nobody ever looks at them.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let client = Client::new(&address, Duration::from_millis(300)).unwrap();
        assert_eq!(call(&client, "/whole").await, Err(Failed::Broken));
        drop(listener);
        assert_eq!(call(&client, "/whole").await, Err(Failed::Unreached));
    }
}
