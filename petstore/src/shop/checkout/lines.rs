//! What is ordered, line by line, with the prices of this moment; or why it cannot be.
//! Invariant: there are not more lines than one transaction can hold, and their sum is at most what can be paid at
//! once. Pure: no clock, no IO.

use kvstore_client::wire::txn::TxnAnswer;
use service::problem::{self, Problem, Result};

use crate::domain::{Line, Lines};
use crate::shop::products::unknown_product;
use crate::shop::{LINES_MAX, Shelf};
use crate::store::{CartRecord, read_int};

/// A cart to which the lines of a declined order returned may be longer than an order can be.
pub(super) fn check_count(items: &[(String, i64)]) -> Result<()> {
    let count = items.len();
    match count {
        0 => Err(Problem::new(
            problem::CART_EMPTY,
            "The order names no items, and there is nothing in the cart.",
        )),
        1..=LINES_MAX => Ok(()),
        _ => {
            let detail =
                format!("An order has at most {LINES_MAX} different products; take some out of the cart.");
            Err(Problem::new(problem::INVALID_REQUEST, detail).fault("/items", format!("has {count}")))
        }
    }
}

/// `cart` is the one that is ordered, if it is one.
pub(super) fn lines(items: &[(String, i64)], shelf: &Shelf, cart: Option<&CartRecord>) -> Result<Lines> {
    let gone: Vec<&str> = items
        .iter()
        .filter(|(id, _)| shelf.get(id).is_none())
        .map(|(id, _)| id.as_str())
        .collect();
    match (gone.as_slice(), cart) {
        ([], _) => {}
        (gone, Some(cart)) => return Err(gone_from_cart(gone, cart)),
        ([id, ..], None) => return Err(unknown_product().extra("productId", *id)),
    }
    let line = |(id, quantity): &(String, i64)| {
        let good = shelf.get(id)?;
        Some(Line {
            product: id.clone(),
            name: good.product.name.clone(),
            species: good.product.species.clone(),
            unit_minor: good.product.price_minor,
            quantity: *quantity,
        })
    };
    Ok(items.iter().filter_map(line).collect())
}

fn gone_from_cart(gone: &[&str], cart: &CartRecord) -> Problem {
    let line = |id: &&str| serde_json::json!({"productId": id, "name": cart.name(id), "available": 0});
    let detail = "Something in the cart is no longer on the shelves; take it out of the cart.";
    Problem::new(problem::OUT_OF_STOCK, detail).extra("lines", gone.iter().map(line).collect::<Vec<_>>())
}

pub(super) fn total(lines: &[Line], max: i64) -> Result<i64> {
    let sum = lines.iter().try_fold(0_i64, |sum, line| {
        sum.checked_add(line.unit_minor.checked_mul(line.quantity)?)
    });
    let bounded = sum.filter(|sum| *sum <= max);
    bounded.ok_or_else(|| {
        Problem::new(
            problem::INVALID_REQUEST,
            "The sum of the order is more than can be paid at once.",
        )
        .fault("/items", "make a sum that is too large")
    })
}

/// Names the lines of which there is not enough. By now there may be, but then there was not.
pub(super) fn out_of_stock(lines: &[Line], answer: &TxnAnswer) -> Result<Problem> {
    let refused = answer.failed_op.map_or(usize::MAX, |op| op as usize);
    let mut short = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let available = match answer.got(n) {
            Some(kv) => read_int(&kv.key, &kv.bytes())?,
            None => 0,
        };
        if available < line.quantity {
            short.push(serde_json::json!({
                "productId": line.product,
                "name": line.name,
                "quantity": line.quantity,
                "available": available,
            }));
        }
    }
    debug_assert!(
        !short.is_empty(),
        "op {refused} was refused for want of something"
    );
    Ok(Problem::new(
        problem::OUT_OF_STOCK,
        "There is not enough of something in the order.",
    )
    .extra("lines", short))
}

#[cfg(test)]
mod tests {
    use payment_client::Money;

    use super::*;

    #[test]
    fn an_order_has_some_lines_and_not_too_many() {
        let items = |count: usize| (0..count).map(|n| (n.to_string(), 1)).collect::<Vec<_>>();
        let code = |count| check_count(&items(count)).map_err(|problem| problem.kind.code);
        assert_eq!(code(0), Err("cart-empty"));
        assert_eq!((code(1), code(LINES_MAX)), (Ok(()), Ok(())));
        assert_eq!(code(LINES_MAX + 1), Err("invalid-request"));
    }

    #[test]
    fn what_is_gone_from_the_shelves_is_named() {
        let (mut cart, shelf) = (CartRecord::default(), Shelf::default());
        cart.set("13", 1);
        cart.set("14", 2);
        cart.names.insert("13".to_owned(), "Fad".to_owned());
        let refused = lines(&cart.items, &shelf, Some(&cart)).unwrap_err();
        assert_eq!(
            refused.extra["lines"],
            serde_json::json!([
                {"productId": "13", "name": "Fad", "available": 0},
                {"productId": "14", "name": "product 14", "available": 0},
            ])
        );
        let unknown = lines(&cart.items, &shelf, None).unwrap_err();
        assert_eq!(unknown.kind.code, "product-not-found");
    }

    #[test]
    fn a_sum_is_at_most_what_can_be_paid_at_once() {
        let line = |unit_minor, quantity| Line {
            product: "1".to_owned(),
            name: String::new(),
            species: String::new(),
            unit_minor,
            quantity,
        };
        let code = |sum: Result<i64>| sum.map_err(|problem| problem.kind.code);
        let lines = [line(300, 3), line(100, 1)];
        assert_eq!(code(total(&lines, 1000)), Ok(1000));
        assert_eq!(code(total(&lines, 999)), Err("invalid-request"));
        assert_eq!(
            code(total(&[line(i64::MAX, 2)], Money::MINOR_MAX)),
            Err("invalid-request")
        );
    }
}
