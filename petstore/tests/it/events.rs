//! The stream that pages follow: live stock for all, carts and orders for their owner, and resuming elsewhere.

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::system::{System, VISA, ask, order};
use crate::harness::{Client, DEADLINE};

/// One open stream.
struct Page {
    pieces: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
    last_id: String,
}

impl Page {
    async fn open(client: &Client, target: &str, last_id: &str) -> Self {
        let mut request = client.request(Method::GET, target);
        if !last_id.is_empty() {
            request = request.header("last-event-id", last_id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            pieces: response.bytes_stream().boxed(),
            text: String::new(),
            last_id: last_id.to_owned(),
        }
    }

    /// Name and data of the next event.
    async fn next(&mut self) -> (String, Value) {
        loop {
            while let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let mut lines = frame.lines();
                    lines
                        .find_map(|line| line.strip_prefix(name))
                        .unwrap_or_default()
                        .to_owned()
                };
                if !field("id: ").is_empty() {
                    self.last_id = field("id: ");
                }
                if !field("event: ").is_empty() {
                    return (field("event: "), serde_json::from_str(&field("data: ")).unwrap());
                }
            }
            let piece = timeout(DEADLINE, self.pieces.next())
                .await
                .expect("an event comes");
            self.text += std::str::from_utf8(&piece.expect("the stream goes on").unwrap()).unwrap();
        }
    }

    /// Waits until the shop ends the stream.
    async fn ends(&mut self) {
        let ending = async { while let Some(Ok(_)) = self.pieces.next().await {} };
        timeout(DEADLINE, ending).await.expect("the stream ends");
    }

    async fn until(&mut self, name: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (told, data) = self.next().await;
            if told == name && is_it(&data) {
                return data;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_and_prices_are_live_and_orders_private() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (ada, client) = system.user("ada").await;
    let (_, mallory) = system.user("mallory").await;
    let mut own = Page::open(&system.at(1, &client), "/events", "").await;
    let mut others = Page::open(&mallory, "/events", "").await;
    client
        .post(&format!("/cart/{ada}"), &json!({"productId": "6", "quantity": 2}))
        .await
        .expect(200);
    assert_eq!(own.until("cart", |_| true).await["count"], 2);
    let made = client
        .post("/orders", &json!({"cardNumber": VISA}))
        .await
        .expect(201)
        .json();
    for page in [&mut own, &mut others] {
        let stock = page.until("stock", |_| true).await;
        assert_eq!(stock, json!({"id": "6", "stock": 38, "inStock": true}));
    }
    let paid = own.until("order", |data| data["status"] == "paid").await;
    assert_eq!(paid["order_id"], made["order_id"]);
    let admin = system.operator();
    ask(&admin, Method::PUT, "/products/1", &json!({"price": 1.5}))
        .await
        .expect(200);
    admin.delete("/products/2").await.expect(200);
    // Nothing private came before these.
    let (name, data) = others.next().await;
    assert_eq!(
        (name.as_str(), &data["price_text"]),
        ("product", &json!("1.50 EUR"))
    );
    assert_eq!(others.next().await, ("gone".to_owned(), json!({"id": "2"})));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_goes_on_at_another_instance() {
    let mut system = System::start_with(1, 2, |_config| {}).await;
    let (_, client) = system.user("ada").await;
    let mut page = Page::open(&client, "/events", "").await;
    client.post("/orders", &order("6", 1, VISA)).await.expect(201);
    page.until("order", |data| data["status"] == "paid").await;
    let seen = page.last_id.clone();
    system.shops[0].kill();
    let elsewhere = system.at(1, &client);
    for _ in 0..3 {
        elsewhere.post("/orders", &order("6", 1, VISA)).await.expect(201);
    }
    let mut page = Page::open(&elsewhere, "/events", &seen).await;
    for stock in [38, 37, 36] {
        assert_eq!(page.until("stock", |_| true).await["stock"], stock);
        page.until("order", |data| data["status"] == "paid").await;
    }
    // The same by the address, as a page asks that was laid out at this revision.
    let mut page = Page::open(&elsewhere, &format!("/events?since={seen}"), "").await;
    assert_eq!(page.until("stock", |_| true).await["stock"], 38);
    elsewhere
        .get("/events?since=x")
        .await
        .refused(400, "malformed-parameter");
    system.stop().await;
}

/// As a page asks that was open while the store was restored to an earlier moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_has_not_come_to_is_refused() {
    let system = System::start().await;
    let (client, root) = (system.operator(), system.cluster.client(0));
    // What is broadcast begins with this one.
    let _page = Page::open(&client, "/events", "").await;
    let newest = root.put("elsewhere", "x").await.number("x-kv-revision");
    Page::open(&client, "/events", &newest.to_string()).await;
    let ahead = newest + 1_000_000;
    client
        .get(&format!("/events?since={ahead}"))
        .await
        .refused(410, "compacted");
    let again = client.request(Method::GET, "/events");
    let again = again.header("last-event-id", ahead.to_string());
    client.send(again).await.refused(410, "compacted");
    system.stop().await;
}

/// Whoever signs out, or is signed out, on any instance hears no more of their carts and orders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_session() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (_, client) = system.user("ada").await;
    let (_, other) = system.user("bob").await;
    let mut page = Page::open(&system.at(1, &client), "/events", "").await;
    let mut others = Page::open(&system.at(1, &other), "/events", "").await;
    client.post("/logout", &json!({})).await.expect(204);
    page.ends().await;
    other.post("/orders", &order("6", 1, VISA)).await.expect(201);
    others.until("order", |data| data["status"] == "paid").await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_the_time_of_its_session() {
    let system = System::start_with(1, 1, |config| config.session_s = 6).await;
    let (_, client) = system.user("ada").await;
    Page::open(&client, "/events", "").await.ends().await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_bounded() {
    let system = System::start_with(1, 1, |config| config.events_max = 2).await;
    let client = system.operator();
    let first = Page::open(&client, "/events", "").await;
    let _second = Page::open(&client, "/events", "").await;
    client.get("/events").await.refused(503, "too-many-watchers");
    drop(first);
    crate::harness::wait_for("room for another", async || {
        let answer = client
            .request(Method::GET, "/events")
            .send()
            .await
            .unwrap()
            .status();
        (answer == 200).then_some(()).ok_or(answer)
    })
    .await;
    system.stop().await;
}
