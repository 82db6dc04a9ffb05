//! A small client of etcd's v3 API, to put it beside the store in the same run: as much as the comparison needs.
//! Invariant: a call is sent once and never repeated, so that what is measured is one call.
//! `proto` is how messages are written; it must not know what is measured.

#[cfg(test)]
mod bent;
mod proto;

use std::error::Error as _;
use std::time::Duration;

use axum::http::uri::PathAndQuery;
use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use proto::{Message, number, pieces};

const CONNECT: Duration = Duration::from_secs(1);
const ASK_DEADLINE: Duration = Duration::from_millis(500);
/// A page of a thousand large values is more than the default takes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Messages are bytes here; what they mean is written and read by `proto`.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// A connection to one member; clones share it.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    deadline: Duration,
}

/// One message, made before it is sent, since making it is no part of what is measured.
#[derive(Clone)]
pub(crate) struct Call {
    path: &'static str,
    message: Bytes,
}

/// What a member says of itself.
pub(crate) struct MemberStatus {
    pub(crate) version: String,
    pub(crate) member: u64,
    /// Zero while there is none.
    pub(crate) leader: u64,
}

impl MemberStatus {
    fn of(answer: &[u8]) -> Option<Self> {
        let header = pieces(answer, 1).next()?;
        let version = pieces(answer, 2).next()?;
        Some(Self {
            version: String::from_utf8_lossy(version).into_owned(),
            member: number(header, 2),
            leader: number(answer, 4),
        })
    }
}

impl Call {
    pub(crate) fn put(key: &str, value: &[u8]) -> Self {
        Self {
            path: "/etcdserverpb.KV/Put",
            message: put(key, value).end(),
        }
    }

    pub(crate) fn get(key: &str) -> Self {
        Self {
            path: "/etcdserverpb.KV/Range",
            message: Message::default().piece(1, key.as_bytes()).end(),
        }
    }

    /// Keys that begin with this, at most so many.
    pub(crate) fn range(prefix: &str, limit: u64) -> Self {
        let message = Message::default().piece(1, prefix.as_bytes());
        Self {
            path: "/etcdserverpb.KV/Range",
            message: message.piece(2, &behind(prefix)).number(3, limit).end(),
        }
    }

    /// Puts all of them at once.
    pub(crate) fn puts<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut message = Message::default();
        for (key, value) in pairs {
            message = message.message(2, Message::default().message(2, put(key, value)));
        }
        Self {
            path: "/etcdserverpb.KV/Txn",
            message: message.end(),
        }
    }

    /// Puts the value only if the key was last changed by that revision; else the answer tells what it is now.
    fn put_if_unchanged(key: &str, revision: u64, value: &[u8]) -> Self {
        // Equal is 0 and so left out; 2 is the revision of the last change.
        let compare = Message::default()
            .number(2, 2)
            .piece(3, key.as_bytes())
            .number(6, revision);
        let put = Message::default().message(2, put(key, value));
        let get = Message::default().message(1, Message::default().piece(1, key.as_bytes()));
        let message = Message::default().message(1, compare);
        Self {
            path: "/etcdserverpb.KV/Txn",
            message: message.message(2, put).message(3, get).end(),
        }
    }
}

fn put(key: &str, value: &[u8]) -> Message {
    Message::default().piece(1, key.as_bytes()).piece(2, value)
}

