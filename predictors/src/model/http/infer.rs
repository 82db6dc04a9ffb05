//! The Open Inference Protocol, version 2: the same model for tools that know only that.
//! Invariant: data may be flat or nested, but always has as many numbers as its shape says.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use service::body::{self, Object};
use service::problem::{self, Problem, Result};

use super::Shared;
use super::predict::say_all;
use super::state::{App, Ready};
use crate::evaluate::label;
use crate::wire::{invalid, json as answer};

const NUMBERS: [&str; 4] = ["FP64", "FP32", "INT64", "INT32"];

/// `GET /v2`
pub(super) async fn server() -> Response {
    let about = json!({"name": "menagerie", "version": env!("CARGO_PKG_VERSION"), "extensions": []});
    answer(StatusCode::OK, &about)
}

/// `GET /v2/health/live`
pub(super) async fn live() -> Response {
    answer(StatusCode::OK, &json!({"live": true}))
}

/// `GET /v2/health/ready`
pub(super) async fn ready(State(app): State<Shared>) -> Result<Response> {
    app.ready()?;
    Ok(answer(StatusCode::OK, &json!({"ready": true})))
}

fn known<'a>(app: &'a Shared, name: &str) -> Result<&'a Ready> {
    if name == app.name {
        return app.ready();
    }
    let detail = format!("This process serves the model \"{}\" alone.", app.name);
    Err(Problem::new(problem::MODEL_NOT_FOUND, detail.clone()).extra("error", detail))
}

/// `GET /v2/models/{name}`
pub(super) async fn metadata(State(app): State<Shared>, Path(name): Path<String>) -> Result<Response> {
    let ready = known(&app, &name)?;
    let (features, classes) = (ready.shape.features.len(), ready.shape.classes.len());
    Ok(answer(
        StatusCode::OK,
        &json!({
            "name": app.name,
            "versions": [ready.card.version],
            "platform": "linfa",
            "inputs": [{"name": "features", "datatype": "FP64", "shape": [-1, features]}],
            "outputs": [
                {"name": "predict", "datatype": "INT64", "shape": [-1]},
                {"name": "predict_proba", "datatype": "FP64", "shape": [-1, classes]},
            ],
        }),
    ))
}

/// `GET /v2/models/{name}/ready`
pub(super) async fn model_ready(State(app): State<Shared>, Path(name): Path<String>) -> Result<Response> {
    known(&app, &name)?;
    Ok(answer(StatusCode::OK, &json!({"name": name, "ready": true})))
}

#[derive(Deserialize)]
struct Infer {
    #[serde(default)]
    id: Option<String>,
    inputs: Vec<Object<Input>>,
    #[serde(default)]
    outputs: Vec<Object<Output>>,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    data: Value,
}

#[derive(Deserialize)]
struct Output {
    name: String,
}

/// `POST /v2/models/{name}/infer`
pub(super) async fn infer(
    State(app): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response> {
    let (parts, body) = request.into_parts();
    app.admit(&parts.headers)?;
    let ready = known(&app, &name)?;
    let body = app.body(body).await?;
    let asked: Infer = body::json(&parts.headers, &body).map_err(|problem| {
        let detail = problem.detail.clone();
        problem.extra("error", detail)
    })?;
    let rows = rows(ready, &asked, app.config.instances_max)?;
    let wanted = Wanted::of(asked)?;
    say_all(&app, rows, move |app, ready, _rows, said| {
        inferred(app, ready, wanted, said)
    })
    .await
}

/// Which outputs are asked for, and under which id.
struct Wanted {
    id: Option<String>,
    labels: bool,
    probabilities: bool,
}

impl Wanted {
    fn of(asked: Infer) -> Result<Self> {
        let mut names = asked.outputs.iter().map(|Object(output)| &output.name);
        if let Some(name) = names.find(|name| !["predict", "predict_proba"].contains(&name.as_str())) {
            return Err(invalid(format!(
                "There is no output `{name}`; there are predict and predict_proba."
            )));
        }
        let named = |name: &str| asked.outputs.iter().any(|Object(output)| output.name == name);
        let wanted = |name: &str| asked.outputs.is_empty() || named(name);
        Ok(Self {
            labels: wanted("predict"),
            probabilities: wanted("predict_proba"),
            id: asked.id,
        })
    }
}

fn inferred(app: &App, ready: &Ready, wanted: Wanted, said: &[Vec<f64>]) -> Response {
    let (count, classes) = (said.len(), ready.shape.classes.len());
    let mut outputs = Vec::new();
    if wanted.labels {
        let labels: Vec<usize> = said.iter().map(|said| label(said)).collect();
        outputs.push(json!({"name": "predict", "datatype": "INT64", "shape": [count], "data": labels}));
    }
    if wanted.probabilities {
        let probabilities: Vec<f64> = said.iter().flatten().copied().collect();
        outputs.push(json!({
            "name": "predict_proba", "datatype": "FP64", "shape": [count, classes], "data": probabilities,
        }));
    }
    let mut inferred = json!({
        "model_name": app.name, "model_version": ready.card.version, "outputs": outputs,
    });
    if let Some(id) = wanted.id {
        inferred["id"] = id.into();
    }
    answer(StatusCode::OK, &inferred)
}

fn rows(ready: &Ready, asked: &Infer, rows_max: usize) -> Result<Vec<Vec<f64>>> {
    let [Object(input)] = &asked.inputs[..] else {
        return Err(invalid("There must be exactly one input."));
    };
    let features = ready.shape.features.len();
    let name = &input.name;
    if !NUMBERS.contains(&input.datatype.as_str()) {
        return Err(invalid(format!(
            "The datatype of `{name}` must be one of {}.",
            NUMBERS.join(", ")
        )));
    }
    let count = match input.shape[..] {
        [count, width] if width == features => count,
        [width] if width == features => 1,
        _ => {
            return Err(invalid(format!(
                "The shape of `{name}` must be [rows, {features}]."
            )));
        }
    };
    if !(1..=rows_max).contains(&count) {
        return Err(invalid(format!("There must be 1 to {rows_max} rows.")));
    }
    let mut numbers = Vec::new();
    flatten(&input.data, &mut numbers)
        .ok_or_else(|| invalid(format!("The data of `{name}` must be finite numbers.")))?;
    if numbers.len() != count * features {
        return Err(invalid(format!(
            "The data of `{name}` has {} numbers, but its shape says {}.",
            numbers.len(),
            count * features
        )));
    }
    Ok(numbers.chunks(features).map(<[f64]>::to_vec).collect())
}

fn flatten(data: &Value, numbers: &mut Vec<f64>) -> Option<()> {
    match data {
        Value::Array(items) => items.iter().try_for_each(|item| flatten(item, numbers)),
        Value::Number(number) => {
            numbers.push(number.as_f64().filter(|number| number.is_finite())?);
            Some(())
        }
        _ => None,
    }
}
