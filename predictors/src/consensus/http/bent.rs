//! Requests that no honest caller sends. There are neither a store nor models: what is understood waits for them.
//! Invariant: each is understood or refused.

use std::sync::Arc;

use axum::Router;
use kvstore_client::KvClient;
use service::config::Config;
use service::edge;
use service::metrics::Metrics;
use service::secrets::Secrets;
use service::tasks::Tasks;

use super::{App, router};
use crate::bent_requests::{feed_requests, runtime};
use crate::consensus::ask::Asker;
use crate::consensus::network::Bank;
use crate::consensus::settler::Settler;
use crate::process::Settings;
use crate::stakes::Params;
use crate::wire::Shape;

fn app(secrets: Secrets) -> Router {
    let settings = Settings {
        config: Config::default(),
        name: "consensus".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        secrets,
    };
    let config = settings.config.consensus.clone();
    let shape = Shape {
        features: config.features.clone(),
        classes: config.classes.clone(),
    };
    let client = KvClient::builder(["127.0.0.1:1"]).build();
    let bank = Bank {
        client: client.expect("it is an address"),
        params: Params::default(),
        classes: shape.classes.len(),
        config: config.clone(),
        ops_max: settings.config.limits.txn_ops_max,
    };
    let asker = Asker::new(&config, &settings.secrets);
    let settler = Settler::start(bank.clone(), shape.clone(), &Tasks::new());
    let metrics = Metrics::new();
    let app = App::new(&settings, (bank, asker, settler), shape, metrics, Tasks::new());
    let app = app.expect("it has all tokens");
    // Nothing drives the tasks that play, so that none of them ever ends.
    app.playing.add_permits(1 << 20);
    edge::wrap(router(Arc::new(app)), "consensus")
}

/// Each is a line, the name of a token, and the body.
fn feed_app(whole: &[(&str, &str, &str)]) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let secrets = Secrets::generate().expect("the operating system has random bytes to give");
    let requests = whole.iter().map(|(line, token, body)| {
        let token = secrets.token(token).expect("it is made").expose();
        format!("{line}\nauthorization: Bearer {token}\nidempotency-key: k-1\n\n{body}")
    });
    let requests: Vec<String> = requests.collect();
    feed_requests(&app(secrets), &requests);
}

#[test]
fn rounds_and_outcomes() {
    feed_app(&[
        ("POST /predict", "oracle", r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#),
        (
            "POST /predict",
            "oracle",
            r#"{"instances": [[5.1, 3.5, 1.4, 0.2]]}"#,
        ),
        (
            "POST /outcomes",
            "oracle",
            r#"{"round_id": "0123456789abcdef0123456789abcdef", "outcome": 2}"#,
        ),
        (
            "POST /outcomes",
            "oracle",
            r#"{"round_id": "x", "outcome": "setosa"}"#,
        ),
        ("POST /play", "oracle", r#"{"rounds": 100}"#),
    ]);
}

#[test]
fn models() {
    feed_app(&[
        (
            "POST /models",
            "operator",
            r#"{"name": "a-b_c.1", "url": "http://127.0.0.1:5001", "deposit": 1000.000001}"#,
        ),
        (
            "POST /models",
            "operator",
            r#"{"name": "m", "url": "http://[::1]:65535/"}"#,
        ),
        ("POST /models/m/stake", "operator", r#"{"amount": 0.000001}"#),
        ("DELETE /models/m", "operator", ""),
    ]);
}

#[test]
fn queries() {
    feed_app(&[
        ("GET /predict?sl=5.1&sepal_width=3.5&pl=1e0&pw=0.2", "oracle", ""),
        ("GET /history?limit=200&model=m&cursor=12.34", "oracle", ""),
        ("GET /ledger?revision=18446744073709551615", "oracle", ""),
        ("GET /rounds/0123456789abcdef0123456789abcdef", "oracle", ""),
    ]);
}
