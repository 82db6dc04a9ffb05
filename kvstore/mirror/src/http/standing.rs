//! How far the copy is, bringing it up to now, and comparing it with the store.
//! Invariant: the lag that is told is never less than what a loss of the store at this moment would lose.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use kvstore_client::{Error, problem_of};
use serde::Serialize;
use service::problem::{self, Problem, Result};
use tokio::time::{Instant, timeout};

use super::Shared;
pub(super) use super::state::metrics;
use crate::copy::Reader;
use crate::progress::Applied;
use crate::verify::{self, Verdict};
use crate::writer::Order;

/// Who asks how far the copy is does not want to wait for a store that is gone.
const ASK: Duration = Duration::from_millis(500);
/// How long `POST /sync` waits for the revision of the moment it came.
const SYNC: Duration = Duration::from_secs(30);
const VERIFY_PAGE: Duration = Duration::from_secs(20);
const VERIFY_TRIES: usize = 5;

#[derive(Serialize)]
pub(super) struct Status {
    name: String,
    mode: &'static str,
    engine: &'static str,
    on_loss: &'static str,
    revision: u64,
    /// `null` while the store does not answer.
    cluster_revision: Option<u64>,
    lag_revisions: u64,
    lag_ms: u64,
    state: &'static str,
    /// What the store says of this mirror.
    in_the_store: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rebuilding_keys: Option<u64>,
    transactions: u64,
    changes: u64,
}

pub(super) async fn status(State(app): State<Shared>) -> Json<Status> {
    let node = app.client.with_deadline(ASK).status().await.ok();
    let seen = app.progress.seen();
    // Asked for after the store was: what came meanwhile is no lag.
    let applied = app.progress.now();
    let (cluster, lag_revisions) = lag(node.map(|node| node.revision), seen, &applied);
    let word = app.progress.word();
    let state = state(&applied, word.as_deref());
    Json(Status {
        name: app.name.clone(),
        mode: app.mirror.mode.word(),
        engine: app.mirror.engine.word(),
        on_loss: app.mirror.on_loss.word(),
        revision: applied.revision,
        cluster_revision: cluster,
        lag_revisions,
        lag_ms: millis(app.progress.lag()),
        state,
        in_the_store: word,
        trouble: trouble(&applied),
        rebuilding_keys: applied.rebuilding,
        transactions: applied.transactions,
        changes: applied.keys,
    })
}

/// The newest revision of the store, and how many up to it the copy lacks: all of them, while it is of another cluster.
fn lag(node: Option<u64>, seen: u64, applied: &Applied) -> (Option<u64>, u64) {
    match node {
        Some(revision) if applied.cluster.is_none() => (node, revision),
        _ => {
            let cluster = node.map(|revision| revision.max(seen));
            let newest = cluster.unwrap_or(seen).max(applied.revision);
            (cluster, newest - applied.revision)
        }
    }
}

/// Why nothing is copied. More of it stands in the log; paths and errors of the system are no business of others.
fn trouble(applied: &Applied) -> Option<&'static str> {
    match (&applied.trouble, &applied.refused) {
        (Some(_), _) => Some("the copy cannot be written"),
        (None, Some(_)) => Some("the store refuses to be copied"),
        (None, None) => None,
    }
}

/// Well is only who is called so by the store that it is a copy of.
fn state(applied: &Applied, word: Option<&str>) -> &'static str {
    let follows = applied.cluster.is_some() && applied.rebuilding.is_none();
    if trouble(applied).is_some() || word == Some("degraded") {
        "degraded"
    } else if follows && word == Some("ok") {
        "ok"
    } else {
        "catching_up"
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Serialize)]
pub(super) struct Synced {
    message: String,
    from_revision: u64,
    to_revision: u64,
    keys: u64,
    bytes: u64,
    ms: u64,
}

/// Whether it is a whole copy of this cluster, and up to this revision.
fn has(applied: &Applied, cluster: &str, revision: u64) -> bool {
    applied.cluster.as_deref() == Some(cluster)
        && applied.rebuilding.is_none()
        && applied.revision >= revision
}

