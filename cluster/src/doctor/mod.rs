//! `menagerie doctor`: looks at this machine and at the running cluster, and says what to do.
//! Invariant: it changes nothing but a file of its own that it removes again; every finding that is not good comes
//! with something to do about it.

mod copies;
mod here;
mod system;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use crate::context::{Context, block_on};

#[derive(Args)]
pub(crate) struct Doctor {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    /// It works, and may not for long, or not well.
    Warning,
    Bad,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    verdict: Verdict,
    said: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn good(what: impl Into<String>, said: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            verdict: Verdict::Good,
            said: said.into(),
            advice: None,
        }
    }

    fn warning(what: impl Into<String>, said: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warning,
            advice: Some(advice.into()),
            ..Self::good(what, said)
        }
    }

    fn bad(what: impl Into<String>, said: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Bad,
            ..Self::warning(what, said, advice)
        }
    }
}

impl Doctor {
    #[expect(clippy::unused_self, reason = "every command is run the same way")]
    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        let mut findings = here::examine(&context);
        findings.extend(block_on(async { Ok(system::examine(&context).await) })?);
        let output = context.output;
        if output.json {
            output.document(&findings)?;
        } else {
            let rows = findings.iter().map(|finding| {
                let verdict = match finding.verdict {
                    Verdict::Good => "good",
                    Verdict::Warning => "WARNING",
                    Verdict::Bad => "BAD",
                };
                [finding.what.clone(), verdict.to_owned(), finding.said.clone()]
            });
            output.table(["WHAT", "", "FOUND"], rows)?;
            for finding in &findings {
                if let Some(advice) = &finding.advice {
                    output.line(format_args!("\n{}: {advice}", finding.what))?;
                }
            }
        }
        let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad);
        let bad: Vec<&str> = bad.map(|finding| finding.what.as_str()).collect();
        if !bad.is_empty() {
            bail!("not well: {}", bad.join(", "));
        }
        Ok(())
    }
}
