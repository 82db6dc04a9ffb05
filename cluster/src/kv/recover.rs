//! `kv recover`: a new cluster out of what is left of one that has lost its majority for good.
//! Invariant: what the survivors hold is only read; nothing is made before somebody was told what speaks against it,
//! and has said yes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use kvstore::backup::{self, Survivor, Tally};
use serde_json::json;

use super::backup::{document, refuse_present, restore, say_continues, say_secrets};
use crate::context::Context;
use crate::output::Output;

/// What was recovered, as a backup, in the data folder of the new cluster.
const RECOVERED: &str = "recovered.mng";

#[derive(Args)]
pub(super) struct Recover {
    /// The folder of a node that survives and does not run, such as old/n2; once for each
    #[arg(long = "from", value_name = "FOLDER", required = true)]
    from: Vec<PathBuf>,
    /// Take the longest log although its node is marked as damaged, so that its state may be wrong
    #[arg(long)]
    even_damaged: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Recover {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let output = context.output;
        refuse_present(context, &[])?;
        let file = context.data.join(RECOVERED);
        ensure!(
            !file.exists(),
            "{} is there already, from an earlier recovery: `{}` makes a cluster of it; to recover anew, remove it",
            file.display(),
            restoring(&file, context)
        );
        let mut survivors = Vec::new();
        for folder in &self.from {
            let survivor = backup::inspect(folder);
            survivors.push(survivor.with_context(|| format!("look into {}", folder.display()))?);
        }
        show(&survivors, output)?;
        let tally = backup::tally(&survivors)?;
        for line in explain(&survivors, &tally) {
            output.note(line);
        }
        if let Some(said) = &tally.longest.damage
            && !self.even_damaged
        {
            bail!(
                "{} has the longest log and is marked as damaged: {said} (name only others, or take it all the same \
                 with --even-damaged)",
                tally.longest.folder.display()
            );
        }
        if !self.yes {
            match output.confirm("Make a new cluster from it?")? {
                Some(true) => {}
                Some(false) => bail!("nothing was done"),
                None => bail!("nobody is there to ask; --yes does it all the same"),
            }
        }
        make(&tally, &file, context)
    }
}

fn show(survivors: &[Survivor], output: Output) -> anyhow::Result<()> {
    if output.json {
        return Ok(());
    }
    let rows = survivors.iter().map(|survivor| {
        [
            survivor.folder.display().to_string(),
            survivor.id.map_or_else(|| "?".to_owned(), |id| id.to_string()),
            survivor.term().to_string(),
            survivor.index().to_string(),
            survivor.applied.to_string(),
            if survivor.damage.is_some() { "damaged" } else { "" }.to_owned(),
        ]
    });
    Ok(output.table(
        ["FOLDER", "NODE", "TERM", "LAST ENTRY", "APPLIED", "MARKED"],
        rows,
    )?)
}

fn explain(survivors: &[Survivor], tally: &Tally<'_>) -> Vec<String> {
    let Tally { longest, whole } = tally;
    let voters = longest.all_voters();
    let mut lines = findings(survivors, &voters);
    lines.push(format!(
        "The longest log is in {}: it goes to entry {} of term {}.",
        longest.folder.display(),
        longest.index(),
        longest.term()
    ));
    let (here, all) = (whole.len(), voters.len());
    if tally.is_majority() {
        lines.push(format!(
            "{here} of {all} voters are here, a majority: everything that was acknowledged is in that log."
        ));
    } else if longest.cluster_id.is_none() {
        lines.push(
            "It does not say which cluster it is of, so nobody can vouch that it has what was acknowledged."
                .to_owned(),
        );
    } else {
        lines.push(format!(
            "Only {here} of {all} voters are here with all that their logs ever held. Writes that were acknowledged, \
             most likely the last ones, may be missing; how many, nobody can know."
        ));
    }
    if longest.voters.len() > 1 {
        lines.push(
            "The voters were being changed: it takes a majority of those before, and one of those after it."
                .to_owned(),
        );
    }
    lines.push(
        "Writes at its end that were never acknowledged may be taken along. The old members must never be started \
         again: they would not know that they are history."
            .to_owned(),
    );
    lines
}

/// What a table has no room for, of each folder: why its node does not count, and what was found damaged.
fn findings(survivors: &[Survivor], voters: &BTreeSet<u64>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut seen = BTreeSet::new();
    for survivor in survivors {
        let folder = survivor.folder.display();
        for doubt in &survivor.doubts {
            lines.push(format!("{folder} does not count: {doubt}."));
        }
        if let Some(id) = survivor.id {
            if !voters.contains(&id) {
                lines.push(format!("{folder} does not count: node {id} has no vote."));
            } else if !seen.insert(id) {
                lines.push(format!(
                    "{folder} is of node {id} too: two folders of one node count once, and not at all if either is in doubt."
                ));
            }
        }
        if let Some(said) = &survivor.damage {
            lines.push(format!(
                "{folder} is marked as damaged, so its state may be wrong: {said}"
            ));
        }
    }
    lines
}

/// The command that makes a cluster of what was recovered.
fn restoring(file: &Path, context: &Context) -> String {
    let data = context.data.display();
    format!("menagerie --data {data} kv restore {}", file.display())
}

fn make(tally: &Tally<'_>, file: &Path, context: &Context) -> anyhow::Result<()> {
    let longest = tally.longest;
    let output = context.output;
    context.make_data()?;
    let bar = output.byte_progress("read", Some(0));
    let read = backup::recover(longest, file, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    read?;
    let restored = restore(context, file, &[], None);
    let (head, beginning) = restored.with_context(|| {
        format!(
            "{} has all of it, but no cluster was made (`{}` tries again)",
            file.display(),
            restoring(file, context)
        )
    })?;
    if output.json {
        let mut document = document(&head);
        document["new_cluster_id"] = json!(beginning.cluster_id);
        document["continues_at"] = json!(beginning.continues_at);
        document["from"] = json!(longest.folder);
        document["majority"] = json!(tally.is_majority());
        return Ok(output.document(&document)?);
    }
    output.line(format_args!(
        "recovered revision {} with {} keys into {}; {} has the same as a backup, and may be removed",
        head.revision,
        head.keys,
        context.data.display(),
        file.display()
    ))?;
    say_continues(context, &beginning);
    say_secrets(context);
    Ok(())
}
