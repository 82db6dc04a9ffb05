//! Links between processes as proxies, one before each port: they can hold back in either direction, delay what passes,
//! or break; also without root. Invariant: what is held back is neither lost nor answered; when all is well again it goes
//! on, late. The first message of a connection between nodes tells whose it is; beyond that this must not know what is said.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use service::tasks::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Whoever is no node.
const CLIENT: u64 = 0;
const PIECE_BYTES: usize = 64 << 10;
/// A greeting and the proof that follows it have far less.
const RECORDED_BYTES_MAX: usize = 4096;

/// What waits for less was not held up by anybody's measure.
const NOTICED: Duration = Duration::from_millis(1);

/// What is wrong with the links.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    /// Which side of the cut a node stands on; nodes that are not named stand together on side 0.
    pub(crate) sides: BTreeMap<u64, u64>,
    /// From whom to whom nothing passes, although it does the other way.
    pub(crate) deaf: BTreeSet<(u64, u64)>,
    /// Whom nobody reaches, not even clients, and who reaches nobody.
    pub(crate) unreachable: BTreeSet<u64>,
    /// Each piece waits so long.
    pub(crate) delay: Duration,
    /// One piece in so many breaks its connection; 0 is none.
    pub(crate) break_one_in: u64,
    pub(crate) narrow: Option<Narrow>,
}

/// What reaches one node passes pipes that take their time, each connection one of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Narrow {
    pub(crate) to: u64,
    /// A second.
    pub(crate) kilobits: u32,
    /// One piece in so many breaks its connection; 0 is none.
    pub(crate) break_one_in: u64,
}

impl Narrow {
    fn time_of(self, bytes: usize) -> Duration {
        const BITS: u64 = 8;
        let bits = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(BITS);
        Duration::from_micros(bits.saturating_mul(1000) / u64::from(self.kilobits.max(1)))
    }
}

impl Weather {
    /// These nodes are alone, each for itself.
    pub(crate) fn isolated(ids: &[u64]) -> Self {
        Self {
            sides: ids.iter().map(|id| (*id, *id)).collect(),
            ..Self::default()
        }
    }
}

#[derive(Default)]
struct Traffic {
    /// Between clients and nodes, both ways.
    client_bytes: AtomicU64,
    /// Pieces that waited in a narrow pipe.
    held_up: AtomicU64,
    /// Connections that were broken.
    broken: AtomicU64,
    /// How a connection to this node was opened, as somebody who listens in would write it down.
    openings: Mutex<BTreeMap<u64, Vec<u8>>>,
}

pub(crate) struct Links {
    weather: watch::Sender<Weather>,
    traffic: Arc<Traffic>,
    tasks: Tasks,
}

impl Links {
    pub(crate) fn new() -> Self {
        Self {
            weather: watch::Sender::default(),
            traffic: Arc::default(),
            tasks: Tasks::new(),
        }
    }

    /// Serves this listener as the port at which other nodes reach node `to`.
    pub(crate) fn before_peers(&self, to: u64, listener: TcpListener, address: String) {
        self.serve(to, listener, address, false);
    }

    /// The same for clients.
    pub(crate) fn before_clients(&self, to: u64, listener: TcpListener, address: String) {
        self.serve(to, listener, address, true);
    }

    fn serve(&self, to: u64, listener: TcpListener, address: String, for_clients: bool) {
        let proxy = Proxy {
            to,
            address,
            for_clients,
            weather: self.weather.subscribe(),
            traffic: Arc::clone(&self.traffic),
        };
        let tasks = self.tasks.clone();
        self.tasks.spawn("proxy", proxy.serve(listener, tasks));
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    pub(crate) fn heal(&self) {
        self.set(Weather::default());
    }

    pub(crate) fn client_bytes(&self) -> u64 {
        self.traffic.client_bytes.load(Ordering::Relaxed)
    }

    /// How many pieces waited in a narrow pipe, and how many connections were broken, so far.
    pub(crate) fn trouble(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.traffic.held_up), count(&self.traffic.broken))
    }

    /// How a connection to this node was opened.
    pub(crate) fn opening(&self, to: u64) -> Option<Vec<u8>> {
        let openings = self
            .traffic
            .openings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        openings.get(&to).cloned()
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

#[derive(Clone)]
struct Proxy {
    to: u64,
    address: String,
    for_clients: bool,
    weather: watch::Receiver<Weather>,
    traffic: Arc<Traffic>,
}

impl Proxy {
    async fn serve(self, listener: TcpListener, tasks: Tasks) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = tasks.stopping() => return,
            };
            let Ok((stream, _)) = accepted else {
                // Whoever wanted to connect was gone again.
                continue;
            };
            let (proxy, stopping) = (self.clone(), tasks.clone());
            tasks.spawn("proxied", async move {
                // A broken connection is what the two ends then see too.
                tokio::select! {
                    _broken = proxy.pass(stream) => {}
                    () = stopping.stopping() => {}
                }
            });
        }
    }

    async fn pass(self, mut stream: TcpStream) -> io::Result<()> {
        let hello = if self.for_clients {
            Vec::new()
        } else {
            first_frame(&mut stream).await?
        };
        let from = if self.for_clients {
            CLIENT
        } else {
            sender_of(&hello)?
        };
        let mut there = Link::new(from, self.to, &self);
        there.open(hello.len()).await?;
        let mut upstream = TcpStream::connect(&self.address).await?;
        upstream.set_nodelay(true)?;
        stream.set_nodelay(true)?;
        upstream.write_all(&hello).await?;
        there.opening = hello;
        let ((near_read, near_write), (far_read, far_write)) = (stream.into_split(), upstream.into_split());
        // A direction may end before the other, as when everything is said and the answer is still to come.
        let there = there.pump(near_read, far_write);
        let back = Link::new(self.to, from, &self).pump(far_read, near_write);
        futures_util::future::try_join(there, back).await.map(drop)
    }
}

