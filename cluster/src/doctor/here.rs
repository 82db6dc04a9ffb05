//! This machine: its disk, its limits, the data folder and those of its nodes, ports and certificates.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use service::config::NodeConfig;
use service::{open_files, tls};
use time::OffsetDateTime;

use super::Finding;
use crate::certificates::{self, Certificate, RENEW_AUTHORITY, RENEW_BEFORE};
use crate::context::Context;
use crate::launcher::place::Place;
use crate::launcher::{plan, ports};

const SYNCS: usize = 30;
const BLOCK: [u8; 4096] = [0x5a; 4096];
/// An acknowledgement waits for one sync, at least.
const SYNC_WARNING: Duration = Duration::from_millis(10);
const SYNC_BAD: Duration = Duration::from_millis(100);

pub(super) fn examine(context: &Context) -> Vec<Finding> {
    let mut findings = vec![configuration(context)];
    if context.data.exists() {
        findings.push(secrets(context));
        findings.push(room(context));
        findings.push(sync(&context.data));
        findings.extend(damage(&Place::new(&context.data), &context.config.nodes));
    } else {
        findings.push(Finding::good(
            "data folder",
            format!(
                "{} is not there yet: the first `menagerie up` makes it",
                context.data.display()
            ),
        ));
    }
    findings.push(files(open_files::limit(), context.config.limits.connections_max));
    findings.push(addresses(context));
    findings.extend(certificate(context));
    findings
}

/// It was loaded, so it is sound; what remains is whether it is wise.
fn configuration(context: &Context) -> Finding {
    let voters = context.config.voters().len();
    let file = context.config_file.as_ref().map_or_else(
        || "built-in settings".to_owned(),
        |file| file.display().to_string(),
    );
    let said = format!("{file}: {voters} voters");
    match voters {
        1 | 2 => Finding::warning(
            "configuration",
            said,
            "With one or two voters, nothing can be written once one of them is gone. Three voters survive the loss of any one.",
        ),
        even if even % 2 == 0 => Finding::warning(
            "configuration",
            said,
            format!(
                "{even} voters survive no more losses than {} do, and need one more for each decision.",
                even - 1
            ),
        ),
        _ => Finding::good("configuration", said),
    }
}

fn secrets(context: &Context) -> Finding {
    match context.secrets() {
        Ok(_) => Finding::good("secrets", "readable by their owner only"),
        Err(error) => Finding::bad(
            "secrets",
            format!("{error:#}"),
            "Nothing starts without the secrets of this cluster.",
        ),
    }
}

