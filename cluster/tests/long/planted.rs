//! Bugs planted on purpose, each under the test that is there to find it.
//! Invariant: the test fails; one that passes over a planted bug would pass over a real one too.
//! A disk that never syncs is the eighth: `power_loss` puts it under an unchanged store.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use service::planted::{Bug, plant};

use crate::faults::{crash, membership, pause, replay, rules};
use crate::harness::Cluster;
use crate::load::say;
use crate::power_loss;

/// Runs the test with the bug in every process, and demands that it fails.
async fn is_found(bug: Bug, test: impl Future<Output = ()>) {
    plant(bug);
    let Err(said) = AssertUnwindSafe(test).catch_unwind().await else {
        panic!("{bug:?} was planted, and the test found nothing");
    };
    let said = said
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| said.downcast_ref::<&str>().map(|said| (*said).to_owned()));
    let said = said.unwrap_or_default();
    say(&format!(
        "{bug:?} was found: {}",
        said.lines().next().unwrap_or_default()
    ));
}

#[tokio::test]
async fn an_answer_before_its_sync_is_found() {
    is_found(Bug::SyncAfterAnswer, power_loss::all_lose_power()).await;
}

#[tokio::test]
async fn stale_reads_of_followers_are_found() {
    is_found(Bug::StaleReads, pause::pause_the_leader()).await;
}

#[tokio::test]
async fn answers_that_a_snapshot_lost_are_found() {
    is_found(Bug::AnswersLostOnSnapshot, replay::repeat_after_a_snapshot()).await;
}

#[tokio::test]
async fn repeats_without_their_key_are_found() {
    let kills = async { crash::kill_leaders(&Cluster::start(3).await, 10).await };
    is_found(Bug::RetryWithoutKey, kills).await;
}

#[tokio::test]
async fn an_applied_id_that_comes_late_is_found() {
    is_found(Bug::AppliedIdLate, replay::replay_after_restarts()).await;
}

#[tokio::test]
async fn a_reused_number_is_found() {
    is_found(Bug::NodeIdReused, membership::wipe_a_member()).await;
}

#[tokio::test]
async fn rules_that_are_asked_only_at_the_edge_are_found() {
    is_found(Bug::RulesAtTheEdge, rules::withdraw_rights()).await;
}
