//! Cards and card tokens.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use payment_client::wire::{CardStatus, CardToken};
use service::fields::Fields;
use service::problem;
use service::time::now_ms;
use time::OffsetDateTime;

use super::reading::{card_number, currency, json, money};
use super::{Result, Shared};
use crate::ledger::Opening;

/// `PUT /v1/cards`
pub(super) async fn open(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = app.operator(&parts.headers)?;
    let (mut fields, body) = app.fields(&parts.headers, body).await?;
    let number = card_number(&mut fields);
    let currency = currency(&mut fields, None);
    let (_, max) = app.amount_bounds();
    let balance = money(&mut fields, "balance", currency, (0, max));
    let status = fields.optional::<CardStatus>("status", "\"active\" or \"blocked\"");
    fields.finish()?;
    let (Some(number), Some(balance)) = (number, balance) else {
        unreachable!("what is missing is a fault")
    };
    let opening = Opening {
        card: app.vault.card(&number),
        balance,
        status,
    };
    let once = app.once(caller, (&parts.method, &parts.uri, &parts.headers), &body)?;
    let reply = app.ledger.open_card(&opening, once.as_ref()).await?;
    Ok(reply.into_answer(None))
}

/// `POST /v1/cards/balance`: a POST, so that no number stands in a URL or a log.
pub(super) async fn balance(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    app.anybody(&parts)?;
    let (mut fields, _body) = app.fields(&parts.headers, body).await?;
    let number = card_number(&mut fields);
    fields.finish()?;
    let number = number.expect("what is missing is a fault");
    let body = app.ledger.balance(&app.vault.card(&number).id).await?;
    Ok(json(StatusCode::OK, body))
}

/// `POST /v1/tokens`: nothing is written; the token itself says which card it is for.
pub(super) async fn tokenize(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    app.anybody(&parts)?;
    let (mut fields, _body) = app.fields(&parts.headers, body).await?;
    let number = card_number(&mut fields);
    check_expiry(&mut fields, now_ms());
    check_security_code(&mut fields);
    fields.finish()?;
    let number = number.expect("what is missing is a fault");
    let token = CardToken {
        token: app.vault.seal(&number, now_ms() + app.config.token_s * 1000),
        brand: number.brand().word().to_owned(),
        last4: number.last4(),
    };
    let body = serde_json::to_string(&token).expect("text becomes JSON");
    Ok(json(StatusCode::CREATED, body))
}

/// A card can be used to the end of its month.
fn check_expiry(fields: &mut Fields, now_ms: u64) {
    let month: Option<u8> = fields.optional("exp_month", "a number from 1 to 12");
    let year: Option<u16> = fields.optional("exp_year", "a year such as 2030");
    if fields.has("exp_month") != fields.has("exp_year") {
        let missing = if fields.has("exp_month") {
            "exp_year"
        } else {
            "exp_month"
        };
        fields.require(missing);
    }
    let (Some(month), Some(year)) = (month, year) else {
        return;
    };
    if !(1..=12).contains(&month) {
        return fields.fault("exp_month", "must be a number from 1 to 12");
    }
    // Cards show two digits of the year.
    let year = if year < 100 { 2000 + year } else { year };
    let seconds = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
    let Ok(today) = OffsetDateTime::from_unix_timestamp(seconds) else {
        return;
    };
    if (i32::from(year), month) < (today.year(), u8::from(today.month())) {
        fields.fault_of(problem::EXPIRED_CARD, "exp_year", "has passed");
    }
}

/// Looked at and dropped: it is never kept, not even hashed.
fn check_security_code(fields: &mut Fields) {
    let Some(code) = fields.optional_text("cvc").map(zeroize::Zeroizing::new) else {
        return;
    };
    let sound = (3..=4).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_digit());
    if !sound {
        fields.fault("cvc", "must be 3 or 4 digits");
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;

    #[test]
    fn a_card_can_be_used_to_the_end_of_its_month() {
        // The middle of November 2026.
        let now_ms = 1_794_700_800_000;
        let refused = |text: &str| {
            let body = bytes::Bytes::copy_from_slice(text.as_bytes());
            let mut fields = Fields::read(&HeaderMap::new(), &body).unwrap();
            check_expiry(&mut fields, now_ms);
            fields.finish().err().map(|problem| problem.kind.code)
        };
        for text in [
            r"{}",
            r#"{"exp_month": 11, "exp_year": 2026}"#,
            r#"{"exp_month": 1, "exp_year": 27}"#,
        ] {
            assert_eq!(refused(text), None, "{text}");
        }
        for text in [
            r#"{"exp_month": 10, "exp_year": 2026}"#,
            r#"{"exp_month": 12, "exp_year": 25}"#,
        ] {
            assert_eq!(refused(text), Some("expired-card"), "{text}");
        }
        for text in [
            r#"{"exp_month": 13, "exp_year": 2030}"#,
            r#"{"exp_month": 1}"#,
            r#"{"exp_year": 2030}"#,
            r#"{"exp_month": "1", "exp_year": 2030}"#,
        ] {
            assert_eq!(refused(text), Some("invalid-request"), "{text}");
        }
    }
}
