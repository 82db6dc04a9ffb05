//! What moves the bytes of a connection, polled only while somebody waits for something on it, so that there need be no
//! task for it: a generator of load has as little to do as can be.
//! Invariant: every connection that calls are measured on is moved by this, to the store as to etcd, or the one would
//! cost more than the other.

use std::pin::pin;

use futures_util::future::{BoxFuture, Either, Fuse, select};

pub(crate) type Moving = Fuse<BoxFuture<'static, ()>>;

pub(crate) async fn beside<T>(moving: &mut Moving, what: impl Future<Output = T>) -> T {
    match select(moving, pin!(what)).await {
        // Whoever waits for something on a connection that has ended learns so.
        Either::Left(((), what)) => what.await,
        Either::Right((done, _)) => done,
    }
}
