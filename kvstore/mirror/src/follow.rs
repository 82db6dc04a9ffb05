//! Follows the store: its watch from the copy's own revision on, and all of it anew where that is gone.
//! Invariant: the writer gets each revision once, whole, in order, and of one cluster: a watch goes on by itself where a
//! new one answers at the same addresses, so its id is asked for beside it. While the copy is made anew, readers see
//! the old.
//! A copy of another cluster is kept beside before it is replaced: it may be the last there is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kvstore_client::wire::level::Consistency;
use kvstore_client::wire::mirror::{Granted, KeptAnswer};
use kvstore_client::{Error, KvClient, RangeRequest, ReadOptions, WatchRequest};
use service::tasks::Tasks;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::copy::Head;
use crate::progress::Progress;
use crate::row::{Batch, Row};
use crate::writer::{Order, Orders};
use service::time::now_ms;

const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// While the copy cannot be written, such as on a full disk: hurry does not make room.
const TROUBLE_PAUSE: Duration = Duration::from_secs(2);
/// A page of a large store takes longer than most reads.
const PAGE_DEADLINE: Duration = Duration::from_secs(20);
/// How often it is asked which cluster this is, and how long an answer holds. A node that asks one that hangs takes its
/// time, and writes may wait for this mirror: an answer holds for longer than several looks take.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const SURE_FOR: Duration = Duration::from_secs(2);
/// How often a long rebuild says how far it is.
const SAY_EVERY_KEYS: u64 = 200_000;

pub(crate) struct Follower {
    pub(crate) client: KvClient,
    pub(crate) orders: Orders,
    pub(crate) progress: Arc<Progress>,
    pub(crate) tasks: Tasks,
}

/// Why following has to begin anew.
enum End {
    /// The changes that come next are gone from the store.
    Gone,
    /// Another cluster answers at the same addresses.
    Another,
    Failed(anyhow::Error),
}

impl Follower {
    pub(crate) async fn run(self) {
        loop {
            let followed = tokio::select! {
                followed = self.follow() => followed,
                () = self.tasks.stopping() => return,
            };
            if let Err(error) = followed {
                self.say(&error);
            }
            let pause = if self.progress.now().trouble.is_some() {
                TROUBLE_PAUSE
            } else {
                RETRY_PAUSE
            };
            if timeout(pause, self.tasks.stopping()).await.is_ok() {
                return;
            }
        }
    }

    /// A store that cannot answer will; what it refuses, it most likely refuses until somebody has seen to it. That is
    /// told once, not for each try.
    fn say(&self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        if !is_refusal(error) {
            tracing::debug!(error = text, "the store cannot be followed at the moment");
            return;
        }
        if self.progress.now().refused.as_deref() != Some(&text) {
            tracing::warn!(
                error = text,
                "the store refuses what it is copied by; it is tried again"
            );
        }
        self.progress.update(|applied| applied.refused = Some(text));
    }

    async fn follow(&self) -> anyhow::Result<()> {
        let cluster = self.cluster().await?;
        let mut head = self.head().await?;
        if !head.cluster.is_empty() && head.cluster != cluster {
            self.know(None);
            tracing::warn!(
                revision = head.revision,
                "this is a copy of another cluster: it is kept beside, and made anew"
            );
            self.answered(Order::SetAside).await?;
            self.rebuild(0, &cluster).await?;
            head = self.head().await?;
        } else if self.is_back_in_trouble() {
            self.answered(Order::TryToWrite).await?;
        }
        self.know(Some(&cluster));
        if head.revision == 0 || head.lacks_aside {
            self.rebuild(head.revision, &cluster).await?;
        }
        loop {
            let mut end = self.watch(&cluster).await;
            // Of another cluster, it may be, that has begun from a backup at the same addresses.
            if matches!(end, End::Gone) && self.cluster().await? != cluster {
                end = End::Another;
            }
            match end {
                End::Another => {
                    self.know(None);
                    return Ok(());
                }
                End::Gone => {
                    let revision = self.head().await?.revision;
                    tracing::info!(
                        revision,
                        "the changes after this revision are gone: the copy is made anew"
                    );
                    self.rebuild(revision, &cluster).await?;
                }
                End::Failed(error) => return Err(error),
            }
        }
    }

