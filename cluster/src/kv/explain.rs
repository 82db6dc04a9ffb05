//! Turns what the client says into what a person can do about it.
//! Invariant: the store's own word for the error (its `code`) is never lost; programs branch on it.

use kvstore_client::{Error, Trouble};

use crate::output::Failure;

pub(super) fn explain(error: anyhow::Error, endpoints: &[String]) -> anyhow::Error {
    // What the command was about when it failed, if it says so.
    let about = error.chain().take_while(|cause| !cause.is::<Error>());
    let mut said: Vec<String> = about.map(ToString::to_string).collect();
    match error.downcast::<Error>() {
        Ok(error) => {
            said.push(text(&error, endpoints));
            Failure {
                text: said.join(": "),
                code: error.code().to_owned(),
            }
            .into()
        }
        Err(other) => other,
    }
}

/// For commands of many requests: the key of one of them is of no use to whoever repeats the command.
pub(super) fn keyless(error: Error) -> Error {
    match error {
        Error::Unknown { source, .. } => Error::Unknown {
            idempotency_key: None,
            source,
        },
        other => other,
    }
}

fn text(error: &Error, endpoints: &[String]) -> String {
    match error {
        Error::Unavailable {
            source: Trouble::Timeout,
        } => format!(
            "no answer in time from {}: what was asked may take longer than --timeout allows, or the nodes are \
             overloaded or paused (`menagerie status` shows them)",
            endpoints.join(", ")
        ),
        Error::Unavailable {
            source: Trouble::Connection(_),
        } => format!(
            "no node answers at {}: start them with `menagerie up`, or name others with --endpoints",
            endpoints.join(", ")
        ),
        Error::Unavailable {
            source: Trouble::Problem(problem),
        } if problem.code == "no-leader" => {
            "no node leads at the moment, so nothing can be written: more than half of the voters must run \
             (`menagerie status` shows them)"
                .to_owned()
        }
        Error::Unknown {
            idempotency_key: Some(key),
            ..
        } => format!(
            "the write may or may not have happened. Repeat it with --idempotency-key {key} within an hour of its \
             first try: the store then does it at most once. Later, look before you repeat it ({})",
            chain(error)
        ),
        Error::Unknown {
            idempotency_key: None,
            ..
        } => {
            format!(
                "the change may or may not have happened: look before you repeat it ({})",
                chain(error)
            )
        }
        Error::Unauthorized(_) => {
            "the store does not know this token: unset MENAGERIE_TOKEN, or name the data \
                                   folder of this cluster with --data"
                .to_owned()
        }
        Error::Forbidden(problem) => format!("this token may not do that: {problem}"),
        Error::Conflict {
            revision: Some(revision),
            ..
        } => {
            format!("not done: the key is now at revision {revision}")
        }
        Error::Conflict { revision: None, .. } => "not done: the key is not as you want it".to_owned(),
        Error::Compacted { source } => {
            format!("{source}; `menagerie kv status` shows the oldest revision kept")
        }
        Error::Problem(problem) => problem.to_string(),
        other => chain(other),
    }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut below = std::error::Error::source(error);
    while let Some(cause) = below {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        below = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use kvstore_client::wire::headers::IDEMPOTENCY_TTL_S_DEFAULT;

    use super::*;

    #[test]
    fn what_the_command_was_about_is_told_too() {
        let refused = || Error::Contended {
            key: "a".to_owned(),
            attempts: 2,
        };
        let alone = r#"gave up changing "a" after 2 attempts, each overtaken by another writer"#;
        assert_eq!(explain(refused().into(), &[]).to_string(), alone);
        let within = Err::<(), _>(refused())
            .context("remove node 3")
            .context("replace it");
        let explained = explain(within.unwrap_err(), &[]);
        assert_eq!(
            explained.to_string(),
            format!("replace it: remove node 3: {alone}")
        );
        let failure = explained.downcast_ref::<Failure>();
        assert_eq!(failure.map(|failure| failure.code.as_str()), Some("contended"));
    }

    #[test]
    fn the_hour_of_a_key_is_the_stores() {
        let unknown = Error::Unknown {
            idempotency_key: Some("order-7".to_owned()),
            source: Trouble::Timeout,
        };
        let told = text(&unknown, &[]);
        assert!(
            told.contains("--idempotency-key order-7 within an hour"),
            "{told}"
        );
        assert_eq!(IDEMPOTENCY_TTL_S_DEFAULT, 60 * 60);
    }
}
