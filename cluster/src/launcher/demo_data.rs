//! Demo data: what a newcomer finds in the services on the first start.
//! Invariant: each part is brought in once in the life of a store and never again, so that what a user has
//! deleted stays deleted; a start that died halfway does it again, which is why parts must be repeatable.
//! It must not know what the data is: each service brings its own `seed_demo`.

use std::future::Future;
use std::pin::Pin;

use anyhow::Context as _;
use kvstore_client::KvClient;
use service::config::Config;
use service::secrets::Secrets;

use crate::context::Context;

/// One part, of one service.
struct Part {
    name: &'static str,
    /// Whether the service runs here at all.
    wanted: fn(&Config) -> bool,
    sow: for<'all> fn(&'all Config, &'all Secrets) -> Sown<'all>,
}

type Sown<'all> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'all>>;

/// The store alone has nothing to show; services add theirs here.
const PARTS: &[Part] = &[];

/// Brings in what is not there yet. The services must be ready.
pub(super) async fn sow(context: &Context) -> anyhow::Result<()> {
    let wanted: Vec<_> = PARTS
        .iter()
        .filter(|part| (part.wanted)(&context.config))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let secrets = context.secrets()?;
    let root = secrets
        .token("root")
        .context("secrets.toml has no token for root")?;
    let store = KvClient::builder(context.config.client_addresses())
        .token(root.expose())
        .build()?;
    for part in wanted {
        let mark = format!("menagerie/demo/{}", part.name);
        if store.get(&mark).await?.is_none() {
            (part.sow)(&context.config, &secrets)
                .await
                .with_context(|| format!("bring in the demo data of {}", part.name))?;
            // Marked only when it is all there.
            store.put(&mark, "done").await?;
        }
    }
    Ok(())
}
