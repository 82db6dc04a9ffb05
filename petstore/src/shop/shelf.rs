//! The goods of the shop as of one revision of the store.
//! Invariant: record and stock of a product are of the same revision. It asks nobody and waits for nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kvstore_client::wire::Revision;
use kvstore_client::wire::kv::KeyValue;
use service::problem::Result;

use crate::domain::Product;
use crate::store::{GoodsPart, Keys, read, read_int};

/// One product with its stock.
#[derive(Clone, Debug)]
pub(crate) struct Good {
    pub(crate) id: String,
    pub(crate) product: Arc<Product>,
    pub(crate) product_revision: Revision,
    pub(crate) stock: i64,
    pub(crate) stock_revision: Revision,
}

impl Good {
    /// Changes with the product and with its stock.
    pub(crate) fn tag(&self) -> Revision {
        self.product_revision.max(self.stock_revision)
    }

    /// The goods of a prefix, if it holds a product and not only the stock of one that is gone.
    pub(crate) fn of(keys: &Keys, kvs: &[Arc<KeyValue>], memo: &mut Memo) -> Result<Option<Self>> {
        let mut half = Half::default();
        let mut id = "";
        for kv in kvs {
            if let Some((product, part)) = keys.parse_goods(&kv.key) {
                id = product;
                half.take(product, part, kv, memo)?;
            }
        }
        Ok(half.whole(id))
    }
}

/// Products that were read before, by id and revision: only what changed is parsed anew.
pub(crate) type Memo = HashMap<String, (Revision, Arc<Product>)>;

#[derive(Default)]
struct Half {
    product: Option<(Revision, Arc<Product>)>,
    stock: Option<(Revision, i64)>,
}

impl Half {
    fn take(&mut self, id: &str, part: GoodsPart, kv: &KeyValue, memo: &mut Memo) -> Result<()> {
        let revision = kv.mod_revision;
        match part {
            GoodsPart::Stock => self.stock = Some((revision, read_int(&kv.key, &kv.bytes())?)),
            GoodsPart::Record => {
                let known = memo.get(id).filter(|(known, _)| *known == revision);
                let product = if let Some((_, product)) = known {
                    product.clone()
                } else {
                    let product: Arc<Product> = Arc::new(read(&kv.key, &kv.bytes())?);
                    memo.insert(id.to_owned(), (revision, product.clone()));
                    product
                };
                self.product = Some((revision, product));
            }
        }
        Ok(())
    }

    fn whole(self, id: &str) -> Option<Good> {
        let (product_revision, product) = self.product?;
        let (stock_revision, stock) = self.stock.unwrap_or((product_revision, 0));
        Some(Good {
            id: id.to_owned(),
            product,
            product_revision,
            stock,
            stock_revision,
        })
    }
}

/// All goods, in the order in which they came to the shop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) revision: Revision,
    pub(crate) goods: Vec<Good>,
    places: HashMap<String, usize>,
}

impl Shelf {
    pub(crate) fn of<'kv>(
        keys: &Keys,
        kvs: impl Iterator<Item = &'kv KeyValue>,
        revision: Revision,
        memo: &mut Memo,
    ) -> Result<Self> {
        let mut halves: BTreeMap<&str, Half> = BTreeMap::new();
        for kv in kvs {
            if let Some((id, part)) = keys.parse_goods(&kv.key) {
                halves.entry(id).or_default().take(id, part, kv, memo)?;
            }
        }
        let mut goods: Vec<Good> = halves
            .into_iter()
            .filter_map(|(id, half)| half.whole(id))
            .collect();
        goods.sort_by(|one, other| {
            let key = |good: &Good| (good.product.created_ms, good.id.len());
            key(one).cmp(&key(other)).then_with(|| one.id.cmp(&other.id))
        });
        let places = goods.iter().enumerate();
        let places = places.map(|(place, good)| (good.id.clone(), place)).collect();
        Ok(Self {
            revision,
            goods,
            places,
        })
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Good> {
        self.places.get(id).and_then(|place| self.goods.get(*place))
    }
}
