//! Whether the processes speak TLS, and with what.
//! Invariant: off unless it is switched on; but a port that others than this machine can reach needs it, or the
//! word of whoever runs the cluster that something else keeps strangers out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::check::{Faults, host_and_port};
use super::place::Step;
use super::{Config, check};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    pub enabled: bool,
    /// Where the certificates are; empty for `tls` in the data folder.
    pub folder: PathBuf,
    pub client_certificates: ClientCertificates,
    /// Ports may be open to other machines without TLS.
    pub plain_beyond_loopback: bool,
}

/// What is asked of those who call, besides their token. Nodes always show each other theirs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// Who shows a certificate must show a good one.
    #[default]
    Optional,
    Required,
}

/// A port that other machines reach would carry tokens and cards in the clear.
pub(super) fn check(config: &Config, faults: &mut Faults<'_>) {
    if config.tls.enabled || config.tls.plain_beyond_loopback {
        return;
    }
    for claim in check::claims(config) {
        let listens = match claim.key {
            // Listened on only where no other address is named for that.
            "client" => listen_of(config, &claim.path).is_none_or(|node| node.client_listen.is_none()),
            "peer" => listen_of(config, &claim.path).is_none_or(|node| node.peer_listen.is_none()),
            _ => true,
        };
        let open = host_and_port(claim.address).is_some_and(|(host, _)| !is_this_machine(host));
        if listens && open {
            let (key, address) = (claim.key, claim.address);
            faults.add(
                &claim.path,
                format!(
                    "{key} = \"{address}\" can be reached from other machines, so it needs tls.enabled = true \
                     (and `menagerie certs`), or tls.plain_beyond_loopback = true where something else keeps strangers out"
                ),
            );
        }
    }
}

fn listen_of<'c>(config: &'c Config, path: &[Step]) -> Option<&'c super::NodeConfig> {
    match path {
        [Step::Key("node"), Step::Index(index), ..] => config.nodes.get(*index),
        _ => None,
    }
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
