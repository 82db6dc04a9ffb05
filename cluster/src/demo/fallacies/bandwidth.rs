//! “Bandwidth is infinite”: a value that is too large, and a reader that does not read.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kvstore_client::WatchRequest;
use serde_json::Value;

use super::ground::Ground;
use super::told::{Told, ms};

const PREFIX: &str = "fallacies/bandwidth/";
const CHANGES: usize = 160;
const CHANGE_BYTES: usize = 100 << 10;
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn play(ground: &mut Ground, told: &mut Told<'_>) -> anyhow::Result<()> {
    let limit = ground.store.config.limits.value_bytes_max;
    told.say(format_args!(
        "A value of {limit} bytes is written, and one that is a byte longer."
    ));
    let key = format!("{PREFIX}large");
    ground.client.put(&key, vec![b'x'; limit]).await?;
    let more = ground.client.put(&key, vec![b'y'; limit + 1]).await;
    let refusal = more.err().and_then(|error| {
        error
            .problem()
            .map(|problem| (problem.status, problem.code.clone()))
    });
    let kept = ground.client.get(&key).await?;
    let kept = kept.is_some_and(|found| found.bytes().first() == Some(&b'x'));
    told.claim(
        refusal.as_ref().is_some_and(|(status, _)| *status == 413) && kept,
        format_args!(
            "the longer one is refused, and what was there is still there: {}",
            refusal.map_or_else(
                || "it was not".to_owned(),
                |(status, code)| format!("{status} {code}")
            )
        ),
    );
    slow_reader(ground, told).await
}

async fn slow_reader(ground: &Ground, told: &mut Told<'_>) -> anyhow::Result<()> {
    told.say(format_args!(
        "A reader asks to be told of every change, and then does not read, while {CHANGES} values of {} KiB are written.",
        CHANGE_BYTES >> 10
    ));
    let prefix = format!("{PREFIX}news/");
    let url = format!(
        "http://{}/v1/watch?prefix={prefix}",
        ground.store.config.nodes[0].client
    );
    let http = service::http::client(service::http::Timeouts::default());
    let request = http.get(url).bearer_auth(ground.store.token());
    let mut stream = request.send().await?.error_for_status()?;
    let mut written = Vec::new();
    let mut slowest = Duration::ZERO;
    for n in 0..CHANGES {
        let began = Instant::now();
        let put = ground
            .client
            .put(&format!("{prefix}{n:03}"), vec![b'x'; CHANGE_BYTES])
            .await?;
        slowest = slowest.max(began.elapsed());
        written.push(put.revision);
    }
    told.figure("slowest_write_ms", ms(slowest));
    told.claim(
        written.len() == CHANGES,
        format_args!(
            "nobody waited for that reader: all {CHANGES} were acknowledged, the slowest after {:.0} ms",
            ms(slowest)
        ),
    );
    let (mut seen, resume) = tokio::time::timeout(PATIENCE, until_lagging(&mut stream))
        .await
        .context("wait for a slow reader to be told")??;
    told.figure(
        "seen_before_lagging",
        u32::try_from(seen.len()).unwrap_or(u32::MAX).into(),
    );
    told.claim(
        seen.len() < CHANGES,
        format_args!(
            "after {} changes it is told that it lags and to go on from revision {resume}; the store keeps only so much for it",
            seen.len()
        ),
    );
    let mut watch = ground
        .client
        .watch(WatchRequest::prefix(&prefix).from(resume))
        .await?;
    while seen.len() < CHANGES {
        let next = tokio::time::timeout(PATIENCE, watch.next()).await;
        seen.push(next.context("wait for a change that was missed")??.revision);
    }
    told.claim(
        seen == written,
        format_args!("it does so, and has now seen all {CHANGES}: each once and in order"),
    );
    Ok(())
}

/// The revisions that were told, and the one to go on from.
async fn until_lagging(stream: &mut reqwest::Response) -> anyhow::Result<(Vec<u64>, u64)> {
    let mut seen = Vec::new();
    let mut rest = String::new();
    let mut event = String::new();
    while let Some(piece) = stream.chunk().await.context("read a stream of changes")? {
        rest.push_str(&String::from_utf8_lossy(&piece));
        while let Some((line, behind)) = rest.split_once('\n') {
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut event);
            }
            if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).context("read what a stream tells")?;
                match event.as_str() {
                    "put" => seen.push(data["mod_revision"].as_u64().context("find a revision")?),
                    "lagging" => {
                        let resume = data["revision"].as_u64().context("find where to go on")?;
                        return Ok((seen, resume));
                    }
                    _ => {}
                }
            }
            rest = behind.to_owned();
        }
    }
    bail!(
        "a stream of changes ended after {} of them without a word",
        seen.len()
    )
}
