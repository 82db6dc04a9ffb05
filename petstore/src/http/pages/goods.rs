//! The catalogue and the page of one product.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, Uri};
use service::query::{Query, next_page};

use super::{Card, Frame, Page, Shared, render};
use crate::http::products::{Listed, filter, listed};
use kvstore_client::Freshness;

const SORTS: [(&str, &str); 4] = [
    ("", "as they came"),
    ("price", "cheapest first"),
    ("-price", "dearest first"),
    ("name", "by name"),
];

#[derive(Template)]
#[template(path = "catalogue.html")]
struct Catalogue {
    frame: Frame,
    asked: Asked,
    categories: Vec<String>,
    species: Vec<String>,
    cards: Vec<Card>,
    count: usize,
    next: Option<String>,
}

/// What the visitor asked for, for the form to show again.
struct Asked {
    q: String,
    category: String,
    species: String,
    min_price: String,
    max_price: String,
    sort: String,
    in_stock: bool,
}

#[derive(Template)]
#[template(path = "product.html")]
struct Product {
    frame: Frame,
    card: Card,
}

/// `GET /`
pub(super) async fn catalogue(State(app): State<Shared>, uri: Uri, headers: HeaderMap) -> Page {
    let shop = app.shop()?;
    let visit = app.visit(shop, &Method::GET, &headers).await?;
    let query = Query::of(&uri);
    let Listed {
        shelf,
        goods,
        count,
        next,
    } = listed(shop, &uri, &filter(&query, shop.currency)?).await?;
    let text = |name: &str| query.text(name).map(|text| text.unwrap_or_default().into_owned());
    let asked = Asked {
        q: text("q")?,
        category: text("category")?,
        species: text("species")?,
        min_price: text("minPrice")?,
        max_price: text("maxPrice")?,
        sort: text("sort")?,
        in_stock: query.flag("inStock").unwrap_or(false),
    };
    let words = |word: fn(&crate::domain::Product) -> &String| -> Vec<String> {
        let words: BTreeSet<&String> = shelf.goods.iter().map(|good| word(&good.product)).collect();
        words
            .into_iter()
            .filter(|word| !word.is_empty())
            .cloned()
            .collect()
    };
    let page = Catalogue {
        frame: visit.frame,
        asked,
        categories: words(|product| &product.category),
        species: words(|product| &product.species),
        cards: goods.iter().map(|good| Card::of(good, shop.currency)).collect(),
        count,
        next: next.map(|next| next_page(&uri, &next.cursor(&shop.secret))),
    };
    Ok(render(None, &page))
}

/// `GET /shop/product/{id}`
pub(super) async fn product(State(app): State<Shared>, Path(id): Path<String>, headers: HeaderMap) -> Page {
    let shop = app.shop()?;
    let visit = app.visit(shop, &Method::GET, &headers).await?;
    let good = crate::domain::ProductId::parse(&id);
    let good = match good {
        Some(id) => shop.catalogue.good(id.as_str(), Freshness::Linearizable).await?,
        None => None,
    };
    let good = good.ok_or_else(crate::shop::unknown_product)?;
    let page = Product {
        frame: visit.frame,
        card: Card::of(&good, shop.currency),
    };
    Ok(render(None, &page))
}
