//! What the store could hold in place of a model. Whoever may write there can also make the hash right.
//! Invariant: it is read or refused, and whatever was read answers.

use super::card::{Card, version};
use super::load::{read_card, read_model};
use crate::bent::feed;
use crate::data::{Table, iris};
use crate::models::{Fitted, Kind, Predictor, fit};

/// So few rows make a model so short that bends often meet its structure.
fn table() -> Table {
    let iris = iris();
    iris.pick(&[
        0, 1, 2, 3, 4, 5, 50, 51, 52, 53, 54, 55, 100, 101, 102, 103, 104, 105,
    ])
}

fn card(table: &Table, kind: Kind) -> (Card, Fitted) {
    let fitted = fit(kind, table, 1).expect("it can be learned");
    let card = Card::make("m", kind, table, &fitted, (1, 0)).expect("it has a card");
    (card, fitted)
}

fn feed_models(kind: Kind) {
    let table = table();
    let (card, fitted) = card(&table, kind);
    let whole = fitted.to_bytes();
    assert_eq!(read_model(&card, &whole).expect("it is whole"), fitted);
    let other = Card {
        version: version(b"another"),
        ..card.clone()
    };
    assert!(read_model(&other, &whole).is_err(), "its hash is wrong");
    let rows = [&table.rows[0][..], &[0.0; 4], &[f64::MAX, f64::MIN, 1e-300, -0.0]];
    feed(&[whole], |bytes| {
        let believed = Card {
            version: version(bytes),
            ..card.clone()
        };
        let Ok(fitted) = read_model(&believed, bytes) else {
            return;
        };
        if let Ok(predictor) = Predictor::new(fitted) {
            for row in rows {
                assert_eq!(predictor.predict(row).len(), card.classes.len());
            }
        }
    });
}

#[test]
fn bayes() {
    feed_models(Kind::NaiveBayes);
}

#[test]
fn neighbours() {
    feed_models(Kind::Knn);
}

#[test]
fn logistic() {
    feed_models(Kind::Logistic);
}

#[test]
fn trees() {
    feed_models(Kind::Tree);
}

#[test]
fn forests() {
    feed_models(Kind::Forest);
}

#[test]
fn cards() {
    let (card, _fitted) = card(&table(), Kind::Tree);
    let whole = serde_json::to_vec(&card).expect("it is plain data");
    assert_eq!(read_card(&whole).expect("it is whole"), card);
    feed(&[whole], |bytes| drop(read_card(bytes)));
}
