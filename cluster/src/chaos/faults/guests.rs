//! Clients as no one wants them: some say their requests one byte at a time, some ask for a watch and never read it.
//! Invariant: whoever behaves is served beside them by the same node, those who dribble are shown the door, and for each
//! who never reads the node holds something back, which is more than the kernel takes off its hands.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use hyper::{Method, Uri};
use kvstore_client::KvClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::arena::wait_for;
use crate::bench::{Connection, Outcome, uri};
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
/// What those watch who never listen: all that is written here, and that key.
const WATCHED: &str = "chaos";
/// What is written to the key until the kernel takes no more of it, and how much at most.
const NEWS_BYTES: u64 = 256 << 10;
const NEWS_BYTES_MAX: u64 = 64 << 20;
/// As little as the kernel lets a guest have.
const EAR_BYTES: u32 = 4096;
/// More than it makes of that.
const HEARD_BYTES_MAX: u64 = 64 << 10;

pub(super) async fn misbehave(ground: &mut Ground, victim: usize) -> anyhow::Result<String> {
    let address = ground.store.endpoints()[victim].clone();
    let token = ground.store.token();
    let deaf = Deaf::let_in(ground, victim).await?;
    let mut dribblers = Vec::new();
    for _ in 0..DRIBBLERS {
        dribblers.push(dribbler(&address).await?);
    }
    // Not by a client that would go to whoever leads.
    let behaves = Connection::new(token, TRY)?;
    let url = uri(&format!("http://{address}/v1/kv/{KEY}"))?;
    let news = Bytes::from(vec![b'n'; usize::try_from(NEWS_BYTES)?]);
    let end = Instant::now() + STAY_MAX;
    let (mut served, mut told) = (0, 0);
    loop {
        let is_held_back = deaf.are_held_back(told)?;
        if dribblers.is_empty() && is_held_back {
            break;
        }
        ensure!(
            dribblers.is_empty() || Instant::now() < end,
            "{} of {DRIBBLERS} guests who dribble are still there after {} s",
            dribblers.len(),
            STAY_MAX.as_secs()
        );
        ensure!(
            told < NEWS_BYTES_MAX,
            "of {told} bytes for each of those who never listen the kernel took all"
        );
        if is_held_back {
            serve(&behaves, &url, Bytes::from_static(b"served"), SERVE_MAX).await?;
        } else {
            serve(&behaves, &url, news.clone(), SERVE_MAX).await?;
            told += NEWS_BYTES;
        }
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
        "n{} had {DRIBBLERS} guests who dribbled until they were shown the door, and {DEAF} who never listened, for \
         whom it held back some of {} KiB; {served} puts were served meanwhile",
        victim + 1,
        told >> 10
    ))
}

