//! The tables of the pet shops: products, orders and their lines, carts, users.

use serde_json::Value;

use super::table::Kind::{Integer, Text};
use super::{Cell, Shaped, Shapeless, Table, integer, members, plain, record};

pub(crate) static PRODUCTS: Table = Table {
    name: "products",
    key_columns: 2,
    columns: &[
        ("shop", Text),
        ("id", Text),
        ("name", Text),
        ("species", Text),
        ("category", Text),
        ("description", Text),
        ("price_minor", Integer),
        ("stock", Integer),
        ("created_ms", Integer),
    ],
    indexes: &[&["category"], &["species"]],
};

pub(crate) static ORDERS: Table = Table {
    name: "orders",
    key_columns: 3,
    columns: &[
        ("shop", Text),
        ("user_id", Text),
        ("id", Text),
        ("status", Text),
        ("total_minor", Integer),
        ("currency", Text),
        ("payment_id", Text),
        ("brand", Text),
        ("last4", Text),
        ("decline", Text),
        ("created_ms", Integer),
        ("changed_ms", Integer),
    ],
    indexes: &[&["status"], &["created_ms"], &["payment_id"]],
};

pub(crate) static ORDER_LINES: Table = Table {
    name: "order_lines",
    key_columns: 4,
    columns: &[
        ("shop", Text),
        ("user_id", Text),
        ("order_id", Text),
        ("line", Integer),
        ("product_id", Text),
        ("name", Text),
        ("species", Text),
        ("unit_minor", Integer),
        ("quantity", Integer),
    ],
    indexes: &[&["product_id"]],
};

pub(super) static CARTS: Table = Table {
    name: "carts",
    key_columns: 3,
    columns: &[
        ("shop", Text),
        ("user_id", Text),
        ("product_id", Text),
        ("position", Integer),
        ("quantity", Integer),
    ],
    indexes: &[&["product_id"]],
};

pub(super) static USERS: Table = Table {
    name: "users",
    key_columns: 2,
    columns: &[
        ("shop", Text),
        ("id", Text),
        ("username", Text),
        ("created_ms", Integer),
    ],
    indexes: &[&["username"]],
};

/// What stands below `shop/NAME/`.
pub(super) fn edits(shop: &str, rest: &[&str], value: Option<&[u8]>) -> Shaped {
    match rest {
        ["live", "goods", id, "record"] => product(shop, id, value),
        ["live", "goods", id, "stock"] => stock(shop, id, value),
        ["live", "order", user, id] => order(shop, &plain(user), id, value),
        ["live", "cart", user] => cart(shop, &plain(user), value),
        ["user", id] => user(shop, &plain(id), value),
        _ => Ok(Vec::new()),
    }
}

fn row(shop: &str, rest: &[&str]) -> Vec<Cell> {
    let rest = rest.iter().map(|text| Cell::text(*text));
    std::iter::once(Cell::text(shop)).chain(rest).collect()
}

/// What the record of a product brings; its stock stands under a key of its own, which may outlive it.
pub(super) const RECORD: [&str; 6] = [
    "name",
    "species",
    "category",
    "description",
    "price_minor",
    "created_ms",
];

fn product(shop: &str, id: &str, value: Option<&[u8]>) -> Shaped {
    let key = row(shop, &[id]);
    let Some(value) = value else {
        return Ok(vec![PRODUCTS.clear(key, RECORD)]);
    };
    Ok(vec![PRODUCTS.set(key, members(&record(value)?, &RECORD))])
}

fn stock(shop: &str, id: &str, value: Option<&[u8]>) -> Shaped {
    let key = row(shop, &[id]);
    let Some(value) = value else {
        return Ok(vec![PRODUCTS.clear(key, ["stock"])]);
    };
    let stock = Cell::Integer(integer(value)?);
    Ok(vec![PRODUCTS.set(key, vec![("stock", stock)])])
}

fn order(shop: &str, user: &str, id: &str, value: Option<&[u8]>) -> Shaped {
    let key = row(shop, &[user, id]);
    let mut edits = vec![ORDER_LINES.remove(key.clone())];
    let Some(value) = value else {
        edits.push(ORDERS.remove(key));
        return Ok(edits);
    };
    let order = record(value)?;
    let names = [
        "status",
        "total_minor",
        "currency",
        "decline",
        "created_ms",
        "changed_ms",
    ];
    let mut cells = members(&order, &names);
    let payment = order.get("payment").and_then(Value::as_object);
    for (column, member) in [("payment_id", "id"), ("brand", "brand"), ("last4", "last4")] {
        cells.push((column, Cell::of(payment.and_then(|payment| payment.get(member)))));
    }
    edits.push(ORDERS.set(key.clone(), cells));
    let lines = order.get("lines").and_then(Value::as_array).ok_or(Shapeless)?;
    for (number, line) in (0_i64..).zip(lines) {
        let line = line.as_object().ok_or(Shapeless)?;
        let mut key = key.clone();
        key.push(Cell::Integer(number));
        let mut cells = members(line, &["name", "species", "unit_minor", "quantity"]);
        cells.push(("product_id", Cell::of(line.get("product"))));
        edits.push(ORDER_LINES.set(key, cells));
    }
    Ok(edits)
}

fn cart(shop: &str, user: &str, value: Option<&[u8]>) -> Shaped {
    let key = row(shop, &[user]);
    let mut edits = vec![CARTS.remove(key.clone())];
    let Some(value) = value else { return Ok(edits) };
    let cart = record(value)?;
    let items = cart.get("items").and_then(Value::as_array).ok_or(Shapeless)?;
    for (position, item) in (0_i64..).zip(items) {
        let product = item.get(0).and_then(Value::as_str).ok_or(Shapeless)?;
        let quantity = item.get(1).and_then(Value::as_i64).ok_or(Shapeless)?;
        let mut key = key.clone();
        key.push(Cell::text(product));
        let cells = vec![
            ("position", Cell::Integer(position)),
            ("quantity", Cell::Integer(quantity)),
        ];
        edits.push(CARTS.set(key, cells));
    }
    Ok(edits)
}

/// What signs them in stands under another key, which no table shows.
fn user(shop: &str, id: &str, value: Option<&[u8]>) -> Shaped {
    let key = row(shop, &[id]);
    let Some(value) = value else {
        return Ok(vec![USERS.remove(key)]);
    };
    let cells = members(&record(value)?, &["username", "created_ms"]);
    Ok(vec![USERS.set(key, cells)])
}
