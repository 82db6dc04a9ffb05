//! `POST /payments`, the simple one: checks the card, checks that it has enough, and charges it.
//! Invariant: with an idempotency key the payment's id is made of that key, so that a repetition is the same payment;
//! without one, only a charge leaves a trace.

use axum::extract::{Request, State};
use axum::response::Response;
use payment_client::wire::Capture;
use service::{idempotency, problem};

use super::reading::{card_number, currency, money, name};
use super::{Result, Shared};
use crate::domain::{MerchantName, OrderRef, PaymentId};
use crate::ledger::{Named, Purchase};

pub(super) async fn pay(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = app.anybody(&parts)?;
    let key = idempotency::key(&parts.headers)?;
    let (mut fields, _body) = app.fields(&parts.headers, body).await?;
    let number = card_number(&mut fields);
    let currency = currency(&mut fields, Some(app.currency));
    let amount = money(&mut fields, "amount", currency, app.amount_bounds());
    // Strangers write nothing of their choice into the books of others: their money goes where this system says.
    let (merchant, order_ref) = if caller.has_credential() {
        let merchant = name(&mut fields, "merchant", MerchantName::parse);
        (merchant, name(&mut fields, "order_ref", OrderRef::parse))
    } else {
        (None, None)
    };
    fields.finish()?;
    let (Some(number), Some(amount)) = (number, amount) else {
        unreachable!("what is missing is a fault")
    };
    let (id, named) = match key {
        Some(key) => {
            let owner = caller.word().as_bytes();
            let id = format!("key_{}", app.vault.fingerprint("payment id", &[owner, key]));
            (id, Named::ByKey)
        }
        None => (random_id(), Named::ByChance),
    };
    let mut purchase = Purchase {
        id: PaymentId::parse(&id).expect("hex digits behind a word are a name"),
        named,
        card: app.vault.card(&number),
        token: None,
        money: amount,
        merchant: merchant.unwrap_or_else(|| app.merchant.clone()),
        order_ref,
        capture: Capture::Automatic,
        fingerprint: String::new(),
    };
    purchase.fingerprint = app.fingerprint(&purchase);
    let outcome = app.ledger.pay(&purchase, None).await;
    app.count(&outcome, purchase.capture);
    let reply = outcome.map_err(|refusal| {
        // Whoever sent no key cannot ask again in safety; by the id they can look, or cancel.
        if key.is_none() && refusal.kind == problem::OUTCOME_UNKNOWN {
            refusal.extra("payment_id", id.as_str())
        } else {
            refusal
        }
    })?;
    Ok(reply.into_answer(Some(&format!("/v1/payments/{id}"))))
}

fn random_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes to give");
    format!("pay_{:032x}", u128::from_ne_bytes(bytes))
}