/// One direction between two ends.
struct Link {
    from: u64,
    to: u64,
    weather: watch::Receiver<Weather>,
    traffic: Arc<Traffic>,
    /// The greeting, until the piece that follows it has passed.
    opening: Vec<u8>,
    /// What chance has come to.
    chance: u64,
}

impl Link {
    fn new(from: u64, to: u64, proxy: &Proxy) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            from,
            to,
            weather: proxy.weather.clone(),
            traffic: Arc::clone(&proxy.traffic),
            opening: Vec::new(),
            chance: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    async fn pump(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let length = from.read(&mut buffer).await?;
            self.open(length).await?;
            if length == 0 {
                return to.shutdown().await;
            }
            self.note(&buffer[..length]);
            to.write_all(&buffer[..length]).await?;
        }
    }

    fn note(&mut self, piece: &[u8]) {
        if self.from == CLIENT || self.to == CLIENT {
            let bytes = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            self.traffic.client_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        if !self.opening.is_empty() {
            let mut opening = std::mem::take(&mut self.opening);
            opening.extend_from_slice(&piece[..piece.len().min(RECORDED_BYTES_MAX)]);
            let mut openings = self
                .traffic
                .openings
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            openings.insert(self.to, opening);
        }
    }

    /// Waits until so many bytes may pass; an error is the end of the connection.
    async fn open(&mut self, bytes: usize) -> io::Result<()> {
        let (from, to) = (self.from, self.to);
        let passes = |weather: &Weather| {
            let side = |id| weather.sides.get(&id).copied().unwrap_or(0);
            let between_nodes = from != CLIENT && to != CLIENT;
            let reached = !weather.unreachable.contains(&from) && !weather.unreachable.contains(&to);
            reached && (!between_nodes || (side(from) == side(to) && !weather.deaf.contains(&(from, to))))
        };
        // Whoever makes the weather is gone only when all is over.
        let _ = self.weather.wait_for(passes).await;
        let (delay, mut break_one_in, narrow) = {
            let weather = self.weather.borrow();
            let narrow = weather.narrow.filter(|narrow| narrow.to == to);
            (weather.delay, weather.break_one_in, narrow)
        };
        if let Some(narrow) = narrow {
            break_one_in = narrow.break_one_in;
            let time = narrow.time_of(bytes);
            if time >= NOTICED {
                self.traffic.held_up.fetch_add(1, Ordering::Relaxed);
            }
            // Nobody is kept waiting once the pipe is gone.
            let healed = self.weather.wait_for(|weather| weather.narrow.is_none());
            let _ = tokio::time::timeout(time, healed).await;
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if break_one_in > 0 && self.draw().is_multiple_of(break_one_in) {
            self.traffic.broken.fetch_add(1, Ordering::Relaxed);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    /// `SplitMix64`, from a beginning of its own for each link.
    fn draw(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.chance ^ (self.chance >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Length and checksum of four bytes each, then the message.
async fn first_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    const HEAD_BYTES: usize = 8;
    let mut frame = vec![0; HEAD_BYTES];
    stream.read_exact(&mut frame).await?;
    let length = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]);
    let length = usize::try_from(length).map_or(RECORDED_BYTES_MAX, |length| length.min(RECORDED_BYTES_MAX));
    frame.resize(HEAD_BYTES + length, 0);
    stream.read_exact(&mut frame[HEAD_BYTES..]).await?;
    Ok(frame)
}

/// A greeting begins with the protocol's version and the sender's number, each a byte while they are small.
fn sender_of(hello: &[u8]) -> io::Result<u64> {
    match hello.get(8..10) {
        Some([1, from @ 1..=9]) => Ok(u64::from(*from)),
        // Either greetings have changed, or this is no node.
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
