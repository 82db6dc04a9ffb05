//! The client of the store.

use std::time::Duration;

use anyhow::Context as _;
use kvstore_client::{KvClient, Reads};
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

#[cfg(test)]
mod tests {
    use kvstore_client::{Error, Trouble};
    use service::problem;

    /// Without one nobody can promise that it is done once.
    #[test]
    fn whoever_does_not_know_is_told_of_the_key() {
        let unknown = crate::process::trouble(Error::Unknown {
            idempotency_key: None,
            source: Trouble::Timeout,
        });
        assert_eq!(unknown.kind, problem::OUTCOME_UNKNOWN);
        assert!(
            unknown.detail.contains("same Idempotency-Key"),
            "{}",
            unknown.detail
        );
    }
}
