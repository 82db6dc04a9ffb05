//! `kv watch`: one line an event, as it happens, until Ctrl-C.
//! Invariant: every change once and in order, also across the loss of a node; the client sees to that.

use clap::Args;
use kvstore_client::wire::Revision;
use kvstore_client::{EventKind, WatchEvent, WatchRequest};
use serde_json::json;

use super::{Session, show};
use crate::output::Usage;

#[derive(Args)]
pub(super) struct Watch {
    #[arg(required_unless_present = "prefix", conflicts_with = "prefix")]
    key: Option<String>,
    /// Watch all keys that begin with this ("" is all)
    #[arg(long)]
    prefix: Option<String>,
    /// Begin with the changes of this revision [default: with the next change]
    #[arg(long, value_name = "REV")]
    from: Option<Revision>,
    /// Also show what each key was before
    #[arg(long)]
    prev: bool,
    /// End after so many events
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
}

impl Watch {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let mut stream = session.client.watch(self.request()?).await?;
        session.output.note("watching; Ctrl-C ends it");
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0 {
            let event = stream.next().await?;
            show_event(session, &event)?;
            left -= 1;
        }
        Ok(())
    }

    fn request(&self) -> anyhow::Result<WatchRequest> {
        let mut request = match (&self.key, &self.prefix) {
            (Some(key), _) => WatchRequest::key(key),
            (None, Some(prefix)) => WatchRequest::prefix(prefix),
            (None, None) => return Err(Usage("give a key or --prefix".to_owned()).into()),
        };
        request.from = self.from;
        request.prev = self.prev;
        Ok(request)
    }
}

fn show_event(session: &Session, event: &WatchEvent) -> anyhow::Result<()> {
    let kind = match event.kind {
        EventKind::Put => "put",
        EventKind::Delete => "delete",
    };
    if session.output.json {
        let mut document = json!({ "event": kind, "revision": event.revision });
        if let (Some(document), serde_json::Value::Object(change)) =
            (document.as_object_mut(), serde_json::to_value(&event.change)?)
        {
            document.extend(change);
        }
        return Ok(session.output.json_line(&document)?);
    }
    let change = &event.change;
    let mut line = format!("{} {kind} {}", event.revision, show::key(&change.key));
    if let Some(value) = &change.value {
        line.push_str(" = ");
        line.push_str(&show::value(value));
    }
    if let Some(prev) = &change.prev {
        line.push_str(" (was ");
        line.push_str(&show::value(&prev.bytes()));
        line.push(')');
    }
    Ok(session.output.line(line)?)
}
