//! What joins the nodes, and their clients to them: for root a network of hosts of their own, for others a proxy before
//! each port. Invariant: both can do the same to a node, except that a proxy cannot lose a packet; it breaks connections.
//! The clients run on this thread, and go on while links are changed and asked: that is when they see something.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use service::config::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::arena::{Doors, Links, Narrow, Network, SERVERS, Weather};

const PEER_PORT: u16 = 7101;
/// How long something waits in the pipe of a slow network before it is dropped, and in that of a lossy one.
const SLOW_WAIT_MS: u32 = 2000;
const LOSSY_WAIT_MS: u32 = 2;
const LOSSY_KILOBITS: u32 = 3000;
const BREAK_ONE_IN: u64 = 40;
const REACHED: Duration = Duration::from_millis(400);

/// What links have done to what they were to carry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    pub(super) held_up: u64,
    pub(super) lost: u64,
}

#[expect(clippy::large_enum_variant, reason = "a run has one of it")]
pub(super) enum Wires {
    Network(Arc<Network>),
    Proxies {
        links: Links,
        doors: Mutex<Option<Doors>>,
        weather: Mutex<Weather>,
        /// Where nodes reach each other, in the order of their numbers.
        addresses: Mutex<Vec<String>>,
    },
}

impl Wires {
    /// And why it is no network, if it is none.
    pub(super) async fn open(as_root: bool) -> anyhow::Result<(Self, Option<String>)> {
        let network = if as_root {
            Network::open(SERVERS)
        } else {
            Err(anyhow::anyhow!("network namespaces need root"))
        };
        let hindrance = match network {
            Ok(network) => return Ok((Self::Network(Arc::new(network)), None)),
            Err(error) => format!("{error:#}"),
        };
        let proxies = Self::Proxies {
            links: Links::new(),
            doors: Mutex::new(Some(Doors::open().await?)),
            weather: Mutex::default(),
            addresses: Mutex::default(),
        };
        Ok((proxies, Some(hindrance)))
    }

    pub(super) fn network(&self) -> Option<&Network> {
        match self {
            Self::Network(network) => Some(network),
            Self::Proxies { .. } => None,
        }
    }

    /// To be called once, before the nodes start.
    pub(super) fn put_before_nodes(&self, config: &mut Config) {
        let Self::Proxies {
            links,
            doors,
            addresses,
            ..
        } = self
        else {
            return;
        };
        if let Some(doors) = lock(doors).take() {
            doors.put_before_nodes(config, links);
        }
        *lock(addresses) = config.nodes.iter().map(|node| node.peer.clone()).collect();
    }

    /// Nothing reaches these nodes, and nothing they say reaches anybody, nor a client.
    pub(super) async fn cut(&self, nodes: &[usize]) -> anyhow::Result<()> {
        match self {
            Self::Network(network) => {
                let nodes = nodes.to_vec();
                let cut = move |network: &Network| nodes.into_iter().try_for_each(|node| network.cut(node));
                network.elsewhere(cut).await
            }
            Self::Proxies { .. } => {
                let nodes = nodes.iter().map(|node| id(*node));
                self.change(|weather| weather.unreachable.extend(nodes));
                Ok(())
            }
        }
    }

    /// What the first of each pair says no longer reaches the second; the other way all is well.
    pub(super) async fn deafen(&self, links: &[(usize, usize)]) -> anyhow::Result<()> {
        match self {
            Self::Network(network) => {
                let links = links.to_vec();
                let deafen = move |network: &Network| {
                    links
                        .into_iter()
                        .try_for_each(|(from, to)| network.deafen(from, to))
                };
                network.elsewhere(deafen).await
            }
            Self::Proxies { .. } => {
                let links = links.iter().map(|(from, to)| (id(*from), id(*to)));
                self.change(|weather| weather.deaf.extend(links));
                Ok(())
            }
        }
    }

    /// What reaches this node takes its time.
    pub(super) async fn narrow(&self, node: usize, kilobits: u32) -> anyhow::Result<()> {
        self.squeeze(node, kilobits, SLOW_WAIT_MS, 0).await
    }

    /// Some of what is sent to this node never comes.
    pub(super) async fn lose(&self, node: usize) -> anyhow::Result<()> {
        self.squeeze(node, LOSSY_KILOBITS, LOSSY_WAIT_MS, BREAK_ONE_IN)
            .await
    }

