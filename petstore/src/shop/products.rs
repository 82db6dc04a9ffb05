//! Keeping the shelves: new products, changes of them and of their stock, and taking them off.
//! Invariant: what was received is always what is in stock, reserved or sold, so it moves with every change of the
//! stock that is no sale. The stock of a product that is gone stays, for orders that may still come back.

use kvstore_client::wire::txn::{Branch, Condition, Op};
use kvstore_client::{Freshness, Txn};
use service::problem::{self, Problem, Result};

use super::shelf::Good;
use super::{Shop, views};
use crate::domain::{Product, ProductId};
use crate::store::{GoodsPart, Kept, Once, Reply, Store, inconsistent, write};

/// Only another edit of the same product is in the way of an edit, or a sale of the last pieces.
const TRIES_MAX: usize = 16;

pub(crate) struct NewProduct {
    pub(crate) product: Product,
    pub(crate) stock: i64,
}

/// Only what is there is changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub(crate) name: Option<String>,
    pub(crate) species: Option<String>,
    pub(crate) category: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) price_minor: Option<i64>,
    pub(crate) stock: Option<StockChange>,
}

/// What is said of the pieces on the shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StockChange {
    To(i64),
    /// That there are some, whatever their number: so many where there are none.
    InStock(i64),
}

impl StockChange {
    /// How many there will be where there are so many.
    pub(crate) fn after(self, present: i64) -> i64 {
        match self {
            Self::InStock(_) if present > 0 => present,
            Self::To(pieces) | Self::InStock(pieces) => pieces,
        }
    }
}

impl Change {
    fn apply(&self, product: &Product) -> Product {
        let text = |new: &Option<String>, old: &String| new.as_ref().unwrap_or(old).clone();
        Product {
            name: text(&self.name, &product.name),
            species: text(&self.species, &product.species),
            category: text(&self.category, &product.category),
            description: text(&self.description, &product.description),
            price_minor: self.price_minor.unwrap_or(product.price_minor),
            created_ms: product.created_ms,
        }
    }
}

pub(crate) fn unknown_product() -> Problem {
    Problem::new(problem::PRODUCT_NOT_FOUND, "There is no product with this id.")
}

fn changed_meanwhile(tag: u64) -> Problem {
    Problem::new(
        problem::PRECONDITION_FAILED,
        "The product or its stock is not as If-Match wants it; look at it again.",
    )
    .header(axum::http::header::ETAG, views::tag(tag))
}

impl Shop {
    pub(crate) async fn product(&self, id: &str) -> Result<Good> {
        let id = ProductId::parse(id).ok_or_else(unknown_product)?;
        let good = self.catalogue.good(id.as_str(), Freshness::Linearizable).await?;
        good.ok_or_else(unknown_product)
    }

    pub(crate) async fn create(&self, new: &NewProduct, as_pet: bool, once: Option<&Once>) -> Result<Reply> {
        let work = Box::pin(self.try_to_create(new, as_pet, once));
        self.once(once, |kept| Ok(written_before(kept)), work).await
    }

    async fn try_to_create(&self, new: &NewProduct, as_pet: bool, once: Option<&Once>) -> Result<Reply> {
        let (store, keys) = (&self.store, &self.store.keys);
        let number = store.client.add(&keys.last_product(), 1, None, None).await;
        let number = number.map_err(kvstore_client::problem_of)?;
        let id =
            ProductId::numbered(number.ok_or_else(|| inconsistent("the number of a product overflows"))?);
        let count_max = i64::try_from(self.config.products_max).unwrap_or(i64::MAX);
        let good = Good {
            id: id.to_string(),
            product: new.product.clone().into(),
            product_revision: 0,
            stock: new.stock,
            stock_revision: 0,
        };
        let kept = if as_pet {
            Kept::json(201, &views::pet(&good, self.currency)).at(format!("/pets/{id}"))
        } else {
            Kept::json(201, &views::product(&good, self.currency)).at(format!("/products/{id}"))
        };
        let mut txn = Txn::new()
            .then(Op::add(&keys.product_count(), 1, None, Some(count_max)))
            .failed(Op::get(&keys.product_count()));
        for op in put_new(store, &id, new) {
            txn = txn.then(op);
        }
        txn = store.keep(txn, once, &kept);
        let answer = store.commit(store.guard(txn, once)).await?;
        match answer.branch {
            Branch::Then => Ok(Reply {
                etag: Some(answer.revision),
                ..Reply::first(kept)
            }),
            Branch::Failed => Err(Problem::new(
                problem::INVALID_REQUEST,
                "The shop has as many products as it may have; take one off the shelves first.",
            )),
            Branch::Else => {
                let kept = Store::replay_of(once, answer.got(0))?;
                let kept = kept.ok_or_else(|| inconsistent("an answer is neither absent nor there"))?;
                Ok(written_before(kept))
            }
        }
    }

    /// `tag` is the revision that `If-Match` names.
    pub(crate) async fn change(
        &self,
        id: &str,
        change: &Change,
        tag: Option<&str>,
        once: Option<&Once>,
    ) -> Result<Reply> {
        let work = Box::pin(self.try_to_change(id, change, tag, once));
        self.once(once, |kept| Ok(written_before(kept)), work).await
    }

