//! Asks the payment service, and puts what it says into what an order can make of it.
//! Invariant: a card number is turned into a token before anything is written, and is dropped with its request. Every
//! call may be repeated, by any instance, since the order's name is the payment's.

use kvstore_client::wire::problem::Problem as Told;
use payment_client::wire::{Capture, Status as PaymentStatus};
use payment_client::{Error, Money, NewPayment, Source};
use service::problem::{self, Kind, Problem, Result};
use zeroize::Zeroizing;

use super::{Found, Shop};
use crate::domain::{OrderId, Paid, Step};
use crate::store::PaymentOf;

/// How a card is named in a request. It has no `Debug`, so that no log shows it.
pub(crate) enum Card {
    Number(Zeroizing<String>),
    Token(String),
}

/// What is asked of the payment service for an order.
pub(crate) struct Bill<'order> {
    pub(crate) order: &'order OrderId,
    pub(crate) payment: Option<&'order PaymentOf>,
    pub(crate) total_minor: i64,
    pub(crate) currency: &'order str,
}

impl Found {
    pub(super) fn bill(&self) -> Bill<'_> {
        Bill {
            order: &self.id,
            payment: self.record.payment.as_ref(),
            total_minor: self.record.total_minor,
            currency: &self.record.currency,
        }
    }
}

/// The name of the refund that gives everything back.
const REFUND: &str = "all";

/// What is left after a part was given back goes under a name that follows from that part: two who read the same send
/// the same. It is never the name of the whole, which somebody may have used for a part, and whose repetition would
/// move nothing. In hexadecimal digits it is too short to be taken for a card number.
fn name_of_rest(refunded_minor: i64) -> String {
    format!("rest-{refunded_minor:x}")
}

impl Shop {
    /// Everything about the payment of an order but its name.
    pub(super) async fn tokenize(&self, card: &Card) -> Result<PaymentOf> {
        let nameless = |token: String, brand, last4| PaymentOf {
            id: String::new(),
            token: Some(token),
            brand,
            last4,
        };
        match card {
            Card::Token(token) => Ok(nameless(token.clone(), None, None)),
            Card::Number(number) => match self.payment.tokenize(number).await {
                Ok(token) => Ok(nameless(token.token, Some(token.brand), Some(token.last4))),
                Err(Error::Problem(told)) if told.status == 422 => Err(refused_number(&told)),
                Err(error) => Err(unreachable(&error)),
            },
        }
    }

    /// Takes a step between the two points of it, and tells brand and last four digits of the card where they are learned only now.
    pub(crate) async fn ask(&self, bill: &Bill<'_>, step: Step) -> (Paid, Option<PaymentOf>) {
        self.points.reach(before(step)).await;
        let answer = self.ask_now(bill, step).await;
        self.points.reach(behind(step)).await;
        answer
    }

    async fn ask_now(&self, bill: &Bill<'_>, step: Step) -> (Paid, Option<PaymentOf>) {
        let Some(payment) = bill.payment else {
            // An order without a payment has nothing to hold, take or give back.
            return (Paid::Done, None);
        };
        let answer = match step {
            Step::Nothing | Step::GiveUp => return (Paid::Done, None),
            Step::Authorize => match self.authorize(bill, payment).await {
                Ok(paid) => {
                    let known = PaymentOf {
                        token: None,
                        brand: paid.brand.clone(),
                        last4: paid.last4.clone(),
                        ..payment.clone()
                    };
                    return (Paid::Done, Some(known));
                }
                Err(error) if is_final(&error) => return (self.refused(bill, payment, &error).await, None),
                Err(error) => Err(error),
            },
            Step::Capture => self.payment.capture(&payment.id, None).await.map(drop),
            Step::CancelPayment => return (self.cancel_payment(bill, payment).await, None),
            Step::Refund => self.refund(bill, payment).await,
        };
        (
            answer.map_or_else(|error| meaning(&error, bill, step), |()| Paid::Done),
            None,
        )
    }

    /// An instance with stricter rules refuses before it looks whether there is such a payment: the money may be held by
    /// an authorization whose answer was lost. So the order ends only once its payment is canceled, which is final also
    /// for one that was never seen.
    async fn refused(&self, bill: &Bill<'_>, payment: &PaymentOf, refusal: &Error) -> Paid {
        match self.cancel_payment(bill, payment).await {
            Paid::Done | Paid::Void | Paid::Declined(_) => meaning(refusal, bill, Step::Authorize),
            Paid::Captured => Paid::Captured,
            Paid::Unknown | Paid::Odd => Paid::Unknown,
        }
    }

