//! `kv snapshot`, `kv verify`, `kv restore`: the whole store in one file, and a new cluster out of it.
//! Invariant: a file gets its name once it is whole and on disk; nothing that is there is written over by a restore.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use futures_util::StreamExt as _;
use kvstore::backup::{self, Beginning, Head, NewCluster, NewNode};
use serde_json::json;
use service::config::{Config, Role};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use super::Session;
use crate::context::{Context, until_interrupted};
use crate::output::Output;

#[derive(Args)]
pub(super) struct Snapshot {
    /// The file to write; it must not be there yet
    file: PathBuf,
}

#[derive(Args)]
pub(super) struct Verify {
    /// A file that `kv snapshot` made
    file: PathBuf,
}

#[derive(Args)]
pub(super) struct Restore {
    /// A file that `kv snapshot` made
    file: PathBuf,
    /// Make the folders of these nodes only, such as 1,2; the others are made on their own machines
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    nodes: Vec<u64>,
    /// The id of the new cluster, as the first machine has printed it
    #[arg(long, value_name = "ID", requires = "continues_at")]
    cluster_id: Option<String>,
    /// The revision that the new cluster goes on at, as the first machine has printed it
    #[arg(long, value_name = "REVISION", requires = "cluster_id")]
    continues_at: Option<u64>,
}

impl Snapshot {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        ensure!(
            !self.file.exists(),
            "{} is there already; a backup never replaces one",
            self.file.display()
        );
        let began = std::time::Instant::now();
        let beside = beside(&self.file)?;
        let made = async {
            fetch(session, &beside).await?;
            check_aside(beside.path(), session.output).await
        };
        let head = until_interrupted(session.output, made).await?;
        name(beside, &self.file)?;
        if session.output.json {
            let mut document = document(&head);
            document["file"] = json!(self.file);
            document["ms"] = json!(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
            return Ok(session.output.document(&document)?);
        }
        Ok(session.output.line(format_args!(
            "{}: revision {}, {} keys, {} bytes",
            self.file.display(),
            head.revision,
            head.keys,
            head.files_bytes()
        ))?)
    }
}

fn folder_of(file: &Path) -> &Path {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// A file in the same folder that only its owner may read, since everything will be in it. It goes unless it gets its
/// name: half a backup is of no use to anybody.
fn beside(file: &Path) -> anyhow::Result<NamedTempFile> {
    let mut prefix = file.file_name().context("a backup needs a name")?.to_owned();
    prefix.push(".");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    let beside = builder.tempfile_in(folder_of(file));
    beside.with_context(|| format!("make a file beside {}", file.display()))
}

/// Never in the place of what has come there meanwhile.
fn name(beside: NamedTempFile, file: &Path) -> anyhow::Result<()> {
    let named = beside.persist_noclobber(file).map_err(|failed| failed.error);
    named.with_context(|| format!("name {}", file.display()))?;
    // Without this the name itself may be lost with the power.
    let folder = std::fs::File::open(folder_of(file)).context("open the backup's folder")?;
    folder.sync_all().context("sync the backup's folder")
}

/// Everything goes to disk before it is looked at.
async fn fetch(session: &Session, beside: &NamedTempFile) -> anyhow::Result<()> {
    let time_max = session.reach.backup_time_max();
    let mut pieces = Box::pin(session.client.snapshot_within(time_max).await?);
    let to = beside.path();
    let file = beside
        .reopen()
        .with_context(|| format!("open {}", to.display()))?;
    let mut file = tokio::fs::File::from_std(file);
    let bar = session.output.byte_progress("snapshot", None);
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        file.write_all(&piece)
            .await
            .with_context(|| format!("write {}", to.display()))?;
        bar.inc(piece.len() as u64);
    }
    file.sync_all().await.context("sync the backup")?;
    bar.finish_and_clear();
    Ok(())
}

/// On a thread of its own, so that whoever interrupts us is heard: this takes as long as the file is large.
async fn check_aside(file: &Path, output: Output) -> anyhow::Result<Head> {
    let file = file.to_path_buf();
    aside(move |is_wanted| check(&file, is_wanted, output)).await?
}

/// Work that blocks, and ends soon after nobody waits for it any longer, since then it is not wanted.
async fn aside<T: Send + 'static>(
    work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
) -> anyhow::Result<T> {
    let nobody_waits = CancellationToken::new();
    let _waiting = nobody_waits.clone().drop_guard();
    let working = tokio::task::spawn_blocking(move || work(&|| !nobody_waits.is_cancelled()));
    working
        .await
        .context("wait for the thread that looks at the backup")
}

