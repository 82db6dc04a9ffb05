//! An order beside its payment, at each revision: the shop asks first and writes down after, so that what either says
//! bounds what the other may. Pure.

use super::orders::{Order, Status};
use super::payments::{Payment, Status as Paid};

/// What the payment of an order may be while the order is in this state; `None` is that nobody has seen it.
fn permitted(order: Status) -> &'static [Option<Paid>] {
    use Paid::{Authorized, Canceled, Captured, Declined, Expired};
    match order {
        // Nothing is taken before the order says that it may be, nor once it is to be canceled.
        Status::Pending | Status::Canceling => &[
            None,
            Some(Authorized),
            Some(Declined),
            Some(Canceled),
            Some(Expired),
        ],
        Status::Authorized => &[Some(Authorized), Some(Captured), Some(Expired)],
        Status::Paid | Status::Refunding | Status::Refunded => &[Some(Captured)],
        Status::PaymentFailed | Status::Canceled => &[Some(Declined), Some(Canceled), Some(Expired)],
        Status::Confirmed => &[None],
    }
}

/// What is wrong with an order of this id whose payment is this one, of which so much was given back.
pub(super) fn judge(id: &str, order: &Order, payment: Option<&Payment>, refunded: i64) -> Option<String> {
    let status = payment.map(|payment| payment.status);
    if !permitted(order.status).contains(&status) {
        return Some(format!("is {:?} while its payment is {status:?}", order.status));
    }
    let back = match order.status {
        Status::Refunding => 0..=order.total_minor,
        Status::Refunded => order.total_minor..=order.total_minor,
        _ => 0..=0,
    };
    if !back.contains(&refunded) {
        return Some(format!("is {:?} while {refunded} is given back", order.status));
    }
    let payment = payment?;
    if payment.status == Paid::Captured && payment.captured != order.total_minor {
        return Some("is paid with another amount than its total".to_owned());
    }
    let asked = payment.order.as_ref()?;
    let is_same = (asked.amount, &asked.currency, asked.order_ref.as_deref())
        == (order.total_minor, &order.currency, Some(id));
    (!is_same).then(|| "has a payment of another amount, currency or order".to_owned())
}
