//! Clients as no one wants them: some say their requests one byte at a time, some ask for a watch and never read it.
//! Invariant: whoever behaves is served beside them by the same node, and those who dribble are shown the door.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hyper::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bench::{Connection, Outcome, uri};
use crate::chaos::clients::PREFIX;
use crate::chaos::ground::Ground;

const DRIBBLERS: usize = 200;
const DEAF: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);
/// A head that is not finished within five seconds ends its connection.
const STAY_MAX: Duration = Duration::from_secs(15);
const SERVE_MAX: Duration = Duration::from_secs(5);
/// Not of the keys whose histories are judged.
const KEY: &str = "chaos-beside-bad-guests";

pub(super) async fn misbehave(ground: &mut Ground, victim: usize) -> anyhow::Result<String> {
    let address = ground.store.endpoints()[victim].clone();
    let token = ground.store.token();
    let mut deaf = Vec::new();
    for _ in 0..DEAF {
        deaf.push(deaf_watcher(&address, token).await?);
    }
    let mut dribblers = Vec::new();
    for _ in 0..DRIBBLERS {
        dribblers.push(guest(&address, "GET /v1/kv/a HTTP/1.1\r\nX-Endless: ").await?);
    }
    // Not by a client that would go to whoever leads.
    let behaves = Connection::new(token, SERVE_MAX)?;
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
        let put = behaves.send(Method::PUT, url.clone(), Some("served".into()), None);
        match put.await {
            Outcome::Done => served += 1,
            other => bail!("VIOLATION: beside bad guests a put is not served: {other:?}"),
        }
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

async fn guest(address: &str, says: &str) -> anyhow::Result<TcpStream> {
    let mut guest = TcpStream::connect(address).await.context("come as a guest")?;
    guest
        .write_all(says.as_bytes())
        .await
        .context("come as a guest")?;
    Ok(guest)
}

/// It is let in, and from then on reads nothing of all that ever happened.
async fn deaf_watcher(address: &str, token: &str) -> anyhow::Result<TcpStream> {
    const WELCOME: &[u8] = b"HTTP/1.1 200";
    let watch = format!(
        "GET /v1/watch?prefix={PREFIX}&from=1 HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"
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