    async fn cancel_payment(&self, bill: &Bill<'_>, payment: &PaymentOf) -> Paid {
        match self.payment.cancel(&payment.id).await {
            Ok(paid) if paid.status == PaymentStatus::Captured => Paid::Captured,
            Ok(_) => Paid::Done,
            Err(error) => meaning(&error, bill, Step::CancelPayment),
        }
    }

    async fn authorize(
        &self,
        bill: &Bill<'_>,
        payment: &PaymentOf,
    ) -> payment_client::Result<payment_client::wire::Payment> {
        let wanted = NewPayment {
            source: Source::Token(payment.token.clone().unwrap_or_default()),
            amount: self.total_of(bill),
            merchant: self.config.name.clone(),
            order_ref: Some(bill.order.to_string()),
            capture: Capture::Manual,
        };
        self.payment.pay(&payment.id, &wanted).await
    }

    /// Gives back what is left of the money: somebody may have given a part of it back by hand.
    async fn refund(&self, bill: &Bill<'_>, payment: &PaymentOf) -> payment_client::Result<()> {
        let give_back =
            async |name: &str, amount| self.payment.refund(&payment.id, name, amount).await.map(drop);
        let total = self.total_of(bill);
        let refused = match give_back(REFUND, total).await {
            Err(error) if is_less_left(&error) => error,
            told => return told,
        };
        let Some(paid) = self.payment.payment(&payment.id).await? else {
            return Err(refused);
        };
        match paid.captured_minor - paid.refunded_minor {
            0 => Ok(()),
            left => {
                let rest = name_of_rest(paid.refunded_minor);
                give_back(&rest, Money::new(left, total.currency)).await
            }
        }
    }

    fn total_of(&self, bill: &Bill<'_>) -> Money {
        let currency = bill.currency.parse().unwrap_or(self.currency);
        Money::new(bill.total_minor, currency)
    }
}

fn meaning(error: &Error, bill: &Bill<'_>, step: Step) -> Paid {
    match error {
        Error::Declined { code, .. } => Paid::Declined(code.word().to_owned()),
        Error::Conflict(_) => match error.code() {
            "payment-canceled" | "payment-expired" => Paid::Void,
            "payment-captured" => Paid::Captured,
            "payment-declined" => Paid::Declined("declined".to_owned()),
            _ => puzzled(error, bill, step),
        },
        Error::Problem(told) if step == Step::Authorize && is_refusal(told) => {
            if is_about_token(told) {
                return Paid::Declined("invalid-token".to_owned());
            }
            tracing::warn!(
                order.id = bill.order.as_str(),
                code = told.code,
                "the payment service does not take what was ordered"
            );
            Paid::Declined("refused".to_owned())
        }
        Error::Unknown { .. } => Paid::Unknown,
        // It cannot serve at the moment, which is no answer.
        Error::Problem(told) if told.status >= 500 || told.status == 429 => Paid::Unknown,
        _ => puzzled(error, bill, step),
    }
}

fn is_final(error: &Error) -> bool {
    matches!(error, Error::Problem(told) if is_refusal(told))
}

/// Whether the same authorization is refused however often it is sent. A payment of this name that is another one is
/// no refusal of this order: that one stands.
fn is_refusal(told: &Told) -> bool {
    matches!(told.status, 413 | 422) && told.code != problem::PAYMENT_ID_REUSED.code
}

/// Whether a part of the money was given back before: by hand, or by whoever gave back the rest, and was not heard of.
fn is_less_left(error: &Error) -> bool {
    [
        problem::REFUND_EXCEEDS_CAPTURE.code,
        problem::REFUND_ID_REUSED.code,
    ]
    .contains(&error.code())
}

/// Of all that an authorization says, the buyer chose the token, and nobody has checked it before.
fn is_about_token(told: &Told) -> bool {
    told.errors.iter().all(|fault| fault.pointer == "/token") && !told.errors.is_empty()
}

/// What no sound payment service answers. It is asked again, and a person finds why in the log. A letter that asks is
/// laid aside after a few of these, but not where it may be over soon.
fn puzzled(error: &Error, bill: &Bill<'_>, step: Step) -> Paid {
    tracing::error!(
        order.id = bill.order.as_str(),
        code = error.code(),
        ?step,
        "the payment service gave an answer that does not fit"
    );
    if is_passing(error) {
        Paid::Unknown
    } else {
        Paid::Odd
    }
}

