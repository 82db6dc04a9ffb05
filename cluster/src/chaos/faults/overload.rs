//! More work at once than the nodes can do.
//! Invariant: it counts only if something was refused for it, or one who asked beside it had to wait far longer than
//! before; who asks has a thread of its own, so that it waits for the nodes and not for this process, which is busy too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures_util::future::join_all;
use hyper::{Method, Uri};

use crate::bench::{Connection, Outcome, uri};
use crate::chaos::ground::Ground;
use crate::context::block_on;

/// Far more at once than the cluster has under way when it is well.
const CLIENTS: usize = 300;
/// How many bytes a value of a flood has, and how many of them each client sends. Where small ones slow nobody, since
/// many of them wait for one sync, there come larger ones, which are more than disks and links can carry.
const FLOODS: [(usize, usize); 3] = [(4 << 10, 8), (16 << 10, 2), (64 << 10, 1)];
const TRY: Duration = Duration::from_secs(5);
/// Puts that tell what is usual.
const USUAL: usize = 9;
const SLOWED_BY: u32 = 5;

/// What the clients of a flood were told.
#[derive(Default)]
struct Told {
    done: usize,
    refused: usize,
}

pub(super) async fn flood(ground: &mut Ground) -> anyhow::Result<String> {
    flood_until_felt(&ground.store.endpoints(), ground.store.token()).await
}

async fn flood_until_felt(nodes: &[String], token: &str) -> anyhow::Result<String> {
    let bystander = Bystander {
        url: uri(&format!("http://{}/v1/kv/flood/beside", nodes[0]))?,
        token: token.to_owned(),
    };
    let usual = bystander.usual().await?;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let address = &nodes[number % nodes.len()];
        let url = uri(&format!("http://{address}/v1/kv/flood/{number}"))?;
        clients.push((Connection::new(token, TRY)?, url));
    }
    let mut unfelt = Vec::new();
    for (bytes, each) in FLOODS {
        let value = Bytes::from(vec![b'f'; bytes]);
        let (waited, told) = bystander.beside(send(&clients, &value, each)).await?;
        let (sent, kib) = (CLIENTS * each, bytes >> 10);
        let Told { done, refused } = told;
        // What came through is what the nodes had to do beside everything else.
        ensure!(
            2 * (done + refused) > sent,
            "of a flood of {sent} puts only {done} were done and {refused} refused"
        );
        let happened = format!(
            "{CLIENTS} more clients sent {sent} puts of {kib} KiB: {done} done, {refused} refused; \
             one beside them waited {waited:.1?} instead of {usual:.1?}"
        );
        if refused > 0 || waited >= SLOWED_BY * usual {
            return Ok(happened);
        }
        unfelt.push(happened);
    }
    bail!("nobody was refused or slowed: {}", unfelt.join(". "))
}

/// They do not wait for each other, and take no answer for an answer.
async fn send(clients: &[(Connection, Uri)], value: &Bytes, each: usize) -> Told {
    let told = clients.iter().map(async |(connection, url)| {
        let mut told = Told::default();
        for _ in 0..each {
            let put = connection.send(Method::PUT, url.clone(), Some(value.clone()), None);
            match put.await {
                Outcome::Done => told.done += 1,
                // Too much at once; anything else has other reasons.
                Outcome::Refused(429 | 503) => told.refused += 1,
                Outcome::Refused(_) | Outcome::Broken | Outcome::Unreached => {}
            }
        }
        told
    });
    let told = join_all(told).await;
    told.iter().fold(Told::default(), |sum, one| Told {
        done: sum.done + one.done,
        refused: sum.refused + one.refused,
    })
}

/// One who puts a small value again and again, on a thread of its own.
struct Bystander {
    url: Uri,
    token: String,
}

impl Bystander {
    /// How long a put takes now.
    async fn usual(&self) -> anyhow::Result<Duration> {
        let waited = self.wait_on_another_thread(|puts| puts < USUAL).await?;
        middle(waited).context("no put was done before the flood")
    }

