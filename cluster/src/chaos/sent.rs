//! What became of each value that was sent, by the word of whoever sent it, beside what the watchers have seen.
//! Invariant: a value is sent to its key once, however often its request is repeated; so it is seen once at most, only
//! if it was sent, and never when its client was told that nothing happened.
//! Pure: it knows neither clock nor store.

use std::collections::{BTreeMap, HashMap};

use kvstore_client::Error;

use super::clients::REGISTERS;
use super::money::PAID;
use super::plain;

/// Under these each value is sent once; elsewhere the same may be written again.
const ONCE: [&str; 3] = [REGISTERS, PAID, plain::VALUES];

/// What the client was told of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing, so far: it may happen at any later time, or never.
    Open,
    Done,
    /// It has not happened, and never will.
    Denied,
}

impl Fate {
    /// What an error says of the write that it answers; none when no fault may be answered like that.
    pub(super) fn told_by(error: &Error) -> Option<Self> {
        match error {
            Error::Unavailable { .. } => Some(Self::Denied),
            Error::Unknown { .. } => Some(Self::Open),
            // A full disk says so, and takes nothing.
            Error::Problem(problem) if problem.code == "disk-full" => Some(Self::Denied),
            _ => None,
        }
    }
}

/// Of each key its values, and what became of them.
#[derive(Default)]
pub(super) struct Sent(BTreeMap<String, BTreeMap<String, Fate>>);

impl Sent {
    pub(super) fn note(&mut self, key: &str, value: &str, fate: Fate) {
        let values = self.0.entry(key.to_owned()).or_default();
        values.insert(value.to_owned(), fate);
    }

    fn fate(&self, key: &str, value: &str) -> Option<Fate> {
        self.0.get(key)?.get(value).copied()
    }

    /// What was seen and cannot be. Each write that was seen is its revision, key and value, in order.
    pub(super) fn judge<'seen>(
        &self,
        seen: impl IntoIterator<Item = (u64, &'seen str, &'seen str)>,
    ) -> Vec<String> {
        let mut first: HashMap<(&str, &str), u64> = HashMap::new();
        let mut faults = Vec::new();
        for (revision, key, value) in seen {
            if !ONCE.iter().any(|prefix| key.starts_with(prefix)) {
                continue;
            }
            if let Some(earlier) = first.insert((key, value), revision) {
                faults.push(format!(
                    "{value} was written to {key} once, at revision {earlier}, and happened again at {revision}"
                ));
            }
            match self.fate(key, value) {
                Some(Fate::Open | Fate::Done) => {}
                Some(Fate::Denied) => faults.push(format!(
                    "writing {value} to {key} had not happened, its client was told, and did at revision {revision}"
                )),
                None => faults.push(format!(
                    "nobody has written {value} to {key}, where it is at revision {revision}"
                )),
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use kvstore_client::Trouble;
    use kvstore_client::wire::problem::Problem;

    use super::*;

    const REGISTER: &str = "chaos/r/00001/2";
    const PAYER: &str = "chaos/paid/0";
    const PLAIN: &str = "chaos/plain/r/00001/0";

    fn sent() -> Sent {
        let mut sent = Sent::default();
        for (key, value, fate) in [
            (REGISTER, "7", Fate::Done),
            (REGISTER, "8", Fate::Denied),
            (REGISTER, "9", Fate::Open),
            (PAYER, "1", Fate::Done),
            (PAYER, "2", Fate::Denied),
            (PLAIN, "3", Fate::Open),
        ] {
            sent.note(key, value, fate);
        }
        sent
    }

    #[track_caller]
    fn finds(seen: &[(u64, &'static str, &'static str)], words: &str) {
        let found = sent().judge(seen.iter().copied());
        assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
    }

    #[test]
    fn what_was_done_and_what_is_open_may_be_seen_once() {
        let seen = [(3, REGISTER, "7"), (4, REGISTER, "9"), (5, PAYER, "1")];
        assert!(sent().judge(seen).is_empty());
        // That all that was done is seen is judged elsewhere.
        assert!(sent().judge([]).is_empty());
    }

    #[test]
    fn a_write_or_a_transfer_that_happened_twice_is_found() {
        finds(&[(3, PAYER, "1"), (9, PAYER, "1")], "happened again at 9");
        finds(&[(3, REGISTER, "9"), (4, REGISTER, "9")], "happened again at 4");
        finds(&[(3, PLAIN, "3"), (4, PLAIN, "3")], "happened again at 4");
        // Not only when one follows the other.
        let between = [(3, REGISTER, "7"), (4, REGISTER, "9"), (5, REGISTER, "7")];
        finds(&between, "at revision 3, and happened again at 5");
    }

    #[test]
    fn what_was_denied_or_never_sent_must_not_be_seen() {
        finds(&[(3, PAYER, "2")], "had not happened");
        finds(&[(3, REGISTER, "8")], "had not happened");
        finds(&[(3, PAYER, "5")], "nobody has written 5");
        finds(&[(3, "chaos/r/00001/3", "7")], "nobody has written 7");
    }

    #[test]
    fn elsewhere_a_value_may_come_again() {
        let again = [(3, "chaos/account/1", "5"), (4, "chaos/account/1", "5")];
        assert!(sent().judge(again).is_empty());
    }

    #[test]
    fn an_error_tells_what_became_of_the_write() {
        let problem = |code: &str| {
            let code = code.to_owned();
            let problem = Problem {
                code,
                ..Problem::default()
            };
            Error::Problem(Box::new(problem))
        };
        let unknown = Error::Unknown {
            idempotency_key: None,
            source: Trouble::Timeout,
        };
        assert_eq!(Fate::told_by(&unknown), Some(Fate::Open));
        let source = Trouble::Timeout;
        let unavailable = Error::Unavailable { source };
        assert_eq!(Fate::told_by(&unavailable), Some(Fate::Denied));
        assert_eq!(Fate::told_by(&problem("disk-full")), Some(Fate::Denied));
        assert_eq!(Fate::told_by(&problem("lease-not-found")), None);
    }
}
