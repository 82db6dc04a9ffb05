//! A small client of etcd's v3 API, to put it beside the store in the same run: as much as the comparison needs.
//! Invariant: a call is sent once and never repeated, so that what is measured is one call.
//! `proto` is how messages are written; it must not know what is measured.

#[cfg(test)]
mod bent;
mod connection;
mod proto;
mod watching;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use hyper::http::uri::Authority;
use tokio::time::{Instant, timeout_at};

pub(crate) use connection::Failed;
use connection::{Open, framed, request};
use proto::{Message, number, pieces};
pub(crate) use watching::Watches;

const ASK_DEADLINE: Duration = Duration::from_millis(500);

/// One connection to one member, for one call at a time.
pub(crate) struct Client {
    to: Authority,
    deadline: Duration,
    /// While no call is under way.
    open: Mutex<Option<Open>>,
}

/// One message, made before it is sent, since making it is no part of what is measured.
#[derive(Clone)]
pub(crate) struct Call {
    path: &'static str,
    framed: Bytes,
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
    fn new(path: &'static str, message: Message) -> Self {
        let framed = framed(&message.end());
        Self { path, framed }
    }

    pub(crate) fn put(key: &str, value: &[u8]) -> Self {
        Self::new("/etcdserverpb.KV/Put", put(key, value))
    }

    pub(crate) fn get(key: &str) -> Self {
        let message = Message::default().piece(1, key.as_bytes());
        Self::new("/etcdserverpb.KV/Range", message)
    }

    /// Keys that begin with this, at most so many.
    pub(crate) fn range(prefix: &str, limit: u64) -> Self {
        let message = Message::default().piece(1, prefix.as_bytes());
        let message = message.piece(2, &behind(prefix)).number(3, limit);
        Self::new("/etcdserverpb.KV/Range", message)
    }

    /// Puts all of them at once.
    pub(crate) fn puts<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut message = Message::default();
        for (key, value) in pairs {
            message = message.message(2, Message::default().message(2, put(key, value)));
        }
        Self::new("/etcdserverpb.KV/Txn", message)
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
        Self::new("/etcdserverpb.KV/Txn", message.message(2, put).message(3, get))
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
        let to = Authority::try_from(address).with_context(|| format!("ask {address}"))?;
        Ok(Self {
            to,
            deadline,
            open: Mutex::new(None),
        })
    }

    pub(crate) async fn call(&self, call: &Call) -> Result<Bytes, Failed> {
        let until = Instant::now() + self.deadline;
        let asked = timeout_at(until, self.ask(call, until)).await;
        asked.unwrap_or(Err(Failed::Broken))
    }

    async fn ask(&self, call: &Call, until: Instant) -> Result<Bytes, Failed> {
        let mut open = match self.kept().await {
            Some(kept) => kept,
            None => self.opened(until).await.ok_or(Failed::Unreached)?,
        };
        let request = request(&self.to, call.path);
        let answer = open.ask(request, call.framed.clone()).await;
        // One on which something broke is not used again.
        if matches!(answer, Ok(_) | Err(Failed::Refused(_))) {
            self.keep(Some(open));
        }
        answer
    }

    /// The connection of before, if it still stands.
    async fn kept(&self) -> Option<Open> {
        let mut open = self.keep(None)?;
        open.is_ready().await.then_some(open)
    }

    /// A new one, if the member takes it: one that does not was sent nothing, however long one waited.
    async fn opened(&self, until: Instant) -> Option<Open> {
        timeout_at(until, Open::new(&self.to)).await.ok()?.ok()
    }

    fn keep(&self, open: Option<Open>) -> Option<Open> {
        let mut kept = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *kept, open)
    }

    /// Adds one to a decimal number, again and again until nobody else came between reading and writing it. A try that
    /// came too late reads for the next in the same call, as anybody would write it who wants it fast.
    pub(crate) async fn add_one(&self, key: &str) -> Result<(), Failed> {
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
    let call = Call::new("/etcdserverpb.Maintenance/Status", Message::default());
    MemberStatus::of(&client.call(&call).await.ok()?)
}

#[cfg(test)]
mod tests {
    use super::connection::PREFIX_BYTES;
    use super::*;

    #[test]
    fn a_put_that_came_too_late_reads_in_the_same_call() {
        let call = Call::put_if_unchanged("n", 7, b"42");
        let message = &call.framed[PREFIX_BYTES..];
        let instead = pieces(message, 3).next().unwrap();
        let range = pieces(instead, 1).next().unwrap();
        assert_eq!(pieces(range, 1).next().unwrap(), b"n");
        let kv = Message::default().piece(1, b"n").number(3, 9).piece(5, b"43");
        let range = Message::default().message(2, kv);
        let answer = Message::default().message(3, Message::default().message(1, range));
        assert_eq!(counted_instead(&answer.end()), (9, 43));
        assert_eq!(counted_instead(&[]), (0, 0));
    }
}
