//! The shelves: products, and the same goods as single animals.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use kvstore_client::Freshness;
use payment_client::Currency;
use service::catalogue::Asked;
use service::fields::Fields;
use service::problem;
use service::query::{Query, malformed};
use service::time::now_ms;

use super::reading::{json, limit, link_next, price, text, whole};
use super::state::Read;
use super::{Result, Shared};
use crate::domain::{Product, Texts};
use crate::shop::views::{self, tag};
use crate::shop::{Change, Filter, Good, NewProduct, Place, Shelf, Shop, StockChange};

/// How many pieces there are of a product that only says that it is in stock.
const STOCK_UNSAID: i64 = 100;

pub(super) fn filter(query: &Query<'_>, currency: Currency) -> Result<Filter> {
    Ok(Filter {
        asked: Asked::of(query, currency)?,
        animals: false,
    })
}

/// One page of what fits.
pub(super) struct Listed {
    pub(super) shelf: Arc<Shelf>,
    pub(super) goods: Vec<Good>,
    /// Of all pages.
    pub(super) count: usize,
    pub(super) next: Option<Place>,
}

pub(super) async fn listed(shop: &Shop, uri: &Uri, filter: &Filter) -> Result<Listed> {
    let query = Query::of(uri);
    let limit = limit(&query)?;
    let place = query
        .text("cursor")?
        .map(|cursor| Place::parse(&cursor, &shop.secret))
        .transpose()?;
    let shelf = match place {
        None => shop.catalogue.shelf(Freshness::Linearizable).await?,
        Some(place) => shop.catalogue.shelf_at(place.revision).await?,
    };
    let shown = place.map_or(0, |place| place.shown);
    let selected = filter.select(&shelf);
    let end = shown.saturating_add(limit);
    let (count, goods) = (selected.len(), selected.into_iter().skip(shown).take(limit));
    let goods = goods.cloned().collect();
    let next = (end < count).then_some(Place {
        revision: shelf.revision,
        shown: end,
    });
    if next.is_some() {
        shop.catalogue.remember(&shelf);
    }
    Ok(Listed {
        shelf,
        goods,
        count,
        next,
    })
}

/// The page, each of its goods put into words by `view`.
async fn page(
    shop: &Shop,
    uri: &Uri,
    filter: &Filter,
    view: impl Fn(&Good) -> Box<serde_json::value::RawValue>,
) -> Result<Response> {
    let listed = listed(shop, uri, filter).await?;
    let rows: Vec<_> = listed.goods.iter().map(view).collect();
    let mut response = json(StatusCode::OK, &rows);
    let total = HeaderValue::from(listed.count);
    response.headers_mut().insert("x-total-count", total);
    if let Some(next) = listed.next {
        link_next(&mut response, uri, &next.cursor(&shop.secret));
    }
    Ok(response)
}

fn row(value: &impl serde::Serialize) -> Box<serde_json::value::RawValue> {
    serde_json::value::to_raw_value(value).expect("answers have only text keys and plain values")
}

/// `GET /products`
pub(super) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Response> {
    let shop = app.shop()?;
    let filter = filter(&Query::of(&uri), shop.currency)?;
    page(shop, &uri, &filter, |good| {
        row(&views::product(good, shop.currency))
    })
    .await
}

/// `GET /pets`
pub(super) async fn pets(State(app): State<Shared>, uri: Uri) -> Result<Response> {
    let shop = app.shop()?;
    let mut filter = filter(&Query::of(&uri), shop.currency)?;
    filter.animals = true;
    filter.asked.in_stock = Some(true);
    page(shop, &uri, &filter, |good| row(&views::pet(good, shop.currency))).await
}

/// `GET /products/{id}`
pub(super) async fn show(
    State(app): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let shop = app.shop()?;
    let good = shop.product(&id).await?;
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|known| known.to_str().ok());
    let tag = tag(good.tag());
    let same = |known: &str| {
        let own = tag.as_bytes();
        known
            .split(',')
            .any(|known| known.trim().trim_start_matches("W/").as_bytes() == own)
    };
    let mut response = if known.is_some_and(same) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        json(StatusCode::OK, &views::product(&good, shop.currency))
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, tag);
    // It may be kept, as long as one asks whether it still holds.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// `GET /pets/{id}`
pub(super) async fn pet(State(app): State<Shared>, Path(id): Path<String>) -> Result<Response> {
    let shop = app.shop()?;
    let good = shop.product(&id).await?;
    Ok(json(StatusCode::OK, &views::pet(&good, shop.currency)))
}

