//! The same faults to three nodes of the store and to three members of etcd, on servers and a network of their own.
//! Invariant: both sides are written to by the same writers at the same rate, and only one side at a time. The writers
//! run on this thread, so nothing here may hold it up while a gap is measured, or nobody would see it end.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::future::join_all;
use hyper::{Method, Uri};
use rustix::process::Signal;

use super::comparison::{Comparison, Kind};
use super::{EVERYTHING, How, NOBODY, Report, SETTLE, Seen, TRY_DEADLINE, WINDOW, WRITERS, writes_flow};
use crate::arena::{Etcd, Folder, Network, SERVERS, Server, Store};
use crate::bench::connection::{Connection, Outcome, uri};
use crate::context::Context;
use crate::etcd::{Call, Client};

/// Each writer begins a write so often: all together 1600 a second.
const PACE: Duration = Duration::from_millis(5);
const KEY: &str = "bench/failover";

enum Side {
    Store(Box<Store>),
    Etcd(Etcd),
}

pub(super) async fn run(
    context: &Context,
    kills: u32,
    named: &[How],
    with_etcd: bool,
) -> anyhow::Result<Comparison> {
    let mut left_out = Vec::new();
    let (network, hows) = match Network::open(2 * SERVERS) {
        Ok(network) => (Some(Arc::new(network)), everything_or(named)),
        Err(why) => {
            let (hows, cuts) = without_network(named, why)?;
            left_out.extend(cuts);
            (None, hows)
        }
    };
    let folder = Folder::beside(&context.data)?;
    let store = Store::start(folder.path(), network.as_deref(), 0, |_| {}).await?;
    let mut store = Stage::new(Side::Store(Box::new(store)), network.clone(), 0);
    let (mut etcd, mut etcd_version) = (None, None);
    match Etcd::find() {
        _ if !with_etcd => left_out.push("etcd: left out by --without-etcd".to_owned()),
        None => left_out.push("etcd: there is none here; `.ci/setup bench` installs it".to_owned()),
        Some(program) => {
            let started = Etcd::start(&program, folder.path(), network.as_deref(), SERVERS).await?;
            etcd_version = Some(started.version.clone());
            etcd = Some(Stage::new(Side::Etcd(started), network.clone(), SERVERS));
        }
    }
    for left_out in &left_out {
        context.output.note(format_args!("left out: {left_out}"));
    }
    let progress = context
        .output
        .progress(hows.len() as u64 * u64::from(kills), "faults");
    let mut kinds = Vec::new();
    for how in hows {
        let menagerie = store
            .take_away(how, kills)
            .await
            .with_context(|| format!("{how:?} the leader"))?;
        let etcd = match &mut etcd {
            Some(etcd) => Some(
                etcd.take_away(how, kills)
                    .await
                    .with_context(|| format!("{how:?} etcd's leader"))?,
            ),
            None => None,
        };
        kinds.push(Kind::new(how, menagerie, etcd));
        progress.inc(u64::from(kills));
    }
    progress.finish_and_clear();
    Ok(Comparison::new(etcd_version, kinds, left_out))
}

fn everything_or(named: &[How]) -> Vec<How> {
    if named.is_empty() {
        EVERYTHING.to_vec()
    } else {
        named.to_vec()
    }
}

/// What can be done all the same, and what is left out if nothing was named. What was is an error: a run that left it out
/// would end well, with a report of nothing in place of that of a run before.
fn without_network(named: &[How], why: anyhow::Error) -> anyhow::Result<(Vec<How>, Option<String>)> {
    if named.contains(&How::Cut) {
        return Err(why.context("the network cannot be cut here; leave out --how cut"));
    }
    let mut hows = everything_or(named);
    let cuts = hows.contains(&How::Cut).then(|| format!("network cuts: {why:#}"));
    hows.retain(|how| *how != How::Cut);
    Ok((hows, cuts))
}

/// One side and its place in the network.
struct Stage {
    side: Side,
    network: Option<Arc<Network>>,
    hosts_from: usize,
}

impl Stage {
    fn new(side: Side, network: Option<Arc<Network>>, hosts_from: usize) -> Self {
        Self {
            side,
            network,
            hosts_from,
        }
    }

    fn server(&mut self, index: usize) -> &mut Server {
        match &mut self.side {
            Side::Store(store) => &mut store.servers[index],
            Side::Etcd(etcd) => &mut etcd.servers[index],
        }
    }

    /// Waits until all can do their work; answers who leads.
    async fn ready(&self) -> anyhow::Result<usize> {
        match &self.side {
            Side::Store(store) => store.ready().await,
            Side::Etcd(etcd) => etcd.ready().await,
        }
    }

