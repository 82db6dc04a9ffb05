//! The network between the nodes, as proxies, one before each peer port, that can hold back in either direction,
//! or delay what passes, or break its connections.
//! Invariant: what is held back is neither lost nor answered; when the cut is healed it goes on, late.
//! The first message of a connection tells whose it is; beyond that this must not know what nodes say.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kvstore_client::wire::cluster::NewMember;
use service::tasks::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::harness::{Cluster, SOON, wait_until};
use crate::load::Random;

/// What is wrong with the network.
#[derive(Clone, Debug, Default)]
struct Weather {
    /// Which side of the cut a node stands on; nodes that are not named stand together on side 0.
    sides: BTreeMap<u64, u64>,
    /// From whom to whom nothing passes, although it does the other way.
    deaf: BTreeSet<(u64, u64)>,
    /// Each piece waits so long.
    delay: Duration,
    /// One piece in so many breaks its connection; 0 is none.
    break_one_in: u64,
}

pub(crate) struct Network {
    weather: watch::Sender<Weather>,
    tasks: Tasks,
}

/// One direction between two nodes.
struct Link {
    from: u64,
    to: u64,
    weather: watch::Receiver<Weather>,
    random: Random,
}

impl Network {
    /// Puts a proxy before every node of a running cluster.
    pub(crate) async fn of(cluster: &Cluster) -> Self {
        let network = Self {
            weather: watch::Sender::default(),
            tasks: Tasks::new(),
        };
        for node in &cluster.config.nodes {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let member = NewMember {
                id: node.id,
                peer_address: listener.local_addr().unwrap().to_string(),
                client_address: node.client.clone(),
            };
            let proxy = Proxy {
                to: node.id,
                address: node.peer.clone(),
                weather: network.weather.subscribe(),
            };
            network
                .tasks
                .spawn("proxy", proxy.serve(listener, network.tasks.clone()));
            move_member(cluster, &member).await;
        }
        network
    }

    /// These nodes are alone, each for itself.
    pub(crate) fn isolate(&self, ids: &[u64]) {
        self.weather.send_replace(Weather {
            sides: ids.iter().map(|id| (*id, *id)).collect(),
            ..Weather::default()
        });
    }

    /// Nothing reaches this node; what it says still reaches the others.
    pub(crate) fn deafen(&self, id: u64) {
        let others = (1..=3).filter(|other| *other != id);
        self.weather.send_replace(Weather {
            deaf: others.map(|other| (other, id)).collect(),
            ..Weather::default()
        });
    }

    /// What this node says reaches nobody; it still hears the others.
    pub(crate) fn mute(&self, id: u64) {
        let others = (1..=3).filter(|other| *other != id);
        self.weather.send_replace(Weather {
            deaf: others.map(|other| (id, other)).collect(),
            ..Weather::default()
        });
    }

    pub(crate) fn slow(&self, delay: Duration) {
        self.weather.send_replace(Weather {
            delay,
            ..Weather::default()
        });
    }

    /// Connections break in the middle of what they carry, as they do when much is lost.
    pub(crate) fn break_one_in(&self, pieces: u64) {
        self.weather.send_replace(Weather {
            break_one_in: pieces,
            ..Weather::default()
        });
    }

    pub(crate) fn heal(&self) {
        self.weather.send_replace(Weather::default());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// A member's address changes by letting it go and taking it in again.
async fn move_member(cluster: &Cluster, member: &NewMember) {
    let client = cluster.client();
    let steps = async || {
        let members = client.cluster().await?.members;
        let present = members.iter().find(|present| present.id == member.id);
        match present {
            Some(present) if present.peer_address != member.peer_address => {
                client.member_remove(member.id).await?;
            }
            None => client.member_add(member).await?,
            Some(present) if !present.voter => client.member_promote(member.id).await?,
            Some(_) => return Ok(true),
        }
        Ok::<bool, kvstore_client::Error>(false)
    };
    wait_until(
        "the member is reached through its proxy",
        SOON,
        async || match steps().await {
            Ok(true) => Ok(()),
            seen => Err(format!("{seen:?}")),
        },
    )
    .await;
}

struct Proxy {
    to: u64,
    address: String,
    weather: watch::Receiver<Weather>,
}

impl Proxy {
    async fn serve(self, listener: TcpListener, tasks: Tasks) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = tasks.stopping() => return,
            };
            let (stream, _) = accepted.unwrap();
            let (to, address, weather) = (self.to, self.address.clone(), self.weather.clone());
            let stopping = tasks.clone();
            tasks.spawn("proxied", async move {
                // A broken connection is what the two ends then see too.
                tokio::select! {
                    _broken = pass(stream, to, &address, weather) => {}
                    () = stopping.stopping() => {}
                }
            });
        }
    }
}

async fn pass(
    mut stream: TcpStream,
    to: u64,
    address: &str,
    weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let hello = first_frame(&mut stream).await?;
    let from = sender_of(&hello);
    let mut link = Link::new(from, to, &weather);
    link.open().await?;
    let mut upstream = TcpStream::connect(address).await?;
    upstream.set_nodelay(true)?;
    stream.set_nodelay(true)?;
    upstream.write_all(&hello).await?;
    let ((near_read, near_write), (far_read, far_write)) = (stream.into_split(), upstream.into_split());
    // A direction may end before the other, as when everything is said and the answer is still to come.
    let there = pump(near_read, far_write, link);
    let back = pump(far_read, near_write, Link::new(to, from, &weather));
    futures_util::future::try_join(there, back).await.map(drop)
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut link: Link) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        link.open().await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

impl Link {
    fn new(from: u64, to: u64, weather: &watch::Receiver<Weather>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            from,
            to,
            weather: weather.clone(),
            random: Random::from(NEXT.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Waits until something may pass; an error is the end of the connection.
    async fn open(&mut self) -> io::Result<()> {
        let (from, to) = (self.from, self.to);
        let passes = |weather: &Weather| {
            let side = |id| weather.sides.get(&id).copied().unwrap_or(0);
            side(from) == side(to) && !weather.deaf.contains(&(from, to))
        };
        // The network is gone only when the test is over.
        let _ = self.weather.wait_for(passes).await;
        let (delay, break_one_in) = {
            let weather = self.weather.borrow();
            (weather.delay, weather.break_one_in)
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if break_one_in > 0 && self.random.below(break_one_in) == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

/// Length and checksum of four bytes each, then the message.
async fn first_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 8];
    stream.read_exact(&mut frame).await?;
    let length = u32::from_le_bytes(frame[..4].try_into().unwrap());
    frame.resize(8 + usize::try_from(length.min(4096)).unwrap(), 0);
    stream.read_exact(&mut frame[8..]).await?;
    Ok(frame)
}

/// A greeting begins with the protocol's version and the sender's number, each a byte while they are small.
fn sender_of(hello: &[u8]) -> u64 {
    let from = u64::from(hello[9]);
    assert!(
        hello[8] == 1 && (1..=3).contains(&from),
        "greetings have changed: {:?}",
        &hello[8..]
    );
    from
}
