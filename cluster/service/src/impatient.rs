//! A connection whose other end must take what it is sent.
//! Invariant: only a write that waits counts. Whoever takes some kilobytes a second is waited for as long as it takes (the
//! kernel of a reader tells of it in steps of a sixteenth of its buffer), a connection on which nothing is said lasts for
//! hours, and a write that goes on at once costs no timer.
//! It stands below TLS, which takes in much of a write before it lets the writer wait.
//! It must not know what is sent.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::arrival::LastRead;

pub(crate) struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// By when the write that waits must have gone on, be it by a byte; `None` while none waits.
    until: Option<Instant>,
    /// Made for the first write that waits. Later ones do not wind it up: it rings too early for them at most once in
    /// the time that each has.
    timer: Option<Pin<Box<Sleep>>>,
    last_read: LastRead,
}

impl<S> Impatient<S> {
    pub(crate) fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            last_read: LastRead::new(),
            until: None,
            timer: None,
        }
    }

    /// Goes on being told as this is read from.
    pub(crate) fn last_read(&self) -> LastRead {
        self.last_read.clone()
    }

    /// What comes of a write, unless it has waited for too long.
    fn judged<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.until = None;
            return written;
        }
        let patience = self.patience;
        let until = *self.until.get_or_insert_with(|| Instant::now() + patience);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        while timer.as_mut().poll(context).is_ready() {
            if timer.deadline() >= until {
                let waited = format!("nothing of what was sent has been taken for {patience:?}");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, waited)));
            }
            timer.as_mut().reset(until);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Before and not after: this process may be held right behind it.
        self.last_read.note();
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judged(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.judged(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.judged(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judged(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_mins(1);
    const SHORT: Duration = Duration::from_millis(5);
    /// As much as waits between the two ends.
    const FULL: &[u8] = b"full";

    async fn filled(patience: Duration) -> (Impatient<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(FULL.len());
        let mut ours = Impatient::new(ours, patience);
        ours.write_all(FULL).await.unwrap();
        assert!(ours.timer.is_none(), "it went on at once");
        (ours, theirs)
    }

    fn is_timed_out<T: std::fmt::Debug>(told: io::Result<T>) -> bool {
        told.unwrap_err().kind() == io::ErrorKind::TimedOut
    }

    #[tokio::test]
    async fn a_write_that_nobody_takes_fails() {
        let (mut ours, _theirs) = filled(SHORT).await;
        let written = timeout(LONG, ours.write(b"more")).await.unwrap();
        assert!(is_timed_out(written));
        let pieces = [IoSlice::new(b"in"), IoSlice::new(b"pieces")];
        let written = timeout(LONG, ours.write_vectored(&pieces)).await.unwrap();
        assert!(is_timed_out(written));
    }

    /// What goes on may have waited for all of its time, and the next one has as much again.
    #[tokio::test]
    async fn who_takes_a_little_now_and_then_is_waited_for() {
        let (mut ours, mut theirs) = filled(SHORT).await;
        assert!(ours.write(FULL).now_or_never().is_none(), "there is no room");
        ours.timer.as_mut().unwrap().await;
        // Its time is over, but there is room again before anybody looks.
        theirs.read_u8().await.unwrap();
        assert_eq!(ours.write(FULL).await.unwrap(), 1);
        ours.patience = LONG;
        // The timer has rung for the write before this one.
        assert!(ours.write(FULL).now_or_never().is_none());
        theirs.read_u8().await.unwrap();
        assert_eq!(ours.write(FULL).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_connection_on_which_nothing_is_said_lasts() {
        let (mut ours, mut theirs) = filled(SHORT).await;
        assert!(ours.write(FULL).now_or_never().is_none(), "there is no room");
        theirs.read_exact(&mut [0; FULL.len()]).await.unwrap();
        ours.write_all(FULL).await.unwrap();
        let heard = timeout(SHORT * 4, ours.read_u8()).await;
        assert!(heard.is_err(), "{heard:?}");
        theirs.write_u8(7).await.unwrap();
        assert_eq!(ours.read_u8().await.unwrap(), 7);
    }
}
