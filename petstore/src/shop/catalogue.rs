//! What there is: from memory, and yet never older than any sale or edit that was acknowledged before.
//! The near cache learns the store's newest revision, once for all reads that wait, and has seen it when it answers.
//! Invariant: all pages of one walk show the revision of the first, from memory or from the store's past. Only a cursor
//! that was given out names one, since to read a past catalogue is work.

use std::cmp::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kvstore_client::wire::Revision;
use kvstore_client::{Freshness, KvClient, NearCache, RangeRequest, ReadOptions, problem_of};
use service::catalogue::{Asked, Offer, Sort};
use service::problem::Result;
use service::query::malformed;
use service::secrets::Secret;

use super::past::Past;
use super::shelf::{Good, Memo, Shelf};
use crate::store::{Keys, keyed};

#[derive(Clone)]
pub(crate) struct Catalogue {
    near: NearCache,
    client: KvClient,
    keys: Keys,
    state: Arc<Mutex<State>>,
    past: Arc<Past>,
}

#[derive(Default)]
struct State {
    memo: Memo,
    newest: Arc<Shelf>,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) asked: Asked,
    /// Only animals, which have a species.
    pub(crate) animals: bool,
}

impl Filter {
    fn takes(&self, good: &Good) -> bool {
        let product = &good.product;
        let offer = Offer {
            name: &product.name,
            species: &product.species,
            category: &product.category,
            description: &product.description,
            price_minor: product.price_minor,
            stock: good.stock,
        };
        (!self.animals || !product.species.is_empty()) && self.asked.takes(&offer)
    }

    fn compare(&self, one: &Good, other: &Good) -> Ordering {
        let price = |good: &Good| good.product.price_minor;
        match self.asked.sort {
            Sort::Created => Ordering::Equal,
            Sort::Price => price(one).cmp(&price(other)),
            Sort::PriceDown => price(other).cmp(&price(one)),
            Sort::Name => one
                .product
                .name
                .to_lowercase()
                .cmp(&other.product.name.to_lowercase()),
        }
    }

    /// What fits, in the order asked for; the sort is stable, so equals stay in the order in which they came.
    pub(crate) fn select<'shelf>(&self, shelf: &'shelf Shelf) -> Vec<&'shelf Good> {
        let mut goods: Vec<&Good> = shelf.goods.iter().filter(|good| self.takes(good)).collect();
        if self.asked.sort != Sort::Created {
            goods.sort_by(|one, other| self.compare(one, other));
        }
        goods
    }
}

/// Where a walk stands: at which revision, and how many have been shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) revision: Revision,
    pub(crate) shown: usize,
}

impl Place {
    pub(crate) fn cursor(self, secret: &Secret) -> String {
        let place = format!("{}.{}", self.revision, self.shown);
        let seal = seal(secret, &place);
        URL_SAFE_NO_PAD.encode(format!("{place}.{}", seal.expose()))
    }

    pub(crate) fn parse(cursor: &str, secret: &Secret) -> Result<Self> {
        let parse = || {
            let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
            let (place, given) = text.rsplit_once('.')?;
            if !seal(secret, place).matches(given) {
                return None;
            }
            let (revision, shown) = place.split_once('.')?;
            Some(Self {
                revision: revision.parse().ok()?,
                shown: shown.parse().ok()?,
            })
        };
        parse().ok_or_else(|| malformed("The cursor is not one that this service gave out."))
    }
}

fn seal(secret: &Secret, place: &str) -> Secret {
    Secret::new(keyed(secret, "shop catalogue cursor", &[place.as_bytes()]))
}

impl Catalogue {
    /// Loads what there is and follows it from there.
    pub(crate) async fn open(client: &KvClient, keys: &Keys) -> kvstore_client::Result<Self> {
        let near = NearCache::open(client, [keys.all_goods(), keys.all_sessions()]).await?;
        Ok(Self {
            near,
            client: client.clone(),
            keys: keys.clone(),
            state: Arc::default(),
            past: Arc::default(),
        })
    }

    pub(crate) fn near(&self) -> &NearCache {
        &self.near
    }

    /// All goods.
    pub(crate) async fn shelf(&self, freshness: Freshness) -> Result<Arc<Shelf>> {
        let found = self
            .near
            .range(&self.keys.all_goods(), freshness)
            .await
            .map_err(problem_of)?;
        let mut state = self.lock();
        if state.newest.revision == found.revision {
            return Ok(state.newest.clone());
        }
        let kvs = found.value.iter().map(AsRef::as_ref);
        let shelf = Arc::new(Shelf::of(&self.keys, kvs, found.revision, &mut state.memo)?);
        // What is gone from the shelves need not be remembered either.
        if state.memo.len() > 2 * shelf.goods.len() + 64 {
            state.memo.retain(|id, _| shelf.get(id).is_some());
        }
        if shelf.revision > state.newest.revision {
            state.newest = shelf.clone();
        }
        Ok(shelf)
    }

    pub(crate) async fn good(&self, id: &str, freshness: Freshness) -> Result<Option<Good>> {
        let found = self
            .near
            .range(&self.keys.goods(id), freshness)
            .await
            .map_err(problem_of)?;
        Good::of(&self.keys, &found.value, &mut self.lock().memo)
    }

    /// All goods as they were at this revision.
    pub(crate) async fn shelf_at(&self, revision: Revision) -> Result<Arc<Shelf>> {
        let newest = self.lock().newest.clone();
        if newest.revision == revision {
            return Ok(newest);
        }
        if let Some(known) = self.past.known(revision) {
            return Ok(known);
        }
        let reading = read_past(self.client.clone(), self.keys.clone(), revision);
        self.past.read(revision, Box::pin(reading)).await
    }

    /// Keeps a shelf for the next page of a walk that began on it.
    pub(crate) fn remember(&self, shelf: &Arc<Shelf>) {
        self.past.remember(shelf);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_past(client: KvClient, keys: Keys, revision: Revision) -> Result<Arc<Shelf>> {
    let mut walk = client.pages(RangeRequest {
        read: ReadOptions {
            revision: Some(revision),
            ..ReadOptions::default()
        },
        ..RangeRequest::prefix(keys.all_goods())
    });
    let mut kvs = Vec::new();
    while let Some(page) = walk.next().await.map_err(problem_of)? {
        kvs.extend(page.kvs);
    }
    let shelf = Shelf::of(&keys, kvs.iter(), revision, &mut Memo::new())?;
    Ok(Arc::new(shelf))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_believed_only_as_it_was_given() {
        let secret = Secret::new("the secret of this shop");
        let place = Place {
            revision: 12,
            shown: 50,
        };
        let cursor = place.cursor(&secret);
        assert_eq!(Place::parse(&cursor, &secret).unwrap(), place);
        let refused = |cursor: &str, secret: &Secret| {
            let problem = Place::parse(cursor, secret).unwrap_err();
            assert_eq!(problem.kind.code, "malformed-parameter", "{cursor}");
        };
        refused(&cursor, &Secret::new("the secret of another"));
        for made_up in [
            "",
            "!",
            "MTIuNTA",
            &URL_SAFE_NO_PAD.encode("12.50."),
            &URL_SAFE_NO_PAD.encode("."),
        ] {
            refused(made_up, &secret);
        }
        for at in 0..cursor.len() {
            let mut forged = cursor.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            refused(std::str::from_utf8(&forged).unwrap(), &secret);
            refused(&cursor[..at], &secret);
        }
    }
}
