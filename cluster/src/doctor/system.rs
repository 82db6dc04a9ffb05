//! The running cluster, as each of its nodes tells it: leader, members, versions and clocks.

use std::time::Duration;

use kvstore_client::KvClient;
use kvstore_client::wire::cluster::{Cluster, NodeStatus, Role};
use service::http;
use time::OffsetDateTime;

use super::Finding;
use crate::context::Context;

const DEADLINE: Duration = Duration::from_secs(2);
const LAG_WARNING: u64 = 10_000;
/// The clock in an answer has whole seconds.
const CLOCK_WARNING: time::Duration = time::Duration::seconds(3);

struct Seen {
    name: String,
    status: Option<NodeStatus>,
    clock: Option<OffsetDateTime>,
}

pub(super) async fn examine(context: &Context) -> Vec<Finding> {
    let Ok(secrets) = context.secrets() else {
        return Vec::new();
    };
    let token = secrets
        .token("root")
        .map(|token| token.expose().to_owned())
        .unwrap_or_default();
    let mut seen = Vec::new();
    for node in &context.config.nodes {
        seen.push(look(node.name(), &node.client, &token).await);
    }
    if seen.iter().all(|seen| seen.status.is_none()) {
        return vec![Finding::good(
            "cluster",
            "does not run, or cannot be reached from here",
        )];
    }
    let mut findings = vec![clocks(&seen), versions(&seen)];
    let client = client(&context.config.client_addresses(), &token);
    match client {
        Some(client) => match client.cluster().await {
            Ok(cluster) => findings.extend(members(&cluster)),
            Err(error) => findings.push(Finding::bad(
                "cluster",
                error.to_string(),
                "See `menagerie status` and the logs of the nodes.",
            )),
        },
        None => findings.push(Finding::bad(
            "cluster",
            "the configuration has no usable addresses",
            "See the nodes in cluster.toml.",
        )),
    }
    findings
}

fn client(addresses: &[String], token: &str) -> Option<KvClient> {
    KvClient::builder(addresses.iter().cloned())
        .token(token)
        .deadline(DEADLINE)
        .build()
        .ok()
}

async fn look(name: String, address: &str, token: &str) -> Seen {
    let status = match client(&[address.to_owned()], token) {
        Some(client) => client.status().await.ok(),
        None => None,
    };
    let answer = http::client(DEADLINE)
        .get(format!("{}/livez", http::base(address)))
        .send()
        .await
        .ok();
    let date = answer.and_then(|answer| {
        let date = answer.headers().get("date")?.to_str().ok()?;
        httpdate::parse_http_date(date).ok().map(OffsetDateTime::from)
    });
    Seen {
        name,
        status,
        clock: date,
    }
}

fn clocks(seen: &[Seen]) -> Finding {
    let now = OffsetDateTime::now_utc();
    let off = |clock: OffsetDateTime| (now - clock).abs();
    let wrong = seen.iter().filter_map(|seen| {
        let off = off(seen.clock?);
        (off >= CLOCK_WARNING).then(|| format!("{} by {off:.0}", seen.name))
    });
    let wrong: Vec<String> = wrong.collect();
    if wrong.is_empty() {
        return Finding::good("clocks", "agree with this machine's to the second");
    }
    Finding::warning(
        "clocks",
        format!("differ from this machine's: {}", wrong.join(", ")),
        "Nothing breaks: leases run on clocks that are never set. But times that are shown and the ends of certificates go by them; run a time service such as chrony.",
    )
}

fn versions(seen: &[Seen]) -> Finding {
    let mut versions: Vec<&str> = seen
        .iter()
        .filter_map(|seen| seen.status.as_ref())
        .map(|status| status.version.as_str())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() == 1 {
        return Finding::good("versions", format!("all nodes run {}", versions[0]));
    }
    Finding::warning(
        "versions",
        versions.join(", "),
        "Bring all nodes to one version, one after the other (`menagerie restart NAME`): a mixture is meant for the time of an upgrade.",
    )
}

fn members(cluster: &Cluster) -> Vec<Finding> {
    let mut findings = vec![match cluster.leader {
        Some(leader) => Finding::good("leader", format!("n{leader}, term {}", cluster.term)),
        None => Finding::bad(
            "leader",
            "no node leads",
            "More than half of the voters must run and reach each other. If they are lost for good: `menagerie kv recover`.",
        ),
    }];
    for member in &cluster.members {
        let what = format!("member {}", member.id);
        if member.role == Role::Unreachable {
            findings.push(Finding::bad(
                what,
                format!("cannot be reached at {}", member.peer_address),
                format!(
                    "Start it (`menagerie start n{0}`). If its disk is gone: `menagerie kv member replace {0} NEW`.",
                    member.id
                ),
            ));
        } else if let Some(lag) = member.lag.filter(|lag| *lag > LAG_WARNING) {
            findings.push(Finding::warning(
                what,
                format!("lacks {lag} entries"),
                "It catches up by itself; if it does not, its disk or its network is too slow for what is written.",
            ));
        }
    }
    findings
}
