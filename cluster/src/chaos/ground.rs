//! What can be broken: three nodes, each with a disk, wires and a shim of its own, as far as this machine lets us.
//! Invariant: what is left out is said; the fields are dropped in the order in which things must go.

use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use kvstore_client::KvClient;
use service::tasks::Tasks;

use super::disk::Disk;
use super::lives;
use super::shim::{self, Shim};
use super::wires::Wires;
use crate::arena::{Folder, SERVERS, Server, Store, free_address};

/// Free room below which a node refuses writes; its disk has some four times that.
pub(super) const FREE_MIN: u64 = 160 << 20;

pub(super) struct Ground {
    pub(super) store: Store,
    pub(super) client: KvClient,
    pub(super) shims: Vec<Shim>,
    pub(super) disks: Vec<Disk>,
    pub(super) wires: Wires,
    pub(super) left_out: Vec<String>,
    folder: Folder,
}

impl Ground {
    /// `as_root` only where root is root: what needs it is left out otherwise.
    pub(super) async fn open(data: &Path, tasks: &Tasks, as_root: bool) -> anyhow::Result<Self> {
        let folder = Folder::beside(data)?;
        let mut left_out = Vec::new();
        let (wires, hindrance) = Wires::open(as_root).await?;
        if let Some(why) = hindrance {
            left_out.push(format!(
                "packets that get lost, for there are only proxies: {why}"
            ));
        }
        let disks = if as_root {
            disks(folder.path())
        } else {
            Err(anyhow::anyhow!("disks of their own need root"))
        };
        let disks = disks.unwrap_or_else(|error| {
            left_out.push(format!(
                "power loss, at any moment or step, and full disks: {error:#}"
            ));
            Vec::new()
        });
        let built = shim::build(folder.path());
        let mut shims = Vec::new();
        match &built {
            Ok(_) => {
                for number in 0..SERVERS {
                    shims.push(Shim::new(folder.path().join(format!("shim{number}")))?);
                }
            }
            Err(error) => left_out.push(format!(
                "wrong clocks, slow and failing syncs, ends at a step: {error:#}"
            )),
        }
        let environment = |index: usize| match (&built, shims.get(index)) {
            (Ok(library), Some(shim)) => vec![
                ("LD_PRELOAD".to_owned(), library.display().to_string()),
                ("MENAGERIE_SHIM".to_owned(), shim.path.display().to_string()),
            ],
            _ => Vec::new(),
        };
        let (pay, shop) = (free_address()?, free_address()?);
        let change = |config: &mut service::config::Config| {
            wires.put_before_nodes(config);
            // Snapshots happen also in short runs, and nodes that were away need them.
            config.store.snapshot_log_entries = 1000;
            config.store.log_keep_entries = 200;
            config.limits.disk_free_bytes_min = FREE_MIN;
            config.payment.addresses = vec![pay];
            config.shop.addresses = vec![shop];
        };
        let network = wires.network();
        let store = Store::start_with(folder.path(), network, 0, change, environment).await?;
        let client = super::clients::client(&store.endpoints(), store.token(), tasks)?;
        Ok(Self {
            store,
            client,
            shims,
            disks,
            wires,
            left_out,
            folder,
        })
    }

    /// Where all files of this run are.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn server(&mut self, index: usize) -> &mut Server {
        &mut self.store.servers[index]
    }

    /// Kills these nodes, which must live until then, all in the same moment, and sees them dead.
    pub(super) async fn kill(&mut self, victims: &[usize]) -> anyhow::Result<()> {
        lives::kill(&mut self.store.servers, victims).await
    }

    /// From now on these nodes may panic and end by themselves, for their disks will fail; until now they must live.
    pub(super) fn excuse(&mut self, victims: &[usize]) -> anyhow::Result<()> {
        for victim in victims {
            lives::excuse(self.server(*victim))?;
        }
        Ok(())
    }

    /// Sees these nodes dead, whether they have ended by themselves or not.
    pub(super) async fn end(&mut self, victims: &[usize]) -> anyhow::Result<()> {
        lives::end(&mut self.store.servers, victims).await
    }

    /// A client of one node only.
    pub(super) fn only(&self, index: usize) -> anyhow::Result<KvClient> {
        self.client_of(|other| other == index)
    }

    /// A client of all nodes but this one.
    pub(super) fn without(&self, index: usize) -> anyhow::Result<KvClient> {
        self.client_of(|other| other != index)
    }

    fn client_of(&self, is_known: impl Fn(usize) -> bool) -> anyhow::Result<KvClient> {
        let endpoints = self.store.endpoints().into_iter().enumerate();
        let known = endpoints.filter(|(index, _)| is_known(*index));
        let builder = KvClient::builder(known.map(|(_, endpoint)| endpoint)).token(self.store.token());
        Ok(builder.deadline(Duration::from_secs(5)).build()?)
    }
}

/// A disk under each node that does not run yet.
fn disks(folder: &Path) -> anyhow::Result<Vec<Disk>> {
    let mut disks = Vec::new();
    let data = folder.join("data");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&data)
        .context("make the data folder")?;
    for number in 1..=SERVERS {
        disks.push(Disk::new(folder, &format!("disk{number}"))?);
    }
    for (number, disk) in (1..).zip(&disks) {
        symlink(disk.data(), data.join(format!("n{number}"))).context("put a disk under a node")?;
    }
    Ok(disks)
}
