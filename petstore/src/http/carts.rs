//! Carts, each for its owner.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;

use super::reading::{json, product_id, quantity};
use super::state::Read;
use super::{Result, Shared};
use crate::shop::CartChange;

/// `GET /cart/{user}`
pub(super) async fn show(
    State(app): State<Shared>,
    Path(user): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let shop = app.shop()?;
    let caller = app.caller(&Method::GET, &headers).await?;
    let user = app.user_of_path(&caller, &user)?;
    Ok(json(StatusCode::OK, &shop.cart(&user).await?))
}

async fn changed(app: &Shared, user: &str, read: &Read, change: CartChange) -> Result<Response> {
    let shop = app.shop()?;
    let caller = app.caller(&read.parts.method, &read.parts.headers).await?;
    let user = app.new_user_of_path(&caller, user)?;
    let once = read.once(shop, &caller, Some(user.as_str()))?;
    Ok(shop
        .change_cart(&user, &change, once.as_ref())
        .await?
        .into_answer())
}

/// The caller first, and only then what is wrong with the body.
async fn check_caller(app: &Shared, user: &str, read: &Read) -> Result<()> {
    let caller = app.caller(&read.parts.method, &read.parts.headers).await?;
    app.new_user_of_path(&caller, user).map(drop)
}

/// `POST /cart/{user}`: adds to what is there, one piece unless it says how many.
pub(super) async fn add(
    State(app): State<Shared>,
    Path(user): Path<String>,
    request: Request,
) -> Result<Response> {
    let read = app.read(request).await?;
    check_caller(&app, &user, &read).await?;
    let mut fields = read.fields()?;
    let product = product_id(&mut fields);
    let quantity = if fields.has("quantity") {
        quantity(&mut fields, 1)
    } else {
        Some(1)
    };
    fields.finish()?;
    let (Some(product), Some(quantity)) = (product, quantity) else {
        unreachable!("what is missing is a fault")
    };
    changed(&app, &user, &read, CartChange::Add { product, quantity }).await
}

/// `PUT /cart/{user}/item/{product}`: none takes it out.
pub(super) async fn set(
    State(app): State<Shared>,
    Path((user, product)): Path<(String, String)>,
    request: Request,
) -> Result<Response> {
    let read = app.read(request).await?;
    check_caller(&app, &user, &read).await?;
    let mut fields = read.fields()?;
    fields.require("quantity");
    let quantity = quantity(&mut fields, 0);
    fields.finish()?;
    let quantity = quantity.expect("what is missing is a fault");
    changed(&app, &user, &read, CartChange::Set { product, quantity }).await
}

/// `DELETE /cart/{user}/item/{product}`
pub(super) async fn remove(
    State(app): State<Shared>,
    Path((user, product)): Path<(String, String)>,
    request: Request,
) -> Result<Response> {
    let read = app.read(request).await?;
    changed(&app, &user, &read, CartChange::Remove { product }).await
}

/// `DELETE /cart/{user}`
pub(super) async fn empty(
    State(app): State<Shared>,
    Path(user): Path<String>,
    request: Request,
) -> Result<Response> {
    let read = app.read(request).await?;
    changed(&app, &user, &read, CartChange::Empty).await
}
