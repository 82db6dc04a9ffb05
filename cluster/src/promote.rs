//! `menagerie mirror promote`: a new cluster out of a mirror alone, when all nodes are lost.
//! Invariant: the mirror is only read, and no folder that is there is touched; what came after the mirror's revision
//! is lost, and the revision is said.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use kvstore::backup::{self, Beginning, Head, KeptRow};
use mirror::Source;

use crate::context::Context;
use crate::kv::backup as restoring;
use crate::output::Usage;

#[derive(Args)]
pub(crate) struct Promote {
    /// Which mirror of the configuration, such as mirror-sync
    #[arg(long, value_name = "NAME", required_unless_present = "from")]
    name: Option<String>,
    /// The folder of a mirror, wherever it lies
    #[arg(long, value_name = "DIR", conflicts_with = "name")]
    from: Option<PathBuf>,
}

impl Promote {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        restoring::refuse_present(context, &[])?;
        let folder = match (&self.from, &self.name) {
            (Some(folder), _) => folder.clone(),
            (None, Some(name)) => context.data.join(name),
            (None, None) => return Err(Usage("say which mirror: --name or --from".to_owned()).into()),
        };
        let configured = self.name.as_ref().and_then(|name| context.config.mirror(name));
        let source = match configured {
            Some(mirror) => Source::open_configured(&folder, mirror.engine),
            None => Source::open(&folder),
        };
        let source = source.with_context(|| format!("read the mirror in {}", folder.display()))?;
        let (revision, old) = (source.revision(), source.cluster().to_owned());
        context.make_data()?;
        let file = context.data.join("promoting.backup");
        let made = assemble(context, source, &file);
        let restored = made.and_then(|_| restoring::restore(context, &file, &[], None));
        if file.exists() {
            std::fs::remove_file(&file).context("remove the file between mirror and cluster")?;
        }
        let (head, beginning) = restored?;
        say(context, &head, &beginning, &old, revision)
    }
}

fn assemble(context: &Context, source: Source, file: &std::path::Path) -> anyhow::Result<Head> {
    let (revision, keys) = (source.revision(), source.keys()?);
    let answers = source.answers().context("read the kept answers")?;
    let rows = source.map(|row| {
        let row = row?;
        Ok(KeptRow {
            key: row.key.into(),
            value: row.value,
            created: row.created,
            modified: row.modified,
            version: row.version,
            lease: row.lease,
            granted: row.granted,
        })
    });
    let bar = context.output.byte_progress("read the mirror", Some(keys));
    let made = backup::assemble(rows, answers, (revision, keys), file, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    made
}

fn say(
    context: &Context,
    head: &Head,
    beginning: &Beginning,
    old: &str,
    revision: u64,
) -> anyhow::Result<()> {
    let output = context.output;
    if output.json {
        let mut document = restoring::document(head);
        document["cluster_id"] = serde_json::json!(old);
        document["new_cluster_id"] = serde_json::json!(beginning.cluster_id);
        document["continues_at"] = serde_json::json!(beginning.continues_at);
        return Ok(output.document(&document)?);
    }
    output.line(format_args!(
        "a new cluster with revision {revision} and {} keys, the last that this mirror of cluster {old} had, is in {}",
        head.keys,
        context.data.display()
    ))?;
    restoring::say_continues(context, beginning);
    restoring::say_secrets(context);
    Ok(())
}
