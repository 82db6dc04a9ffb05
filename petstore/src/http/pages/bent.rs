//! Forms as no page of ours sends them.
//! Invariant: each is read, or refused with words for whoever sent it.

use axum::body::Body;
use axum::http::Request;
use payment_client::Currency;
use service::config::ShopConfig;
use zeroize::Zeroizing;

use super::{Form, Read, admin, cart, own_place};
use crate::bent::feed;
use crate::domain::Username;
use crate::http::Result;
use crate::http::users::checked_new_user;

/// The whole ones are taken.
fn feed_forms<T>(whole: &[&str], parse: impl Fn(&Form<'_>) -> Result<T>) {
    let parse = |bytes: &[u8]| {
        let (parts, _body) = Request::new(Body::empty()).into_parts();
        let read = Read {
            parts,
            body: bytes.to_vec().into(),
        };
        parse(&Form::of(&read)).map(drop)
    };
    for text in whole {
        assert!(parse(text.as_bytes()).is_ok(), "refused: {text}");
    }
    let whole: Vec<Vec<u8>> = whole.iter().map(|text| text.as_bytes().to_vec()).collect();
    feed(&whole, |bytes| {
        if let Err(refused) = parse(bytes) {
            assert!(refused.status().is_client_error(), "{refused}");
        }
    });
}

#[test]
fn carts() {
    let whole = [
        "action=add&product=a-b&quantity=1000",
        "action=remove&product=1&quantity=",
        "action=set&product=%C3%A9+x&quantity=0",
    ];
    feed_forms(&whole, |form| {
        let (action, product) = (form.text("action")?, form.text("product")?);
        cart::change_of(&action, product, form.whole("quantity", 1)?)
    });
}

#[test]
fn checkouts() {
    let whole = [
        "key=0123456789abcdef&cardNumber=4242+4242+4242+4242&expectedTotal=299.99",
        "key=k&cardNumber=&expectedTotal=no",
    ];
    feed_forms(&whole, |form| cart::read_paying(form, Currency::EUR));
}

#[test]
fn shelves() {
    let whole = [
        "action=create&name=Rex&species=dog&category=pets&description=a%0Ab&price=299.99&stock=3",
        "action=change&id=1&tag=7&name=Rex&species=&category=&description=&price=1e2&stock=",
    ];
    let config = ShopConfig::default();
    feed_forms(&whole, |form| {
        form.text("action")?;
        form.text("id")?;
        form.text("tag")?;
        admin::read_change((&config, Currency::EUR), form, &admin::NAMES)
    });
}

#[test]
fn accounts() {
    let whole = ["username=Ada+L%C3%B6ve&password=12345678&next=%2Fshop%2Fcart"];
    feed_forms(&whole, |form| {
        let (username, next) = (form.text("username")?, form.text("next")?);
        assert!(own_place(&next).starts_with('/'));
        drop(Username::typed(&username));
        checked_new_user(&username, Zeroizing::new(form.text("password")?))
    });
}
