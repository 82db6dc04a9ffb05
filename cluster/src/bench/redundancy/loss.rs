//! Takes disks away under load and counts which acknowledged writes are gone.
//! Invariant: a write counts from its acknowledgement on; what had none may be there or not.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kvstore_client::wire::level::Consistency;
use kvstore_client::{KvClient, RangeRequest, ReadOptions};
use serde::Serialize;
use service::config::{Config, NodeConfig};
use service::tasks::Tasks;

use super::Setup;
use super::scratch::{MIRROR, Scratch};

const WRITERS: usize = 8;
const WORKS_FOR: Duration = Duration::from_secs(2);
/// Who does not go on by then does not do so by itself.
const GOES_ON: Duration = Duration::from_secs(5);

#[derive(Serialize)]
pub(super) struct Loss {
    acknowledged: usize,
    lost_with_one_disk: usize,
    goes_on_after_ms: Option<u64>,
    lost_with_all_nodes: usize,
}

/// What was acknowledged, and when.
#[derive(Default)]
struct Told {
    keys: HashSet<String>,
    last: Option<Acknowledged>,
    /// The longest time without an acknowledgement since somebody began to look.
    longest: Duration,
}

#[derive(Clone, Copy)]
struct Acknowledged {
    begun: Instant,
    told: Instant,
}

impl Told {
    fn take(&mut self, key: String, begun: Instant, told: Instant) {
        self.longest = self
            .last
            .map_or(self.longest, |last| self.longest.max(told - last.told));
        self.last = Some(Acknowledged { begun, told });
        self.keys.insert(key);
    }

    /// How long nobody could write, once a write was acknowledged that had begun after the leader was gone.
    fn outage(&self, gone: Instant) -> Option<Duration> {
        self.last.filter(|last| last.begun > gone).map(|_| self.longest)
    }
}

type Shared = Arc<Mutex<Told>>;

impl Loss {
    fn share(&self, lost: usize) -> String {
        match lost {
            0 => "nothing".to_owned(),
            lost if lost == self.acknowledged => "everything".to_owned(),
            lost => format!("{lost} of {}", self.acknowledged),
        }
    }

    pub(super) fn of_one_disk(&self) -> String {
        self.share(self.lost_with_one_disk)
    }

    pub(super) fn of_all_nodes(&self) -> String {
        self.share(self.lost_with_all_nodes)
    }

    pub(super) fn goes_on(&self) -> String {
        let ms = self.goes_on_after_ms;
        ms.map_or_else(|| "never by itself".to_owned(), |ms| format!("after {ms} ms"))
    }
}

pub(super) async fn cause(scratch: &Scratch, setup: &Setup) -> anyhow::Result<Loss> {
    let (tasks, told) = (Tasks::new(), Shared::default());
    let writing = |tasks: &Tasks| -> anyhow::Result<()> {
        for number in 0..WRITERS {
            let client = scratch.client()?.with_deadline(Duration::from_secs(1));
            tasks.spawn("writer", write(client, number, Arc::clone(&told), tasks.clone()));
        }
        Ok(())
    };
    writing(&tasks)?;
    tokio::time::sleep(WORKS_FOR).await;
    let leader = scratch.leader().await?;
    told.lock().expect("no holder of the keys panics").longest = Duration::ZERO;
    scratch.kill(&leader).await?;
    let goes_on_after_ms = goes_on(&told, Instant::now()).await;
    // Looked for only among what was told before: more is written meanwhile.
    let before = keys(&told);
    let left = left_without(scratch, setup, &leader).await?;
    let lost_with_one_disk = before.difference(&left).count();
    if goes_on_after_ms.is_some() {
        tokio::time::sleep(WORKS_FOR).await;
    }
    scratch.kill_all(&others(&scratch.config, &leader)).await?;
    tasks.stop();
    tasks.drain(2 * GOES_ON).await;
    let all = keys(&told);
    let copied = if setup.mirror.is_some() {
        in_the_mirror(scratch).await?
    } else {
        HashSet::new()
    };
    let lost_with_all_nodes = all.difference(&copied).count();
    // With one disk gone and no other voter, all is gone that was there before.
    Ok(Loss {
        acknowledged: all.len(),
        lost_with_one_disk,
        goes_on_after_ms,
        lost_with_all_nodes,
    })
}

