//! A store, payments and shops, and what tests say to them.
//! Invariant: each test has a system of its own, so that none sees another's goods; it is audited before it goes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use petstore::Points;
use reqwest::Method;
use serde_json::{Value, json};
use service::config::{Config, RANGE_ROWS_MIN, ShopAuth, ShopConfig};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

use crate::harness::{Answer, Client, Cluster, DEADLINE, wait_for};
use crate::vessel::Vessel;

pub(crate) const VISA: &str = "4242 4242 4242 4242";
pub(crate) const EMPTY: &str = "4000 0000 0000 9995";
pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) struct System {
    pub(crate) cluster: Cluster,
    pub(crate) config: Config,
    pub(crate) payments: Vec<Vessel>,
    pub(crate) shops: Vec<Vessel>,
    /// Of each of them, the name of the shop it is an instance of.
    names: Vec<String>,
    pub(crate) traps: Vec<Trap>,
}

/// Holds an instance at a point once it gets there.
#[derive(Clone)]
pub(crate) struct Trap {
    armed: Arc<Mutex<VecDeque<String>>>,
    caught_tx: mpsc::Sender<&'static str>,
    caught: Arc<tokio::sync::Mutex<mpsc::Receiver<&'static str>>>,
    release: Arc<Notify>,
}

impl Trap {
    fn new() -> Self {
        let (caught_tx, caught) = mpsc::channel(64);
        Self {
            armed: Arc::default(),
            caught_tx,
            caught: Arc::new(tokio::sync::Mutex::new(caught)),
            release: Arc::default(),
        }
    }

    fn points(&self) -> Points {
        let trap = self.clone();
        Points::each(move |name| {
            let trap = trap.clone();
            Box::pin(async move {
                let caught = {
                    let mut armed = trap.armed.lock().unwrap();
                    let found = armed.iter().position(|armed| armed == name);
                    found.and_then(|at| armed.remove(at))
                };
                if caught.is_some() {
                    trap.caught_tx.send(name).await.unwrap();
                    trap.release.notified().await;
                }
            })
        })
    }

    /// The next one that gets to this point is held there.
    pub(crate) fn arm(&self, point: &str) {
        self.armed.lock().unwrap().push_back(point.to_owned());
    }

    /// What is not caught yet goes by.
    pub(crate) fn disarm(&self) {
        self.armed.lock().unwrap().clear();
    }

    pub(crate) async fn caught(&self) {
        let mut caught = self.caught.lock().await;
        let one = tokio::time::timeout(DEADLINE, caught.recv()).await;
        one.expect("somebody gets to the point")
            .expect("the trap is open");
    }

    pub(crate) fn release(&self) {
        self.release.notify_one();
    }
}

impl System {
    /// One node, one payment, one shop.
    pub(crate) async fn start() -> Self {
        Self::start_with(1, 1, |_config| {}).await
    }

    pub(crate) async fn open() -> Self {
        Self::start_with(1, 1, |config| config.auth = ShopAuth::Open).await
    }

    pub(crate) async fn start_with(nodes: usize, shops: usize, adjust: impl FnOnce(&mut ShopConfig)) -> Self {
        // A page larger than any store must give is refused.
        let cluster =
            Cluster::start_with(nodes, |config| config.limits.range_rows_max = RANGE_ROWS_MIN).await;
        let mut config = cluster.config();
        config.shop.checkout = super::CHECKOUT;
        config.shop.registration_ms = 1000;
        config.shop.adopt_every_ms = 100;
        adjust(&mut config.shop);
        let mut system = Self {
            cluster,
            config,
            payments: Vec::new(),
            shops: Vec::new(),
            names: Vec::new(),
            traps: Vec::new(),
        };
        system.start_payment(0).await;
        let address = system.payments[0].address.to_string();
        system.config.payment.addresses = vec![address];
        for _ in 0..shops {
            system.start_shop().await;
        }
        system
    }