/// What the body says about a product, each part checked.
fn changes(fields: &mut Fields, shop: &Shop) -> Change {
    let stock_max = i64::try_from(shop.config.stock_max).unwrap_or(i64::MAX);
    let in_stock: Option<bool> = fields.optional("inStock", "true or false");
    let stock = whole(fields, "stock", 0, stock_max);
    if stock.is_some_and(|stock| in_stock.is_some_and(|said| said != (stock > 0))) {
        fields.fault("inStock", "does not fit `stock`: leave one of them out");
    }
    let said = |said: bool| {
        if said {
            StockChange::InStock(STOCK_UNSAID.min(stock_max))
        } else {
            StockChange::To(0)
        }
    };
    Change {
        name: text(fields, "name", Texts::Name),
        species: text(fields, "species", Texts::Species),
        category: text(fields, "category", Texts::Category),
        description: text(fields, "description", Texts::Description),
        price_minor: price(fields, "price", shop.currency, shop.config.price_minor_max),
        stock: stock.map(StockChange::To).or(in_stock.map(said)),
    }
}

fn new_product(change: Change, stock: i64) -> NewProduct {
    NewProduct {
        product: Product {
            name: change.name.unwrap_or_default(),
            species: change.species.unwrap_or_default(),
            category: change.category.unwrap_or_default(),
            description: change.description.unwrap_or_default(),
            price_minor: change.price_minor.unwrap_or_default(),
            created_ms: now_ms(),
        },
        stock,
    }
}

/// `POST /products`
pub(super) async fn create(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (shop, read) = (app.shop()?, app.read(request).await?);
    let caller = app.caller(&read.parts.method, &read.parts.headers).await?;
    app.must_be_admin(&caller)?;
    let mut fields = read.fields()?;
    fields.require("name");
    fields.require("price");
    let change = changes(&mut fields, shop);
    fields.finish()?;
    let stock = change.stock.map_or(STOCK_UNSAID, |stock| stock.after(0));
    let once = read.once(shop, &caller, None)?;
    let reply = shop
        .create(&new_product(change, stock), false, once.as_ref())
        .await?;
    Ok(reply.into_answer())
}

/// `POST /pets`
pub(super) async fn create_pet(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (shop, read) = (app.shop()?, app.read(request).await?);
    let caller = app.caller(&read.parts.method, &read.parts.headers).await?;
    app.must_be_admin(&caller)?;
    let mut fields = read.fields()?;
    for name in ["name", "species", "price"] {
        fields.require(name);
    }
    let mut change = changes(&mut fields, shop);
    if change.species.as_deref() == Some("") {
        fields.fault(
            "species",
            "must not be empty: it is what tells an animal from other goods",
        );
    }
    fields.finish()?;
    change.category.get_or_insert_with(|| "pets".to_owned());
    let once = read.once(shop, &caller, None)?;
    let reply = shop.create(&new_product(change, 1), true, once.as_ref()).await?;
    Ok(reply.into_answer())
}

/// The tag that `If-Match` names.
fn if_match(read: &Read) -> Result<Option<String>> {
    let Some(value) = read.parts.headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str();
    let text =
        text.map_err(|_unreadable| malformed("The header If-Match is the ETag of a product in quotes."))?;
    Ok(Some(text.to_owned()))
}

/// `PUT /products/{id}`: only what is there is changed.
pub(super) async fn change(
    State(app): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response> {
    let (shop, read) = (app.shop()?, app.read(request).await?);
    let caller = app.caller(&read.parts.method, &read.parts.headers).await?;
    app.must_be_admin(&caller)?;
    let mut fields = read.fields()?;
    let change = changes(&mut fields, shop);
    fields.finish()?;
    let (tag, once) = (if_match(&read)?, read.once(shop, &caller, None)?);
    let reply = shop.change(&id, &change, tag.as_deref(), once.as_ref()).await?;
    Ok(reply.into_answer())
}

/// `DELETE /products/{id}`
pub(super) async fn remove(
    State(app): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response> {
    let (shop, read) = (app.shop()?, app.read(request).await?);
    let caller = app.caller(&read.parts.method, &read.parts.headers).await?;
    app.must_be_admin(&caller)?;
    let (tag, once) = (if_match(&read)?, read.once(shop, &caller, None)?);
    let reply: problem::Result<_> = shop.remove(&id, tag.as_deref(), once.as_ref()).await;
    Ok(reply?.into_answer())
}
