//! The auditor, beside what a shop and a payment service have really written: an order that was paid and given back, one
//! whose card was declined, one that was canceled. Invariant: that passes, and each way to break it is found.

use super::judge::{Changes, Judge};
use super::*;

/// A change on each line: revision, key and value, where `-` is a deletion.
const HISTORY: &str = include_str!("history.txt");
const ORDER: &str = "shop/menagerie/live/order/u/01a2323e3a3038a44dd153e2078b3dd4";
const DUTY: &str = "shop/menagerie/todo/01a2323e3a3038a44dd153e2078b3dd4";
const STOCK: &str = "shop/menagerie/live/goods/1/stock";
const PAID: &str = "pay/payment/menagerie-01a2323e3a3038a44dd153e2078b3dd4/";
const CARD: &str = "pay/card/c1_57c9caa6117e75ac04750e360a0ba1603c39b702/";
/// When the order was pending, then authorized, then its payment captured, then it paid, and given back.
const PENDING: u64 = 10;
const HELD: u64 = 11;
const AUTHORIZED: u64 = 12;
const CAPTURED: u64 = 13;
const SOLD: u64 = 14;
const RETURNED: u64 = 17;
/// Of the order that was canceled.
const CANCELED: u64 = 29;

fn history() -> BTreeMap<u64, Changes> {
    let mut history: BTreeMap<u64, Changes> = BTreeMap::new();
    for line in HISTORY.lines() {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap();
        let (revision, key, value) = (word().parse().unwrap(), word().to_owned(), word());
        let value = (value != "-").then(|| value.to_owned());
        history.entry(revision).or_default().push((key, value));
    }
    history
}

/// What was written up to a revision, which is nothing wrong.
struct Story(Judge, u64);

impl Story {
    fn until(last: u64) -> Self {
        let mut judge = Judge::default();
        for (revision, changes) in history().range(..=last) {
            let found = judge.take(*revision, changes);
            assert_eq!(found.faults, [""; 0]);
        }
        Self(judge, last)
    }

    /// What is found when these are written next.
    fn then(&mut self, changes: &[(&str, Option<&str>)]) -> String {
        let own = |(key, value): &(&str, Option<&str>)| ((*key).to_owned(), value.map(str::to_owned));
        let changes = changes.iter().map(own).collect();
        self.1 += 1;
        self.0.take(self.1, &changes).faults.join("\n")
    }

    /// As `then`, with what stands there now but for this.
    fn but(&mut self, key: &str, from: &str, to: &str) -> String {
        let now = self.0.rows().get(key).unwrap();
        assert!(now.contains(from), "{now}");
        let value = now.replace(from, to);
        self.then(&[(key, Some(&value))])
    }
}

#[track_caller]
fn tells(found: &str, words: &str) {
    assert!(found.contains(words), "{words}, in: {found}");
}

fn record() -> String {
    format!("{PAID}record")
}

#[test]
fn what_was_really_written_passes_and_all_of_it_is_judged() {
    let mut judge = Judge::default();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (revision, changes) in history() {
        let found = judge.take(revision, &changes);
        assert_eq!(found.faults, [""; 0]);
        for what in found.judged {
            *counts.entry(what).or_default() += 1;
        }
    }
    assert_eq!((counts[ORDERS], counts[PAYMENTS]), (10, 5));
    assert!(
        [AGREEMENTS, SHELVES, BALANCES]
            .iter()
            .all(|what| counts[what] >= 7),
        "{counts:?}"
    );
}

