//! `kv txn`: a transaction as JSON from a file or stdin, as `POST /v1/txn` takes it.
//! Invariant: a false `if` is an answer, not a failure; only what the store refuses fails.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use kvstore_client::wire::txn::{Branch, Op, OpResult, TxnAnswer, TxnRequest};

use super::{Session, input, show};
use crate::output::Usage;

#[derive(Args)]
#[command(after_help = r#"Example:
  echo '{"then": [{"add": {"key": "stock", "by": -1, "min": 0}}]}' | menagerie kv txn -"#)]
pub(super) struct Txn {
    /// File that holds {"if": […], "then": […], "else": […], "failed": […]}; `-` is stdin
    file: PathBuf,
}

impl Txn {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let text = if self.file.as_os_str() == "-" {
            input::from_stdin("the transaction")?
        } else {
            std::fs::read(&self.file).with_context(|| format!("read {}", self.file.display()))?
        };
        let request: TxnRequest = match serde_json::from_slice(&text) {
            Ok(request) => request,
            Err(error) => {
                return Err(Usage(format!("{} is no transaction: {error}", self.file.display())).into());
            }
        };
        let txn = kvstore_client::Txn(request);
        // What only reads is kept no longer than it must: its answer may be large, and takes the room of others.
        let client = if only_reads(&txn.0) {
            session.reach.refuse_key("this transaction only reads")?;
            session.client.clone()
        } else {
            session.client.with_lasting_key()
        };
        let answer = client.txn(txn.clone()).await?;
        if session.output.json {
            return Ok(session.output.document(&answer)?);
        }
        show(session, &txn.0, &answer)
    }
}

fn only_reads(request: &TxnRequest) -> bool {
    let failed = request.failed.iter().flatten();
    let mut ops = request.then.iter().chain(&request.otherwise).chain(failed);
    ops.all(|op| matches!(op, Op::Get(_)))
}

/// The branch to which the refused operation belongs. Only an `add` is refused, and the answer does not say whether the
/// conditions held.
fn refused_of(request: &TxnRequest, answer: &TxnAnswer, op: u32) -> &'static str {
    let adds = |ops: &[Op]| matches!(ops.get(op as usize), Some(Op::Add(_)));
    // What is refused has no results.
    let otherwise_done = answer.branch == Branch::Else && !answer.results.is_empty();
    let may_be_otherwise = !request.conditions.is_empty() && !otherwise_done && adds(&request.otherwise);
    match (adds(&request.then), may_be_otherwise) {
        (true, false) => "`then`",
        (false, true) => "`else`",
        _ => "`then` or `else`",
    }
}

fn show(session: &Session, request: &TxnRequest, answer: &TxnAnswer) -> anyhow::Result<()> {
    let branch = match answer.branch {
        Branch::Then => "then",
        Branch::Else => "else",
        Branch::Failed => "failed",
    };
    session
        .output
        .line(format_args!("branch `{branch}` at revision {}", answer.revision))?;
    if let Some(op) = answer.failed_op {
        let branch = refused_of(request, answer, op);
        session
            .output
            .line(format_args!("operation {op} of {branch} was refused"))?;
    }
    for (n, result) in answer.results.iter().enumerate() {
        match result {
            OpResult::Put { version } => session.output.line(format_args!("{n}: put, version {version}"))?,
            OpResult::Delete { deleted } => session.output.line(format_args!("{n}: {deleted} deleted"))?,
            OpResult::Add { value } => session.output.line(format_args!("{n}: sum {value}"))?,
            OpResult::Get { kvs, count } => {
                session.output.line(format_args!("{n}: {count} found"))?;
                for kv in kvs {
                    session.output.line(format_args!(
                        "   {} = {}",
                        show::key(&kv.key),
                        show::value(&kv.bytes())
                    ))?;
                }
            }
        }
    }
    Ok(())
}