    async fn start_payment(&mut self, port: u16) {
        let (config, secrets) = (self.config.clone(), self.cluster.secrets().clone());
        let vessel = Vessel::launch(port, |listener, tasks| {
            let settings = payment::Settings {
                config,
                name: "pay1".to_owned(),
                address: listener.local_addr().unwrap().to_string(),
                secrets,
                points: payment::Points::none(),
            };
            payment::run(settings, listener, tasks)
        });
        let merchant = Client::at(vessel.address, self.token("merchant"));
        self.payments.push(vessel);
        wait_for("the cards for trying out", async || {
            let body = json!({"card_number": "4000 0000 0000 0002"});
            let request = merchant.request(Method::POST, "/v1/cards/balance").json(&body);
            match request.send().await {
                Ok(answer) if answer.status() == 200 => Ok(()),
                Ok(answer) => Err(answer.status().to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// Waits until somebody has come to a point that is armed: the number of their shop.
    pub(crate) async fn caught_any(&self) -> usize {
        tokio::select! {
            () = self.traps[0].caught() => 0,
            () = self.traps[1].caught() => 1,
        }
    }

    /// In place of the payment service, which was killed, there is somebody who hangs up: waits until a shop tried.
    pub(crate) async fn nobody_pays(&self) {
        let address = self.payments[0].address;
        let listener = wait_for("the port of payment", async || TcpListener::bind(address).await).await;
        let called = tokio::time::timeout(DEADLINE, listener.accept()).await;
        called.expect("a shop asks for its payment").unwrap();
    }

    pub(crate) async fn restart_payment(&mut self) {
        let address = self.payments[0].address;
        let port = address.port();
        self.payments.clear();
        wait_for("the port of payment", async || {
            TcpListener::bind(address).await.map(drop)
        })
        .await;
        self.start_payment(port).await;
    }

    pub(crate) async fn start_shop(&mut self) {
        let (config, secrets) = (self.config.clone(), self.cluster.secrets().clone());
        let (number, trap) = (self.shops.len() + 1, Trap::new());
        let points = trap.points();
        let vessel = Vessel::launch(0, |listener, tasks| {
            let settings = petstore::Settings {
                config,
                name: format!("shop{number}"),
                address: listener.local_addr().unwrap().to_string(),
                secrets,
                points,
            };
            petstore::run(settings, listener, tasks)
        });
        self.shops.push(vessel);
        self.names.push(self.config.shop.name.clone());
        self.traps.push(trap);
        let client = self.operator_at(number - 1);
        wait_for("the shop to be ready", async || {
            let answer = client.get("/readyz").await;
            (answer.status == 200).then_some(()).ok_or(answer.text())
        })
        .await;
        self.shared_out().await;
    }

    /// Waits until every shard is somebody's who lives, and every living shop has some.
    pub(crate) async fn shared_out(&self) {
        let root = self.cluster.client(0);
        let list = async |what: &str| {
            let target = format!("/v1/kv?prefix=shop/{}/{what}/", self.config.shop.name);
            let kvs = root.get(&target).await.expect(200).json()["kvs"].clone();
            kvs.as_array().unwrap().clone()
        };
        wait_for("the shards to be shared out", async || {
            let shops = self.shops.iter().zip(&self.names);
            let ours = shops.filter(|(shop, name)| shop.is_alive() && **name == self.config.shop.name);
            let living = ours.count();
            let shards = list("shard").await;
            let owners: std::collections::BTreeSet<_> =
                shards.iter().map(|kv| kv["value"].to_string()).collect();
            if shards.len() == 64 && owners.len() == living {
                Ok(())
            } else {
                Err(format!("{} shards of {owners:?}", shards.len()))
            }
        })
        .await;
    }

    /// To the store this shop is dead: its mark is gone, and another one takes over what it was at.
    pub(crate) async fn takes_for_dead(&self, shop: usize) {
        let root = self.cluster.client(0);
        let target = format!("/v1/kv?prefix=shop/menagerie/instance/shop{}", shop + 1);
        let marks = root.get(&target).await.expect(200).json();
        let mark = marks["kvs"][0]["key"].as_str().unwrap();
        root.delete(&format!("/v1/kv/{mark}")).await.expect(200);
    }

    /// The keys of the letters under way whose names end like this.
    pub(crate) async fn letters(&self, end: &str) -> Vec<String> {
        let target = format!("/v1/kv?prefix=shop/{}/mail/&keys_only=1", self.config.shop.name);
        let kvs = self.cluster.client(0).get(&target).await.expect(200).json();
        let keys = kvs["kvs"].as_array().unwrap().iter();
        let keys = keys.map(|kv| kv["key"].as_str().unwrap().to_owned());
        keys.filter(|key| key.ends_with(end)).collect()
    }

    pub(crate) fn token(&self, name: &str) -> &str {
        self.cluster.secrets().token(name).unwrap().expose()
    }

    pub(crate) fn operator_at(&self, shop: usize) -> Client {
        Client::at(self.shops[shop].address, self.token("operator"))
    }

    /// The admin's rights at the first shop.
    pub(crate) fn operator(&self) -> Client {
        self.operator_at(0)
    }

    /// The same credentials at another shop.
    pub(crate) fn at(&self, shop: usize, client: &Client) -> Client {
        Client::at(self.shops[shop].address, &client.token)
    }

    pub(crate) fn merchant(&self) -> Client {
        Client::at(self.payments[0].address, self.token("merchant"))
    }

    /// Without a credential.
    pub(crate) async fn browse(&self, method: Method, target: &str, body: &Value) -> Answer {
        let http = service::http::client(DEADLINE);
        let url = format!("http://{}{target}", self.shops[0].address);
        self.operator().send(http.request(method, url).json(body)).await
    }

    /// A new user who is signed in: the id, and a client with their token.
    pub(crate) async fn user(&self, name: &str) -> (String, Client) {
        self.user_at(0, name).await
    }

    /// The same at another shop.
    pub(crate) async fn user_at(&self, shop: usize, name: &str) -> (String, Client) {
        let body = json!({"username": name, "password": PASSWORD});
        let nobody = Client::at(self.shops[shop].address, "");
        let say = async |target: &str| {
            let url = format!("http://{}{target}", nobody.address);
            nobody
                .send(service::http::client(DEADLINE).post(url).json(&body))
                .await
        };
        say("/users").await.expect(201);
        let session = say("/login").await.expect(200).json();
        let token = session["token"].as_str().unwrap();
        let id = session["user_id"].as_str().unwrap().to_owned();
        (id, Client::at(self.shops[shop].address, token))
    }

    /// One more session of a user, at the first shop.
    pub(crate) async fn sign_in(&self, name: &str, password: &str) -> Client {
        let body = json!({"username": name, "password": password});
        let session = self.browse(Method::POST, "/login", &body).await.expect(200);
        Client::at(self.shops[0].address, session.json()["token"].as_str().unwrap())
    }

    /// A new product; its id.
    pub(crate) async fn product(&self, name: &str, price: f64, stock: i64) -> String {
        let body = json!({"name": name, "price": price, "stock": stock});
        let made = self.operator().post("/products", &body).await.expect(201).json();
        made["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn stock(&self, product: &str) -> i64 {
        let shop = self.shops.iter().position(Vessel::is_alive).unwrap();
        let target = format!("/products/{product}");
        let seen = self.operator_at(shop).get(&target).await.expect(200).json();
        seen["stock"].as_i64().unwrap()
    }

    pub(crate) async fn balance(&self, card: &str) -> (i64, i64) {
        let body = json!({"card_number": card});
        let told = self
            .merchant()
            .post("/v1/cards/balance", &body)
            .await
            .expect(200)
            .json();
        let number = |name: &str| told[name].as_i64().unwrap();
        (number("balance_minor"), number("held_minor"))
    }

    /// Everything must be sound; what it tells beside that.
    pub(crate) async fn audit(&self) -> Value {
        let shop = self.shops.iter().position(Vessel::is_alive).unwrap();
        let audit = self
            .operator_at(shop)
            .get("/admin/audit")
            .await
            .expect(200)
            .json();
        assert_eq!(audit["violations"], json!([]), "{audit}");
        assert_eq!(audit["ok"], true, "{audit}");
        audit
    }

    /// Waits until nothing is left to be done, and audits.
    pub(crate) async fn settled(&self) -> Value {
        wait_for("all orders to end", async || {
            let audit = self.audit().await;
            if audit["unfinished"] == 0 {
                Ok(audit)
            } else {
                Err(audit)
            }
        })
        .await
    }

    /// Stops everything, after a last audit.
    pub(crate) async fn stop(mut self) {
        if self.shops.iter().any(Vessel::is_alive) {
            self.settled().await;
        }
        for shop in &mut self.shops {
            shop.stop().await;
        }
        for payment in &mut self.payments {
            payment.stop().await;
        }
        self.cluster.stop().await;
    }
}

pub(crate) async fn ask(client: &Client, method: Method, target: &str, body: &Value) -> Answer {
    client.send(client.request(method, target).json(body)).await
}

/// A `POST` that carries an idempotency key.
pub(crate) async fn keyed(client: &Client, target: &str, key: &str, body: &Value) -> Answer {
    let request = client
        .request(Method::POST, target)
        .header("idempotency-key", key);
    client.send(request.json(body)).await
}

/// So many of one product, paid with this card.
pub(crate) fn order(product: &str, quantity: i64, card: &str) -> Value {
    json!({"items": [{"productId": product, "quantity": quantity}], "cardNumber": card})
}
