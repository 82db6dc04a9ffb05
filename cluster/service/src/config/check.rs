//! What must hold between the settings: bounds, relations, nothing twice.
//! Invariant: all faults are told at once, each with its file and line.
//! It must not change a setting.

use std::collections::HashMap;

use anyhow::anyhow;

use super::place::{Places, Step};
use super::{Config, bounds, mirror, models, tls};

pub(super) fn check(config: &Config, places: &Places<'_>) -> anyhow::Result<()> {
    let mut faults = Faults {
        places,
        lines: Vec::new(),
    };
    names(config, &mut faults);
    bounds::check(config, &mut faults);
    relations(config, &mut faults);
    models::check(config, &mut faults);
    mirror::check(config, &mut faults);
    ids(config, &mut faults);
    addresses(config, &mut faults);
    tls::check(config, &mut faults);
    if faults.lines.is_empty() {
        return Ok(());
    }
    Err(anyhow!(faults.lines.join("\n")))
}

pub(super) struct Faults<'places> {
    places: &'places Places<'places>,
    lines: Vec<String>,
}

impl Faults<'_> {
    pub(super) fn add(&mut self, path: &[Step], what: impl AsRef<str>) {
        let place = self.places.of(path);
        self.lines.push(format!("{place}: {}", what.as_ref()));
    }
}

fn names(config: &Config, faults: &mut Faults<'_>) {
    let name = &config.cluster.name;
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(sound) {
        faults.add(
            &[Step::Key("cluster"), Step::Key("name")],
            format!("cluster.name = \"{name}\" must be 1 to 63 letters, digits, hyphens or underscores"),
        );
    }
    for (section, key, name) in [
        ("payment", "merchant", &config.payment.merchant),
        ("shop", "name", &config.shop.name),
    ] {
        if name.is_empty() || name.len() > 63 || !name.bytes().all(sound) {
            faults.add(
                &[Step::Key(section), Step::Key(key)],
                format!(
                    "{section}.{key} = \"{name}\" must be 1 to 63 letters, digits, hyphens or underscores"
                ),
            );
        }
    }
    for (section, currency) in [
        ("payment", &config.payment.currency),
        ("shop", &config.shop.currency),
    ] {
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            faults.add(
                &[Step::Key(section), Step::Key("currency")],
                format!("{section}.currency = \"{currency}\" must be the three capitals of a currency"),
            );
        }
    }
    if config.data.as_os_str().is_empty() {
        faults.add(&[Step::Key("data")], "data must name a folder");
    }
}

fn relations(config: &Config, faults: &mut Faults<'_>) {
    let (store, limits) = (&config.store, &config.limits);
    if store.election_min_ms <= 2 * store.heartbeat_ms {
        faults.add(
            &[Step::Key("store"), Step::Key("election_min_ms")],
            format!(
                "store.election_min_ms = {} must be more than twice store.heartbeat_ms = {}, \
                 or one lost heartbeat begins an election",
                store.election_min_ms, store.heartbeat_ms
            ),
        );
    }
    if store.election_max_ms < store.election_min_ms {
        faults.add(
            &[Step::Key("store"), Step::Key("election_max_ms")],
            format!(
                "store.election_max_ms = {} must not be less than store.election_min_ms = {}",
                store.election_max_ms, store.election_min_ms
            ),
        );
    }
    if limits.value_bytes_max > limits.request_bytes_max {
        faults.add(
            &[Step::Key("limits"), Step::Key("value_bytes_max")],
            "limits.value_bytes_max must not be more than limits.request_bytes_max, \
             or the largest value fits in no request",
        );
    }
    if limits.request_bytes_max > limits.proposals_bytes_max {
        faults.add(
            &[Step::Key("limits"), Step::Key("request_bytes_max")],
            "limits.request_bytes_max must not be more than limits.proposals_bytes_max, \
             or the largest request is always refused",
        );
    }
}

/// What the launcher itself calls something: words of its commands, logs, files and folders beside those of the
/// processes, and certificates beside theirs.
const OF_THE_LAUNCHER: [&str; 9] = [
    "backups",
    "ca",
    "client",
    "console",
    "leader",
    "lock",
    "logs",
    "supervisor",
    "tls",
];

/// Who has this name, of all that models and mirrors cannot share one with: each name is that of one process, its log,
/// its folder and its certificate.
pub(super) fn holder(config: &Config, name: &str) -> Option<&'static str> {
    let nodes = config.nodes.iter().map(|node| (node.name(), "a node"));
    let payments = config.payment.instances();
    let payments = payments.map(|(name, _)| (name, "a payment service"));
    let shops = config.shop.instances().map(|(name, _)| (name, "a shop"));
    let consensus = config.consensus.instances();
    let consensus = consensus.map(|(name, _)| (name, "a consensus"));
    let gateway = std::iter::once(("gateway".to_owned(), "the gateway"));
    let launcher = OF_THE_LAUNCHER.map(|name| (name.to_owned(), "the launcher"));
    let services = payments.chain(shops).chain(gateway).chain(consensus);
    let mut all = nodes.chain(services).chain(launcher);
    all.find(|(taken, _)| taken == name).map(|(_, holder)| holder)
}