/// Sends a put until it is served.
async fn serve(behaves: &Connection, url: &Uri, value: Bytes, deadline: Duration) -> anyhow::Result<()> {
    let mut heard = Vec::new();
    let served = wait_for("a put to be served", deadline, async || {
        let put = behaves.send(Method::PUT, url.clone(), Some(value.clone()), None);
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

async fn dribbler(address: &str) -> anyhow::Result<TcpStream> {
    const SAYS: &[u8] = b"GET /v1/kv/a HTTP/1.1\r\nX-Endless: ";
    let mut guest = TcpStream::connect(address).await.context("come as a guest")?;
    guest.write_all(SAYS).await.context("come as a guest")?;
    Ok(guest)
}

/// Those who are let in, and from then on read nothing of all that the node still remembers and of what is new.
struct Deaf {
    /// The process of the node, and where it listens.
    pid: u32,
    address: SocketAddr,
    guests: Vec<TcpStream>,
}

impl Deaf {
    async fn let_in(ground: &Ground, victim: usize) -> anyhow::Result<Self> {
        let config = &ground.store.config.nodes[victim];
        // Not by a proxy, which would listen in their place.
        let address = config.client_listen.as_ref().unwrap_or(&config.client);
        let pid = ground.store.servers[victim].pid();
        let mut deaf = Self {
            pid: pid.context("a node that has guests runs")?,
            address: address.parse().context("read where a node listens")?,
            guests: Vec::new(),
        };
        let node = ground.only(victim)?;
        for _ in 0..DEAF {
            let mut why = String::new();
            let let_in = wait_for("one who never listens to be let in", SERVE_MAX, async || {
                let watcher = deaf_watcher(&node, deaf.address, ground.store.token()).await;
                watcher.inspect_err(|error| why = format!("{error:#}")).ok()
            });
            let let_in = let_in.await;
            deaf.guests.push(let_in.with_context(|| why)?);
        }
        Ok(deaf)
    }

    /// Whether the node has said something to each of them that is not heard, and not all of what it is to tell: so
    /// much at least.
    fn are_held_back(&self, to_tell_bytes: u64) -> anyhow::Result<bool> {
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.pid));
        let table = table.context("look at the connections of a node")?;
        for guest in &self.guests {
            let guest = guest.local_addr().context("look at a guest")?;
            let unheard = unheard_bytes(&table, self.address.port(), guest.port());
            if unheard == 0 || unheard + HEARD_BYTES_MAX >= to_tell_bytes {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

async fn deaf_watcher(node: &KvClient, address: SocketAddr, token: &str) -> anyhow::Result<TcpStream> {
    const WELCOME: &[u8] = b"HTTP/1.1 200";
    let status = node.status().await.context("ask what a node remembers")?;
    let from = status.compacted_revision + 1;
    let watch = format!(
        "GET /v1/watch?prefix={WATCHED}&from={from} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let mut guest = deaf_guest(address).await?;
    guest
        .write_all(watch.as_bytes())
        .await
        .context("come as a guest")?;
    let mut answer = [0; WELCOME.len()];
    guest.read_exact(&mut answer).await.context("begin a watch")?;
    ensure!(
        answer == WELCOME,
        "a watch began with {}",
        String::from_utf8_lossy(&answer)
    );
    Ok(guest)
}

/// The kernel takes as little for it as it can.
async fn deaf_guest(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4().context("make a guest")?;
    socket
        .set_recv_buffer_size(EAR_BYTES)
        .context("make a guest deaf")?;
    socket.connect(address).await.context("come as a guest")
}

/// What was said from one port to another and not acknowledged, by the kernel's table of connections; 0 where there is
/// none between them.
fn unheard_bytes(table: &str, from: u16, to: u16) -> u64 {
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    let of_row = |row: &str| {
        let mut fields = row.split_whitespace().skip(1);
        let (local, remote) = (port(fields.next()?)?, port(fields.next()?)?);
        let (unheard, _unread) = fields.nth(1)?.split_once(':')?;
        ((local, remote) == (from, to)).then(|| u64::from_str_radix(unheard, 16).ok())?
    };
    table.lines().find_map(of_row).unwrap_or(0)
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
        let value = Bytes::from_static(b"served");
        serve(&behaves, &url, value.clone(), TRY).await.unwrap();
        let told = serve(&behaves, &url, value, Duration::ZERO).await.unwrap_err();
        let told = told.to_string();
        assert!(
            told.starts_with("VIOLATION") && told.contains("Refused(503)"),
            "{told}"
        );
        tasks.stop();
    }

    /// Listens, and says so much to everybody who comes.
    async fn talker(says_bytes: usize) -> (SocketAddr, Tasks) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let talks = tasks.clone();
        tasks.spawn("talker", async move {
            while let Ok((mut guest, _)) = listener.accept().await {
                talks.spawn("talk", async move {
                    guest.write_all(&vec![b'n'; says_bytes]).await.unwrap();
                    std::future::pending::<()>().await;
                });
            }
        });
        (address, tasks)
    }

    #[tokio::test]
    async fn for_who_never_listens_something_is_held_back_and_for_who_does_nothing_is() {
        const SAYS: usize = 32 << 20;
        let (address, _tasks) = talker(SAYS).await;
        let guests = |guest: TcpStream| Deaf {
            pid: std::process::id(),
            address,
            guests: vec![guest],
        };
        let deaf = guests(deaf_guest(address).await.unwrap());
        wait_for("something to be held back", TRY, async || {
            deaf.are_held_back(SAYS as u64).unwrap().then_some(())
        })
        .await
        .unwrap();
        assert!(
            !deaf.are_held_back(HEARD_BYTES_MAX).unwrap(),
            "the kernel may have all of that"
        );
        let mut hears = TcpStream::connect(address).await.unwrap();
        hears.read_exact(&mut vec![0; SAYS]).await.unwrap();
        let hears = guests(hears);
        wait_for("everything to be heard", TRY, async || {
            (!hears.are_held_back(SAYS as u64).unwrap()).then_some(())
        })
        .await
        .unwrap();
    }

    #[test]
    fn what_is_not_heard_is_read_from_the_table_of_the_kernel() {
        const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1B59 00000000:0000 0A 00000000:00000080 00:00000000 00000000     0        0 48 1 0 100 0 0 10 0
   1: 0100007F:1B59 0100007F:E832 01 0002D900:00000007 04:00000000 00000000     0        0 51 1 0 21 4 1 34 148
   2: 0100007F:E832 0100007F:1B59 01 00000003:00001F00 00:00000000 00000000     0        0 52 1 0 21 4 1 34 148
";
        assert_eq!(unheard_bytes(TABLE, 0x1b59, 0xe832), 0x2d900);
        assert_eq!(unheard_bytes(TABLE, 0xe832, 0x1b59), 3);
        assert_eq!(unheard_bytes(TABLE, 0x1b59, 0xe833), 0);
    }
}
