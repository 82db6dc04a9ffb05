//! Carts: what somebody means to order. A cart takes nothing off the shelves.
//! Invariant: two windows that change a cart at the same time both get what they asked for, one after the other.

use std::collections::BTreeMap;

use kvstore_client::wire::Revision;
use kvstore_client::wire::txn::{Branch, Condition, Op};
use kvstore_client::{Freshness, Txn, problem_of};
use service::problem::{self, Problem, Result};
use tokio::time::Duration;

use super::products::{replayed, unknown_product};
use super::{LINES_MAX, QUANTITY_MAX, Shelf, Shop, views};
use crate::domain::UserId;
use crate::store::{CartRecord, Kept, Once, Reply, Store, read, write};

/// Only the same user's other windows are in the way.
const TRIES_MAX: u32 = 32;

/// What is done to a cart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CartChange {
    Add { product: String, quantity: i64 },
    Set { product: String, quantity: i64 },
    Remove { product: String },
    Empty,
}

/// A cart and the revision it was read at; 0 when there is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct FoundCart {
    pub(crate) record: CartRecord,
    pub(crate) revision: Revision,
}

impl Shop {
    pub(crate) async fn found_cart(&self, user: &UserId) -> Result<FoundCart> {
        let kv = self.store.client.get(&self.store.keys.cart(user)).await;
        let Some(kv) = kv.map_err(problem_of)? else {
            return Ok(FoundCart::default());
        };
        Ok(FoundCart {
            record: read(&kv.key, &kv.bytes())?,
            revision: kv.mod_revision,
        })
    }

    pub(crate) async fn cart(&self, user: &UserId) -> Result<views::CartView> {
        let (cart, shelf) = tokio::join!(
            self.found_cart(user),
            self.catalogue.shelf(Freshness::Linearizable)
        );
        Ok(views::cart(user.as_str(), &cart?.record, &*shelf?, self.currency))
    }

    pub(crate) async fn change_cart(
        &self,
        user: &UserId,
        change: &CartChange,
        once: Option<&Once>,
    ) -> Result<Reply> {
        let work = Box::pin(self.try_to_change_cart(user, change, once));
        self.once(once, |kept| Ok(replayed(kept)), work).await
    }

    async fn try_to_change_cart(
        &self,
        user: &UserId,
        change: &CartChange,
        once: Option<&Once>,
    ) -> Result<Reply> {
        let key = self.store.keys.cart(user);
        for tries in 0..TRIES_MAX {
            let (found, shelf) = tokio::join!(
                self.found_cart(user),
                self.catalogue.shelf(Freshness::Linearizable)
            );
            let (found, shelf) = (found?, shelf?);
            let mut cart = found.record.clone();
            // What is gone from the shelves goes from the cart as well.
            cart.items.retain(|(id, _)| shelf.get(id).is_some());
            apply(&mut cart, change, |id| shelf.get(id).is_some())?;
            cart.names = names(&cart, &shelf);
            let kept = Kept::json(200, &views::cart(user.as_str(), &cart, &shelf, self.currency));
            if cart == found.record && once.is_none() {
                return Ok(Reply::first(kept));
            }
            let op = if cart.items.is_empty() {
                Op::delete(&key)
            } else {
                Op::put(&key, write(&cart))
            };
            let txn = Txn::new()
                .when(Condition::unchanged(&key, found.revision))
                .then(op);
            let txn = self.store.keep(txn, once, &kept);
            let answer = self.store.commit(self.store.guard(txn, once)).await?;
            if answer.branch == Branch::Then {
                return Ok(Reply::first(kept));
            }
            if let Some(kept) = Store::replay_of(once, answer.got(0))? {
                return Ok(replayed(kept));
            }
            let drawn = u64::from(getrandom::u32().unwrap_or(0) % 4);
            tokio::time::sleep(Duration::from_millis(drawn * u64::from(tries))).await;
        }
        Err(Problem::new(
            problem::OVERLOADED,
            "The cart is being changed by too many at the same time.",
        ))
    }
}

