//! What became of each amount that was added to a sum, by the word of whoever sent it, beside what the watchers have
//! seen the sum come to.
//! Invariant: an amount is sent to its sum once, and is like no other; so each step of a sum tells which addition it
//! was. It is seen once at most, only if it was sent, never when its client was told that nothing happened, and surely
//! when it was told that it did.
//! Pure: it knows neither clock nor store.

use std::collections::{BTreeMap, HashMap};

use super::clients::number;
use super::plain::SUMS;
use super::sent::Fate;

/// Of each key the amounts, and what became of them.
#[derive(Default)]
pub(super) struct Added(BTreeMap<String, BTreeMap<i64, Fate>>);

impl Added {
    pub(super) fn note(&mut self, key: &str, by: i64, fate: Fate) {
        let amounts = self.0.entry(key.to_owned()).or_default();
        amounts.insert(by, fate);
    }

    fn fate(&self, key: &str, by: i64) -> Option<Fate> {
        self.0.get(key)?.get(&by).copied()
    }

    /// What was seen and cannot be. Each write that was seen is its revision, key and value, in order.
    pub(super) fn judge<'seen>(
        &self,
        seen: impl IntoIterator<Item = (u64, &'seen str, &'seen str)>,
    ) -> Vec<String> {
        let mut sums: HashMap<&str, i64> = HashMap::new();
        let mut first: HashMap<(&str, i64), u64> = HashMap::new();
        let mut faults = Vec::new();
        let sums_seen = seen.into_iter().filter(|(_, key, _)| key.starts_with(SUMS));
        for (revision, key, value) in sums_seen {
            let sum = number(value.as_bytes());
            let before = sums.insert(key, sum).unwrap_or(0);
            let by = sum.saturating_sub(before);
            if let Some(earlier) = first.insert((key, by), revision) {
                faults.push(format!(
                    "{by} was added to {key} once, at revision {earlier}, and that happened again at {revision}"
                ));
            }
            match self.fate(key, by) {
                Some(Fate::Open | Fate::Done) => {}
                Some(Fate::Denied) => faults.push(format!(
                    "adding {by} to {key} had not happened, its client was told, and did at revision {revision}"
                )),
                None => faults.push(format!(
                    "nobody has added {by} to {key}, which came from {before} to {value} at revision {revision}"
                )),
            }
        }
        for (key, amounts) in &self.0 {
            let done = amounts.iter().filter(|(_, fate)| **fate == Fate::Done);
            let lost = done.filter(|(by, _)| !first.contains_key(&(key.as_str(), **by)));
            faults.extend(
                lost.map(|(by, _)| format!("adding {by} to {key} was acknowledged, and never happened")),
            );
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "chaos/plain/c/00001/0";
    const OTHER: &str = "chaos/plain/c/00002/0";

    fn added() -> Added {
        let mut added = Added::default();
        for (key, by, fate) in [
            (SUM, 1, Fate::Done),
            (SUM, 2, Fate::Denied),
            (SUM, 3, Fate::Open),
            (SUM, 4, Fate::Open),
            (OTHER, 5, Fate::Done),
        ] {
            added.note(key, by, fate);
        }
        added
    }

    fn found(seen: &[(u64, &'static str, &'static str)]) -> Vec<String> {
        added().judge(seen.iter().copied())
    }

    #[track_caller]
    fn finds(seen: &[(u64, &'static str, &'static str)], words: &str) {
        let found = found(seen);
        assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
    }

    #[test]
    fn what_was_done_is_seen_and_what_is_open_may_be() {
        let without_open = [(3, SUM, "1"), (4, OTHER, "5")];
        assert_eq!(found(&without_open), [""; 0]);
        // In any order, and beside what is no sum.
        let with_open = [
            (3, OTHER, "5"),
            (4, SUM, "4"),
            (5, "chaos/c/00001", "1"),
            (6, SUM, "7"),
            (7, SUM, "8"),
        ];
        assert_eq!(found(&with_open), [""; 0]);
    }

    #[test]
    fn an_addition_that_happened_twice_is_found() {
        let done = [(3, SUM, "1"), (4, OTHER, "5"), (5, SUM, "2")];
        finds(&done, "1 was added to chaos/plain/c/00001/0 once, at revision 3");
        // Not only when one follows the other, and also of one that nobody was told of.
        let open = [
            (3, SUM, "1"),
            (4, SUM, "4"),
            (5, OTHER, "5"),
            (6, SUM, "8"),
            (7, SUM, "11"),
        ];
        finds(&open, "at revision 4, and that happened again at 7");
    }

    #[test]
    fn what_was_denied_or_never_sent_must_not_be_seen() {
        let denied = [(3, SUM, "1"), (4, SUM, "3"), (5, OTHER, "5")];
        finds(&denied, "adding 2 to chaos/plain/c/00001/0 had not happened");
        let never = [(3, SUM, "1"), (4, SUM, "10"), (5, OTHER, "5")];
        finds(&never, "nobody has added 9");
        let elsewhere = [(3, SUM, "1"), (4, OTHER, "5"), (5, OTHER, "8")];
        finds(&elsewhere, "nobody has added 3");
        let spoiled = [(3, SUM, "1"), (4, OTHER, "5"), (5, OTHER, "drifted")];
        finds(&spoiled, "which came from 5 to drifted");
    }

    #[test]
    fn what_was_acknowledged_must_be_seen() {
        finds(
            &[(3, SUM, "1")],
            "adding 5 to chaos/plain/c/00002/0 was acknowledged",
        );
        assert_eq!(found(&[]).len(), 2);
    }
}
