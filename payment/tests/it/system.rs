//! A store and some instances of the payment service in this process, and what tests say to them.
//! Invariant: each test has a system of its own, so that none sees another's cards.

use reqwest::Method;
use serde_json::{Value, json};
use service::config::{Config, PaymentConfig, RANGE_ROWS_MIN};

use crate::harness::{Answer, Client, Cluster, DEADLINE, wait_for};
use crate::trap::Trap;
use crate::vessel::Vessel;

/// Cards that are valid, of brands in turn.
pub(crate) const VISA: &str = "4242 4242 4242 4242";
pub(crate) const MASTERCARD: &str = "5555 5555 5555 4444";
pub(crate) const AMEX: &str = "3782 822463 10005";
pub(crate) const BLOCKED: &str = "4000 0000 0000 0002";
pub(crate) const EMPTY: &str = "4000 0000 0000 9995";
/// Valid, but never opened.
pub(crate) const STRANGER: &str = "6011 1111 1111 1117";

pub(crate) struct System {
    pub(crate) cluster: Cluster,
    config: Config,
    instances: Vec<Instance>,
}

struct Instance {
    vessel: Vessel,
    trap: Trap,
}

impl System {
    /// One node, one instance, the cards for trying out.
    pub(crate) async fn start() -> Self {
        Self::start_with(1, 1, |_config| {}).await
    }

    pub(crate) async fn start_with(
        nodes: usize,
        instances: usize,
        adjust: impl FnOnce(&mut PaymentConfig),
    ) -> Self {
        // A page larger than any store must give is refused.
        let cluster =
            Cluster::start_with(nodes, |config| config.limits.range_rows_max = RANGE_ROWS_MIN).await;
        let mut config = cluster.config();
        adjust(&mut config.payment);
        let mut system = Self {
            cluster,
            config,
            instances: Vec::new(),
        };
        for _ in 0..instances {
            system.start_instance(|_config| {}).await;
        }
        system
    }

    /// One more, whose configuration differs from the others' by what `adjust` changes.
    pub(crate) async fn start_instance(&mut self, adjust: impl FnOnce(&mut PaymentConfig)) {
        let instance = self.launch(self.instances.len(), Trap::new(), adjust);
        self.instances.push(instance);
        self.ready(self.instances.len() - 1).await;
    }

    fn launch(&self, instance: usize, trap: Trap, adjust: impl FnOnce(&mut PaymentConfig)) -> Instance {
        let mut config = self.config.clone();
        adjust(&mut config.payment);
        let secrets = self.cluster.secrets().clone();
        let points = trap.points();
        let vessel = Vessel::launch(0, |listener, tasks| {
            let settings = payment::Settings {
                config,
                name: format!("pay{}", instance + 1),
                address: listener.local_addr().unwrap().to_string(),
                secrets,
                points,
            };
            payment::run(settings, listener, tasks)
        });
        Instance { vessel, trap }
    }

    /// One more, whose store is at this address; it may never be ready.
    pub(crate) fn start_instance_at(&mut self, store: String, adjust: impl FnOnce(&mut PaymentConfig)) {
        let nodes = self.config.nodes.clone();
        self.config.nodes.truncate(1);
        self.config.nodes[0].client = store;
        let instance = self.launch(self.instances.len(), Trap::new(), adjust);
        self.config.nodes = nodes;
        self.instances.push(instance);
    }

    pub(crate) fn trap(&self, instance: usize) -> &Trap {
        &self.instances[instance].trap
    }

    /// As `kill -9` does it.
    pub(crate) fn kill(&mut self, instance: usize) {
        self.instances[instance].vessel.kill();
    }

    /// In the place of one that was killed.
    pub(crate) async fn restart(
        &mut self,
        instance: usize,
        trap: Trap,
        adjust: impl FnOnce(&mut PaymentConfig),
    ) {
        self.instances[instance] = self.launch(instance, trap, adjust);
        self.ready(instance).await;
    }

    async fn ready(&self, instance: usize) {
        let client = self.at(instance, "operator");
        wait_for("the instance to be ready", async || {
            let answer = client.get("/readyz").await;
            (answer.status == 200).then_some(()).ok_or(answer.text())
        })
        .await;
        if self.config.payment.demo {
            wait_for("the cards for trying out", async || {
                let answer = ask(
                    &client,
                    Method::POST,
                    "/v1/cards/balance",
                    &json!({"card_number": BLOCKED}),
                )
                .await;
                (answer.status == 200).then_some(()).ok_or(answer.text())
            })
            .await;
        }
    }

