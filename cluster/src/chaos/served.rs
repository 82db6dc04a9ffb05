//! Whether everybody is served again once a fault is over: a client that never got over one would break nothing else.
//! Invariant: whoever is to be served is known before the first fault, and so is missed also if it never was.
//! It must not know what the clients do.

use std::time::{Duration, Instant};

use super::book::Book;

/// Far more than a client needs on a machine that does nothing else.
pub(super) const SERVED: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until each has got something done since now; who has not within its time is a violation.
pub(super) async fn everybody(book: &Book, after: &str) {
    let (since, begin) = (book.now(), Instant::now());
    loop {
        let waiting = book.not_served_since(since);
        if waiting.is_empty() {
            return;
        }
        let waited = begin.elapsed();
        let late = waiting.into_iter().filter(|(_, within)| waited > *within);
        let late: Vec<String> = late.map(|(who, _)| who).collect();
        if !late.is_empty() {
            return book.violation(format!(
                "{} s after {after} all nodes are ready, and these have got nothing done since: {}",
                waited.as_secs(),
                late.join(", ")
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_not_served_after_a_fault_is_named_with_it() {
        let book = Book::new();
        book.expects("writer 0", Duration::ZERO);
        book.expects("payer 1", Duration::ZERO);
        book.expects("buyer 2", SERVED);
        book.served("writer 0");
        // What was done before the fault was over says nothing.
        everybody(&book, "the fault kill-leader").await;
        let told = book.pages().violations.join("\n");
        assert!(told.contains("after the fault kill-leader"), "{told}");
        assert!(told.contains("payer 1, writer 0"), "{told}");
        assert!(!told.contains("buyer 2"), "its time is not over: {told}");
    }

    #[tokio::test]
    async fn it_waits_no_longer_than_until_all_are_served() {
        let book = Book::new();
        book.expects("writer 0", SERVED);
        book.expects("payer 1", SERVED);
        let work = async {
            tokio::time::sleep(LOOK_EVERY).await;
            book.served("payer 1");
            book.served("writer 0");
        };
        tokio::join!(everybody(&book, "the begin"), work);
        assert!(book.pages().violations.is_empty());
        assert!(book.elapsed() < SERVED);
    }
}
