//! The pages as a browser without scripts uses them: links and forms, from the first look to the order.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::system::{EMPTY, PASSWORD, System, VISA};
use crate::harness::DEADLINE;

const MARKUP: &str = "<script>alert(1)</script>\"'&";

/// A browser: one cookie, and forms that say where they come from.
struct Visitor {
    http: reqwest::Client,
    base: String,
    cookie: String,
}

struct Shown {
    status: StatusCode,
    location: String,
    text: String,
}

impl Visitor {
    fn at(system: &System, shop: usize) -> Self {
        Self {
            http: service::http::client(DEADLINE),
            base: format!("http://{}", system.shops[shop].address),
            cookie: String::new(),
        }
    }

    async fn send(&mut self, request: reqwest::RequestBuilder) -> Shown {
        let answer = request.header("cookie", &self.cookie).send().await.unwrap();
        let header = |name: &str| {
            let value = answer.headers().get(name);
            value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
        };
        if !header("set-cookie").is_empty() {
            let cookie = header("set-cookie");
            cookie.split(';').next().unwrap().clone_into(&mut self.cookie);
        }
        if header("content-type").starts_with("text/html") {
            let policy = header("content-security-policy");
            assert!(
                policy.contains("default-src 'none'; script-src 'self'"),
                "{policy}"
            );
        }
        Shown {
            status: answer.status(),
            location: header("location"),
            text: answer.text().await.unwrap(),
        }
    }

    async fn get(&mut self, target: &str) -> Shown {
        let request = self.http.get(format!("{}{target}", self.base));
        self.send(request).await
    }

    async fn post(&mut self, target: &str, fields: &[(&str, &str)]) -> Shown {
        let encode = |text: &str| -> String {
            let bytes = text.bytes();
            bytes
                .map(|byte| {
                    if byte == b' ' {
                        "+".to_owned()
                    } else {
                        format!("%{byte:02X}")
                    }
                })
                .collect()
        };
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        let request = self.http.request(Method::POST, format!("{}{target}", self.base));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = request.header("origin", &self.base);
        self.send(request.body(fields.join("&"))).await
    }
}

/// What the form of a checkout sends.
fn paying<'c>(checkout: &'c BTreeMap<String, String>, card: &'c str) -> [(&'static str, &'c str); 3] {
    let field = |name: &str| checkout[name].as_str();
    [
        ("key", field("key")),
        ("expectedTotal", field("expectedTotal")),
        ("cardNumber", card),
    ]
}