    /// How long a put takes while that lasts.
    async fn beside<T>(&self, work: impl Future<Output = T>) -> anyhow::Result<(Duration, T)> {
        let lasts = Arc::new(());
        let over = Arc::downgrade(&lasts);
        let work = async {
            let done = work.await;
            drop(lasts);
            done
        };
        let waits = self.wait_on_another_thread(move |_| over.strong_count() > 0);
        let (waited, done) = tokio::join!(waits, work);
        // Who is always refused at once does not wait; that is told by the others too.
        Ok((middle(waited?).unwrap_or_default(), done))
    }

    /// For each of its puts that was not refused.
    async fn wait_on_another_thread(
        &self,
        goes_on: impl Fn(usize) -> bool + Send + 'static,
    ) -> anyhow::Result<Vec<Duration>> {
        let connection = Connection::new(&self.token, TRY)?;
        let url = self.url.clone();
        let waiting = tokio::task::spawn_blocking(move || {
            block_on(async {
                let (mut waited, mut puts) = (Vec::new(), 0);
                while goes_on(puts) {
                    let begin = Instant::now();
                    let value = Some(Bytes::from_static(b"x"));
                    let put = connection.send(Method::PUT, url.clone(), value, None);
                    if matches!(put.await, Outcome::Done | Outcome::Broken) {
                        waited.push(begin.elapsed());
                    }
                    puts += 1;
                }
                Ok(waited)
            })
        });
        waiting.await.context("wait for another thread")?
    }
}

fn middle(mut waited: Vec<Duration>) -> Option<Duration> {
    waited.sort_unstable();
    waited.get(waited.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::State;
    use axum::http::StatusCode;
    use service::serve::{Limits, serve};
    use service::tasks::Tasks;
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;

    /// What so many puts at once take; those beyond wait, or are refused.
    struct Node {
        places: Semaphore,
        takes: Duration,
        refuses: bool,
    }

    async fn put(State(node): State<Arc<Node>>, _value: Bytes) -> StatusCode {
        let place = if node.refuses {
            node.places.try_acquire().ok()
        } else {
            node.places.acquire().await.ok()
        };
        if place.is_none() {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        tokio::time::sleep(node.takes).await;
        StatusCode::OK
    }

    async fn flooded(node: Node) -> anyhow::Result<String> {
        let app = Router::new().fallback(put).with_state(Arc::new(node));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tasks = Tasks::new();
        tasks.spawn("node", serve(listener, app, Limits::default(), tasks.clone()));
        let happened = flood_until_felt(&[address], "token").await;
        tasks.stop();
        happened
    }

    #[tokio::test]
    async fn a_flood_that_slows_one_beside_it_is_an_overload() {
        let happened = flooded(Node {
            // Far fewer a second than this thread can send and answer.
            places: Semaphore::new(5),
            takes: Duration::from_millis(10),
            refuses: false,
        });
        let happened = happened.await.unwrap();
        assert!(happened.contains("00 done, 0 refused"), "{happened}");
    }

    #[tokio::test]
    async fn a_flood_of_which_some_is_refused_is_an_overload() {
        let happened = flooded(Node {
            places: Semaphore::new(10),
            takes: Duration::from_millis(2),
            refuses: true,
        });
        let happened = happened.await.unwrap();
        assert!(!happened.contains(" 0 refused"), "{happened}");
    }

    #[tokio::test]
    async fn a_flood_that_nobody_feels_is_none_however_large_it_is_made() {
        let unfelt = flooded(Node {
            places: Semaphore::new(CLIENTS + 1),
            // Whatever this process takes itself is little beside it.
            takes: Duration::from_millis(200),
            refuses: false,
        });
        let unfelt = unfelt.await.unwrap_err().to_string();
        assert!(unfelt.starts_with("nobody was refused or slowed"), "{unfelt}");
        assert!(unfelt.contains("puts of 64 KiB"), "{unfelt}");
    }
}