    async fn try_to_change(
        &self,
        id: &str,
        change: &Change,
        tag: Option<&str>,
        once: Option<&Once>,
    ) -> Result<Reply> {
        let known = ProductId::parse(id).ok_or_else(unknown_product)?;
        let (record_key, stock_key) = (self.store.keys.record(&known), self.store.keys.stock(&known));
        for _ in 0..TRIES_MAX {
            let good = self.product(id).await?;
            check_tag(&good, tag)?;
            let product = change.apply(&good.product);
            let moved = change
                .stock
                .map_or(0, |stock| stock.after(good.stock) - good.stock);
            let after = Good {
                product: product.clone().into(),
                stock: good.stock + moved,
                ..good.clone()
            };
            let kept = Kept::json(200, &views::product(&after, self.currency));
            let mut txn = Txn::new()
                .when(Condition::unchanged(&record_key, good.product_revision))
                .then(Op::put(&record_key, write(&product)));
            // Where somebody else says so at the same time, there are some then, and not twice as many.
            let fills = moved != 0 && matches!(change.stock, Some(StockChange::InStock(_)));
            if tag.is_some() || fills {
                txn = txn.when(Condition::unchanged(&stock_key, good.stock_revision));
            }
            if moved != 0 {
                // Sales in between count: what is set is what was counted when the stock was read.
                txn = txn.then(Op::add(&stock_key, moved, Some(0), None)).then(Op::add(
                    &self.store.keys.received(id),
                    moved,
                    None,
                    None,
                ));
            }
            txn = self.store.keep(txn, once, &kept);
            let answer = self.store.commit(self.store.guard(txn, once)).await?;
            if answer.branch == Branch::Then {
                return Ok(Reply {
                    etag: Some(answer.revision),
                    ..Reply::first(kept)
                });
            }
            if let Some(kept) = Store::replay_of(once, answer.got(0))? {
                return Ok(written_before(kept));
            }
        }
        Err(Problem::new(
            problem::OVERLOADED,
            "The product is being changed by too many at the same time.",
        ))
    }

    pub(crate) async fn remove(&self, id: &str, tag: Option<&str>, once: Option<&Once>) -> Result<Reply> {
        let work = Box::pin(self.try_to_remove(id, tag, once));
        self.once(once, |kept| Ok(replayed(kept)), work).await
    }

    async fn try_to_remove(&self, id: &str, tag: Option<&str>, once: Option<&Once>) -> Result<Reply> {
        let known = ProductId::parse(id).ok_or_else(unknown_product)?;
        let body = serde_json::json!({"message": "Product deleted", "id": id});
        let kept = Kept::json(200, &body);
        for _ in 0..TRIES_MAX {
            let good = self.product(id).await?;
            check_tag(&good, tag)?;
            let record_key = self.store.keys.record(&known);
            let mut txn = Txn::new()
                .when(Condition::unchanged(&record_key, good.product_revision))
                .then(Op::delete(&record_key))
                .then(Op::add(&self.store.keys.product_count(), -1, None, None));
            if tag.is_some() {
                let stock_key = self.store.keys.stock(&known);
                txn = txn.when(Condition::unchanged(&stock_key, good.stock_revision));
            }
            txn = self.store.keep(txn, once, &kept);
            let answer = self.store.commit(self.store.guard(txn, once)).await?;
            if answer.branch == Branch::Then {
                return Ok(Reply::first(kept));
            }
            if let Some(kept) = Store::replay_of(once, answer.got(0))? {
                return Ok(replayed(kept));
            }
        }
        Err(Problem::new(
            problem::OVERLOADED,
            "The product is being changed by too many at the same time.",
        ))
    }
}

pub(super) fn replayed(kept: Kept) -> Reply {
    Reply {
        kept,
        replayed: true,
        etag: None,
    }
}

/// As `replayed`, with the tag that the product had then: both were written in one revision.
fn written_before(kept: Kept) -> Reply {
    Reply {
        etag: kept.revision,
        ..replayed(kept)
    }
}

/// What a new product writes, beside the count of products.
pub(crate) fn put_new(store: &Store, id: &ProductId, new: &NewProduct) -> [Op; 3] {
    let keys = &store.keys;
    [
        Op::put(
            &keys.goods_part(id.as_str(), GoodsPart::Record),
            write(&new.product),
        ),
        Op::put(
            &keys.goods_part(id.as_str(), GoodsPart::Stock),
            new.stock.to_string(),
        ),
        Op::put(&keys.received(id.as_str()), new.stock.to_string()),
    ]
}

fn check_tag(good: &Good, tag: Option<&str>) -> Result<()> {
    let Some(tag) = tag else { return Ok(()) };
    let known = format!("\"{}\"", good.tag());
    let fits = tag.trim() == "*" || tag.split(',').any(|tag| tag.trim() == known);
    if fits {
        Ok(())
    } else {
        Err(changed_meanwhile(good.tag()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_there_are_some_changes_nothing_where_it_is_so() {
        let after = |change: StockChange| [0, 1, 250].map(|present| change.after(present));
        assert_eq!(after(StockChange::To(7)), [7, 7, 7]);
        assert_eq!(after(StockChange::InStock(100)), [100, 1, 250]);
    }
}
