//! `kv token`: who may read and write what.
//! Invariant: a token is printed once, when it is made; nothing can show it again.

use clap::{Args, Subcommand};
use kvstore_client::wire::tokens::{Access, Rule, TokenRules};
use serde_json::json;

use super::{Session, show};
use crate::output::Usage;

/// Why a change of tokens takes no idempotency key.
const NO_KEY: &str = "the store keeps no answers about tokens, since they are secrets";

#[derive(Subcommand)]
pub(super) enum Token {
    /// List the tokens by name, with their rules
    Ls,
    /// Make a token, or give it new rules and a new secret, and print it
    Put(Put),
    /// Delete a token
    Del { name: String },
}

#[derive(Args)]
pub(super) struct Put {
    name: String,
    /// It may read keys that begin with this ("" is all)
    #[arg(long, value_name = "PREFIX")]
    read: Vec<String>,
    /// It may read and write keys that begin with this ("" is all)
    #[arg(long, value_name = "PREFIX")]
    write: Vec<String>,
}

impl Token {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Ls => list(session).await,
            Self::Put(put) => put.run(session).await,
            Self::Del { name } => {
                session.reach.refuse_key(NO_KEY)?;
                session.client.token_delete(&name).await?;
                if session.output.json {
                    return Ok(session
                        .output
                        .document(&json!({ "name": name, "deleted": true }))?);
                }
                Ok(session.output.line(format_args!("token {name} is deleted"))?)
            }
        }
    }
}

impl Put {
    async fn run(self, session: &Session) -> anyhow::Result<()> {
        session.reach.refuse_key(NO_KEY)?;
        let rule = |access| move |prefix| Rule { prefix, access };
        let mut rules: Vec<Rule> = self.read.into_iter().map(rule(Access::Read)).collect();
        rules.extend(self.write.into_iter().map(rule(Access::Write)));
        if rules.is_empty() {
            return Err(Usage("say what it may do: --read PREFIX, --write PREFIX".to_owned()).into());
        }
        let token = session.client.token_put(&self.name, rules).await?;
        if session.output.json {
            return Ok(session.output.document(&token)?);
        }
        session.output.note("keep it: it is shown only now");
        Ok(session.output.line(token.token)?)
    }
}

async fn list(session: &Session) -> anyhow::Result<()> {
    let tokens = session.client.tokens().await?;
    if session.output.json {
        return Ok(session.output.document(&tokens)?);
    }
    session.output.table(
        ["NAME", "READS", "WRITES"],
        tokens.into_iter().map(|token| {
            let (reads, writes) = (prefixes(&token, Access::Read), prefixes(&token, Access::Write));
            [token.name, reads, writes]
        }),
    )?;
    Ok(())
}

fn prefixes(token: &TokenRules, access: Access) -> String {
    let rules = token.prefixes.iter().filter(|rule| rule.access == access);
    let words: Vec<String> = rules
        .map(|rule| {
            if rule.prefix.is_empty() {
                "everything".to_owned()
            } else {
                show::key(&rule.prefix)
            }
        })
        .collect();
    words.join(" ")
}
