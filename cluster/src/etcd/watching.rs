//! Watches of a key, many on one connection, as etcd's own client has them.
//! Invariant: nothing moves but while what `Watches::open` answers beside them is polled.

use std::future::poll_fn;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use hyper::http::uri::Authority;

use super::connection::{Failed, Open, framed, piece, request, take_message};
use super::proto::{Message, pieces};
use crate::moving::Moving;

/// A connection that watches share.
pub(crate) struct Watches {
    to: Authority,
    sender: SendRequest<Bytes>,
}

impl Watches {
    pub(crate) async fn open(address: &str) -> anyhow::Result<(Self, Moving)> {
        let to = Authority::try_from(address).with_context(|| format!("ask {address}"))?;
        let Open { sender, moving } = Open::new(&to).await?;
        Ok((Self { to, sender }, moving))
    }

    /// Every change of this key from now on; it has begun when this returns.
    pub(crate) async fn watch(&self, key: &str) -> Result<Watching, Failed> {
        let mut sender = self.sender.clone();
        poll_fn(|context| sender.poll_ready(context)).await?;
        let request = request(&self.to, "/etcdserverpb.Watch/Watch");
        let (answer, mut requests) = sender.send_request(request, false)?;
        let create = Message::default().piece(1, key.as_bytes());
        let create = Message::default().message(1, create).end();
        requests.send_data(framed(&create), false)?;
        let mut watching = Watching {
            answers: answer.await?.into_body(),
            rest: BytesMut::new(),
            _requests: requests,
        };
        watching.next().await?;
        Ok(watching)
    }
}

pub(crate) struct Watching {
    answers: RecvStream,
    /// The begin of a message that is not whole yet.
    rest: BytesMut,
    /// Stays open, or the watch would end.
    _requests: SendStream<Bytes>,
}

impl Watching {
    /// The values that were put, by the next message; none in the first, which says that it has begun.
    pub(crate) async fn next(&mut self) -> Result<Vec<String>, Failed> {
        loop {
            if let Some(message) = take_message(&mut self.rest)? {
                return Ok(values(&message));
            }
            // A watch has no end of its own.
            let piece = piece(&mut self.answers).await?.ok_or(Failed::Broken)?;
            self.rest.extend_from_slice(&piece);
        }
    }
}

/// The values that a message of a watch says were put.
pub(super) fn values(answer: &[u8]) -> Vec<String> {
    let events = pieces(answer, 11).filter_map(|event| pieces(event, 2).next());
    let values = events.filter_map(|kv| pieces(kv, 5).next());
    values
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect()
}
