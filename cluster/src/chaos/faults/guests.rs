//! Clients as no one wants them: some say their requests one byte at a time, some ask for a watch and never read it.
//! Invariant: whoever behaves is served beside them by the same node, and those who dribble are shown the door.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hyper::{Method, Uri};
use kvstore_client::KvClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::arena::wait_for;
use crate::bench::{Connection, Outcome, uri};
use crate::chaos::clients::PREFIX;
use crate::chaos::ground::Ground;

const DRIBBLERS: usize = 200;
const DEAF: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);
/// A head that is not finished within five seconds ends its connection.
const STAY_MAX: Duration = Duration::from_secs(15);
const TRY: Duration = Duration::from_secs(5);
/// On a busy machine the lead may change meanwhile, and one who neither repeats nor has a key hears of that.
const SERVE_MAX: Duration = Duration::from_secs(10);
/// Not of the keys whose histories are judged.
const KEY: &str = "chaos-beside-bad-guests";

pub(super) async fn misbehave(ground: &mut Ground, victim: usize) -> anyhow::Result<String> {
    let address = ground.store.endpoints()[victim].clone();
    let token = ground.store.token();
    let node = ground.only(victim)?;
    let mut deaf = Vec::new();
    for _ in 0..DEAF {
        let mut why = String::new();
        let let_in = wait_for("one who never listens to be let in", SERVE_MAX, async || {
            let watcher = deaf_watcher(&node, &address, token).await;
            watcher.inspect_err(|error| why = format!("{error:#}")).ok()
        });
        let let_in = let_in.await;
        deaf.push(let_in.with_context(|| why)?);
    }
    let mut dribblers = Vec::new();
    for _ in 0..DRIBBLERS {
        dribblers.push(guest(&address, "GET /v1/kv/a HTTP/1.1\r\nX-Endless: ").await?);
    }
    // Not by a client that would go to whoever leads.
    let behaves = Connection::new(token, TRY)?;
    let url = uri(&format!("http://{address}/v1/kv/{KEY}"))?;
    let end = Instant::now() + STAY_MAX;
    let mut served = 0;
    while !dribblers.is_empty() {
        ensure!(
            Instant::now() < end,
            "{} of {DRIBBLERS} guests who dribble are still there after {} s",
            dribblers.len(),
            STAY_MAX.as_secs()
        );
        serve(&behaves, &url, SERVE_MAX).await?;
        served += 1;
        tokio::time::sleep(PAUSE).await;
        let mut left = Vec::new();
        for mut dribbler in dribblers {
            if !was_shown_the_door(&mut dribbler).await {
                left.push(dribbler);
            }
        }
        dribblers = left;
    }
    Ok(format!(
        "n{} had {DRIBBLERS} guests who dribbled until they were shown the door, and {DEAF} who never listened; \
         {served} puts were served meanwhile",
        victim + 1
    ))
}

/// Sends a put until it is served.
async fn serve(behaves: &Connection, url: &Uri, deadline: Duration) -> anyhow::Result<()> {
    let mut heard = Vec::new();
    let served = wait_for("a put to be served", deadline, async || {
        let put = behaves.send(Method::PUT, url.clone(), Some("served".into()), None);
        let outcome = put.await;
        if heard.last() != Some(&outcome) {
            heard.push(outcome);
        }
        (outcome == Outcome::Done).then_some(())
    });
    if served.await.is_err() {
        bail!(
            "VIOLATION: beside bad guests no put was served within {} s, but {heard:?}",
            deadline.as_secs()
        );
    }
    Ok(())
}

async fn guest(address: &str, says: &str) -> anyhow::Result<TcpStream> {
    let mut guest = TcpStream::connect(address).await.context("come as a guest")?;
    guest
        .write_all(says.as_bytes())
        .await
        .context("come as a guest")?;
    Ok(guest)
}

/// It is let in, and from then on reads nothing of all that the node still remembers; of a long run that is not all.
async fn deaf_watcher(node: &KvClient, address: &str, token: &str) -> anyhow::Result<TcpStream> {
    const WELCOME: &[u8] = b"HTTP/1.1 200";
    let status = node.status().await.context("ask what a node remembers")?;
    let from = status.compacted_revision + 1;
    let watch = format!(
        "GET /v1/watch?prefix={PREFIX}&from={from} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let mut guest = guest(address, &watch).await?;
    let mut answer = [0; WELCOME.len()];
    guest.read_exact(&mut answer).await.context("begin a watch")?;
    ensure!(
        answer == WELCOME,
        "a watch began with {}",
        String::from_utf8_lossy(&answer)
    );
    Ok(guest)
}

/// Says one byte more. Whoever hears an answer to that, or an end, need not go on.
async fn was_shown_the_door(dribbler: &mut TcpStream) -> bool {
    let heard = |dribbler: &TcpStream| match dribbler.try_read(&mut [0; 64]) {
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        Ok(_answer_or_end) => true,
    };
    heard(dribbler) || dribbler.write_all(b"a").await.is_err()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use axum::Router;
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::routing::put;
    use service::serve::Limits;
    use service::tasks::Tasks;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn one_put_that_is_not_served_is_no_violation_and_none_that_is_served_is_one() {
        // The second one is served, and none after that.
        let answer = async |State(count): State<Arc<AtomicU64>>| match count.fetch_add(1, Ordering::Relaxed) {
            1 => StatusCode::OK,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let app = Router::new().route("/v1/kv/a", put(answer));
        let app = app.with_state(Arc::new(AtomicU64::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let serving = service::serve::serve(listener, app, Limits::default(), tasks.clone());
        tasks.spawn("node", serving);
        let behaves = Connection::new("token", TRY).unwrap();
        let url = uri(&format!("http://{address}/v1/kv/a")).unwrap();
        serve(&behaves, &url, TRY).await.unwrap();
        let told = serve(&behaves, &url, Duration::ZERO).await.unwrap_err();
        let told = told.to_string();
        assert!(
            told.starts_with("VIOLATION") && told.contains("Refused(503)"),
            "{told}"
        );
        tasks.stop();
    }
}
