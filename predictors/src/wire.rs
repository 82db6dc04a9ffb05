//! What travels: how rows are read from a query or a body, and the shape of a prediction.
//! Invariant: a row that was read has as many finite numbers as there are features; what cannot be read is refused
//! with the name of the feature, in the way the exercises expect (`error` beside the problem).
//! It must not know models or stakes.

use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use service::fields::Fields;
use service::problem::{self, Problem, Result};
use service::query::Query;

/// Other names of the features of the irises.
const LONG_NAMES: [(&str, &str); 4] = [
    ("sl", "sepal_length"),
    ("sw", "sepal_width"),
    ("pl", "petal_length"),
    ("pw", "petal_width"),
];

/// What is asked, and what may be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) features: Vec<String>,
    pub(crate) classes: Vec<String>,
}

/// One row, or as many as were sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    One(Vec<f64>),
    Many(Vec<Vec<f64>>),
}

pub(crate) fn invalid(detail: impl Into<String>) -> Problem {
    let detail = detail.into();
    Problem::new(problem::INVALID_FEATURES, detail.clone()).extra("error", detail)
}

fn long_name(feature: &str) -> Option<&'static str> {
    let found = LONG_NAMES.iter().find(|(short, _)| *short == feature);
    found.map(|(_, long)| *long)
}

impl Shape {
    /// `?sl=5.1&sw=3.5&pl=1.4&pw=0.2`
    pub(crate) fn of_query(&self, uri: &Uri) -> Result<Vec<f64>> {
        let query = Query::of(uri);
        let mut row = Vec::with_capacity(self.features.len());
        for feature in &self.features {
            let mut given = query.text(feature).map_err(with_error)?;
            if given.is_none()
                && let Some(long) = long_name(feature)
            {
                given = query.text(long).map_err(with_error)?;
            }
            let given = given.ok_or_else(|| self.missing(feature))?;
            row.push(finite(feature, given.trim().parse().ok())?);
        }
        Ok(row)
    }

    /// `{"sl": …}`, `{"features": […]}` or `{"instances": [[…], …]}`; how many there may be is for whoever asks.
    pub(crate) fn of_body(&self, headers: &HeaderMap, body: &Bytes) -> Result<Asked> {
        let fields = Fields::read(headers, body).map_err(with_error)?;
        if let Some(raw) = fields.raw("instances") {
            let rows: Vec<Vec<f64>> = serde_json::from_str(raw.get())
                .map_err(|_error| invalid("`instances` must be a list of lists of finite numbers."))?;
            for row in &rows {
                self.check("each of `instances`", row)?;
            }
            return Ok(Asked::Many(rows));
        }
        if let Some(raw) = fields.raw("features") {
            let row: Vec<f64> = serde_json::from_str(raw.get())
                .map_err(|_error| invalid("`features` must be a list of finite numbers."))?;
            self.check("`features`", &row)?;
            return Ok(Asked::One(row));
        }
        let mut row = Vec::with_capacity(self.features.len());
        for feature in &self.features {
            let raw = fields.raw(feature);
            let raw = raw.or_else(|| fields.raw(long_name(feature)?));
            let raw = raw.ok_or_else(|| self.missing(feature))?;
            row.push(finite(feature, serde_json::from_str(raw.get()).ok())?);
        }
        Ok(Asked::One(row))
    }

    pub(crate) fn check(&self, what: &str, row: &[f64]) -> Result<()> {
        if row.len() != self.features.len() {
            let (count, names) = (self.features.len(), self.features.join(", "));
            return Err(invalid(format!("{what} must hold {count} numbers: {names}.")));
        }
        if row.iter().all(|number| number.is_finite()) {
            return Ok(());
        }
        Err(invalid(format!("{what} must hold finite numbers.")))
    }

    fn missing(&self, feature: &str) -> Problem {
        let names = self.features.join(", ");
        invalid(format!(
            "The feature `{feature}` is missing; give all of: {names}."
        ))
    }

    /// A class by its number or its name.
    pub(crate) fn class(&self, raw: &str) -> Option<usize> {
        if let Ok(number) = serde_json::from_str::<usize>(raw) {
            return (number < self.classes.len()).then_some(number);
        }
        let name: String = serde_json::from_str(raw).ok()?;
        self.classes.iter().position(|class| *class == name)
    }
}

fn with_error(problem: Problem) -> Problem {
    let detail = problem.detail.clone();
    problem.extra("error", detail)
}

fn finite(feature: &str, number: Option<f64>) -> Result<f64> {
    let number = number.filter(|number| number.is_finite());
    number.ok_or_else(|| invalid(format!("The feature `{feature}` must be a finite number.")))
}

/// A prediction, as every service of this crate answers it.
#[expect(clippy::struct_field_names, reason = "these are the names of the contract")]
#[derive(Serialize)]
pub(crate) struct Prediction<'a> {
    pub(crate) prediction: usize,
    pub(crate) label: &'a str,
    pub(crate) classes: &'a [String],
    pub(crate) probabilities: &'a [f64],
    pub(crate) confidence: f64,
    pub(crate) model: Named<'a>,
    pub(crate) features: Row<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
}

#[derive(Clone, Copy, Serialize)]
pub(crate) struct Named<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
}

/// A row with the names of its features.
pub(crate) struct Row<'a> {
    pub(crate) names: &'a [String],
    pub(crate) numbers: &'a [f64],
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.names.len()))?;
        for (name, number) in self.names.iter().zip(self.numbers) {
            map.serialize_entry(name, number)?;
        }
        map.end()
    }
}

impl<'a> Prediction<'a> {
    pub(crate) fn new(
        shape: &'a Shape,
        model: Named<'a>,
        row: &'a [f64],
        (prediction, probabilities): (usize, &'a [f64]),
    ) -> Self {
        Self {
            prediction,
            label: &shape.classes[prediction],
            classes: &shape.classes,
            confidence: probabilities[prediction],
            probabilities,
            model,
            features: Row {
                names: &shape.features,
                numbers: row,
            },
            request_id: None,
        }
    }
}

/// An answer that no cache may keep.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_string(body).expect("answers have only text keys and finite numbers");
    text(status, body)
}

pub(crate) fn text(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, body).into_response()
}