/// Up to the revision that the store has at this moment.
pub(super) async fn sync(State(app): State<Shared>) -> Result<Json<Synced>> {
    let began = Instant::now();
    let before = app.progress.now();
    let wanted = app.client.revision().await.map_err(problem_of)?;
    // A copy of another cluster may have passed that revision long ago.
    let cluster = app.client.cluster().await.map_err(problem_of)?.cluster_id;
    let mut progress = app.progress.subscribe();
    let reached = async {
        loop {
            // What has come is written at once, and so is what comes until then.
            app.orders.send(Order::Flush).await.ok()?;
            let step = progress.wait_for(|applied| has(applied, &cluster, wanted));
            match timeout(Duration::from_millis(10), step).await {
                Ok(Ok(_)) => return Some(()),
                Ok(Err(_closed)) => return None,
                Err(_not_yet) => {}
            }
        }
    };
    if timeout(SYNC, reached).await.ok().flatten().is_none() {
        let detail =
            "The copy did not reach the revision of this moment in time; GET /status tells how far it is.";
        return Err(Problem::new(problem::BEHIND, detail).extra("revision", app.progress.now().revision));
    }
    let after = app.progress.now();
    let keys = after.keys - before.keys;
    Ok(Json(Synced {
        message: format!(
            "{keys} changes were copied; the copy is at revision {}",
            after.revision
        ),
        from_revision: before.revision,
        to_revision: after.revision,
        keys,
        bytes: after.bytes - before.bytes,
        ms: millis(began.elapsed()),
    }))
}

pub(super) async fn verify(State(app): State<Shared>) -> Result<Json<Verdict>> {
    let Ok(_turn) = app.verifying.try_acquire() else {
        let detail = "A comparison is under way already, and each reads everything.";
        return Err(Problem::new(problem::OVERLOADED, detail).retry_after_ms(1000));
    };
    let client = app.client.with_deadline(VERIFY_PAGE);
    let cluster = client.cluster().await.map_err(problem_of)?.cluster_id;
    for _ in 0..VERIFY_TRIES {
        let view = app.read(Reader::view).await?;
        if view.head().revision == 0 || view.head().cluster != cluster {
            let detail = "There is no copy of this cluster yet; one is being made.";
            return Err(Problem::new(problem::NOT_READY, detail));
        }
        match verify::compare(&client, view).await {
            Ok(verdict) => return Ok(Json(verdict)),
            Err(error) => match error.downcast::<Error>() {
                // The history of the copy's revision went while it was read: compare a later one.
                Ok(Error::Compacted { .. }) => {}
                Ok(error) => return Err(problem_of(error)),
                Err(error) => return Err(Problem::internal("compare the copy with the store", error)),
            },
        }
    }
    let detail = "The store gives up its history faster than the copy can be compared with it.";
    Err(Problem::new(problem::COMPACTED, detail))
}

/// Ready once there is something to read.
pub(super) async fn ready(State(app): State<Shared>) -> Result<&'static str> {
    app.is_there().map(|()| "ready\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_another_cluster_the_copy_has_nothing() {
        let unsure = Applied {
            revision: 1000,
            ..Applied::default()
        };
        let follows = Applied {
            cluster: Some("one".to_owned()),
            ..unsure.clone()
        };
        assert_eq!(lag(Some(5), 1000, &unsure), (Some(5), 5));
        assert_eq!(lag(Some(1005), 1003, &follows), (Some(1005), 5));
        assert_eq!(lag(Some(1000), 1003, &follows), (Some(1003), 3));
        for applied in [&unsure, &follows] {
            assert_eq!(lag(None, 1003, applied), (None, 3));
        }
        assert!(has(&follows, "one", 1000));
        assert!(!has(&follows, "one", 1001) && !has(&follows, "two", 5) && !has(&unsure, "two", 5));
        let rebuilding = Applied {
            rebuilding: Some(7),
            ..follows
        };
        assert!(!has(&rebuilding, "one", 1000));
    }

    #[test]
    fn well_is_who_is_called_so_by_its_own_cluster() {
        let follows = Applied {
            cluster: Some("one".to_owned()),
            ..Applied::default()
        };
        for word in [
            None,
            Some("unannounced"),
            Some("catching_up"),
            Some("a word of later"),
        ] {
            assert_eq!(state(&follows, word), "catching_up", "{word:?}");
        }
        assert_eq!(state(&follows, Some("ok")), "ok");
        assert_eq!(state(&follows, Some("degraded")), "degraded");
        assert_eq!(state(&Applied::default(), Some("ok")), "catching_up", "of whom?");
        let rebuilding = Applied {
            rebuilding: Some(5),
            ..follows.clone()
        };
        assert_eq!(state(&rebuilding, Some("ok")), "catching_up");
        let refused = Applied {
            refused: Some("no right to read".to_owned()),
            ..follows
        };
        let both = Applied {
            trouble: Some("no room".to_owned()),
            ..refused.clone()
        };
        for applied in [&refused, &both] {
            assert_eq!(state(applied, Some("ok")), "degraded");
        }
        assert_eq!(trouble(&refused), Some("the store refuses to be copied"));
        assert_eq!(trouble(&both), Some("the copy cannot be written"));
    }
}