    pub(crate) fn at(&self, instance: usize, token: &str) -> Client {
        let token = self.cluster.secrets().token(token).unwrap();
        Client::at(self.instances[instance].vessel.address, token.expose())
    }

    pub(crate) fn merchant(&self) -> Client {
        self.at(0, "merchant")
    }

    pub(crate) fn operator(&self) -> Client {
        self.at(0, "operator")
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        let instances = self.instances.iter();
        instances
            .map(|instance| instance.vessel.address.to_string())
            .collect()
    }

    /// Without a credential, as a browser calls.
    pub(crate) async fn browse(&self, method: Method, target: &str, body: &Value) -> Answer {
        let http = service::http::client(DEADLINE);
        let url = format!("http://{}{target}", self.instances[0].vessel.address);
        let client = self.merchant();
        client.send(http.request(method, url).json(body)).await
    }

    pub(crate) async fn balance(&self, card: &str) -> (i64, i64) {
        let body = json!({"card_number": card});
        let answer = ask(&self.merchant(), Method::POST, "/v1/cards/balance", &body).await;
        let balance = answer.expect(200).json();
        let number = |name: &str| balance[name].as_i64().unwrap();
        (number("balance_minor"), number("held_minor"))
    }

    /// The ledger must be balanced.
    pub(crate) async fn check(&self) -> Value {
        let check = self.operator().get("/v1/ledger/check").await.expect(200).json();
        assert_eq!(check["violations"], json!([]), "{check}");
        assert_eq!(check["balanced"], true, "{check}");
        check
    }

    pub(crate) async fn stop_instance(&mut self, instance: usize) {
        self.instances[instance].vessel.stop().await;
    }

    /// Stops everything, after a last look at the ledger.
    pub(crate) async fn stop(mut self) {
        self.check().await;
        for instance in 0..self.instances.len() {
            self.stop_instance(instance).await;
        }
        self.cluster.stop().await;
    }
}

pub(crate) async fn ask(client: &Client, method: Method, target: &str, body: &Value) -> Answer {
    client.send(client.request(method, target).json(body)).await
}

/// A body as text, where every character counts.
pub(crate) async fn ask_text(client: &Client, method: Method, target: &str, body: &str) -> Answer {
    let request = client.request(method, target);
    let request = request.header("content-type", "application/json");
    client.send(request.body(body.to_owned())).await
}

pub(crate) async fn pay(client: &Client, id: &str, body: &Value) -> Answer {
    ask(client, Method::PUT, &format!("/v1/payments/{id}"), body).await
}

pub(crate) async fn capture(client: &Client, id: &str, body: &Value) -> Answer {
    ask(client, Method::POST, &format!("/v1/payments/{id}/capture"), body).await
}

pub(crate) async fn cancel(client: &Client, id: &str) -> Answer {
    let target = format!("/v1/payments/{id}/cancel");
    ask(client, Method::POST, &target, &json!({})).await
}

pub(crate) async fn refund(client: &Client, id: &str, rid: &str, amount: Value) -> Answer {
    let target = format!("/v1/payments/{id}/refunds/{rid}");
    ask(client, Method::PUT, &target, &json!({"amount": amount})).await
}

/// A payment of this amount from this card, held or taken at once.
pub(crate) fn order(card: &str, amount: f64, capture: &str) -> Value {
    json!({"card_number": card, "amount": amount, "currency": "EUR", "merchant": "shop", "order_ref": "o-1", "capture": capture})
}

/// Status, the headers that matter and the body, without what differs from run to run.
pub(crate) fn told(answer: &Answer) -> String {
    let mut text = format!("{}", answer.status);
    for name in [
        "idempotent-replayed",
        "location",
        "retry-after",
        "www-authenticate",
        "link",
    ] {
        if !answer.header(name).is_empty() {
            text = format!("{text}\n{name}: {}", answer.header(name));
        }
    }
    let mut body = answer.json();
    mask(&mut body);
    text + "\n" + &body.to_string()
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let differs =
                    ["request_id", "created", "expires", "token", "revision"].contains(&name.as_str());
                let is_card = value.as_str().is_some_and(|text| text.starts_with("c1_"));
                match value {
                    _ if differs => *value = json!(format!("[{name}]")),
                    _ if is_card => *value = json!("[card]"),
                    Value::String(text) if text.starts_with("card:c1_") => *value = json!("card:[card]"),
                    value => mask(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        _ => {}
    }
}