/// The first key that does not begin with the prefix.
fn behind(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

impl Client {
    /// Connects with the first call.
    pub(crate) fn new(address: &str, deadline: Duration) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(CONNECT);
        Ok(Self {
            channel: endpoint.connect_lazy(),
            deadline,
        })
    }

    pub(crate) async fn call(&self, call: &Call) -> Result<Bytes, Status> {
        let asked = async {
            let mut grpc = self.grpc();
            grpc.ready()
                .await
                .map_err(|error| Status::from_error(Box::new(error)))?;
            let path = PathAndQuery::from_static(call.path);
            grpc.unary(Request::new(call.message.clone()), path, Raw).await
        };
        match tokio::time::timeout(self.deadline, asked).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_elapsed) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    fn grpc(&self) -> Grpc<Channel> {
        Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Adds one to a decimal number, again and again until nobody else came between reading and writing it. A try that
    /// came too late reads for the next in the same call, as anybody would write it who wants it fast.
    pub(crate) async fn add_one(&self, key: &str) -> Result<(), Status> {
        let mut seen = counted(&self.call(&Call::get(key)).await?);
        loop {
            let (revision, count) = seen;
            let call = Call::put_if_unchanged(key, revision, one_more(count).as_bytes());
            let answer = self.call(&call).await?;
            if number(&answer, 2) == 1 {
                return Ok(());
            }
            seen = counted_instead(&answer);
        }
    }

    /// Every change of this key from now on; it has begun when this returns.
    pub(crate) async fn watch(&self, key: &str) -> Result<Watching, Status> {
        let create = Message::default().piece(1, key.as_bytes());
        let request = Message::default().message(1, create).end();
        let mut grpc = self.grpc();
        grpc.ready()
            .await
            .map_err(|error| Status::from_error(Box::new(error)))?;
        // The stream of requests stays open, or the watch would end.
        let requests = futures_util::StreamExt::chain(
            futures_util::stream::once(async { request }),
            futures_util::stream::pending(),
        );
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let answers = grpc
            .streaming(Request::new(requests), path, Raw)
            .await?
            .into_inner();
        let mut watching = Watching { answers };
        watching.next().await?;
        Ok(watching)
    }
}

pub(crate) struct Watching {
    answers: Streaming<Bytes>,
}

impl Watching {
    /// The values that were put, by the next message; none in the first, which says that it has begun.
    pub(crate) async fn next(&mut self) -> Result<Vec<String>, Status> {
        let answer = self.answers.message().await?;
        let answer = answer.ok_or_else(|| Status::unavailable("the watch has ended"))?;
        Ok(values(&answer))
    }
}

/// The values that a message of a watch says were put.
fn values(answer: &[u8]) -> Vec<String> {
    let events = pieces(answer, 11).filter_map(|event| pieces(event, 2).next());
    let values = events.filter_map(|kv| pieces(kv, 5).next());
    values
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect()
}

/// True when the member took no connection.
pub(crate) fn nothing_was_sent(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = status.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return error.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        cause = error.source();
    }
    false
}

/// Revision of the last change, and the number, in the answer to a range; both are zero where there is no key.
fn counted(answer: &[u8]) -> (u64, u64) {
    let kv = pieces(answer, 2).next().unwrap_or_default();
    let digits = pieces(kv, 5).next().unwrap_or_default();
    let count = String::from_utf8_lossy(digits).parse().unwrap_or(0);
    (number(kv, 3), count)
}

/// The same in the answer to a put that was not done, since the key had changed.
fn counted_instead(answer: &[u8]) -> (u64, u64) {
    let response = pieces(answer, 3).next().unwrap_or_default();
    counted(pieces(response, 1).next().unwrap_or_default())
}

/// The key may have held any number before.
fn one_more(count: u64) -> String {
    count.saturating_add(1).to_string()
}

/// `None` when it does not answer.
pub(crate) async fn status(address: &str) -> Option<MemberStatus> {
    let client = Client::new(address, ASK_DEADLINE).ok()?;
    let call = Call {
        path: "/etcdserverpb.Maintenance/Status",
        message: Bytes::new(),
    };
    MemberStatus::of(&client.call(&call).await.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_that_came_too_late_reads_in_the_same_call() {
        let call = Call::put_if_unchanged("n", 7, b"42");
        let instead = pieces(&call.message, 3).next().unwrap();
        let range = pieces(instead, 1).next().unwrap();
        assert_eq!(pieces(range, 1).next().unwrap(), b"n");
        let kv = Message::default().piece(1, b"n").number(3, 9).piece(5, b"43");
        let range = Message::default().message(2, kv);
        let answer = Message::default().message(3, Message::default().message(1, range));
        assert_eq!(counted_instead(&answer.end()), (9, 43));
        assert_eq!(counted_instead(&[]), (0, 0));
    }
}
