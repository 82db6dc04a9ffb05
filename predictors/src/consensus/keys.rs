//! Where everything stands in the store. All keys begin with `predict/`, which belongs to the predictors alone.
//! Invariant: names of models have no slash, so a slash always separates; what runs out stands in the order of time.

pub(crate) const MODELS: &str = "predict/model/";
pub(crate) const FUNDINGS: &str = "predict/funding/";
pub(crate) const HISTORY: &str = "predict/history/";
/// Rounds that wait for their outcome, by the time they expire. The value names the models that were asked.
pub(crate) const OPEN: &str = "predict/open/";
/// Rounds that have ended, by the time they may be forgotten.
pub(crate) const DONE: &str = "predict/done/";
pub(crate) const ANSWERS_DUE: &str = "predict/due/";

/// The treasury, the temperature, the numbers of what was done: written by everything that moves a token.
pub(crate) const BOOK: &str = "predict/book";
/// Written whenever a model begins to leave; a round opens only if nobody did since it asked.
pub(crate) const ROSTER: &str = "predict/roster";
/// How many rounds are open.
pub(crate) const OPEN_COUNT: &str = "predict/open-count";

pub(crate) fn model(name: &str) -> String {
    format!("{MODELS}{name}")
}

/// What is remembered of a model that left, so that leaving washes nothing off.
pub(crate) fn left(name: &str) -> String {
    format!("predict/left/{name}")
}

pub(crate) fn funding(number: u64) -> String {
    format!("{FUNDINGS}{number:012}")
}

/// One entry holds the settlements of one transaction, under the number of the first.
pub(crate) fn history(settlement: u64) -> String {
    format!("{HISTORY}{settlement:012}")
}

pub(crate) fn round(id: &str) -> String {
    format!("predict/round/{id}")
}

pub(crate) fn open(expires_ms: u64, id: &str) -> String {
    format!("{OPEN}{expires_ms:013}/{id}")
}

pub(crate) fn done(at_ms: u64, id: &str) -> String {
    format!("{DONE}{at_ms:013}/{id}")
}

pub(crate) fn answer(hash: &str) -> String {
    format!("predict/answer/{hash}")
}

pub(crate) fn answer_due(at_ms: u64, hash: &str) -> String {
    format!("{ANSWERS_DUE}{at_ms:013}/{hash}")
}

/// Below one of the prefixes in the order of time, everything that is due stands before it.
pub(crate) fn due_before(prefix: &str, now_ms: u64) -> String {
    format!("{prefix}{:013}/", now_ms.saturating_add(1))
}

/// What stands behind the last slash.
pub(crate) fn last(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or_default()
}
