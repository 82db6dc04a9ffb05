//! `menagerie token [NAME]`: prints one bearer token, so that curl lines need no copying from files.
//! Invariant: prints exactly one token and a newline; never lists secrets.

use anyhow::bail;
use clap::Args;

use crate::context::Context;
use crate::output::Usage;

#[derive(Args)]
pub(crate) struct Token {
    /// Whose token
    #[arg(default_value = "root")]
    name: String,
}

impl Token {
    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        let secrets = context.secrets()?;
        let Some(token) = secrets.token(&self.name) else {
            let names: Vec<_> = secrets.tokens.keys().map(String::as_str).collect();
            bail!(Usage(format!(
                "no token is named {:?}; there are: {}",
                self.name,
                names.join(", ")
            )));
        };
        if context.output.json {
            let document = serde_json::json!({ "name": self.name, "token": token.expose() });
            return Ok(context.output.document(&document)?);
        }
        Ok(context.output.line(token.expose())?)
    }
}