fn check(file: &Path, is_wanted: &dyn Fn() -> bool, output: Output) -> anyhow::Result<Head> {
    let bar = output.byte_progress("verify", Some(0));
    let head = backup::verify(file, is_wanted, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    head.with_context(|| format!("{} is no sound backup", file.display()))
}

pub(crate) fn document(head: &Head) -> serde_json::Value {
    json!({
        "cluster_id": head.cluster_id,
        "revision": head.revision,
        "keys": head.keys,
        "hash": head.hash,
        "made_ms": head.made_ms,
        "version": head.version,
        "bytes": head.files_bytes(),
    })
}

impl Verify {
    pub(super) fn run(&self, output: Output) -> anyhow::Result<()> {
        // A signal ends this process at once.
        let head = check(&self.file, &|| true, output)?;
        if output.json {
            return Ok(output.document(&document(&head))?);
        }
        Ok(output.line(format_args!(
            "sound: revision {}, {} keys, of cluster {}, hash {}",
            head.revision, head.keys, head.cluster_id, head.hash
        ))?)
    }
}

impl Restore {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let told = self.cluster_id.clone().zip(self.continues_at);
        let told = told.map(|(cluster_id, continues_at)| Beginning {
            cluster_id,
            continues_at,
        });
        let (head, beginning) = restore(context, &self.file, &self.nodes, told)?;
        let output = context.output;
        if output.json {
            let mut document = document(&head);
            document["new_cluster_id"] = json!(beginning.cluster_id);
            document["continues_at"] = json!(beginning.continues_at);
            return Ok(output.document(&document)?);
        }
        output.line(format_args!(
            "restored revision {} with {} keys into {}",
            head.revision,
            head.keys,
            context.data.display()
        ))?;
        say_continues(context, &beginning);
        if !self.nodes.is_empty() {
            output.line(format_args!(
                "on the other machines: menagerie kv restore FILE --nodes IDS --cluster-id {} --continues-at {}",
                beginning.cluster_id, beginning.continues_at
            ))?;
        }
        say_secrets(context);
        Ok(())
    }
}

/// That revisions do not go on where the backup ends.
pub(crate) fn say_continues(context: &Context, beginning: &Beginning) {
    context.output.note(format!(
        "The new cluster goes on at revision {}, so that nobody takes its writes for those that the old one made after \
         this.",
        beginning.continues_at
    ));
}

/// What a restore cannot bring back.
pub(crate) fn say_secrets(context: &Context) {
    if !context.data.join("secrets.toml").exists() {
        context.output.note(
            "Tokens and the key of card numbers are not in a backup. Copy secrets.toml of the old cluster into the \
             data folder before the first start, or new ones are made: then cards that were opened are not known.",
        );
    }
}

/// Refuses to go on where a node has its folder, of these or of all: also that of a learner, which would begin with
/// what it has of the old cluster. It is asked before anything is read or made, since an hour later would be too late
/// to learn it.
pub(crate) fn refuse_present(context: &Context, only: &[u64]) -> anyhow::Result<()> {
    let nodes = context.config.nodes.iter();
    for node in nodes.filter(|node| only.is_empty() || only.contains(&node.id)) {
        let folder = context.data.join(node.name());
        ensure!(
            !folder.exists(),
            "{} is there: a cluster is made only where none is; move away what is left of the old one, or name another \
             folder with --data",
            folder.display()
        );
    }
    Ok(())
}

/// The folders of the nodes that the configuration lists, of a new cluster that begins with this file.
pub(crate) fn restore(
    context: &Context,
    file: &Path,
    only: &[u64],
    beginning: Option<Beginning>,
) -> anyhow::Result<(Head, Beginning)> {
    let voters = voters(&context.config, &context.data, only)?;
    refuse_present(context, only)?;
    context.make_data()?;
    let bar = context.output.byte_progress("restore", Some(0));
    let restored = backup::restore(file, &NewCluster { beginning, voters }, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    restored
}

fn voters(config: &Config, data: &Path, only: &[u64]) -> anyhow::Result<Vec<NewNode>> {
    let voters = config.nodes.iter().filter(|node| node.role == Role::Voter);
    let voters: Vec<NewNode> = voters
        .map(|node| NewNode {
            id: node.id,
            peer_address: node.peer.clone(),
            client_address: node.client.clone(),
            folder: (only.is_empty() || only.contains(&node.id)).then(|| data.join(node.name())),
        })
        .collect();
    for id in only {
        if !voters.iter().any(|node| node.id == *id) {
            bail!("the configuration has no voter {id}");
        }
    }
    Ok(voters)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_any_longer_ends() {
        let (ended, end) = tokio::sync::oneshot::channel();
        let work = aside(move |is_wanted| {
            while is_wanted() {
                std::thread::yield_now();
            }
            let _ = ended.send(());
        });
        let waited = tokio::time::timeout(Duration::from_millis(10), work).await;
        assert!(waited.is_err(), "it does not end by itself");
        let end = tokio::time::timeout(Duration::from_secs(30), end).await;
        end.unwrap().unwrap();
    }

    #[test]
    fn a_backup_is_private_and_takes_nobodys_place() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("pets.mng"), folder.path().join("pets.tmp"));
        std::fs::write(&other, "somebody else's").unwrap();
        let (first, second) = (beside(&file).unwrap(), beside(&file).unwrap());
        std::fs::write(first.path(), "first").unwrap();
        name(first, &file).unwrap();
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // Another has been quicker.
        name(second, &file).unwrap_err();
        assert_eq!(std::fs::read(&file).unwrap(), b"first");
        assert_eq!(std::fs::read(&other).unwrap(), b"somebody else's");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
