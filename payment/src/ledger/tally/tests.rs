//! Rows that are damaged, one after the other: each is named, and none hides another.

use super::*;

fn violations(rows: &[(&str, &str)]) -> Vec<String> {
    let mut tally = Tally::default();
    for (key, value) in rows {
        tally.row(key, value.as_bytes());
    }
    tally.finish();
    tally.violations
}

#[test]
fn every_row_that_cannot_be_read_is_named_and_none_hides_the_next() {
    let keys = [
        "pay/card/c/record",
        "pay/card/c/available",
        "pay/card/c/holds",
        "pay/funded/c/00000000",
        "pay/funding/EUR/0/debits",
        "pay/merchant/EUR/m/0/credits",
        "pay/payment/p/charge",
        "pay/payment/p/record",
        "pay/payment/p/refund/r",
        "pay/payment/p/refunded",
    ];
    for damage in ["", "{", "\u{fffd}", "1e3", "99999999999999999999"] {
        let found = violations(&keys.map(|key| (key, damage)));
        for key in keys {
            let told = format!("{key} cannot be read");
            assert!(found.contains(&told), "{told}: not in {found:?}");
        }
    }
}

#[test]
fn counters_of_any_size_are_judged() {
    let card = r#"{"brand":"visa","last4":"4242","currency":"EUR","status":"active","fundings":0}"#;
    let (least, most) = (i64::MIN.to_string(), i64::MAX.to_string());
    for (credits, debits, holds) in [(&most, &least, &least), (&least, &most, &most)] {
        let found = violations(&[
            ("pay/card/c/record", card),
            ("pay/card/c/accepts", "EUR"),
            ("pay/card/c/credits", credits.as_str()),
            ("pay/card/c/debits", debits.as_str()),
            ("pay/card/c/holds", holds.as_str()),
        ]);
        assert!(found[0].contains("card c has 0 available"), "{found:?}");
    }
}

#[test]
fn amounts_of_any_size_are_judged() {
    let transfer = |kind: &str, amount: i64| {
        format!(
            r#"{{"kind":"{kind}","debit":"card:c","credit":"merchant:m:0","amount":{amount},"currency":"EUR","created_ms":1}}"#
        )
    };
    let record = r#"{"status":"captured","created_ms":1,"captured":1,"order":{"fingerprint":"","card":"c","brand":"visa",
        "last4":"4242","merchant":"m","amount":-9223372036854775808,"currency":"EUR","capture":"manual"}}"#;
    let found = violations(&[
        ("pay/payment/p/capture", transfer("capture", i64::MAX).as_str()),
        ("pay/payment/p/charge", transfer("charge", i64::MAX).as_str()),
        ("pay/payment/p/other", transfer("hold", i64::MIN).as_str()),
        ("pay/payment/p/record", record),
        ("pay/payment/p/refund/a", transfer("refund", i64::MAX).as_str()),
        ("pay/payment/p/refund/b", transfer("refund", i64::MAX).as_str()),
    ]);
    assert!(
        found
            .iter()
            .any(|one| one.contains("1 captured, but 18446744073709551614 moved")),
        "{found:?}"
    );
}

#[test]
fn lost_entries_are_missed() {
    let record = |status: &str| {
        format!(
            r#"{{"status":"{status}","created_ms":1,"order":{{"fingerprint":"","card":"c","brand":"visa","last4":"4242",
            "merchant":"a/b","order_ref":"o 1","amount":1,"currency":"EUR","capture":"manual","expires_ms":7}}}}"#
        )
    };
    let (held, declined) = (record("authorized"), record("declined"));
    let rows = [
        ("pay/due/0000000000007/hold/p%2F1", ""),
        ("pay/due/0000000000007/token/p%2F2", ""),
        ("pay/order/a%2Fb/o%201/p%2F1", ""),
        ("pay/order/a%2Fb/o%201/p%2F2", ""),
        ("pay/payment/p%2F1/record", held.as_str()),
        ("pay/payment/p%2F2/record", declined.as_str()),
    ];
    let without = |lost: usize| {
        let kept = rows.iter().enumerate().filter(|(at, _)| *at != lost);
        let kept: Vec<(&str, &str)> = kept.map(|(_, row)| *row).collect();
        let found = violations(&kept).into_iter();
        let found = found.filter(|one| one.contains("entr"));
        found.collect::<Vec<_>>()
    };
    assert_eq!(without(rows.len()), [""; 0]);
    assert_eq!(
        without(0),
        ["payment p%2F1 is held, and no entry would end its hold"]
    );
    assert_eq!(without(1), [""; 0]);
    for lost in [2, 3] {
        assert_eq!(
            without(lost),
            ["merchant a%2Fb has 2 payments, but 1 entries of orders that do not fit them"]
        );
    }
}
