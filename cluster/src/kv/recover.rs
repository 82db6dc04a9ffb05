//! `kv recover`: a new cluster out of what is left of one that has lost its majority for good.
//! Invariant: what the survivors hold is only read; nothing is made before somebody has said yes.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use kvstore::backup::{self, Survivor};
use serde_json::json;

use super::backup::{document, restore, say_continues, say_secrets};
use crate::context::Context;

#[derive(Args)]
pub(super) struct Recover {
    /// The folder of a node that survives and does not run, such as old/n2; once for each
    #[arg(long = "from", value_name = "FOLDER", required = true)]
    from: Vec<PathBuf>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Recover {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let output = context.output;
        let mut survivors = Vec::new();
        for folder in &self.from {
            let survivor = backup::inspect(folder);
            survivors.push(survivor.with_context(|| format!("look into {}", folder.display()))?);
        }
        let rows = survivors.iter().map(|survivor| {
            [
                survivor.folder.display().to_string(),
                survivor.term().to_string(),
                survivor.index().to_string(),
                survivor.applied.to_string(),
            ]
        });
        if !output.json {
            output.table(["FOLDER", "TERM", "LAST ENTRY", "APPLIED"], rows)?;
        }
        let longest = longest(&survivors)?;
        for line in explain(longest, survivors.len()) {
            output.note(line);
        }
        if !self.yes {
            match output.confirm("Make a new cluster from it?")? {
                Some(true) => {}
                Some(false) => bail!("nothing was done"),
                None => bail!("nobody is there to ask; --yes does it all the same"),
            }
        }
        make(longest, context)
    }
}

fn explain(longest: &Survivor, count: usize) -> Vec<String> {
    let voters = longest.voters.len();
    let mut lines = vec![format!(
        "The longest log is in {}: it goes to entry {} of term {}.",
        longest.folder.display(),
        longest.index(),
        longest.term()
    )];
    if count > voters / 2 {
        lines.push(format!(
            "{count} of {voters} voters are here, a majority: everything that was acknowledged is in that log."
        ));
    } else {
        lines.push(format!(
            "Only {count} of {voters} voters are here. Writes that the others had acknowledged among themselves \
             shortly before the loss may be missing; how many, nobody can know."
        ));
    }
    lines.push(
        "Writes at its end that were never acknowledged may be taken along. The old members must never be started \
         again: they would not know that they are history."
            .to_owned(),
    );
    lines
}

fn make(longest: &Survivor, context: &Context) -> anyhow::Result<()> {
    let output = context.output;
    context.make_data()?;
    let file = context.data.join("recovered.mng");
    ensure!(
        !file.exists(),
        "{} is there already, from an earlier recovery",
        file.display()
    );
    let bar = output.byte_progress("read", Some(0));
    let read = backup::recover(longest, &file, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    read?;
    let (head, beginning) = restore(context, &file, &[], None)?;
    if output.json {
        let mut document = document(&head);
        document["new_cluster_id"] = json!(beginning.cluster_id);
        document["continues_at"] = json!(beginning.continues_at);
        document["from"] = json!(longest.folder);
        return Ok(output.document(&document)?);
    }
    output.line(format_args!(
        "recovered revision {} with {} keys into {}; {} has the same as a backup",
        head.revision,
        head.keys,
        context.data.display(),
        file.display()
    ))?;
    say_continues(context, &beginning);
    say_secrets(context);
    Ok(())
}

/// By term first: a longer log of an older term may hold what was never acknowledged.
fn longest(survivors: &[Survivor]) -> anyhow::Result<&Survivor> {
    let longest = survivors.iter().max_by_key(|survivor| survivor.last);
    longest.context("no folder was named")
}
