//! The model card: what a person should know before believing the model.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::data::{Table, hex};
use crate::evaluate::{Figures, JUDGED_ROWS_MAX, cross_validated};
use crate::models::{Fitted, Kind};

const FOLDS: usize = 5;
const REPEATS: usize = 5;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    pub name: String,
    /// `sha256:` and the hash of the stored model.
    pub version: String,
    pub kind: Kind,
    pub description: String,
    pub features: Vec<String>,
    pub classes: Vec<String>,
    pub data: DataCard,
    pub seed: u64,
    /// `None` where a class has too few rows to hold one out.
    pub cross_validated: Option<Validation>,
    pub limits: Vec<String>,
    pub trained_ms: u64,
    /// Of the stored model.
    pub bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataCard {
    pub source: String,
    pub sha256: String,
    pub rows: usize,
    pub rows_by_class: Vec<usize>,
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    pub split: String,
    #[serde(flatten)]
    pub figures: Figures,
}

/// How the stored bytes are called.
pub(crate) fn version(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn split(rows: usize) -> String {
    let sampled = if rows > JUDGED_ROWS_MAX {
        format!(", on a sample of {JUDGED_ROWS_MAX} rows")
    } else {
        String::new()
    };
    format!(
        "stratified {FOLDS}-fold, {REPEATS} times{sampled}; the served model learned from all {rows} rows"
    )
}

impl Card {
    pub(crate) fn make(
        name: &str,
        kind: Kind,
        table: &Table,
        fitted: &Fitted,
        (seed, trained_ms): (u64, u64),
    ) -> anyhow::Result<Self> {
        let bytes = fitted.to_bytes();
        let figures = cross_validated(kind, table, FOLDS, REPEATS, seed)?;
        let mut limits = vec![kind.limits().to_owned()];
        limits.push(
            "Asked of anything, it names one of its classes: it cannot say \"none of them\".".to_owned(),
        );
        limits.extend(kind.sampling(table.len()));
        Ok(Self {
            name: name.to_owned(),
            version: version(&bytes),
            kind,
            description: kind.describe().to_owned(),
            features: table.features.clone(),
            classes: table.classes.clone(),
            data: DataCard {
                source: table.source.clone(),
                sha256: table.sha256(),
                rows: table.len(),
                rows_by_class: table.counts(),
                notes: table.notes.clone(),
            },
            seed,
            cross_validated: figures.map(|figures| Validation {
                split: split(table.len()),
                figures,
            }),
            limits,
            trained_ms,
            bytes: bytes.len(),
        })
    }
}