/// The hidden fields of a page.
fn hidden(text: &str) -> BTreeMap<String, String> {
    let inputs = text.split("<input type=\"hidden\" name=\"").skip(1);
    let pair = |input: &str| {
        let (name, rest) = input.split_once("\" value=\"").unwrap();
        (name.to_owned(), rest.split('"').next().unwrap().to_owned())
    };
    inputs.map(pair).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_looks_and_signs_up_on_the_way() {
    let system = System::start().await;
    let mut visitor = Visitor::at(&system, 0);
    let first = visitor.get("/").await.text;
    assert!(
        first.contains("Bubbles") && first.contains("served by <b>shop1</b>"),
        "{first}"
    );
    assert!(first.contains("<b>n1</b> leads the store"));
    let found = visitor.get("/?q=corn&sort=-price&inStock=true").await.text;
    assert!(found.contains("Noodle") && !found.contains("Bubbles"));
    let product = visitor.get("/shop/product/6").await.text;
    assert!(product.contains("Forgets that it met you"));
    // Nobody has a cart before they have a name.
    let sent = visitor
        .post("/shop/cart", &[("action", "add"), ("product", "6")])
        .await;
    assert_eq!(sent.location, "/shop/sign-in?next=%2F");
    let form = visitor.get("/shop/sign-up?next=%2Fshop%2Fcart").await.text;
    let next = hidden(&form)["next"].replace("&#x2f;", "/");
    let fields = |password| {
        [
            ("username", "ada"),
            ("password", password),
            ("next", next.as_str()),
        ]
    };
    let short = visitor.post("/shop/sign-up", &fields("short")).await;
    assert_eq!(short.status, 422);
    assert!(short.text.contains("must be 8 to 256 bytes long") && short.text.contains("value=\"ada\""));
    assert_eq!(
        visitor.post("/shop/sign-up", &fields(PASSWORD)).await.location,
        "/shop/cart"
    );
    // The shelves are the admin's.
    assert_eq!(visitor.get("/shop/admin").await.status, 403);
    let out = visitor.post("/shop/sign-out", &[]).await;
    assert_eq!(out.location, "/");
    assert_eq!(
        visitor.get("/shop/orders").await.location,
        "/shop/sign-in?next=%2Fshop%2Forders"
    );
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_buys_without_scripts() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let mut visitor = Visitor::at(&system, 0);
    visitor
        .post("/shop/sign-up", &[("username", "ada"), ("password", PASSWORD)])
        .await;
    let cart = |action, quantity| [("action", action), ("product", "6"), ("quantity", quantity)];
    visitor.post("/shop/cart", &cart("add", "3")).await;
    visitor.post("/shop/cart", &cart("set", "2")).await;
    let shown = visitor.get("/shop/cart").await.text;
    assert!(
        shown.contains("9.98 EUR") && shown.contains("data-cart-count>2<"),
        "{shown}"
    );
    assert_eq!(visitor.post("/shop/cart", &cart("set", "-1")).await.status, 422);
    // The form of the checkout carries its key: sent twice, to two instances, it is one order.
    let checkout = hidden(&visitor.get("/shop/checkout").await.text);
    let fields = paying(&checkout, VISA);
    let mut elsewhere = Visitor::at(&system, 1);
    elsewhere.cookie.clone_from(&visitor.cookie);
    let (one, two) = tokio::join!(
        visitor.post("/shop/checkout", &fields),
        elsewhere.post("/shop/checkout", &fields)
    );
    assert!(one.location.starts_with("/shop/orders/"), "{}", one.text);
    assert_eq!(one.location, two.location, "{}", two.text);
    let order = elsewhere.get(&one.location).await.text;
    assert!(
        order.contains("all is done, thank you") && order.contains("visa •••• 4242"),
        "{order}"
    );
    assert_eq!(system.settled().await["orders"], 1);
    assert_eq!(system.stock("6").await, 38);
    assert!(visitor.get("/shop/orders").await.text.contains("2 × Bubbles"));
    let back = visitor.post(&format!("{}/cancel", one.location), &[]).await;
    assert_eq!(back.location, one.location);
    let order = visitor.get(&one.location).await.text;
    assert!(order.contains("the money is back on the card"), "{order}");
    system.stop().await;
}

/// What is gone from the shelves is named, cannot be paid, and is taken out again.
async fn gone_goods(system: &System, visitor: &mut Visitor, fields: &[(&str, &str)]) {
    let fad = system.product("Fad", 1.0, 5).await;
    let change = |action| [("action", action), ("product", fad.as_str())];
    visitor.post("/shop/cart", &change("add")).await;
    let off = format!("/products/{fad}");
    system.operator().delete(&off).await.expect(200);
    let cart = visitor.get("/shop/cart").await.text;
    assert!(cart.contains("No longer here: Fad."), "{cart}");
    let checkout = visitor.get("/shop/checkout").await.text;
    assert!(!checkout.contains("name=\"cardNumber\""), "{checkout}");
    let refused = visitor.post("/shop/checkout", fields).await;
    assert_eq!(refused.status, 409);
    assert!(refused.text.contains("Fad: sold out."), "{}", refused.text);
    visitor.post("/shop/cart", &change("remove")).await;
    let cart = visitor.get("/shop/cart").await.text;
    assert!(!cart.contains("Fad"), "{cart}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_paid_is_said_on_the_page() {
    let system = System::start().await;
    system.user("ada").await;
    let mut visitor = Visitor::at(&system, 0);
    let wrong = [
        ("username", "ada"),
        ("password", "wrong password"),
        ("next", "//evil.example"),
    ];
    let refused = visitor.post("/shop/sign-in", &wrong).await;
    assert_eq!(refused.status, 401);
    let again = "data-page=\"/shop/sign-in?next=%2F\"";
    assert!(refused.text.contains(again), "{}", refused.text);
    let right = [
        ("username", "ada"),
        ("password", PASSWORD),
        ("next", "//evil.example"),
    ];
    assert_eq!(visitor.post("/shop/sign-in", &right).await.location, "/");
    visitor
        .post(
            "/shop/cart",
            &[("action", "add"), ("product", "2"), ("quantity", "2")],
        )
        .await;
    let pay = async |visitor: &mut Visitor, card: &str| {
        let checkout = hidden(&visitor.get("/shop/checkout").await.text);
        let (key, total) = (&checkout["key"], &checkout["expectedTotal"]);
        visitor
            .post(
                "/shop/checkout",
                &[("key", key), ("expectedTotal", total), ("cardNumber", card)],
            )
            .await
    };
    let mistyped = pay(&mut visitor, "4242").await;
    assert_eq!(mistyped.status, 422);
    assert!(!mistyped.text.contains("4242\""), "the number is not shown again");
    let declined = pay(&mut visitor, EMPTY).await;
    assert_eq!(declined.status, 402);
    assert!(declined.text.contains("insufficient-funds") && declined.text.contains("role=\"alert\""));
    // Somebody is faster, and somebody edits the price.
    let checkout = hidden(&visitor.get("/shop/checkout").await.text);
    let admin = system.operator();
    let put = admin
        .request(Method::PUT, "/products/2")
        .json(&json!({"stock": 1}));
    admin.send(put).await.expect(200);
    let fields = paying(&checkout, VISA);
    let sold_out = visitor.post("/shop/checkout", &fields).await;
    assert_eq!(sold_out.status, 409);
    assert!(sold_out.text.contains("Rex: 1 left"), "{}", sold_out.text);
    let put = admin
        .request(Method::PUT, "/products/2")
        .json(&json!({"stock": 5, "price": 1}));
    admin.send(put).await.expect(200);
    let changed = visitor.post("/shop/checkout", &fields).await;
    assert_eq!(changed.status, 409);
    assert!(changed.text.contains("another one than the one you saw"));
    gone_goods(&system, &mut visitor, &fields).await;
    assert_eq!(pay(&mut visitor, VISA).await.status, StatusCode::SEE_OTHER);
    assert_eq!(visitor.get("/shop/orders/nothing").await.status, 404);
    assert_eq!(visitor.get("/shop/product/nothing").await.status, 404);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_keeps_the_shelves() {
    let system = System::start().await;
    let mut visitor = Visitor::at(&system, 0);
    assert_eq!(
        visitor.get("/shop/admin").await.location,
        "/shop/sign-in?next=%2Fshop%2Fadmin"
    );
    let password = system.cluster.secrets().shop.admin_password.expose();
    visitor
        .post(
            "/shop/sign-in",
            &[
                ("username", "admin"),
                ("password", password),
                ("next", "/shop/admin"),
            ],
        )
        .await;
    let new = [
        ("action", "create"),
        ("name", MARKUP),
        ("species", MARKUP),
        ("category", ""),
        ("price", "3.50"),
        ("stock", "2"),
    ];
    assert_eq!(visitor.post("/shop/admin", &new).await.location, "/shop/admin");
    // Markup is shown as what it is, on every page that shows it.
    for target in ["/", "/shop/product/13", "/shop/admin", "/?q=%3Cscript"] {
        let shown = visitor.get(target).await.text;
        assert!(
            !shown.contains("<script>alert") && shown.contains("alert(1)"),
            "{target}: {shown}"
        );
    }
    let admin = visitor.get("/shop/admin").await.text;
    let tag = admin
        .split("value=\"13\"><input type=\"hidden\" name=\"tag\" value=\"")
        .nth(1)
        .unwrap();
    let tag = tag.split('"').next().unwrap().to_owned();
    let change = |price| {
        [
            ("action", "change"),
            ("id", "13"),
            ("tag", tag.as_str()),
            ("name", "Mouse"),
            ("price", price),
            ("stock", "4"),
        ]
    };
    assert_eq!(visitor.post("/shop/admin", &change("-1")).await.status, 422);
    assert_eq!(
        visitor.post("/shop/admin", &change("4")).await.status,
        StatusCode::SEE_OTHER
    );
    assert_eq!(system.stock("13").await, 4);
    let late = visitor.post("/shop/admin", &change("5")).await;
    assert_eq!(late.status, 412);
    assert!(late.text.contains("sold or edited since you saw it"));
    assert_eq!(
        visitor
            .post("/shop/admin", &[("action", "delete"), ("id", "13")])
            .await
            .status,
        StatusCode::SEE_OTHER
    );
    assert_eq!(visitor.get("/shop/product/13").await.status, 404);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_site_cannot_send_these_forms() {
    let system = System::open().await;
    let mut visitor = Visitor::at(&system, 0);
    for target in [
        "/shop/admin",
        "/shop/cart",
        "/shop/checkout",
        "/shop/sign-in",
        "/shop/sign-out",
    ] {
        let request = visitor
            .http
            .post(format!("{}{target}", visitor.base))
            .header("origin", "http://evil.example");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let refused = visitor.send(request.body("action=delete&id=1")).await;
        assert_eq!(refused.status, 403, "{target}");
    }
    assert_eq!(visitor.get("/shop/product/1").await.status, 200);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_shops_as_a_guest_where_everybody_is_trusted() {
    let system = System::open().await;
    let mut visitor = Visitor::at(&system, 0);
    visitor
        .post("/shop/cart", &[("action", "add"), ("product", "6")])
        .await;
    let page = visitor.get("/shop/checkout").await.text;
    assert!(page.contains("userId=guest"), "{page}");
    let checkout = hidden(&page);
    let fields = paying(&checkout, VISA);
    let paid = visitor.post("/shop/checkout", &fields).await;
    assert!(
        visitor.get(&paid.location).await.text.contains("all is done"),
        "{}",
        paid.text
    );
    for asset in ["/shop.css", "/shop.js"] {
        assert_eq!(visitor.get(asset).await.status, 200);
    }
    system.stop().await;
}