fn room(context: &Context) -> Finding {
    let needed = context.config.limits.disk_free_bytes_min;
    let stat = match rustix::fs::statvfs(&context.data) {
        Ok(stat) => stat,
        Err(error) => {
            return Finding::warning(
                "disk space",
                error.to_string(),
                "The free space could not be read.",
            );
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let said = format!("{} MiB free, {} MiB needed", free >> 20, needed >> 20);
    if free < needed {
        let advice = "Nodes refuse writes as disk-full until there is room: free some, or lower limits.disk_free_bytes_min.";
        Finding::bad("disk space", said, advice)
    } else if free < needed.saturating_mul(4) {
        Finding::warning(
            "disk space",
            said,
            "Below the limit nodes refuse writes; make room before that.",
        )
    } else {
        Finding::good("disk space", said)
    }
}

/// What an acknowledgement costs on this disk, at the least.
fn sync(folder: &Path) -> Finding {
    let mut took = match time_syncs(folder) {
        Ok(took) => took,
        Err(error) => {
            return Finding::bad(
                "disk sync",
                error.to_string(),
                "The data folder must be one that can be written to.",
            );
        }
    };
    took.sort();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    let said = format!("median {median:.1?}, longest of {SYNCS} {longest:.1?}");
    let advice = "Every write waits until most voters have synced it: put the data folder on a disk of its own, best on a solid-state one with power-loss protection.";
    if median >= SYNC_BAD {
        Finding::bad("disk sync", said, advice)
    } else if median >= SYNC_WARNING {
        Finding::warning("disk sync", said, advice)
    } else {
        Finding::good("disk sync", said)
    }
}

fn time_syncs(folder: &Path) -> std::io::Result<Vec<Duration>> {
    let mut file = tempfile::tempfile_in(folder)?;
    // As the log: within a file that has its length already.
    file.set_len((BLOCK.len() * SYNCS) as u64)?;
    file.sync_all()?;
    let one = || {
        let started = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        Ok(started.elapsed())
    };
    std::iter::repeat_with(one).take(SYNCS).collect()
}

/// Of nodes that were here and do not start again, whether the others run or not.
fn damage(place: &Place, nodes: &[NodeConfig]) -> Vec<Finding> {
    let damaged = nodes.iter().filter_map(|node| {
        let said = place.damage_of(&node.name())?;
        Some(Finding::bad(
            format!("folder of {}", node.name()),
            said,
            format!(
                "It never starts on this folder again: put a new node in its place, `menagerie kv member replace {} NEW`.",
                node.id
            ),
        ))
    });
    damaged.collect()
}

/// What this command may open is what processes get that are started from here: all of them raise their limit as far as
/// they may.
fn files(limit: Option<u64>, connections_max: usize) -> Finding {
    let Some(allowed) = limit else {
        return Finding::good("open files", "no limit");
    };
    let beside = open_files::BESIDE_CLIENTS;
    let said = format!(
        "{allowed} for each process that is started from here, {} may be needed",
        connections_max + beside
    );
    let taken = open_files::connections(limit, connections_max);
    let advice = "raise the hard limit (ulimit -Hn, LimitNOFILE=), and start the processes again";
    if allowed < beside as u64 {
        let advice = format!(
            "A node of much data may need {beside} beside the connections of its clients, and ends when it has none left: {advice}."
        );
        Finding::bad("open files", said, advice)
    } else if taken < connections_max {
        let advice = format!(
            "A process takes {taken} connections, and not as many as limits.connections_max says: {advice}."
        );
        Finding::warning("open files", said, advice)
    } else {
        Finding::good("open files", said)
    }
}

fn addresses(context: &Context) -> Finding {
    let processes = plan::processes(&context.config);
    if Place::new(&context.data).is_locked() {
        return Finding::good("ports", "held by the running processes");
    }
    let taken = ports::taken(context, &processes);
    if taken.is_empty() {
        let count: usize = processes.iter().map(|process| process.listens.len()).sum();
        return Finding::good("ports", format!("{count} of this configuration, none taken"));
    }
    // On a machine that runs some of the processes by other means they are taken by themselves.
    Finding::warning(
        "ports",
        taken.join("; "),
        "Nothing starts on a port that somebody holds: stop who holds it, or choose another one in cluster.toml; for \
         the peer address of a node only before its first start, since the others know it by that.",
    )
}

fn certificate(context: &Context) -> Vec<Finding> {
    if !context.config.tls.enabled {
        return Vec::new();
    }
    let folder = context.config.tls_folder(&context.data);
    let wanted = certificates::wanted(context, &[]).unwrap_or_default();
    let names = wanted
        .into_iter()
        .map(|wanted| tls::file_of(&folder, &wanted.name));
    let files = std::iter::once(folder.join(tls::AUTHORITY)).chain(names);
    let mut soonest: Option<(OffsetDateTime, String)> = None;
    let mut faults = Vec::new();
    // On a further host there are only those of its own processes.
    for file in files.filter(|file| file.exists()) {
        match Certificate::of(&file) {
            Ok(found) => {
                let name = file
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                if soonest.as_ref().is_none_or(|(ends, _)| found.ends < *ends) {
                    soonest = Some((found.ends, name));
                }
            }
            Err(error) => faults.push(Finding::bad(
                "certificates",
                format!("{error:#}"),
                if file.ends_with(tls::AUTHORITY) {
                    authority_advice()
                } else {
                    "`menagerie certs --renew` makes new ones.".to_owned()
                },
            )),
        }
    }
    faults.push(match soonest {
        None => Finding::bad(
            "certificates",
            format!("there are none in {}", folder.display()),
            "`menagerie certs` makes them; a further host needs copies.",
        ),
        Some((ends, name)) => ending(ends, &name),
    });
    faults
}

fn ending(ends: OffsetDateTime, name: &str) -> Finding {
    let left = ends - OffsetDateTime::now_utc();
    let said = format!("the first to end is {name}, in {} days", left.whole_days());
    let advice = if name == tls::AUTHORITY {
        authority_advice()
    } else {
        "`menagerie certs` renews what nears its end; running processes take new files over by themselves."
            .to_owned()
    };
    if left.is_negative() {
        Finding::bad("certificates", said, advice)
    } else if left < RENEW_BEFORE {
        Finding::warning("certificates", said, advice)
    } else {
        Finding::good("certificates", said)
    }
}

fn authority_advice() -> String {
    format!("`menagerie certs` leaves the authority as it is: {RENEW_AUTHORITY}")
}

#[cfg(test)]
mod tests {
    use service::config::Config;

    use super::super::Verdict;
    use super::*;

    #[test]
    fn certificates_are_judged_by_their_end() {
        let verdict = |days| ending(OffsetDateTime::now_utc() + time::Duration::days(days), "n1.pem").verdict;
        assert_eq!(verdict(365), Verdict::Good);
        assert_eq!(verdict(29), Verdict::Warning);
        assert_eq!(verdict(-1), Verdict::Bad);
        let soon = ending(OffsetDateTime::now_utc(), tls::AUTHORITY).advice.unwrap();
        assert!(soon.contains("remove ca.pem"), "{soon}");
    }

    #[test]
    fn a_limit_of_open_files_is_judged_by_what_it_leaves_to_the_databases() {
        let found = |limit| files(limit, 10_000);
        assert_eq!(found(None).verdict, Verdict::Good);
        assert_eq!(found(Some(65_536)).verdict, Verdict::Good);
        let few = found(Some(4096));
        assert_eq!(few.verdict, Verdict::Warning);
        assert!(few.advice.unwrap().contains("takes 2048 connections"));
        assert_eq!(found(Some(1024)).verdict, Verdict::Bad);
    }

    #[test]
    fn a_damaged_folder_is_told_with_what_helps() {
        let folder = tempfile::tempdir().unwrap();
        let nodes = Config::default().nodes;
        let place = Place::new(folder.path());
        std::fs::create_dir(folder.path().join("n1")).unwrap();
        assert!(damage(&place, &nodes).is_empty());
        std::fs::write(folder.path().join("n1/DAMAGED"), "tables are damaged").unwrap();
        let found = damage(&place, &nodes);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].verdict, found[0].said.as_str()),
            (Verdict::Bad, "tables are damaged")
        );
        let advice = found[0].advice.as_deref().unwrap();
        assert!(advice.contains("kv member replace 1 NEW"), "{advice}");
    }

    #[test]
    fn a_disk_is_measured_without_leaving_anything() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(time_syncs(folder.path()).unwrap().len(), SYNCS);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(sync(&folder.path().join("none")).verdict, Verdict::Bad);
    }
}
