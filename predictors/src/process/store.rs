//! The client of the store, and what trouble with it means for a caller.

use std::time::Duration;

use anyhow::Context as _;
use kvstore_client::{Error, KvClient, Reads};
use service::problem::{self, Problem};
use service::tasks::Tasks;

use super::life::Settings;

pub(crate) fn client(settings: &Settings, tasks: &Tasks) -> anyhow::Result<KvClient> {
    let token = settings.token("predictors")?;
    let deadline = Duration::from_millis(settings.config.predictors.request_ms_max);
    KvClient::builder(settings.config.client_addresses())
        .token(token.expose())
        .reads(Reads::Leader)
        .deadline(deadline)
        .tasks(tasks.clone())
        .build()
        .context("make a client of the store")
}

/// Never a fault of the caller's, and never more than they may know: trouble below a service is 503.
pub(crate) fn trouble(error: Error) -> Problem {
    match error {
        Error::Unknown { .. } => Problem::new(
            problem::OUTCOME_UNKNOWN,
            "The store could not say whether this was done. Repeat the request unchanged: it is done once at most.",
        ),
        Error::Compacted { .. } => Problem::new(
            problem::COMPACTED,
            "The store no longer keeps that revision. Ask without one, or for a newer one.",
        ),
        Error::Problem(refused) if refused.code == "future-revision" => {
            Problem::new(problem::FUTURE_REVISION, "No write has made that revision yet.")
        }
        Error::Problem(refused) if refused.code == "disk-full" => Problem::new(
            problem::OVERLOADED,
            "The store has no room for writes at the moment. Nothing was done.",
        ),
        Error::Unavailable { source } => {
            tracing::warn!(error = %source, "the store cannot be reached");
            not_ready("The store cannot be reached at the moment. Nothing was done.")
        }
        error => {
            let error = anyhow::Error::new(error);
            tracing::error!(
                error = format!("{error:#}"),
                "the store gave an answer that does not fit"
            );
            not_ready("The store gave an answer that this service cannot use. Nothing more is known.")
        }
    }
}

fn not_ready(detail: &str) -> Problem {
    Problem::new(problem::NOT_READY, detail)
}