    /// The store's id, once it has one.
    async fn cluster(&self) -> anyhow::Result<String> {
        let cluster = self.client.cluster().await?.cluster_id;
        anyhow::ensure!(!cluster.is_empty(), "the cluster is still being made");
        Ok(cluster)
    }

    /// Another cluster was here, and the copy could not be kept from it. With this one back nothing of that is tried
    /// again, and no change may come that would tell whether the trouble is over: where one blocks, all wait for it.
    fn is_back_in_trouble(&self) -> bool {
        let applied = self.progress.now();
        applied.cluster.is_none() && applied.trouble.is_some()
    }

    /// Of which cluster this is a copy, as far as the store itself has said so.
    fn know(&self, cluster: Option<&str>) {
        let cluster = cluster.map(str::to_owned);
        self.progress.update(|applied| applied.cluster = cluster);
    }

    async fn head(&self) -> anyhow::Result<Head> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(Order::Head(answer)).await?;
        answered.await.context("the writer has ended")
    }

    async fn answered(
        &self,
        order: impl FnOnce(oneshot::Sender<anyhow::Result<()>>) -> Order,
    ) -> anyhow::Result<()> {
        let (done, answered) = oneshot::channel();
        self.orders.send(order(done)).await?;
        answered.await.context("the writer has ended")?
    }

    async fn watch(&self, cluster: &str) -> End {
        let sure = watch::Sender::<Option<Instant>>::new(None);
        tokio::select! {
            end = self.take_changes(sure.subscribe()) => end,
            () = Box::pin(self.look_out(cluster, &sure)) => End::Another,
        }
    }

    /// Asks again and again which cluster this is, and ends when it is another one.
    async fn look_out(&self, cluster: &str, sure: &watch::Sender<Option<Instant>>) {
        loop {
            let began = Instant::now();
            match self.cluster().await {
                Ok(found) if found == cluster => {
                    sure.send_replace(Some(began));
                }
                Ok(_another) => return,
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "the store does not say who it is");
                    sure.send_replace(None);
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn take_changes(&self, mut sure: watch::Receiver<Option<Instant>>) -> End {
        let revision = match self.head().await {
            Ok(head) => head.revision,
            Err(error) => return End::Failed(error),
        };
        let request = WatchRequest::prefix("").after(revision).aside();
        let mut stream = match self.client.watch(request).await {
            Ok(stream) => stream,
            Err(Error::Compacted { .. }) => return End::Gone,
            Err(error) => return End::Failed(error.into()),
        };
        if self.progress.now().refused.is_some() {
            self.progress.update(|applied| applied.refused = None);
        }
        loop {
            let batch = match stream.next_batch().await {
                Ok(batch) => Batch::from(batch),
                // Also what is too large to be told; read page by page, it is not.
                Err(Error::Compacted { .. } | Error::Protocol { .. }) => return End::Gone,
                Err(error) => return End::Failed(error.into()),
            };
            let lately = |at: &Option<Instant>| at.is_some_and(|at| at.elapsed() < SURE_FOR);
            if sure.wait_for(lately).await.is_err() {
                return End::Failed(anyhow::anyhow!("nobody looks out any more"));
            }
            self.progress.note(batch.revision, batch.arrived);
            if let Err(error) = self.orders.send(Order::Apply(batch)).await {
                return End::Failed(error);
            }
        }
    }

    /// Reads everything at one revision, not before `least`.
    async fn rebuild(&self, least: u64, cluster: &str) -> anyhow::Result<()> {
        self.answered(Order::BeginRebuild).await?;
        match self.read_all_of(least, cluster).await {
            Ok(revision) => {
                let cluster = cluster.to_owned();
                self.answered(|done| Order::EndRebuild {
                    revision,
                    cluster,
                    done,
                })
                .await?;
                tracing::info!(revision, "the copy was made anew");
                Ok(())
            }
            Err(error) => {
                self.orders.send(Order::AbortRebuild).await?;
                Err(error)
            }
        }
    }

    async fn read_all_of(&self, least: u64, cluster: &str) -> anyhow::Result<u64> {
        let revision = self.read_all(least).await?;
        let found = self.cluster().await?;
        anyhow::ensure!(found == cluster, "another cluster answers by now");
        Ok(revision)
    }

    async fn read_all(&self, least: u64) -> anyhow::Result<u64> {
        // What the store has applied, not what it acknowledged: it may be this mirror that it waits for.
        let range = RangeRequest {
            read: ReadOptions {
                consistency: Consistency::AtLeast(least),
                revision: None,
            },
            ..RangeRequest::prefix("")
        };
        let mut walk = self.client.with_deadline(PAGE_DEADLINE).pages(range);
        let mut leases = None;
        let (mut revision, mut keys, mut said) = (0, 0, 0);
        while let Some(page) = walk.next().await? {
            revision = page.revision;
            keys += page.kvs.len() as u64;
            let mut rows: Vec<Row> = page.kvs.into_iter().map(Row::from).collect();
            self.with_leases(&mut rows, &mut leases, revision).await?;
            self.orders.send(Order::Rows(rows)).await?;
            self.is_made_on()?;
            if keys - said >= SAY_EVERY_KEYS {
                said = keys;
                tracing::info!(keys, "the copy is being made anew");
            }
        }
        self.read_answers(revision).await?;
        Ok(revision)
    }

    /// What the writer throws away is not read: of a large store that would take long, and it keeps its history meanwhile.
    fn is_made_on(&self) -> anyhow::Result<()> {
        let is_made_on = self.progress.now().rebuilding.is_some();
        anyhow::ensure!(is_made_on, "the new copy was given up");
        Ok(())
    }

    /// Says of each row that hangs on a lease what that is, unless it has ended since. Leases are asked for once: of
    /// those that were there at this revision none comes later.
    async fn with_leases(
        &self,
        rows: &mut [Row],
        known: &mut Option<HashMap<u64, Granted>>,
        revision: u64,
    ) -> anyhow::Result<()> {
        if rows.iter().all(|row| row.lease == 0) {
            return Ok(());
        }
        if known.is_none() {
            let granted = self.client.granted(revision).await?;
            *known = Some(granted.into_iter().map(|lease| (lease.id, lease)).collect());
        }
        let known = known.as_ref();
        for row in rows {
            row.granted = known.and_then(|known| known.get(&row.lease)).cloned();
        }
        Ok(())
    }

    /// Only those that tell of what is in the copy: the rest come with their changes.
    async fn read_answers(&self, revision: u64) -> anyhow::Result<()> {
        let mut after: Option<(String, String)> = None;
        loop {
            self.is_made_on()?;
            let last = after.as_ref().map(|(owner, key)| (owner.as_str(), key.as_str()));
            let page = self.client.kept_answers(last, revision).await?;
            after = page
                .answers
                .last()
                .map(|last| (last.owner.clone(), last.key.clone()));
            let told = |answer: &KeptAnswer| answer.revision <= revision;
            let now_ms = now_ms();
            let told = page.answers.into_iter().filter(told);
            let told = told.map(|answer| answer.by_clock(now_ms)).collect();
            self.orders.send(Order::Answers(told)).await?;
            if !page.more {
                return Ok(());
            }
        }
    }
}

/// Whether the store has answered, and said no.
fn is_refusal(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<Error>() {
        // One that failed may do it the next time.
        Some(Error::Problem(problem)) => problem.status < 500,
        Some(Error::Unauthorized(_) | Error::Forbidden(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
