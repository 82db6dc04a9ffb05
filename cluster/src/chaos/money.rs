//! Transfers between a few accounts, two keys at once. Whether money was made or lost is judged by the watchers, who
//! see every revision. Invariant: a transfer never takes more than there is; its two sides, and the number under which
//! it is remembered, are one transaction.

use std::sync::Arc;
use std::time::Duration;

use kvstore_client::wire::txn::Op;
use kvstore_client::{KvClient, Txn};
use service::tasks::Tasks;

use super::book::Book;
use super::random::Random;
use super::sent::Fate;
use super::served::SERVED;

pub(super) const PREFIX: &str = "chaos/account/";
/// What each payer has paid last, by its number.
pub(super) const PAID: &str = "chaos/paid/";
const ACCOUNTS: u64 = 8;
const EACH: i64 = 1000;
pub(super) const TOTAL: i64 = 8 * EACH;
const PAYERS: u64 = 2;
const PAUSE: Duration = Duration::from_millis(5);

fn account(number: u64) -> String {
    format!("{PREFIX}{number}")
}

/// All accounts at once, so that no revision has only some of them.
pub(super) async fn open(client: &KvClient) -> kvstore_client::Result<()> {
    let mut txn = Txn::new();
    for number in 0..ACCOUNTS {
        txn = txn.then(Op::put(&account(number), EACH.to_string()));
    }
    client.txn(txn).await.map(drop)
}

pub(super) fn start(client: &KvClient, tasks: &Tasks, book: &Arc<Book>, seed: u64) {
    for number in 0..PAYERS {
        let random = Random::from(seed ^ (number + 100) << 32);
        let payer = format!("{PAID}{number}");
        book.expects(&payer, SERVED);
        tasks.spawn(
            "chaos payer",
            pay(client.clone(), tasks.clone(), Arc::clone(book), random, payer),
        );
    }
}

async fn pay(client: KvClient, tasks: Tasks, book: Arc<Book>, mut random: Random, payer: String) {
    for number in 0_u64.. {
        if tasks.is_stopping() {
            return;
        }
        let from = random.below(ACCOUNTS);
        let to = (from + 1 + random.below(ACCOUNTS - 1)) % ACCOUNTS;
        let amount = 1 + i64::try_from(random.below(300)).unwrap_or(0);
        let take = Op::add(&account(from), -amount, Some(0), None);
        let give = Op::add(&account(to), amount, None, None);
        let number = number.to_string();
        let remember = Op::put(&payer, number.clone());
        // The side that may fail comes second, so that what fails has something to take back.
        let transfer = Txn::new().then(give).then(take).then(remember);
        book.sent(&payer, &number, Fate::Open);
        let start = book.now();
        let fate = match client.txn(transfer).await {
            Ok(answer) => {
                book.success();
                book.served(&payer);
                if answer.succeeded {
                    book.acknowledged(start, answer.revision, &payer, Some(number.clone()));
                    book.count("transfers");
                    Fate::Done
                } else {
                    book.told("a transfer that was refused", start, answer.revision);
                    book.count("transfers refused");
                    Fate::Denied
                }
            }
            Err(error) => book.failed(&error, "transfers that failed"),
        };
        book.sent(&payer, &number, fate);
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = tasks.stopping() => return,
        }
    }
}
