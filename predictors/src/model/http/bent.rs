//! Requests that no honest caller sends to a model.
//! Invariant: each is answered or refused.

use std::sync::Arc;

use axum::Router;
use service::config::Config;
use service::edge;
use service::metrics::Metrics;
use service::secrets::Secrets;
use service::tasks::Tasks;

use super::{App, Ready, router};
use crate::bent_requests::{feed_requests, runtime};
use crate::data::iris;
use crate::model::behave::Manner;
use crate::model::card::Card;
use crate::models::{Kind, Predictor, fit};
use crate::process::Settings;

pub(crate) fn unloaded() -> App {
    let settings = Settings {
        config: Config::default(),
        name: "m".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        secrets: Secrets::generate().expect("the operating system has random bytes to give"),
    };
    let manner = Manner::new(None, None, 1);
    let app = App::new(&settings, manner, None, Metrics::new(), Tasks::new());
    app.expect("it has all tokens")
}

pub(super) fn app() -> Arc<App> {
    let app = unloaded();
    let (kind, table) = (Kind::NaiveBayes, iris());
    let fitted = fit(kind, &table, 1).expect("it can be learned");
    let card = Card::make("m", kind, &table, &fitted, (1, 0)).expect("it has a card");
    app.load(Ready::new(card, Predictor::new(fitted).expect("it can serve")));
    Arc::new(app)
}

pub(super) fn wrapped(app: Arc<App>) -> Router {
    edge::wrap(router(app), "m")
}

#[test]
fn rows() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let whole = [
        "GET /predict?sl=5.1&sepal_width=3.5&pl=1e0&pw=%300.2\n\n",
        r#"POST /predict\n\n{"sl": 5.1, "sw": 3.5, "petal_length": 1.4, "pw": 1e-1}"#,
        r#"POST /predict\n\n{"features": [5.1, 3.5, 1.4, 0.2]}"#,
        r#"POST /predict\n\n{"instances": [[5.1, 3.5, 1.4, 0.2], [1, 2, 3, 1e300]]}"#,
    ];
    feed_requests(&wrapped(app()), &whole.map(|text| text.replace("\\n", "\n")));
}

#[test]
fn inferences() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let nested = r#"{"id": "1", "inputs": [{"name": "features", "shape": [2, 4], "datatype": "FP64",
        "data": [[5.1, 3.5, 1.4, 0.2], [1, 2, 3, 4]]}], "outputs": [{"name": "predict"}]}"#;
    let flat = r#"{"inputs": [{"name": "x", "shape": [4], "datatype": "INT32", "data": [1, 2, 3, 4]}]}"#;
    let whole = [nested, flat].map(|body| format!("POST /v2/models/m/infer\n\n{body}"));
    feed_requests(&wrapped(app()), &whole);
}
