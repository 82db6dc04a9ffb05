//! `PaymentClient` against real instances, one of which goes away.

use payment_client::wire::{Capture, CardStatus, DeclineCode, Status};
use payment_client::{Currency, Error, Money, NewPayment, PaymentClient, Source};

use crate::system::{EMPTY, STRANGER, System, VISA};

fn euro(minor: i64) -> Money {
    Money::new(minor, Currency::EUR)
}

fn client(system: &System, token: &str) -> PaymentClient {
    let token = system.cluster.secrets().token(token).unwrap().expose().to_owned();
    PaymentClient::builder(system.addresses(), token).build().unwrap()
}

fn payment(source: Source, minor: i64) -> NewPayment {
    NewPayment {
        source,
        amount: euro(minor),
        merchant: "shop".to_owned(),
        order_ref: Some("order 1/2".to_owned()),
        capture: Capture::Manual,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_from_token_to_refund() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (shop, operator) = (client(&system, "merchant"), client(&system, "operator"));
    let opened = operator
        .open_card(STRANGER, euro(10_050), CardStatus::Active)
        .await
        .unwrap();
    assert_eq!(
        (opened.balance_minor, opened.card.brand.as_str()),
        (10_050, "discover")
    );
    let token = shop.tokenize(STRANGER).await.unwrap();
    assert_eq!(token.last4, "1117");
    let held = payment(Source::Token(token.token), 10_000);
    let made = shop.pay("p/1", &held).await.unwrap();
    assert_eq!(
        (made.status, made.money()),
        (Status::Authorized, Some(euro(10_000)))
    );
    assert_eq!(shop.pay("p/1", &held).await.unwrap().status, Status::Authorized);
    let captured = shop.capture("p/1", Some(euro(9000))).await.unwrap();
    assert_eq!(
        (captured.status, captured.captured_minor),
        (Status::Captured, 9000)
    );
    assert!(matches!(shop.cancel("p/1").await, Err(Error::Conflict(_))));
    assert_eq!(
        shop.refund("p/1", "r 1", euro(1000)).await.unwrap().amount_minor,
        1000
    );
    let refused = shop.refund("p/1", "r 2", euro(8001)).await.unwrap_err();
    assert_eq!(refused.code(), "refund-exceeds-capture");
    let shown = shop.payment("p/1").await.unwrap().unwrap();
    assert_eq!((shown.refunded_minor, shown.transfers.unwrap().len()), (1000, 3));
    assert!(shop.payment("p/2").await.unwrap().is_none());
    assert_eq!(shop.payments("shop", "order 1/2").await.unwrap().len(), 1);
    let balance = shop.balance(STRANGER).await.unwrap().unwrap();
    assert_eq!((balance.balance_minor, balance.held_minor), (2050, 0));
    assert!(shop.balance("6759649826438453").await.unwrap().is_none());
    let declined = shop
        .pay("p/3", &payment(Source::CardNumber(EMPTY.to_owned()), 1))
        .await;
    let Err(Error::Declined { code, .. }) = declined else {
        panic!("{declined:?}")
    };
    assert_eq!(code, DeclineCode::InsufficientFunds);
    assert_eq!(shop.cancel("p/4").await.unwrap().status, Status::Canceled);
    let check = shop.check_ledger(None).await.unwrap();
    assert!(
        check.balanced
            && check
                .currencies
                .iter()
                .all(payment_client::wire::TrialBalance::is_even)
    );
    let forbidden = shop
        .open_card(STRANGER, euro(1), CardStatus::Active)
        .await
        .unwrap_err();
    assert_eq!(forbidden.code(), "forbidden");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_gone_is_not_missed() {
    let mut system = System::start_with(1, 2, |_config| {}).await;
    let shop = client(&system, "merchant");
    let card = || payment(Source::CardNumber(VISA.to_owned()), 100);
    for n in 0..4 {
        shop.pay(&format!("before-{n}"), &card()).await.unwrap();
    }
    system.stop_instance(0).await;
    for n in 0..4 {
        shop.pay(&format!("after-{n}"), &card()).await.unwrap();
    }
    system.stop_instance(1).await;
    let short = shop.with_deadline(std::time::Duration::from_millis(300));
    let unknown = short.pay("nobody-there", &card()).await.unwrap_err();
    assert!(matches!(unknown, Error::Unknown { .. }), "{unknown:?}");
    system.cluster.stop().await;
}
