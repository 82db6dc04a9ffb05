//! The shelves of the shop after each revision: what was received is in stock, reserved or sold, and no stock is less
//! than nothing. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::orders::Order;

#[derive(Clone, Copy, Debug, Default)]
struct Shelf {
    received: i128,
    stock: i128,
    /// Reserved or sold.
    taken: i128,
}

#[derive(Default)]
pub(super) struct Shelves {
    shelves: BTreeMap<String, Shelf>,
    touched: BTreeSet<String>,
}

impl Shelves {
    fn shelf(&mut self, product: &str) -> &mut Shelf {
        self.touched.insert(product.to_owned());
        self.shelves.entry(product.to_owned()).or_default()
    }

    pub(super) fn stock(&mut self, product: &str, stock: i64) {
        self.shelf(product).stock = i128::from(stock);
    }

    pub(super) fn received(&mut self, product: &str, received: i64) {
        self.shelf(product).received = i128::from(received);
    }

    pub(super) fn order(&mut self, before: Option<&Order>, after: Option<&Order>) {
        for (order, sign) in [(before, -1), (after, 1)] {
            let pieces = order.map(Order::pieces).unwrap_or_default();
            for (product, pieces) in pieces {
                self.shelf(product).taken += sign * i128::from(pieces);
            }
        }
    }

    /// Of each product that the last revision has touched: its name, and what is wrong with it.
    pub(super) fn judge(&mut self) -> Vec<(String, Option<String>)> {
        let touched = std::mem::take(&mut self.touched).into_iter();
        touched
            .map(|product| {
                let shelf = self.shelves.get(&product).copied().unwrap_or_default();
                let Shelf {
                    received,
                    stock,
                    taken,
                } = shelf;
                let wrong = stock < 0 || received != stock + taken;
                let fault = wrong
                    .then(|| format!("{received} received, {stock} in stock, and {taken} reserved or sold"));
                (format!("product {product}"), fault)
            })
            .collect()
    }
}