#[test]
fn an_order_that_goes_back_or_jumps_is_found() {
    let back = Story::until(SOLD).but(ORDER, r#""paid""#, r#""authorized""#);
    tells(
        &back,
        "at revision 15 order 01a2323e3a3038a44dd153e2078b3dd4 went from Paid to Authorized",
    );
    let jumped = Story::until(PENDING).but(ORDER, r#""pending""#, r#""paid""#);
    tells(&jumped, "went from Pending to Paid");
    let late = Story::until(AUTHORIZED).but(ORDER, r#""authorized""#, r#""payment_failed""#);
    tells(&late, "went from Authorized to PaymentFailed");
    let order = Story::until(SOLD).0.rows().get(ORDER).unwrap().to_owned();
    let begun = Story::until(PENDING).then(&[("shop/menagerie/live/order/u/a1", Some(&order))]);
    tells(&begun, "order a1 began as Paid");
    tells(
        &Story::until(PENDING).but(ORDER, r#""pending""#, r#""lost""#),
        "cannot be read",
    );
}

#[test]
fn an_end_that_changes_again_is_found_and_a_state_that_is_written_twice() {
    let again = Story::until(RETURNED).but(ORDER, r#""refunded""#, r#""paid""#);
    tells(&again, "was written again, as Paid, though Refunded is its end");
    let same = Story::until(RETURNED).but(ORDER, r#""changed_ms":17"#, r#""changed_ms":18"#);
    tells(&same, "as Refunded, though Refunded is its end");
    tells(
        &Story::until(SOLD).but(ORDER, "u", "u"),
        "was written again as Paid",
    );
    let captured = Story::until(CAPTURED).but(&record(), "u", "u");
    tells(&captured, "as Captured, though Captured is its end");
}

#[test]
fn an_order_that_changes_what_it_is_about_is_found() {
    for (from, to, field) in [
        (r#""quantity":2"#, r#""quantity":3"#, "lines"),
        (r#""unit_minor":1999"#, r#""unit_minor":1"#, "lines"),
        ("3998", "3999", "total_minor"),
        ("EUR", "USD", "currency"),
        ("false", "true", "from_cart"),
        (r#""created_ms":1"#, r#""created_ms":2"#, "created_ms"),
        (r#"{"status""#, r#"{"note":"x","status""#, "note"),
        (r#""id":"menagerie-0"#, r#""id":"menagerie-1"#, "payment.id"),
        ("4242", "4444", "payment.last4"),
        ("visa", "mastercard", "payment.brand"),
    ] {
        let found = Story::until(AUTHORIZED).but(ORDER, from, to);
        tells(&found, &format!("changed what never changes: {field}"));
    }
    let token = Story::until(PENDING).but(ORDER, "tok_secret", "tok_other");
    tells(&token, "changed what never changes: payment.token");
    let wrong = Story::until(PENDING).but(ORDER, "3998", "3999");
    tells(&wrong, "has a total that its lines do not make");
}

#[test]
fn the_token_of_a_card_is_kept_no_longer_than_it_is_needed() {
    let found = Story::until(PENDING).but(ORDER, "pending", "authorized");
    tells(&found, "has the token of its card still as Authorized");
}

#[test]
fn what_vanishes_is_found() {
    let mut sold = Story::until(SOLD);
    let (capture, credits) = (format!("{PAID}capture"), format!("{CARD}credits"));
    for key in [ORDER, &record(), &capture, STOCK, &credits] {
        tells(&sold.then(&[(key, None)]), "is gone, and nothing may delete it");
    }
}

#[test]
fn a_payment_that_goes_back_or_jumps_is_found() {
    let back = Story::until(CAPTURED).but(&record(), r#""captured""#, r#""authorized""#);
    tells(&back, "as Authorized, though Captured is its end");
    let canceled = record().replace("3a3038a44dd153e2078b3dd4", "77c4df0eb48dfef7a38977ca");
    let late = Story::until(CANCELED).but(&canceled, r#""canceled""#, r#""captured","captured":1999"#);
    tells(&late, "as Captured, though Canceled is its end");
    let declined = Story::until(HELD).but(&record(), r#""authorized""#, r#""declined","decline":"blocked""#);
    tells(&declined, "went from Authorized to Declined");
    let held = Story::until(HELD).0.rows().get(&record()).unwrap().to_owned();
    let expired = held.replace(r#""authorized""#, r#""expired""#);
    tells(
        &Story::until(PENDING).then(&[(&record(), Some(&expired))]),
        "began as Expired",
    );
    let taken = held.replace(r#""authorized""#, r#""captured","captured":3998"#);
    let taken = Story::until(PENDING).then(&[(&record(), Some(&taken))]);
    tells(&taken, "which does not begin a payment like this");
}

#[test]
fn a_payment_that_changes_what_it_is_about_is_found() {
    for (from, to) in [
        (r#""card":"c1_57"#, r#""card":"c1_58"#),
        (r#""amount":3998"#, r#""amount":3999"#),
        ("EUR", "USD"),
        ("4242", "4444"),
        (r#""merchant":"m"#, r#""merchant":"n"#),
        ("manual", "automatic"),
        (r#""fingerprint":"9"#, r#""fingerprint":"8"#),
    ] {
        let found = Story::until(HELD).but(&record(), from, to);
        tells(&found, "has changed what never changes: order");
    }
    let more = Story::until(CAPTURED).but(&record(), r#""captured":3998"#, r#""captured":3999"#);
    tells(&more, "is Captured with 3999 captured");
}

#[test]
fn a_transfer_that_changes_is_missing_or_is_too_much_is_found() {
    let hold = Story::until(HELD).but(&format!("{PAID}hold"), "3998", "3999");
    tells(&hold, "was written again, and a transfer never is");
    tells(&hold, "has a hold that is none, or of another amount or card");
    let captured = history()[&CAPTURED].clone();
    let alone = captured.iter().find(|(key, _)| *key == record()).unwrap();
    let alone = Story::until(AUTHORIZED).then(&[(&alone.0, alone.1.as_deref())]);
    tells(&alone, "is Captured with the transfers [Hold]");
    let refunded = format!("{PAID}refunded");
    tells(
        &Story::until(RETURNED).but(&refunded, "3998", "3999"),
        "counts 3999 as given back",
    );
    let less = Story::until(RETURNED).but(&refunded, "3998", "1");
    tells(&less, "went back from 3998 to 1");
    tells(&less, "counts 1 as given back, its refunds are 3998");
}

#[test]
fn an_order_beside_another_state_of_its_payment_is_found() {
    let early = Story::until(AUTHORIZED).but(ORDER, r#""authorized""#, r#""paid""#);
    tells(&early, "is Paid while its payment is Some(Authorized)");
    tells(&early, "is Paid with a todo");
    tells(
        &Story::until(HELD).then(&[(DUTY, None)]),
        "is Pending with no todo",
    );
    let nobody = Story::until(HELD).0.rows().get(&record()).unwrap().to_owned();
    let nobody = Story::until(HELD).then(&[("pay/payment/p/record", Some(&nobody))]);
    tells(&nobody, "payment p is for no order");
}

#[test]
fn goods_from_nowhere_are_found_and_told_once() {
    let mut sold = Story::until(SOLD);
    let more = sold.then(&[(STOCK, Some("9"))]);
    assert_eq!(
        more,
        "at revision 15 product 1: 10 received, 9 in stock, and 2 reserved or sold"
    );
    assert_eq!(sold.then(&[(STOCK, Some("9"))]), "");
    let less = Story::until(SOLD).then(&[(STOCK, Some("-1")), ("shop/menagerie/received/1", Some("1"))]);
    tells(&less, "1 received, -1 in stock, and 2 reserved");
    let kept = Story::until(RETURNED - 1).but(ORDER, "refunding", "refunded");
    tells(
        &kept,
        "product 1: 10 received, 8 in stock, and 0 reserved or sold",
    );
}

#[test]
fn money_from_nowhere_is_found() {
    let available = Story::until(CAPTURED).then(&[(&format!("{CARD}available"), Some("6003"))]);
    tells(&available, "in EUR: may spend Some(6003), and has 6002");
    let credits = Story::until(CAPTURED).but("pay/merchant/EUR/menagerie/5/credits", "3998", "3999");
    tells(&credits, "merchant:menagerie:5 in EUR: counts");
    tells(&credits, "EUR: all accounts together have");
    let back = Story::until(CAPTURED).then(&[(&format!("{CARD}credits"), Some("9999"))]);
    tells(&back, "went back from 10000 to 9999");
}

#[test]
fn no_violation_tells_what_stands_in_a_record() {
    let number = "4242424242424242";
    let (mut order, mut payment) = (Story::until(PENDING), Story::until(CAPTURED));
    let found = [
        order.but(ORDER, "Rex", number),
        order.but(ORDER, "tok_secret", number),
        order.but(ORDER, r#""status":"pending""#, &format!(r#""status":"{number}""#)),
        order.but(ORDER, "{", number),
        payment.but(&record(), "visa", number),
        payment.then(&[(&format!("{PAID}refunded"), Some("4242 4242 4242 4242"))]),
        payment.then(&[(&format!("{PAID}hold"), Some(number))]),
        payment.then(&[(STOCK, Some("4242 4242 4242 4242"))]),
    ];
    for found in found {
        assert!(!found.is_empty());
        assert!(
            !found.contains("tok_secret") && !found.contains("4242 4242"),
            "{found}"
        );
        assert!(!found.contains(number), "{found}");
    }
}

#[test]
fn two_sides_are_judged_together_and_counted_in_the_book() {
    let (auditor, book) = (Auditor::default(), Book::new());
    for (revision, changes) in history() {
        let side = if changes[0].0.starts_with(SHOP) {
            Side::Shop
        } else {
            Side::Payment
        };
        auditor.take(side, revision, changes, &book);
    }
    // Nothing of what one side has told last is judged before the other has come that far.
    assert_eq!((auditor.position(), book.pages().counts[ORDERS]), (28, 9));
    auditor.take(Side::Payment, CANCELED, Vec::new(), &book);
    assert_eq!((auditor.position(), book.pages().counts[ORDERS]), (CANCELED, 10));
    auditor.take(Side::Shop, CANCELED, vec![(ORDER.to_owned(), None)], &book);
    auditor.take(Side::Shop, CANCELED + 1, vec![(ORDER.to_owned(), None)], &book);
    auditor.take(Side::Payment, CANCELED + 1, Vec::new(), &book);
    let told = book.pages().violations.clone();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("revision 29 of Shop came after 29"),
        "{told:?}"
    );
    assert!(told[1].starts_with("at revision 30 order"), "{told:?}");
}
