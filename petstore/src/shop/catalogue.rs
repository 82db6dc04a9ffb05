//! What there is: from memory, and yet never older than any sale or edit that was acknowledged before.
//! The near cache learns the store's newest revision, once for all reads that wait, and has seen it when it answers.
//! Invariant: all pages of one walk show the revision of the first, from memory or from the store's past.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kvstore_client::wire::Revision;
use kvstore_client::{Freshness, KvClient, NearCache, RangeRequest, ReadOptions, problem_of};
use service::catalogue::{Asked, Offer, Sort};
use service::problem::Result;
use service::query::malformed;

use super::shelf::{Good, Memo, Shelf};
use crate::store::Keys;

/// Past shelves that walks under way may still ask for.
const PAST_MAX: usize = 16;

#[derive(Clone)]
pub(crate) struct Catalogue {
    near: NearCache,
    client: KvClient,
    keys: Keys,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    memo: Memo,
    newest: Arc<Shelf>,
    past: VecDeque<Arc<Shelf>>,
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
    pub(crate) fn cursor(self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}.{}", self.revision, self.shown))
    }

    pub(crate) fn parse(cursor: &str) -> Result<Self> {
        let parse = || {
            let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
            let (revision, shown) = text.split_once('.')?;
            Some(Self {
                revision: revision.parse().ok()?,
                shown: shown.parse().ok()?,
            })
        };
        parse().ok_or_else(|| malformed("The cursor is not one that this service gave out."))
    }
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
        if let Some(known) = self.known(revision) {
            return Ok(known);
        }
        let mut walk = self.client.pages(RangeRequest {
            read: ReadOptions {
                revision: Some(revision),
                ..ReadOptions::default()
            },
            ..RangeRequest::prefix(self.keys.all_goods())
        });
        let mut kvs = Vec::new();
        while let Some(page) = walk.next().await.map_err(problem_of)? {
            kvs.extend(page.kvs);
        }
        let shelf = Arc::new(Shelf::of(&self.keys, kvs.iter(), revision, &mut Memo::new())?);
        self.remember(&shelf);
        Ok(shelf)
    }

    /// Keeps a shelf for the next page of a walk that began on it.
    pub(crate) fn remember(&self, shelf: &Arc<Shelf>) {
        let mut state = self.lock();
        if state.past.iter().any(|past| past.revision == shelf.revision) {
            return;
        }
        state.past.push_back(shelf.clone());
        while state.past.len() > PAST_MAX {
            state.past.pop_front();
        }
    }

    fn known(&self, revision: Revision) -> Option<Arc<Shelf>> {
        let state = self.lock();
        let known = state.past.iter().chain([&state.newest]);
        known.rev().find(|shelf| shelf.revision == revision).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
