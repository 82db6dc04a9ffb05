//! `POST /payments`, the simple one: checks the card, checks that it has enough, and charges it.
//! Invariant: with an idempotency key a repetition is answered as every other write is, for as long as the key lasts;
//! without one, only a charge leaves a trace.

use axum::extract::{Request, State};
use axum::response::Response;
use payment_client::wire::{Capture, Payment};
use service::idempotency;
use service::problem::{self, Problem};

use super::reading::{card_number, currency, money, name};
use super::{Result, Shared};
use crate::domain::{MerchantName, OrderRef, PaymentId};
use crate::ledger::{Named, Purchase, random_id};

pub(super) async fn pay(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = app.anybody(&parts)?;
    let key = idempotency::key(&parts.headers)?;
    let (mut fields, body) = app.fields(&parts.headers, body).await?;
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
            let owner = caller.owner();
            let stands_for = app.vault.fingerprint("payment id", &[owner.as_bytes(), key]);
            let id = PaymentId::parse(&format!("key_{stands_for}"));
            (id.expect("hex digits behind a word are a name"), Named::Key)
        }
        None => (random_id(), Named::Chance),
    };
    let mut purchase = Purchase {
        id,
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
    let once = app.once(caller, (&parts.method, &parts.uri, &parts.headers), &body)?;
    let outcome = app.ledger.pay(&purchase, once.as_ref()).await;
    app.count(&outcome, purchase.capture);
    let reply = outcome.map_err(|refusal| {
        // Whoever sent no key cannot ask again in safety; by the id they can look, or cancel.
        if once.is_none() && refusal.kind == problem::OUTCOME_UNKNOWN {
            refusal.extra("payment_id", purchase.id.as_str())
        } else {
            refusal
        }
    })?;
    // Under a key it need not be the payment that was asked for just now.
    let made: Payment = serde_json::from_str(&reply.body)
        .map_err(|error| Problem::internal("tell where a payment is", error))?;
    Ok(reply.into_answer(Some(&format!("/v1/payments/{}", made.id))))
}