fn ids(config: &Config, faults: &mut Faults<'_>) {
    if config.voters().is_empty() {
        faults.add(
            &[Step::Key("node")],
            "at least one node must have role = \"voter\"",
        );
    }
    let mut seen = HashMap::new();
    for (index, node) in config.nodes.iter().enumerate() {
        let path = [Step::Key("node"), Step::Index(index), Step::Key("id")];
        // Larger numbers would not survive the JSON numbers of every client.
        if !(1..1 << 53).contains(&node.id) {
            faults.add(&path, format!("node id {} must be 1 or more", node.id));
        }
        if let Some(first) = seen.insert(node.id, index) {
            let first = [Step::Key("node"), Step::Index(first), Step::Key("id")];
            let first = faults.places.of(&first);
            faults.add(&path, format!("node id {} is taken already, at {first}", node.id));
        }
    }
}

/// An address of the file, and what must hold for it.
pub(super) struct Claim<'config> {
    pub(super) path: Vec<Step>,
    pub(super) key: &'static str,
    pub(super) address: &'config str,
    /// Nobody else may have it: others connect to it.
    alone: bool,
    /// Any free port will do.
    port_may_be_0: bool,
}

pub(super) fn claims(config: &Config) -> Vec<Claim<'_>> {
    let mut claims = Vec::new();
    for (index, node) in config.nodes.iter().enumerate() {
        let claim = |key, address, alone| Claim {
            path: vec![Step::Key("node"), Step::Index(index), Step::Key(key)],
            key,
            address,
            alone,
            // Any free port is fine for a node alone, but nobody else could find it.
            port_may_be_0: config.nodes.len() == 1,
        };
        claims.push(claim("client", node.client.as_str(), true));
        claims.push(claim("peer", &node.peer, true));
        // Nodes on different machines may well listen on the same address.
        let listens = [
            ("client_listen", &node.client_listen),
            ("peer_listen", &node.peer_listen),
        ];
        for (key, address) in listens {
            claims.extend(address.as_deref().map(|address| claim(key, address, false)));
        }
    }
    let single = [
        ("console", &config.console.address, true),
        ("gateway", &config.gateway.address, false),
    ];
    for (section, address, port_may_be_0) in single {
        if !address.is_empty() {
            claims.push(Claim {
                path: vec![Step::Key(section), Step::Key("address")],
                key: "address",
                address,
                alone: true,
                port_may_be_0,
            });
        }
    }
    for (section, addresses) in [
        ("payment", &config.payment.addresses),
        ("shop", &config.shop.addresses),
    ] {
        claims.extend(addresses.iter().enumerate().map(|(index, address)| Claim {
            path: vec![Step::Key(section), Step::Key("addresses"), Step::Index(index)],
            key: section,
            address,
            alone: true,
            port_may_be_0: false,
        }));
    }
    claims.extend(of_processes(config));
    claims
}

/// Those of processes that are listed one by one.
fn of_processes(config: &Config) -> impl Iterator<Item = Claim<'_>> {
    let consensus = config.consensus.addresses.iter().enumerate();
    let consensus = consensus.map(|(index, address)| {
        let path = vec![Step::Key("consensus"), Step::Key("addresses"), Step::Index(index)];
        (path, "consensus", address)
    });
    let models = config.models.iter().enumerate();
    let models = models.map(|(index, model)| {
        let path = vec![Step::Key("predictor"), Step::Index(index), Step::Key("address")];
        (path, "predictor", &model.address)
    });
    let mirrors = config.mirrors.iter().enumerate();
    let mirrors = mirrors.map(|(index, mirror)| {
        let path = vec![Step::Key("mirror"), Step::Index(index), Step::Key("address")];
        (path, "mirror", &mirror.address)
    });
    let all = models.chain(consensus).chain(mirrors);
    all.map(|(path, key, address)| Claim {
        path,
        key,
        address,
        alone: true,
        port_may_be_0: false,
    })
}

fn addresses(config: &Config, faults: &mut Faults<'_>) {
    let mut seen: HashMap<(String, u16), Vec<Step>> = HashMap::new();
    for claim in claims(config) {
        let Claim {
            path, key, address, ..
        } = claim;
        let Some((host, port)) = host_and_port(address) else {
            faults.add(
                &path,
                format!("{key} = \"{address}\" must be host:port, such as 127.0.0.1:7001"),
            );
            continue;
        };
        if port == 0 {
            if !claim.port_may_be_0 {
                faults.add(
                    &path,
                    format!("{key} = \"{address}\": where others must find it, it needs a fixed port"),
                );
            }
            continue;
        }
        if !claim.alone {
            continue;
        }
        if let Some(first) = seen.insert((host.to_ascii_lowercase(), port), path.clone()) {
            let first = faults.places.of(&first);
            faults.add(
                &path,
                format!("{key} = \"{address}\" is taken already, at {first}"),
            );
        }
    }
}

pub(super) fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let sound = !host.is_empty()
        && (bracketed || !host.contains(':'))
        && !host.contains(|character: char| character.is_whitespace() || character == '/');
    let port = port.bytes().all(|byte| byte.is_ascii_digit()).then_some(port)?;
    sound.then_some((host, port.parse().ok()?))
}
