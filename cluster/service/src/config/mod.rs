//! `cluster.toml`: the whole running system in one file.
//! Invariant: a `Config` that was loaded is sound: bounds hold, ids and addresses are there once.
//! Everything has a default, so that an empty file is a store of one node.
//! It holds no secrets, and knows nothing of what the settings do.

mod backup;
mod bounds;
mod check;
mod console;
mod gateway;
mod mirror;
mod models;
mod payment;
mod place;
mod predictors;
mod shop;
mod store;
mod tls;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

pub use backup::BackupConfig;
pub use bounds::{RANGE_ROWS_MIN, REQUEST_BYTES_MAX, TXN_OPS_MIN};
pub use console::ConsoleConfig;
pub use gateway::GatewayConfig;
pub use mirror::{MirrorConfig, MirrorEngine, MirrorMode, OnLoss};
pub use payment::PaymentConfig;
pub use place::Step;
pub use predictors::{Behaviour, ConsensusConfig, PredictorConfig, PredictorsConfig, UnknownBehaviour};
pub use shop::{Checkout, ShopAuth, ShopConfig};
pub use store::{LimitsConfig, NodeConfig, Role, StoreConfig};
pub use tls::{ClientCertificates, TlsConfig};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder that holds everything; each process has a folder of its name in it.
    pub data: PathBuf,
    pub cluster: ClusterConfig,
    pub tls: TlsConfig,
    pub console: ConsoleConfig,
    pub store: StoreConfig,
    pub backup: BackupConfig,
    pub limits: LimitsConfig,
    #[serde(rename = "node")]
    pub nodes: Vec<NodeConfig>,
    pub payment: PaymentConfig,
    pub shop: ShopConfig,
    pub gateway: GatewayConfig,
    pub predictors: PredictorsConfig,
    #[serde(rename = "predictor")]
    pub models: Vec<PredictorConfig>,
    pub consensus: ConsensusConfig,
    #[serde(rename = "mirror")]
    pub mirrors: Vec<MirrorConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("data"),
            cluster: ClusterConfig::default(),
            tls: TlsConfig::default(),
            console: ConsoleConfig::default(),
            store: StoreConfig::default(),
            backup: BackupConfig::default(),
            limits: LimitsConfig::default(),
            nodes: vec![NodeConfig {
                id: 1,
                client: "127.0.0.1:7001".to_owned(),
                peer: "127.0.0.1:7101".to_owned(),
                role: Role::Voter,
                client_listen: None,
                peer_listen: None,
            }],
            payment: PaymentConfig::default(),
            shop: ShopConfig::default(),
            gateway: GatewayConfig::default(),
            predictors: PredictorsConfig::default(),
            models: Vec::new(),
            consensus: ConsensusConfig::default(),
            mirrors: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// Told apart from other clusters by this name.
    pub name: String,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            name: "menagerie".to_owned(),
        }
    }
}

/// The instances of a service are named after it, in the order of their addresses.
fn named<'c>(service: &'c str, addresses: &'c [String]) -> impl Iterator<Item = (String, &'c str)> {
    let addresses = addresses.iter().enumerate();
    addresses.map(move |(index, address)| (format!("{service}{}", index + 1), address.as_str()))
}

fn named_address<'c>(service: &'c str, addresses: &'c [String], name: &str) -> Option<&'c str> {
    let mut instances = named(service, addresses);
    instances
        .find(|(known, _)| known == name)
        .map(|(_, address)| address)
}

/// Reads and checks the file; errors name it and the line.
pub fn load(path: &Path) -> anyhow::Result<Config> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("read {origin}"))?;
    parse(&text, &origin)
}

/// Parses and checks the text; `origin` is what errors call it.
pub fn parse(text: &str, origin: &str) -> anyhow::Result<Config> {
    let places = place::Places::read(text, origin)?;
    let config: Config = toml::from_str(text).map_err(|error| places.explain(&error))?;
    check::check(&config, &places)?;
    Ok(config)
}

/// `cluster.toml:12`, the place of a setting, for complaints that come up only when it is used.
pub fn locate(path: &Path, setting: &[Step]) -> String {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).unwrap_or_default();
    match place::Places::read(&text, &origin) {
        Ok(places) => places.of(setting),
        // It was sound when it was loaded, and somebody is editing it.
        Err(_unsound) => origin,
    }
}

impl Config {
    pub fn node(&self, id: u64) -> Option<&NodeConfig> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The folder of one process, for example `data/n1`.
    pub fn data_of(&self, process: &str) -> PathBuf {
        self.data.join(process)
    }

    /// Where backups go that are made by themselves.
    pub fn backup_folder(&self) -> PathBuf {
        if self.backup.folder.as_os_str().is_empty() {
            self.data.join("backups")
        } else {
            self.backup.folder.clone()
        }
    }

    /// Where the certificates of processes that use the data folder `data` are.
    pub fn tls_folder(&self, data: &Path) -> PathBuf {
        if self.tls.folder.as_os_str().is_empty() {
            data.join("tls")
        } else {
            self.tls.folder.clone()
        }
    }

    /// Where clients reach the store, in the order of the file.
    pub fn client_addresses(&self) -> Vec<String> {
        let nodes = self.nodes.iter();
        nodes.map(|node| node.client.clone()).collect()
    }

    pub fn voters(&self) -> BTreeSet<u64> {
        let voters = self.nodes.iter().filter(|node| node.role == Role::Voter);
        voters.map(|node| node.id).collect()
    }

    /// The text of a file that loads as this configuration.
    pub fn to_toml(&self) -> anyhow::Result<String> {
        toml::to_string(self).context("write the configuration as TOML")
    }
}
