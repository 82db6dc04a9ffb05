//! Two watches of one store, put together to whole revisions.
//! Invariant: a revision is handed on once, in order, when both watches have told of it or of a later one; so what one
//! of them has yet to tell is never passed over. Pure.

use std::collections::BTreeMap;

use super::judge::Changes;

/// Which of the watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Shop,
    Payment,
}

#[derive(Default)]
pub(super) struct Whole {
    shop: u64,
    payment: u64,
    waiting: BTreeMap<u64, Changes>,
}

impl Whole {
    /// Everything up to here was handed on.
    pub(super) fn position(&self) -> u64 {
        self.shop.min(self.payment)
    }

    /// One more revision of one side, or without changes the news that nothing happened there up to it. Gives what is
    /// whole by that.
    pub(super) fn hear(
        &mut self,
        side: Side,
        revision: u64,
        changes: Changes,
    ) -> Result<BTreeMap<u64, Changes>, String> {
        let position = match side {
            Side::Shop => &mut self.shop,
            Side::Payment => &mut self.payment,
        };
        if !changes.is_empty() && revision <= *position {
            return Err(format!("revision {revision} of {side:?} came after {position}"));
        }
        *position = revision.max(*position);
        if !changes.is_empty() {
            self.waiting.entry(revision).or_default().extend(changes);
        }
        let later = self.waiting.split_off(&self.position().saturating_add(1));
        Ok(std::mem::replace(&mut self.waiting, later))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_waits_until_both_sides_have_passed_it() {
        let mut whole = Whole::default();
        let change = |key: &str| vec![(key.to_owned(), None)];
        let mut hear = |side, revision, changes| {
            let heard = whole.hear(side, revision, changes).unwrap();
            heard.into_keys().collect::<Vec<u64>>()
        };
        assert!(hear(Side::Shop, 3, change("shop/a")).is_empty());
        assert!(hear(Side::Shop, 5, change("shop/a")).is_empty());
        assert_eq!(hear(Side::Payment, 4, change("pay/a")), [3, 4]);
        assert_eq!(hear(Side::Payment, 9, Vec::new()), [5]);
        assert!(
            hear(Side::Payment, 8, Vec::new()).is_empty(),
            "old news harms nobody"
        );
        assert_eq!(hear(Side::Shop, 9, change("shop/a")), [9]);
        assert_eq!(whole.position(), 9);
        let again = whole.hear(Side::Shop, 9, change("shop/a"));
        assert_eq!(again.unwrap_err(), "revision 9 of Shop came after 9");
    }
}
