//! “The network is secure”: strangers at the clients' port and at the peers', and one who has listened in.

use std::time::Duration;

use anyhow::Context as _;
use kvstore_client::wire::tokens::{Access, Rule};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::ground::Ground;
use super::told::Told;

const SECRET: &str = "fallacies/security/secret";
const VISITORS: &str = "fallacies/visitors/";
const TRY: Duration = Duration::from_secs(5);
/// How long a stranger is listened to at most, and some more.
const TURNED_AWAY_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn play(ground: &mut Ground, told: &mut Told<'_>) -> anyhow::Result<()> {
    ground.client.put(SECRET, "nobody's business").await?;
    let rules = vec![Rule {
        prefix: VISITORS.to_owned(),
        access: Access::Read,
    }];
    let visitor = ground.client.token_put("visitor", rules).await?;
    told.say("A stranger asks for a secret without a token, one makes a token up, and one has a right to something else.");
    let none = status(ground, None).await?;
    told.claim(none == 401, format_args!("without a token: {none}"));
    let wrong = status(ground, Some("made-up")).await?;
    told.claim(
        wrong == 401,
        format_args!("with a token that nobody gave out: {wrong}"),
    );
    let other = status(ground, Some(&visitor.token)).await?;
    told.claim(
        other == 403,
        format_args!("with a token for {VISITORS} only: {other}"),
    );
    let root = status(ground, Some(ground.store.token())).await?;
    told.claim(root == 200, format_args!("with the right one: {root}"));

    told.say("Others try the port at which the nodes talk to each other: one as if it were a web page, and one with what it wrote down when it listened in on two nodes.");
    // Whichever node was called by another one: which that is depends on who stood for election.
    let overheard = ground.store.config.nodes.iter();
    let mut overheard = overheard.filter_map(|node| Some((node, ground.links.opening(node.id)?)));
    let (node, opening) = overheard
        .next()
        .context("no node has opened a connection to another one yet")?;
    let peer = node.listens_to_peers();
    let said = turned_away(peer, b"GET /v1/kv/fallacies/security/secret HTTP/1.1\r\n\r\n").await?;
    told.claim(
        said.is_empty(),
        "the first is turned away without a word, since it does not know the secret of the cluster",
    );
    let said = turned_away(peer, &opening).await?;
    let text = String::from_utf8_lossy(&said);
    told.claim(
        !said.is_empty() && !text.contains("nobody's business"),
        format_args!(
            "the second repeats {} bytes that were true, is asked for a new proof, cannot give it, and is turned away",
            opening.len()
        ),
    );
    told.say("  (That nobody can listen in either is what [tls] in cluster.toml is for: a port beyond this machine needs it.)");
    Ok(())
}

async fn status(ground: &Ground, token: Option<&str>) -> anyhow::Result<u16> {
    let url = format!("http://{}/v1/kv/{SECRET}", ground.store.config.nodes[0].client);
    let mut request = service::http::client(TRY).get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    Ok(request.send().await?.status().as_u16())
}

/// What the other end answered until it closed the connection, as it must.
async fn turned_away(address: &str, words: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)
        .await
        .context("reach the peers' port")?;
    stream
        .write_all(words)
        .await
        .context("say something at the peers' port")?;
    let mut said = Vec::new();
    // It may be closed with some of our words unread, which looks like an error here.
    let _ended = tokio::time::timeout(TURNED_AWAY_WITHIN, stream.read_to_end(&mut said))
        .await
        .context("wait for a stranger to be turned away")?;
    Ok(said)
}
