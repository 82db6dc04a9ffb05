//! Goods for trying out, put on the shelves on the first start of a demo system.
//! Invariant: they come once in the life of a shop: goods, their number and the mark that says so are one transaction.

use kvstore_client::Txn;
use kvstore_client::wire::txn::{Condition, Op};
use service::problem::Result;
use service::time::now_ms;

use crate::domain::{Product, ProductId};
use crate::shop::{NewProduct, put_new};
use crate::store::Store;

/// Name, species, category, description, price in minor units, pieces.
type Row = (&'static str, &'static str, &'static str, &'static str, i64, i64);

const GOODS: [Row; 12] = [
    (
        "Mia",
        "cat",
        "pets",
        "A tabby who sleeps on warm keyboards.",
        12_900,
        3,
    ),
    (
        "Rex",
        "dog",
        "pets",
        "Fetches anything but the newspaper.",
        29_999,
        2,
    ),
    (
        "Flopsy",
        "rabbit",
        "pets",
        "Two ears, four paws, endless carrots.",
        3_450,
        8,
    ),
    (
        "Nibbles",
        "hamster",
        "pets",
        "Runs three miles a night and goes nowhere.",
        1_299,
        12,
    ),
    (
        "Captain",
        "parrot",
        "birds",
        "Repeats everything, at least once.",
        24_900,
        2,
    ),
    (
        "Bubbles",
        "goldfish",
        "aquarium",
        "Forgets that it met you, and is glad each time.",
        499,
        40,
    ),
    (
        "Sheldon",
        "turtle",
        "terrarium",
        "Slow, steady, and always at home.",
        8_900,
        5,
    ),
    (
        "Noodle",
        "snake",
        "terrarium",
        "A corn snake, gentle and well-knotted.",
        11_500,
        3,
    ),
    ("Spike", "hedgehog", "pets", "Prickly until Thursday.", 5_990, 4),
    (
        "Lotl",
        "axolotl",
        "aquarium",
        "Smiles, and grows back what it loses: a favourite here.",
        4_200,
        6,
    ),
    (
        "Pip",
        "chick",
        "birds",
        "Fits into one hand and fills the room.",
        350,
        60,
    ),
    (
        "Gex",
        "gecko",
        "terrarium",
        "Walks on the ceiling, pays no rent.",
        2_750,
        9,
    ),
];

pub(crate) async fn stock_shelves(store: &Store) -> Result<()> {
    let keys = &store.keys;
    let known = store.client.get(&keys.demo()).await;
    if known.map_err(kvstore_client::problem_of)?.is_some() {
        return Ok(());
    }
    let count = i64::try_from(GOODS.len()).expect("they are few");
    let mut txn = Txn::new()
        .when(Condition::absent(&keys.demo()))
        // Somebody may have put goods on the shelves before: theirs have these numbers then.
        .when(Condition::absent(&keys.last_product()))
        .then(Op::put(&keys.demo(), ""))
        .then(Op::put(&keys.last_product(), count.to_string()))
        .then(Op::put(&keys.product_count(), count.to_string()));
    for (n, (name, species, category, description, price_minor, stock)) in (1..).zip(GOODS) {
        let new = NewProduct {
            product: Product {
                name: name.to_owned(),
                species: species.to_owned(),
                category: category.to_owned(),
                description: description.to_owned(),
                price_minor,
                created_ms: now_ms(),
            },
            stock,
        };
        for op in put_new(store, &ProductId::numbered(n), &new) {
            txn = txn.then(op);
        }
    }
    if store.commit(txn).await?.succeeded {
        tracing::info!(goods = GOODS.len(), "put goods for trying out on the shelves");
    }
    Ok(())
}
