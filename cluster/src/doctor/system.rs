//! The running cluster, as each of its nodes tells it: leader, members, versions, clocks, and the copies beside them.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use kvstore_client::KvClient;
use kvstore_client::wire::cluster::{Cluster, NodeStatus, Role};
use service::http;
use service::time::now_ms;
use time::OffsetDateTime;
use tokio::net::TcpStream;

use super::{Finding, copies};
use crate::context::Context;
use crate::launcher::place::Place;

const DEADLINE: Duration = Duration::from_secs(2);
const LAG_WARNING: u64 = 10_000;
/// The clock in an answer has whole seconds.
const CLOCK_WARNING: time::Duration = time::Duration::seconds(3);

struct Seen {
    name: String,
    status: anyhow::Result<NodeStatus>,
    /// Whether somebody is at its address, whatever was answered there.
    is_there: bool,
    /// How far its clock was from that of this machine when it answered.
    clock_off: Option<time::Duration>,
}

pub(super) async fn examine(context: &Context) -> Vec<Finding> {
    let Ok(secrets) = context.secrets() else {
        return Vec::new();
    };
    let token = secrets
        .token("root")
        .map(|token| token.expose().to_owned())
        .unwrap_or_default();
    let nodes = context.config.nodes.iter();
    // Side by side: one that hangs shall not hold up what is seen of the others.
    let seen = join_all(nodes.map(|node| look(node.name(), &node.client, &token))).await;
    if seen.iter().all(|seen| seen.status.is_err()) {
        return vec![silence(Place::new(&context.data).is_locked(), &seen)];
    }
    let mut findings = vec![clocks(&seen), versions(&seen)];
    let client = client(&context.config.client_addresses(), &token);
    match client {
        Some(client) => {
            match client.cluster().await {
                Ok(cluster) => {
                    findings.extend(copies::backups(context, &cluster.cluster_id, now_ms()));
                    findings.extend(members(&cluster, &Place::new(&context.data)));
                }
                Err(error) => findings.push(Finding::bad(
                    "cluster",
                    error.to_string(),
                    "See `menagerie status` and the logs of the nodes.",
                )),
            }
            match client.mirrors().await {
                Ok(told) => findings.extend(copies::mirrors(&context.config.mirrors, &told)),
                Err(error) => findings.push(Finding::warning(
                    "mirrors",
                    error.to_string(),
                    "Whether they have every write is not known: only the leader tells it. Look again when one leads.",
                )),
            }
        }
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
    let status = async {
        let client = client(&[address.to_owned()], token).context("its address is not usable")?;
        anyhow::Ok(client.status().await?)
    };
    let alive = async {
        let livez = format!("{}/livez", http::base(address));
        let answer = http::client(DEADLINE).get(livez).send().await;
        (answer, OffsetDateTime::now_utc())
    };
    let (status, (answer, now), is_there) = tokio::join!(status, alive, takes_connections(address));
    let clock = answer.ok().and_then(|answer| {
        let date = answer.headers().get("date")?.to_str().ok()?;
        httpdate::parse_http_date(date).ok().map(OffsetDateTime::from)
    });
    Seen {
        name,
        status,
        is_there,
        clock_off: clock.map(|clock| (now - clock).abs()),
    }
}

/// Whatever is spoken there: with TLS, a node that hangs and one of another authority look as if they had not even been
/// connected to.
async fn takes_connections(address: &str) -> bool {
    let connected = tokio::time::timeout(DEADLINE, TcpStream::connect(address)).await;
    matches!(connected, Ok(Ok(_)))
}

/// No node says how it stands: that is well only where none is meant to run.
fn silence(held: bool, seen: &[Seen]) -> Finding {
    if !held && !seen.iter().any(|seen| seen.is_there) {
        return Finding::good("cluster", "does not run, or cannot be reached from here");
    }
    let reasons = seen.iter().filter_map(|seen| {
        let error = seen.status.as_ref().err()?;
        Some(format!("{}: {error:#}", seen.name))
    });
    let reasons: Vec<String> = reasons.collect();
    Finding::bad(
        "cluster",
        format!("runs, but no node says how it stands ({})", reasons.join("; ")),
        "See `menagerie status` and `menagerie logs`. Nodes that do not know the token are of another cluster than \
         secrets.toml in the data folder.",
    )
}

fn clocks(seen: &[Seen]) -> Finding {
    let read = seen
        .iter()
        .filter_map(|seen| Some((seen.name.as_str(), seen.clock_off?)));
    let read: Vec<(&str, time::Duration)> = read.collect();
    if read.is_empty() {
        return Finding::warning(
            "clocks",
            "no node has told the time",
            "Whether they agree is not known: look again when the nodes answer.",
        );
    }
    let wrong = read.iter().filter(|(_, off)| *off >= CLOCK_WARNING);
    let wrong: Vec<String> = wrong.map(|(name, off)| format!("{name} by {off:.0}")).collect();
    if wrong.is_empty() {
        let said = format!(
            "{} of {} nodes agree with this machine's to the second",
            read.len(),
            seen.len()
        );
        return Finding::good("clocks", said);
    }
    Finding::warning(
        "clocks",
        format!("differ from this machine's: {}", wrong.join(", ")),
        "Nothing breaks: leases run on clocks that are never set. But times that are shown and the ends of certificates go by them; run a time service such as chrony.",
    )
}

fn versions(seen: &[Seen]) -> Finding {
    let told = seen.iter().filter_map(|seen| seen.status.as_ref().ok());
    let mut versions: Vec<&str> = told.map(|status| status.version.as_str()).collect();
    let read = versions.len();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() == 1 {
        let said = format!("{read} of {} nodes run {}", seen.len(), versions[0]);
        return Finding::good("versions", said);
    }
    Finding::warning(
        "versions",
        versions.join(", "),
        "Bring all nodes to one version, one after the other (`menagerie restart NAME`): a mixture is meant for the time of an upgrade.",
    )
}

fn members(cluster: &Cluster, place: &Place) -> Vec<Finding> {
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
            let id = member.id;
            let advice = if place.damage_of(&format!("n{id}")).is_some() {
                format!(
                    "Its folder is damaged, so starting it is of no use: `menagerie kv member replace {id} NEW`."
                )
            } else {
                format!(
                    "Start it (`menagerie start n{id}`). If its disk is gone: `menagerie kv member replace {id} NEW`."
                )
            };
            let said = format!("cannot be reached at {}", member.peer_address);
            findings.push(Finding::bad(what, said, advice));
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

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn seen(is_there: bool) -> Seen {
        Seen {
            name: "n1".to_owned(),
            status: Err(anyhow::anyhow!("it does not know the token")),
            is_there,
            clock_off: None,
        }
    }

    #[tokio::test]
    async fn somebody_is_there_who_says_nothing() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = look("n1".to_owned(), &address, "token").await;
        assert!(seen.is_there && seen.status.is_err() && seen.clock_off.is_none());
        drop(listener);
        assert!(!look("n1".to_owned(), &address, "token").await.is_there);
    }

    #[test]
    fn silence_is_well_only_where_nobody_is_meant_to_speak() {
        let nobody = silence(false, &[seen(false), seen(false)]);
        assert_eq!(nobody.verdict, Verdict::Good);
        let refused = silence(false, &[seen(false), seen(true)]);
        assert_eq!(refused.verdict, Verdict::Bad);
        assert!(refused.said.contains("n1: it does not know the token"));
        assert_eq!(silence(true, &[seen(false)]).verdict, Verdict::Bad);
    }

    #[test]
    fn a_member_that_cannot_start_is_not_told_to_be_started() {
        let data = tempfile::tempdir().unwrap();
        let place = Place::new(data.path());
        let cluster = serde_json::json!({
            "cluster_id": "c", "leader": 1, "term": 1,
            "members": [{"id": 3, "address": "127.0.0.1:1", "peer_address": "127.0.0.1:2", "role": "unreachable"}],
        });
        let cluster: Cluster = serde_json::from_value(cluster).unwrap();
        let advice = || members(&cluster, &place)[1].advice.clone().unwrap();
        assert!(advice().contains("menagerie start n3"), "{}", advice());
        std::fs::create_dir(data.path().join("n3")).unwrap();
        std::fs::write(data.path().join("n3/DAMAGED"), "tables are damaged").unwrap();
        assert!(!advice().contains("menagerie start"), "{}", advice());
        assert!(advice().contains("kv member replace 3 NEW"), "{}", advice());
    }

    #[test]
    fn clocks_that_nobody_has_read_are_not_said_to_agree() {
        assert_eq!(clocks(&[seen(true)]).verdict, Verdict::Warning);
        let clock = |seconds| Seen {
            clock_off: Some(time::Duration::seconds(seconds)),
            ..seen(true)
        };
        let part = clocks(&[clock(1), seen(true)]);
        assert_eq!(part.verdict, Verdict::Good);
        assert!(part.said.starts_with("1 of 2 nodes"), "{}", part.said);
        assert_eq!(clocks(&[clock(1), clock(3)]).verdict, Verdict::Warning);
    }
}