/// All that run beside this node, mirrors too: one that lived a little longer would still write what had come.
fn others(config: &Config, leader: &str) -> Vec<String> {
    let nodes = config.nodes.iter().map(NodeConfig::name);
    let mirrors = config.mirrors.iter().map(|mirror| mirror.name.clone());
    nodes.filter(|name| name != leader).chain(mirrors).collect()
}

fn keys(told: &Shared) -> HashSet<String> {
    told.lock().expect("no holder of the keys panics").keys.clone()
}

async fn write(client: KvClient, number: usize, told: Shared, tasks: Tasks) {
    for n in 0_u64.. {
        let (key, begun) = (format!("loss/{number}/{n}"), Instant::now());
        let written = tokio::select! {
            written = client.put(&key, "x") => written.is_ok(),
            () = tasks.stopping() => return,
        };
        if written {
            let mut told = told.lock().expect("no holder of the keys panics");
            told.take(key, begun, Instant::now());
        }
    }
}

/// Until a write is acknowledged that began after the leader was gone.
async fn goes_on(told: &Shared, gone: Instant) -> Option<u64> {
    loop {
        let outage = told.lock().expect("no holder of the keys panics").outage(gone);
        if let Some(outage) = outage {
            return u64::try_from(outage.as_millis()).ok();
        }
        if gone.elapsed() > GOES_ON {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What the other nodes have when this one's disk is gone.
async fn left_without(scratch: &Scratch, setup: &Setup, gone: &str) -> anyhow::Result<HashSet<String>> {
    std::fs::remove_dir_all(scratch.data_of(gone)).context("take the disk away")?;
    let nodes = scratch.config.nodes.iter().filter(|node| node.name() != gone);
    let nodes: Vec<String> = nodes.map(|node| node.client.clone()).collect();
    if nodes.is_empty() {
        return Ok(HashSet::new());
    }
    // A replica alone has no leader to ask.
    let consistency = match setup.voters {
        1 => Consistency::Local,
        _ => Consistency::Linearizable,
    };
    let range = RangeRequest {
        read: ReadOptions {
            consistency,
            revision: None,
        },
        ..RangeRequest::prefix("loss/")
    };
    let mut walk = scratch.client_of(nodes)?.pages(range);
    let mut left = HashSet::new();
    while let Some(page) = walk.next().await? {
        left.extend(page.kvs.into_iter().map(|kv| kv.key));
    }
    Ok(left)
}

async fn in_the_mirror(scratch: &Scratch) -> anyhow::Result<HashSet<String>> {
    let folder = scratch.data_of(MIRROR);
    let reading = tokio::task::spawn_blocking(move || {
        let rows = mirror::Source::open(&folder)?;
        rows.map(|row| row.map(|row| row.key)).collect()
    });
    reading.await?
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::SETUPS;
    use super::super::scratch::configuration;
    use super::*;

    #[test]
    fn a_mirror_does_not_outlive_the_nodes() {
        let config = |setup: &Setup| configuration(Path::new("/nowhere"), setup).unwrap();
        assert_eq!(others(&config(&SETUPS[4]), "n2"), ["n1", "n3", MIRROR]);
        assert!(others(&config(&SETUPS[0]), "n1").is_empty());
    }

    #[test]
    fn only_a_write_begun_after_the_leader_was_gone_tells_that_it_goes_on() {
        let mut told = Told::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        told.take("before".to_owned(), at(0), at(1));
        let gone = at(5);
        told.take("under way".to_owned(), at(2), at(30));
        assert_eq!(told.outage(gone), None);
        told.take("after".to_owned(), at(30), at(31));
        assert_eq!(told.outage(gone), Some(Duration::from_millis(29)));
    }
}
