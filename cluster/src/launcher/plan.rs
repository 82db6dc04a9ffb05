//! What runs for a configuration: the one list that the launcher, the console and `units` work from.
//! Invariant: the order is that of starting, and stopping goes the other way round; names stand once.
//! A new kind of process is one more function here that makes its rows.

use service::config::{Config, MirrorConfig, NodeConfig, PredictorConfig, Step};

/// One process, as the configuration wants it.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    /// Where clients reach it, and where `/readyz` tells whether it can do its work.
    pub(crate) address: String,
    /// The page a person would open there.
    pub(crate) page: &'static str,
    /// The arguments of `menagerie` that run it, without those that all processes get.
    pub(crate) arguments: Vec<String>,
    pub(crate) listens: Vec<Listen>,
}

/// An address that a process binds, and the setting that says so.
#[derive(Clone, Debug)]
pub(crate) struct Listen {
    pub(crate) address: String,
    pub(crate) setting: Vec<Step>,
}

impl Listen {
    /// The name of the setting, such as `client`.
    pub(crate) fn key(&self) -> &'static str {
        let keys = self.setting.iter().rev();
        let mut keys = keys.filter_map(|step| match step {
            Step::Key(key) => Some(*key),
            Step::Index(_) => None,
        });
        keys.next().unwrap_or("address")
    }
}

/// Everything that runs, in the order of starting.
pub(crate) fn processes(config: &Config) -> Vec<Process> {
    let nodes = config.nodes.iter().enumerate();
    let nodes = nodes.map(|(index, configured)| node(index, configured));
    let payments = config.payment.instances().enumerate();
    let payments = payments.map(|(index, (name, address))| PAYMENT.process(index, name, address));
    let shops = config.shop.instances().enumerate();
    let shops = shops.map(|(index, (name, address))| SHOP.process(index, name, address));
    let gateway = (!config.gateway.address.is_empty()).then(|| gateway(&config.gateway.address));
    let models = config.models.iter().enumerate();
    let models = models.map(|(index, configured)| model(index, configured));
    let consensus = config.consensus.instances().enumerate();
    let consensus = consensus.map(|(index, (name, address))| CONSENSUS.process(index, name, address));
    let services = payments.chain(shops).chain(gateway);
    let mirrors = config.mirrors.iter().enumerate();
    let mirrors = mirrors.map(|(index, configured)| mirror(index, configured));
    let others = services.chain(models).chain(consensus);
    nodes.chain(mirrors).chain(others).collect()
}

fn mirror(index: usize, mirror: &MirrorConfig) -> Process {
    Process {
        name: mirror.name.clone(),
        kind: "mirror",
        address: mirror.address.clone(),
        page: "/docs",
        arguments: vec!["mirror".to_owned(), "--name".to_owned(), mirror.name.clone()],
        listens: vec![Listen {
            address: mirror.address.clone(),
            setting: vec![Step::Key("mirror"), Step::Index(index), Step::Key("address")],
        }],
    }
}

fn model(index: usize, model: &PredictorConfig) -> Process {
    Process {
        name: model.name.clone(),
        kind: "predictor",
        address: model.address.clone(),
        page: "/docs",
        arguments: vec!["predictor".to_owned(), "--model".to_owned(), model.name.clone()],
        listens: vec![Listen {
            address: model.address.clone(),
            setting: vec![Step::Key("predictor"), Step::Index(index), Step::Key("address")],
        }],
    }
}

fn gateway(address: &str) -> Process {
    Process {
        name: crate::gateway::NAME.to_owned(),
        kind: "gateway",
        address: address.to_owned(),
        page: "/",
        arguments: vec!["gateway".to_owned()],
        listens: vec![Listen {
            address: address.to_owned(),
            setting: vec![Step::Key("gateway"), Step::Key("address")],
        }],
    }
}

/// A kind of service, whose instances keep nothing and differ only in name and address.
struct Service {
    kind: &'static str,
    section: &'static str,
    command: &'static str,
    page: &'static str,
}

const PAYMENT: Service = Service {
    kind: "payment",
    section: "payment",
    command: "pay",
    page: "/ledger",
};

const SHOP: Service = Service {
    kind: "petstore",
    section: "shop",
    command: "shop",
    page: "/",
};

const CONSENSUS: Service = Service {
    kind: "consensus",
    section: "consensus",
    command: "consensus",
    page: "/",
};

impl Service {
    fn process(&self, index: usize, name: String, address: &str) -> Process {
        Process {
            kind: self.kind,
            address: address.to_owned(),
            page: self.page,
            arguments: vec![self.command.to_owned(), "--name".to_owned(), name.clone()],
            listens: vec![Listen {
                address: address.to_owned(),
                setting: vec![
                    Step::Key(self.section),
                    Step::Key("addresses"),
                    Step::Index(index),
                ],
            }],
            name,
        }
    }
}

fn node(index: usize, node: &NodeConfig) -> Process {
    let listen = |address: &str, key| Listen {
        address: address.to_owned(),
        setting: vec![Step::Key("node"), Step::Index(index), Step::Key(key)],
    };
    let client = match &node.client_listen {
        Some(_) => "client_listen",
        None => "client",
    };
    let peer = match &node.peer_listen {
        Some(_) => "peer_listen",
        None => "peer",
    };
    Process {
        name: node.name(),
        kind: "node",
        address: node.client.clone(),
        page: "/docs",
        arguments: vec!["node".to_owned(), "--id".to_owned(), node.id.to_string()],
        listens: vec![
            listen(node.listens_to_clients(), client),
            listen(node.listens_to_peers(), peer),
        ],
    }
}