    /// Waits until all is well, and for a moment more.
    async fn settle(&self) -> anyhow::Result<()> {
        self.ready().await?;
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    async fn take_away(&mut self, how: How, kills: u32) -> anyhow::Result<Report> {
        let seen = RefCell::new(Seen::new());
        let writers = (0..WRITERS).map(|number| Writer::new(&self.side, number));
        let writers = writers.collect::<anyhow::Result<Vec<_>>>()?;
        let faults = async {
            let faults = self.faults(how, kills, &seen).await;
            seen.borrow_mut().stop = true;
            faults
        };
        let writing = (0..)
            .zip(&writers)
            .map(|(number, writer)| writer.run(number, &seen));
        let (faults, _) = tokio::join!(faults, join_all(writing));
        Ok(Report::of(how, faults?, seen.into_inner().successes))
    }

    async fn faults(
        &mut self,
        how: How,
        kills: u32,
        seen: &RefCell<Seen>,
    ) -> anyhow::Result<Vec<super::Fault>> {
        let mut faults = Vec::new();
        self.settle().await?;
        seen.borrow_mut().begin();
        for _ in 0..kills {
            if !writes_flow(seen).await {
                bail!(NOBODY);
            }
            let leader = self.ready().await?;
            seen.borrow_mut().gaps.forget();
            let end = Instant::now() + WINDOW;
            self.harm(how, leader).await?;
            tokio::time::sleep_until(end.into()).await;
            // A gap is measured to its end, however long that takes.
            let recovered = writes_flow(seen).await;
            let name = self.server(leader).name().to_owned();
            let fault = seen.borrow_mut().fault(name, recovered);
            self.heal(how, leader).await?;
            self.settle().await?;
            faults.push(seen.borrow_mut().well_again(fault));
        }
        Ok(faults)
    }

    async fn harm(&mut self, how: How, leader: usize) -> anyhow::Result<()> {
        if how == How::Cut {
            let host = self.hosts_from + leader;
            return self.on_network(move |network| network.cut(host)).await;
        }
        strike(self.server(leader), how)
    }

    async fn heal(&mut self, how: How, leader: usize) -> anyhow::Result<()> {
        match how {
            How::Kill | How::Term => {
                self.server(leader).ended().await?;
                self.server(leader).start()
            }
            How::Pause => self.server(leader).signal(Signal::CONT),
            How::Cut => self.on_network(Network::heal).await,
        }
    }

    async fn on_network(
        &self,
        change: impl FnOnce(&Network) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let network = self.network.as_ref();
        let network = network.context("there is no network of our own to cut")?;
        network.elsewhere(change).await
    }
}

/// Sends the signal and no more: the end of the process is waited for when the gap has been measured.
fn strike(server: &Server, how: How) -> anyhow::Result<()> {
    server.signal(match how {
        How::Kill => Signal::KILL,
        How::Term => Signal::TERM,
        How::Pause => Signal::STOP,
        How::Cut => bail!("a network is not cut by a signal"),
    })
}

enum Writer {
    Store {
        connection: Box<Connection>,
        urls: Vec<Uri>,
    },
    Etcd {
        clients: Vec<Client>,
        call: Call,
    },
}

impl Writer {
    fn new(side: &Side, number: usize) -> anyhow::Result<Self> {
        let key = format!("{KEY}/{number}");
        Ok(match side {
            Side::Store(store) => {
                let url = |endpoint: String| uri(&format!("http://{endpoint}/v1/kv/{key}"));
                let urls = store
                    .endpoints()
                    .into_iter()
                    .map(url)
                    .collect::<anyhow::Result<_>>()?;
                let connection = Box::new(Connection::new(store.token(), TRY_DEADLINE)?);
                Self::Store { connection, urls }
            }
            Side::Etcd(etcd) => {
                let clients = etcd
                    .endpoints
                    .iter()
                    .map(|endpoint| Client::new(endpoint, TRY_DEADLINE));
                Self::Etcd {
                    clients: clients.collect::<anyhow::Result<_>>()?,
                    call: Call::put(&key, b"x"),
                }
            }
        })
    }

    async fn write(&self, node: usize) -> Outcome {
        match self {
            Self::Store { connection, urls } => {
                let url = urls[node % urls.len()].clone();
                connection
                    .send(Method::PUT, url, Some(Bytes::from_static(b"x")), None)
                    .await
            }
            Self::Etcd { clients, call } => clients[node % clients.len()].call(call).await.into(),
        }
    }

    /// Writes at its pace; after a failed try it goes to the next node at once.
    async fn run(&self, number: u32, seen: &RefCell<Seen>) {
        let mut node = number as usize;
        let writers = u32::try_from(WRITERS).unwrap_or(1);
        let mut next = Instant::now() + PACE * number / writers;
        while !seen.borrow().stop {
            tokio::time::sleep_until(next.into()).await;
            let outcome = self.write(node).await;
            if outcome == Outcome::Done {
                let mut seen = seen.borrow_mut();
                seen.gaps.success(Instant::now());
                seen.successes += 1;
                // What an outage kept from being written is not caught up with.
                next = (next + PACE).max(Instant::now());
            } else {
                seen.borrow_mut().failures.count(outcome);
                node += 1;
                // A node that is down refuses in microseconds; this keeps the hopping from being a busy loop.
                next = Instant::now() + Duration::from_millis(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Start;

    #[test]
    fn without_a_network_cuts_are_left_out_but_not_where_they_were_asked_for() {
        let without = |named: &[How]| without_network(named, anyhow::anyhow!("no root"));
        let (hows, cuts) = without(&[]).unwrap();
        assert_eq!(hows, [How::Kill, How::Term, How::Pause]);
        assert_eq!(cuts.unwrap(), "network cuts: no root");
        assert_eq!(without(&[How::Pause]).unwrap(), (vec![How::Pause], None));
        for named in [&[How::Cut][..], &[How::Kill, How::Cut]] {
            let told = format!("{:#}", without(named).unwrap_err());
            assert!(told.contains("--how cut") && told.ends_with("no root"), "{told}");
        }
    }

    #[tokio::test]
    async fn the_end_of_one_that_is_killed_is_not_waited_for_before_it_is_healed() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::new(Start {
            name: "sleeper".to_owned(),
            program: "sleep".into(),
            arguments: vec!["60".to_owned()],
            environment: Vec::new(),
            namespace: None,
            log: folder.path().join("log"),
        });
        server.start().unwrap();
        strike(&server, How::Kill).unwrap();
        assert!(server.pid().is_some(), "it was waited for");
        server.ended().await.unwrap();
        server.start().unwrap();
    }
}
