//! What the machine can do at most: syncs of a disk, synced batches of the storage engine, and a server that does
//! nothing. Invariant: measured in the folder that the servers keep their data in.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::num::NonZero;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::get;
use clap::Args;
use service::serve;
use service::tasks::Tasks;

use super::report::{Ceilings, Middle};
use crate::node::{bind, runtime};

/// Records of one batch.
pub(super) const BATCH: u32 = 64;
const RECORD_BYTES: usize = super::cases::VALUE_BYTES;

#[derive(Args)]
pub(crate) struct NoOp {
    /// Where it listens
    #[arg(long)]
    address: String,
}

impl NoOp {
    /// Reads each request to its end, as any server must, and answers with as much as the store would.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        // As many threads as a node takes on this machine, or it would be no ceiling where there are many cores.
        let runtime = runtime(0).context("start the runtime")?;
        runtime.block_on(async {
            let listener = bind(&self.address).await?;
            let tasks = Tasks::new();
            tasks.stop_on_signals().context("take over the signals")?;
            let value = Bytes::from(vec![b'v'; RECORD_BYTES]);
            let answer = get(async |State(value): State<Bytes>| value).put(async |_body: Bytes| {
                r#"{"key":"bench/keys/0000000","revision":1234567,"version":12,"created":false}"#
            });
            let app = Router::new().route("/{*path}", answer).with_state(value);
            serve::serve(listener, app, serve::Limits::default(), tasks)
                .await
                .context("serve")
        })
    }
}

/// Each several times, since disks have moods.
pub(super) fn measure(folder: &Path, rounds: u32, time: Duration) -> anyhow::Result<Ceilings> {
    let (mut syncs, mut batches) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        syncs.push(fdatasyncs(folder, time)?);
        let count = kvstore::synced_batches(&folder.join("ceiling"), BATCH as usize, RECORD_BYTES, time);
        batches.push(per_second(count.context("measure the storage engine")?, time));
    }
    Ok(Ceilings {
        cores: std::thread::available_parallelism().map_or(1, NonZero::get),
        fdatasyncs_per_s: Middle::of(syncs).context("there is a round")?,
        synced_batches_per_s: Middle::of(batches).context("there is a round")?,
    })
}

/// As the log does it: a little is written over an old file, and synced.
fn fdatasyncs(folder: &Path, time: Duration) -> anyhow::Result<f64> {
    const FILE_BYTES: usize = 16 << 20;
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(folder.join("synced"));
    let file = file
        .as_mut()
        .map_err(|error| anyhow::anyhow!("make a file to sync: {error}"))?;
    file.write_all(&vec![1; FILE_BYTES])
        .context("fill the file to sync")?;
    file.sync_all().context("fill the file to sync")?;
    let record = vec![2; RECORD_BYTES];
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < time {
        let at = u64::try_from(count * RECORD_BYTES % FILE_BYTES).context("a place in the file")?;
        std::os::unix::fs::FileExt::write_all_at(file, &record, at).context("write what is synced")?;
        file.sync_data().context("sync")?;
        count += 1;
    }
    Ok(per_second(count, begin.elapsed()))
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