fn names(cart: &CartRecord, shelf: &Shelf) -> BTreeMap<String, String> {
    let name = |(id, _): &(String, i64)| Some((id.clone(), shelf.get(id)?.product.name.clone()));
    cart.items.iter().filter_map(name).collect()
}

fn apply(cart: &mut CartRecord, change: &CartChange, is_known: impl Fn(&str) -> bool) -> Result<()> {
    let known = |product: &str| {
        if is_known(product) {
            Ok(())
        } else {
            Err(unknown_product())
        }
    };
    let lines_before = cart.items.len();
    match change {
        CartChange::Add { product, quantity } => {
            known(product)?;
            let sum = cart.quantity(product).saturating_add(*quantity);
            if sum > QUANTITY_MAX {
                let detail = format!("A cart holds at most {QUANTITY_MAX} pieces of a product.");
                return Err(Problem::new(problem::INVALID_REQUEST, detail).fault(
                    "/quantity",
                    format!("makes {sum} together with what is in the cart"),
                ));
            }
            cart.set(product, sum);
        }
        CartChange::Set { product, quantity } => {
            known(product)?;
            cart.set(product, *quantity);
        }
        CartChange::Remove { product } => cart.set(product, 0),
        CartChange::Empty => cart.items.clear(),
    }
    // What came back from an order that was declined may have made it longer than that; it can be changed all the same.
    if cart.items.len() > LINES_MAX.max(lines_before) {
        let detail = format!("A cart holds at most {LINES_MAX} different products.");
        return Err(Problem::new(problem::INVALID_REQUEST, detail).fault("/productId", "is one too many"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cart_has_bounds() {
        let mut cart = CartRecord::default();
        let add = |product: &str, quantity| CartChange::Add {
            product: product.to_owned(),
            quantity,
        };
        let code = |result: Result<()>| result.map_err(|problem| problem.kind.code);
        assert_eq!(code(apply(&mut cart, &add("1", QUANTITY_MAX), |_| true)), Ok(()));
        assert_eq!(
            code(apply(&mut cart, &add("1", 1), |_| true)),
            Err("invalid-request")
        );
        assert_eq!(
            code(apply(&mut cart, &add("2", i64::MAX), |_| true)),
            Err("invalid-request")
        );
        assert_eq!(
            code(apply(&mut cart, &add("2", 1), |_| false)),
            Err("product-not-found")
        );
        for n in 2..=LINES_MAX {
            assert_eq!(code(apply(&mut cart, &add(&n.to_string(), 1), |_| true)), Ok(()));
        }
        assert_eq!(
            code(apply(&mut cart, &add("x", 1), |_| true)),
            Err("invalid-request")
        );
    }

    #[test]
    fn a_cart_that_a_decline_made_too_long_can_be_changed() {
        let many = 0..LINES_MAX + 50;
        let mut cart = CartRecord {
            items: many.map(|n| (n.to_string(), 1)).collect(),
            ..CartRecord::default()
        };
        let set = |product: &str, quantity| CartChange::Set {
            product: product.to_owned(),
            quantity,
        };
        let code = |result: Result<()>| result.map_err(|problem| problem.kind.code);
        assert_eq!(code(apply(&mut cart, &set("7", 3), |_| true)), Ok(()));
        let refused = code(apply(&mut cart.clone(), &set("new", 1), |_| true));
        assert_eq!(refused, Err("invalid-request"));
        for n in 0..50 {
            let product = n.to_string();
            assert_eq!(
                code(apply(&mut cart, &CartChange::Remove { product }, |_| true)),
                Ok(())
            );
        }
        let full = code(apply(&mut cart.clone(), &set("new", 1), |_| true));
        assert_eq!((cart.items.len(), full), (LINES_MAX, Err("invalid-request")));
        assert_eq!(code(apply(&mut cart, &set("99", 0), |_| true)), Ok(()));
        assert_eq!(code(apply(&mut cart, &set("new", 1), |_| true)), Ok(()));
    }
}
