//! `kv ls`: the keys of a range, all pages of it at one revision.
//! Invariant: never holds more rows than `--limit`, and says so when there are more.

use clap::Args;
use kvstore_client::RangeRequest;
use kvstore_client::wire::kv::{KeyValue, Page};
use serde_json::json;

use super::get::Level;
use super::{Session, show};

const PAGE_ROWS_MAX: u32 = 1000;

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Ls {
    /// Only keys that begin with this
    prefix: Option<String>,
    /// Only keys from here on (inclusive)
    #[arg(long, value_name = "KEY")]
    from: Option<String>,
    /// Only keys before this one (exclusive)
    #[arg(long, value_name = "KEY")]
    to: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// From the last key to the first
    #[arg(long)]
    desc: bool,
    /// Only the keys, a line each
    #[arg(long)]
    keys_only: bool,
    /// Only how many there are
    #[arg(long, conflicts_with_all = ["keys_only", "values"])]
    count: bool,
    /// Show the values too
    #[arg(long, conflicts_with = "keys_only")]
    values: bool,
    #[command(flatten)]
    level: Level,
}

impl Ls {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let all = self.fetch(session).await?;
        if session.output.json {
            return Ok(session.output.document(&self.document(&all))?);
        }
        if self.count {
            return Ok(session.output.line(all.count)?);
        }
        if self.keys_only {
            for kv in &all.kvs {
                session.output.line(show::key(&kv.key))?;
            }
        } else if self.values {
            let header = ["KEY", "VALUE", "REVISION", "VERSION", "LEASE"];
            session.output.table(
                header,
                all.kvs.iter().map(|kv| {
                    let [key, revision, version, lease] = columns(kv);
                    [key, show::value(&kv.bytes()), revision, version, lease]
                }),
            )?;
        } else {
            session.output.table(
                ["KEY", "REVISION", "VERSION", "LEASE"],
                all.kvs.iter().map(columns),
            )?;
        }
        if all.more {
            session.output.note(format_args!(
                "there are more; --limit shows more than {}",
                self.limit
            ));
        }
        Ok(())
    }

    /// All pages up to the limit; the later ones continue at the revision of the first.
    async fn fetch(&self, session: &Session) -> anyhow::Result<Page> {
        let json = session.output.json;
        let mut all = session.client.range(self.request(self.limit, None, json)).await?;
        while let (true, Some(cursor)) = (all.more, all.cursor.take()) {
            let rows = u32::try_from(all.kvs.len()).unwrap_or(u32::MAX);
            if rows >= self.limit {
                break;
            }
            let page = session
                .client
                .range(self.request(self.limit - rows, Some(cursor), json))
                .await?;
            all.kvs.extend(page.kvs);
            all.more = page.more;
            all.cursor = page.cursor;
        }
        Ok(all)
    }

    fn request(&self, rows: u32, cursor: Option<String>, json: bool) -> RangeRequest {
        RangeRequest {
            prefix: self.prefix.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            limit: (!self.count).then_some(rows.min(PAGE_ROWS_MAX)),
            cursor,
            descending: self.desc,
            // In a table without values they need not travel; a program gets what it did not decline.
            keys_only: self.keys_only || !(self.values || json),
            count_only: self.count,
            // Counting walks all of the range, and a table does not show it.
            uncounted: !(self.count || json),
            read: self.level.options(),
        }
    }

    fn document(&self, all: &Page) -> serde_json::Value {
        if self.count {
            return json!({ "revision": all.revision, "count": all.count });
        }
        json!({ "revision": all.revision, "count": all.count, "more": all.more, "kvs": all.kvs })
    }
}

fn columns(kv: &KeyValue) -> [String; 4] {
    [
        show::key(&kv.key),
        kv.mod_revision.to_string(),
        kv.version.to_string(),
        show::lease(kv.lease),
    ]
}
