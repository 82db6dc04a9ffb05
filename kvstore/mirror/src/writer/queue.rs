//! What the writer is to do, one order after the other, and how much of it may wait.
//! Invariant: what waits, and what is being carried out, is bounded in number and in bytes: a disk that is full or slow
//! fills no memory. Whoever brings more waits for room: the watch is not read meanwhile, and goes on where it was once
//! the store has said that it lags. An order without anything to write takes no room, and waits for nobody's.

use std::sync::Arc;

use anyhow::Context as _;
use kvstore_client::wire::mirror::KeptAnswer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{BYTES_MAX, Order};
use crate::row::{Change, Row};

/// Orders that may wait.
const ORDERS_MAX: usize = 4096;
/// Beside the transaction that is being written, the next one may be gathered.
const ROOM_BYTES: usize = 2 * BYTES_MAX;

/// Held as long as what it is for is in memory.
pub(crate) type Room = Option<OwnedSemaphorePermit>;

/// An order, with the room that it takes.
pub(crate) struct Waiting {
    pub(crate) order: Order,
    pub(crate) room: Room,
}

#[derive(Clone)]
pub(crate) struct Orders {
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

impl Orders {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Waiting>) {
        let (queue, waiting) = mpsc::channel(ORDERS_MAX);
        let room = Arc::new(Semaphore::new(ROOM_BYTES));
        (Self { queue, room }, waiting)
    }

    /// Once there is room for it. Cancel-safe: what was not sent has taken none.
    pub(crate) async fn send(&self, order: Order) -> anyhow::Result<()> {
        let room = self.room_for(bytes_of(&order)).await;
        let sent = self.queue.send(Waiting { order, room }).await;
        sent.ok().context("the writer has ended")
    }

    async fn room_for(&self, bytes: usize) -> Room {
        if bytes == 0 {
            return None;
        }
        // An order that is larger than all the room passes when it is alone.
        let bytes = u32::try_from(bytes.min(ROOM_BYTES)).expect("all the room is less than 4 GiB");
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        Some(room.expect("nobody closes the room"))
    }
}

/// Roughly, in memory.
fn bytes_of(order: &Order) -> usize {
    match order {
        Order::Apply(batch) => {
            let kept = batch.kept.as_ref().map_or(0, bytes_of_answer);
            kept + batch.changes.len() * size_of::<Change>() + batch.bytes()
        }
        Order::Rows(rows) => rows.iter().map(|row| size_of::<Row>() + row.bytes()).sum(),
        Order::Answers(kept) => kept.iter().map(bytes_of_answer).sum(),
        Order::Flush
        | Order::Head(_)
        | Order::SetAside(_)
        | Order::TryToWrite(_)
        | Order::BeginRebuild(_)
        | Order::EndRebuild { .. }
        | Order::AbortRebuild => 0,
    }
}

fn bytes_of_answer(kept: &KeptAnswer) -> usize {
    let texts = kept.owner.len() + kept.key.len();
    size_of::<KeptAnswer>() + texts + kept.fingerprint.len() + kept.reply.len()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use tokio::time::Instant;

    use super::*;
    use crate::row::Batch;

    /// Orders of so many MiB each, all of which share one.
    fn orders(mib: usize) -> [Order; 3] {
        let value = Bytes::from(vec![0; 1 << 20]);
        let row = Row {
            value: value.clone(),
            ..Row::default()
        };
        let kept = KeptAnswer {
            reply: value,
            ..KeptAnswer::default()
        };
        let batch = Batch {
            revision: 1,
            changes: vec![Change::Put(row.clone()); mib],
            kept: None,
            arrived: Instant::now(),
        };
        [
            Order::Apply(batch),
            Order::Rows(vec![row; mib]),
            Order::Answers(vec![kept; mib]),
        ]
    }

    /// Whether there was room at once.
    fn fits(queue: &Orders, order: Order) -> bool {
        queue.send(order).now_or_never().is_some_and(|sent| sent.is_ok())
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes_until_it_was_carried_out() {
        for (order, more) in orders(40).into_iter().zip(orders(40)) {
            let (queue, mut waiting) = Orders::new();
            assert!(fits(&queue, order));
            let [another, ..] = orders(40);
            assert!(!fits(&queue, another), "it waits");
            let carried_out = waiting.recv().await.unwrap();
            let [another, ..] = orders(40);
            assert!(!fits(&queue, another), "it is being carried out");
            for empty in [Order::Flush, Order::AbortRebuild] {
                assert!(fits(&queue, empty), "it holds nothing");
            }
            drop(carried_out);
            assert!(fits(&queue, more));
        }
    }

    #[tokio::test]
    async fn an_order_larger_than_all_the_room_passes_alone() {
        for order in orders(100) {
            let (queue, _waiting) = Orders::new();
            let [small, ..] = orders(1);
            assert!(fits(&queue, order));
            assert!(!fits(&queue, small), "all the room is taken");
        }
    }

    #[tokio::test]
    async fn what_waits_for_a_writer_that_has_ended_is_over() {
        let (queue, waiting) = Orders::new();
        for fits_now in [true, false] {
            let [order, ..] = orders(40);
            assert_eq!(fits(&queue, order), fits_now);
        }
        drop(waiting);
        let [order, ..] = orders(40);
        let sent = queue.send(order).now_or_never();
        assert!(sent.expect("what waited has given its room back").is_err());
    }
}