    async fn squeeze(
        &self,
        node: usize,
        kilobits: u32,
        wait_ms: u32,
        break_one_in: u64,
    ) -> anyhow::Result<()> {
        match self {
            Self::Network(network) => {
                let narrowed = network.elsewhere(move |network| network.narrow(node, kilobits, wait_ms));
                narrowed.await
            }
            Self::Proxies { .. } => {
                let narrow = Narrow {
                    to: id(node),
                    kilobits,
                    break_one_in,
                };
                self.change(|weather| weather.narrow = Some(narrow));
                Ok(())
            }
        }
    }

    pub(super) async fn trouble(&self, node: usize) -> anyhow::Result<Trouble> {
        let (held_up, lost) = match self {
            Self::Network(network) => network.elsewhere(move |network| network.narrowed(node)).await?,
            Self::Proxies { links, .. } => links.trouble(),
        };
        Ok(Trouble { held_up, lost })
    }

    pub(super) fn what_is_lost(&self) -> &'static str {
        match self {
            Self::Network(_) => "packets",
            Self::Proxies { .. } => "connections",
        }
    }

    /// Whether something that one node says comes to the port of another, and an answer back.
    pub(super) async fn reaches(&self, from: usize, to: usize) -> bool {
        match self {
            Self::Network(network) => {
                let asked = network.elsewhere(move |network| Ok(network.reaches(from, to, PEER_PORT)));
                asked.await.unwrap_or(false)
            }
            Self::Proxies { addresses, .. } => {
                let address = lock(addresses).get(to).cloned();
                let asked = ask(address.unwrap_or_default(), id(from));
                tokio::time::timeout(REACHED, asked)
                    .await
                    .is_ok_and(|answer| answer.is_ok())
            }
        }
    }

    /// Whether any of these links carries something. All are asked at once: each that is cut takes its time to show it.
    pub(super) async fn any_reaches(&self, links: &[(usize, usize)]) -> bool {
        let asked = links.iter().map(|(from, to)| self.reaches(*from, *to));
        join_all(asked).await.contains(&true)
    }

    /// All links carry again, both ways.
    pub(super) async fn heal(&self) -> anyhow::Result<()> {
        match self {
            Self::Network(network) => network.elsewhere(Network::heal).await,
            Self::Proxies { .. } => {
                self.change(|weather| *weather = Weather::default());
                Ok(())
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        if let Self::Proxies { links, weather, .. } = self {
            let mut weather = lock(weather);
            change(&mut weather);
            links.set(weather.clone());
        }
    }
}

/// Opens a connection as a node would, but does not know what to say: whoever hears it hangs up.
async fn ask(address: String, from: u64) -> anyhow::Result<()> {
    /// Length, a checksum that is none, the protocol's version; then who it is.
    const HEAD: [u8; 9] = [2, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut stream = TcpStream::connect(&address).await.context("connect")?;
    let mut greeting = HEAD.to_vec();
    greeting.push(u8::try_from(from)?);
    stream.write_all(&greeting).await.context("greet")?;
    // Whether it ends well or badly, the answer is that it ended.
    let _ = stream.read(&mut [0; 1]).await;
    Ok(())
}

fn id(node: usize) -> u64 {
    node as u64 + 1
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use service::config::NodeConfig;

    use super::*;
    use crate::arena::free_address;
    use crate::arena::tests::beside_others;

    /// By whichever kind of wires can be had here.
    #[tokio::test]
    async fn links_that_are_cut_are_asked_at_once_and_hold_nobody_up() {
        const LINKS: [(usize, usize); 8] = [(0, 1); 8];
        let (wires, _) = Wires::open(true).await.unwrap();
        let nodes = (1..).take(SERVERS).map(|id| NodeConfig {
            id,
            peer: free_address().unwrap(),
            client: free_address().unwrap(),
            ..Config::default().nodes[0].clone()
        });
        let mut config = Config {
            nodes: nodes.collect(),
            ..Config::default()
        };
        wires.put_before_nodes(&mut config);
        wires.cut(&[1]).await.unwrap();
        let begin = Instant::now();
        let (carries, turns) = beside_others(wires.any_reaches(&LINKS)).await;
        assert!(!carries);
        assert!(begin.elapsed() < REACHED * 8, "one after the other");
        assert!(turns > 1, "others got {turns} turns");
        let (healed, turns) = beside_others(wires.heal()).await;
        healed.unwrap();
        if wires.network().is_some() {
            assert!(turns > 1, "others got {turns} turns");
        }
    }
}