/// Whether it says nothing about the payment: so answers whoever has other tokens while they are changed, or does not
/// know the route, such as a proxy or another version.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Protocol(_) => true,
        Error::Problem(told) => {
            matches!(told.status, 401 | 403 | 404 | 405) && told.code != problem::PAYMENT_NOT_FOUND.code
        }
        _ => false,
    }
}

/// The faults of a card number, at the place where our own contract has it.
fn refused_number(told: &Told) -> Problem {
    let kind: &'static Kind = problem::by_code(&told.code).unwrap_or(problem::INVALID_REQUEST);
    let detail = told
        .errors
        .first()
        .map_or("is no card number", |fault| fault.detail.as_str());
    Problem::new(kind, "The card number is not one that can be paid with.").fault("/cardNumber", detail)
}

fn unreachable(error: &Error) -> Problem {
    tracing::warn!(code = error.code(), "the payment service cannot be reached");
    Problem::new(
        problem::NOT_READY,
        "The payment service cannot be reached at the moment. Nothing was ordered and nothing was charged.",
    )
}

fn before(step: Step) -> &'static str {
    match step {
        Step::Nothing => "before nothing",
        Step::Authorize => "before authorize",
        Step::Capture => "before capture",
        Step::GiveUp => "before giving up",
        Step::CancelPayment => "before cancel",
        Step::Refund => "before refund",
    }
}

fn behind(step: Step) -> &'static str {
    match step {
        Step::Nothing => "after nothing",
        Step::Authorize => "after authorize",
        Step::Capture => "after capture",
        Step::GiveUp => "after giving up",
        Step::CancelPayment => "after cancel",
        Step::Refund => "after refund",
    }
}

#[cfg(test)]
mod tests {
    use kvstore_client::wire::problem::Fault;

    use super::*;

    fn told(status: u16, code: &str, pointers: &[&str]) -> Error {
        let errors = pointers.iter().map(|pointer| Fault {
            pointer: (*pointer).to_owned(),
            detail: "is not right".to_owned(),
        });
        Error::Problem(Box::new(Told {
            status,
            code: code.to_owned(),
            errors: errors.collect(),
            ..Told::default()
        }))
    }

    #[test]
    fn what_is_refused_for_good_is_not_asked_again() {
        let order = OrderId::new(1);
        let bill = Bill {
            order: &order,
            payment: None,
            total_minor: 1,
            currency: "EUR",
        };
        let refused = |word: &str| Paid::Declined(word.to_owned());
        for (error, paid) in [
            (
                told(422, "invalid-request", &["/token"]),
                refused("invalid-token"),
            ),
            (told(422, "invalid-request", &["/amount"]), refused("refused")),
            (
                told(422, "invalid-request", &["/token", "/amount"]),
                refused("refused"),
            ),
            (told(413, "too-large", &[]), refused("refused")),
            (told(422, "payment-id-reused", &[]), Paid::Odd),
            (told(400, "malformed-json", &[]), Paid::Odd),
            (told(503, "no-leader", &[]), Paid::Unknown),
        ] {
            assert_eq!(meaning(&error, &bill, Step::Authorize), paid, "{}", error.code());
        }
        // Where money is held already, a refusal ends nothing.
        let refused = told(422, "invalid-request", &["/amount"]);
        assert_eq!(meaning(&refused, &bill, Step::Capture), Paid::Odd);
        let gone = told(404, "payment-not-found", &[]);
        assert_eq!(meaning(&gone, &bill, Step::Capture), Paid::Odd);
        // What is none of its answers says nothing, whatever was asked.
        let unreadable = serde_json::from_str::<Capture>("<html>").unwrap_err();
        for passing in [
            told(401, "unauthorized", &[]),
            told(403, "forbidden", &[]),
            told(404, "", &[]),
            told(405, "method-not-allowed", &[]),
            Error::Protocol(unreadable),
        ] {
            for step in [Step::Authorize, Step::Capture, Step::CancelPayment, Step::Refund] {
                assert_eq!(
                    meaning(&passing, &bill, step),
                    Paid::Unknown,
                    "{}",
                    passing.code()
                );
            }
        }
    }
}
