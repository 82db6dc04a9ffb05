//! Who works on the store while it is broken, and who watches.
//! Invariant: whoever begins to work or to watch is expected to be served again after each fault, and so is each node's
//! reader; a check of everybody that knew only some of them would pass over the rest.

use std::sync::Arc;

use anyhow::Context as _;
use kvstore_client::KvClient;
use service::tasks::Tasks;

use super::auditor::Auditor;
use super::book::Book;
use super::checkouts::Checkouts;
use super::ground::Ground;
use super::watchers::Watcher;
use super::{clients, floor, leases, looks, money, past, plain, scans, walks};
use crate::arena::{Lives, Server};

pub(super) struct Stage {
    pub(super) book: Arc<Book>,
    /// One on each node, in their order, and one on any.
    pub(super) watchers: Vec<Watcher>,
    pub(super) auditor: Auditor,
    pub(super) checkouts: Checkouts,
}

impl Stage {
    pub(super) async fn set(
        ground: &Ground,
        workers: &Tasks,
        witnesses: &Tasks,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let book = Arc::new(Book::new());
        let from = ground
            .client
            .revision()
            .await
            .context("read the first revision")?
            + 1;
        let mut watchers = Vec::new();
        for (index, node) in ground.store.config.nodes.iter().enumerate() {
            let client = ground.only(index)?;
            watchers.push(Watcher::start(node.name(), &client, from, witnesses, &book).await?);
        }
        // That one goes on at another node when its own has failed.
        let anywhere = Watcher::start("any node".to_owned(), &ground.client, from, witnesses, &book);
        watchers.push(anywhere.await?);
        let auditor = Auditor::start(&ground.client, from, witnesses, &book).await?;
        money::open(&ground.client).await.context("open the accounts")?;
        let checkouts = Checkouts::start(ground, workers, &book)
            .await
            .context("open the shop")?;
        let endpoints = ground.store.endpoints();
        let lives: Vec<Lives> = ground.store.servers.iter().map(Server::lives).collect();
        set_to_work(
            &ground.client,
            &endpoints,
            &lives,
            ground.store.token(),
            workers,
            &book,
            seed,
        )?;
        floor::start(&ground.client, (&watchers, &auditor), workers, &book);
        Ok(Self {
            book,
            watchers,
            auditor,
            checkouts,
        })
    }
}

/// Those who need nothing but the store.
fn set_to_work(
    client: &KvClient,
    endpoints: &[String],
    lives: &[Lives],
    token: &str,
    workers: &Tasks,
    book: &Arc<Book>,
    seed: u64,
) -> kvstore_client::Result<()> {
    clients::start(endpoints, token, workers, book, seed)?;
    looks::start(endpoints, lives, token, workers, book)?;
    scans::start(endpoints, token, workers, book)?;
    walks::start(endpoints, token, workers, book)?;
    past::start(endpoints, token, workers, book, seed)?;
    money::start(client, workers, book, seed);
    leases::start(client, workers, book, seed);
    plain::start(endpoints, token, workers, book, seed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::arena::free_address;
    use crate::chaos::buyers::Market;

    const EXPECTED: [&str; 46] = [
        "additions",
        "at-least reads of n1",
        "at-least reads of n2",
        "at-least reads of n3",
        "bounded reads of n1",
        "bounded reads of n2",
        "bounded reads of n3",
        "buyer chaos-0",
        "buyer chaos-1",
        "buyer chaos-back",
        "chaos/paid/0",
        "chaos/paid/1",
        "client 0",
        "client 1",
        "client 2",
        "client 3",
        "client 4",
        "client 5",
        "client 6",
        "client 7",
        "giving up of history",
        "lease holder 0",
        "lease holder 1",
        "lease holder 2",
        "local reads of n1",
        "local reads of n2",
        "local reads of n3",
        "plain additions at n1",
        "plain additions at n2",
        "plain additions at n3",
        "plain writes at n1",
        "plain writes at n2",
        "plain writes at n3",
        "reads of n1",
        "reads of n2",
        "reads of n3",
        "scans of n1",
        "scans of n2",
        "scans of n3",
        "the past of n1",
        "the past of n2",
        "the past of n3",
        "walks over pages",
        "watch of the ledger",
        "watch of the shop",
        "watch on n1",
    ];

    #[tokio::test]
    async fn everybody_who_works_or_watches_is_expected_to_be_served_again() {
        let (book, tasks) = (Arc::new(Book::new()), Tasks::new());
        // Nobody is there; who is expected must not depend on anybody's answer.
        let nodes: Vec<String> = (0..3).map(|_| free_address().unwrap()).collect();
        let client = clients::client(&nodes, "token", &tasks).unwrap();
        let lives = [(); 3].map(|()| Lives::default());
        set_to_work(&client, &nodes, &lives, "token", &tasks, &book, 1).unwrap();
        floor::start(&client, (&[], &Auditor::default()), &tasks, &book);
        Market {
            shop: free_address().unwrap(),
            token: "token".to_owned(),
            goods: vec!["1".to_owned()],
            cards: vec!["2".to_owned()],
        }
        .open(&tasks, &book);
        let client = client.with_deadline(Duration::from_millis(20));
        // Nor is anybody there to be watched.
        let watcher = Watcher::start("n1".to_owned(), &client, 1, &tasks, &book);
        watcher.await.err().unwrap();
        let auditor = Auditor::start(&client, 1, &tasks, &book);
        auditor.await.err().unwrap();
        tasks.stop();
        let expected = book.not_served_since(u64::MAX).into_iter();
        let expected: Vec<String> = expected.map(|(who, _)| who).collect();
        assert_eq!(expected, EXPECTED);
    }
}
