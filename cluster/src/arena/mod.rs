//! An arena: servers that belong to one run alone, to be measured and broken, in a folder and, for root on Linux,
//! a network of their own.
//! Invariant: whatever becomes of the run, its processes, links and files are gone once the arena is dropped.
//! It must not know what is measured, nor by whom.

mod doors;
mod etcd;
mod folder;
mod links;
mod network;
mod server;
mod store;
mod usage;

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

pub(crate) use doors::Doors;
pub(crate) use etcd::Etcd;
pub(crate) use folder::Folder;
pub(crate) use links::{Links, Narrow, Weather};
pub(crate) use network::Network;
pub(crate) use server::{ENDED, Lives, Server, Start};
pub(crate) use store::Store;
pub(crate) use usage::Usage;

/// How many servers of a kind there are; a majority is two.
pub(crate) const SERVERS: usize = 3;
/// For programs that take a moment; on a machine that is busy, many moments.
const PROGRAM_SECONDS_MAX: &str = "30";
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Addresses for so many listeners: on the hosts of a network at fixed ports, else on free ports of this machine.
fn addresses(
    network: Option<&Network>,
    hosts_from: usize,
    ports: [u16; 2],
) -> anyhow::Result<Vec<[String; 2]>> {
    let mut taken = Vec::new();
    let mut free = || -> anyhow::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        let address = listener.local_addr().context("find a free port")?.to_string();
        // Held until all are found, so that none is found twice.
        taken.push(listener);
        Ok(address)
    };
    let mut found = Vec::new();
    for server in 0..SERVERS {
        found.push(match network {
            Some(network) => ports.map(|port| format!("{}:{port}", network.address(hosts_from + server))),
            None => [free()?, free()?],
        });
    }
    Ok(found)
}

/// One more free port of this machine.
pub(crate) fn free_address() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.to_string())
}

/// A program of the system that is ended when it has not done its work after a while, by `timeout`, which Linux has.
pub(crate) fn within_time(program: &str) -> Command {
    if !cfg!(target_os = "linux") {
        return Command::new(program);
    }
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", PROGRAM_SECONDS_MAX, program]);
    command
}

/// Does on another thread what blocks its own: whoever else runs on this one, such as the clients of the run, goes on.
pub(crate) async fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.context("wait for another thread")?
}

/// Looks again and again until something is found; at the deadline it fails with what it waited for.
pub(crate) async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if Instant::now() > end {
            bail!("waited {} s in vain for {what}", deadline.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;
    use std::sync::mpsc;

    use super::*;

    /// What it comes to, and how often somebody else on this thread got a turn meanwhile.
    pub(crate) async fn beside_others<T>(work: impl Future<Output = T>) -> (T, u32) {
        const PACE: Duration = Duration::from_millis(1);
        let (is_done, turns) = (Cell::new(false), Cell::new(0));
        let others = async {
            while !is_done.get() {
                turns.set(turns.get() + 1);
                tokio::time::sleep(PACE).await;
            }
        };
        let work = async {
            let done = work.await;
            is_done.set(true);
            done
        };
        let ((), done) = tokio::join!(others, work);
        (done, turns.get())
    }

    #[tokio::test]
    async fn what_is_done_elsewhere_may_wait_for_somebody_here() {
        const DEADLINE: Duration = Duration::from_secs(10);
        let (say, hear) = mpsc::channel();
        let waits = elsewhere(move || hear.recv_timeout(DEADLINE).context("wait for a word"));
        let says = async { say.send("here").unwrap() };
        let (heard, ()) = tokio::join!(waits, says);
        assert_eq!(heard.unwrap(), "here");
    }
}
