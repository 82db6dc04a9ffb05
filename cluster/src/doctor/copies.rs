//! The copies beside the nodes: mirrors, as the leader tells how they stand, and backups, as their folder does.
//! Invariant: a promise that is suspended, such as that a mirror has every write, is never called good.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use kvstore_client::wire::mirror::MirrorStatus;
use service::config::{Config, MirrorConfig};

use super::Finding;
use crate::context::Context;

/// Beyond the time between two backups: a large one takes its time, and one that failed is tried again.
const LATE: Duration = Duration::from_mins(5);

/// Of all that the store knows, and of those that the configuration has and the store does not know.
pub(super) fn mirrors(configured: &[MirrorConfig], told: &[MirrorStatus]) -> Vec<Finding> {
    let unknown = configured
        .iter()
        .filter(|mirror| !told.iter().any(|told| told.name == mirror.name));
    let unknown = unknown.map(|mirror| {
        Finding::warning(
            format!("mirror {}", mirror.name),
            "is not announced to the store",
            format!(
                "Nothing is copied to it, and no write waits for it: `menagerie start {0}`, or take it out of cluster.toml.",
                mirror.name
            ),
        )
    });
    told.iter().map(mirror).chain(unknown).collect()
}

fn mirror(told: &MirrorStatus) -> Finding {
    let name = &told.name;
    let what = format!("mirror {name}");
    let behind = told.lag_revisions.map_or_else(
        || "nobody knows how far it is".to_owned(),
        |lag| format!("lacks {lag} revisions"),
    );
    let said = format!("{}: {}, {behind}", told.mode, told.state);
    let mend = format!(
        "If it does not run: `menagerie start {name}`. If it does, it catches up by itself, and `menagerie logs {name}` \
         says what keeps it from that."
    );
    match (told.mode.as_str(), told.on_loss.as_str(), told.state.as_str()) {
        (_, _, "ok") => Finding::good(what, said),
        ("sync", "block", "degraded") => Finding::bad(
            what,
            said,
            format!(
                "Nothing can be written until it has everything. {mend} To go on without it: `menagerie kv mirror delete \
                 {name}`."
            ),
        ),
        // Of its first copy nobody waits for it.
        ("sync", "block", _) => Finding::warning(
            what,
            said,
            format!(
                "Until it has everything, writes go on without it, or wait for it if it was level before. {mend}"
            ),
        ),
        ("sync", ..) => Finding::warning(
            what,
            said,
            format!("Writes are acknowledged without it: the loss of all nodes would lose some. {mend}"),
        ),
        _ => Finding::warning(
            what,
            said,
            format!("What it lacks would be lost with the nodes. {mend}"),
        ),
    }
}

/// None where no backups are made by themselves.
pub(super) fn backups(context: &Context, cluster_id: &str, now_ms: u64) -> Option<Finding> {
    let config = Config {
        data: context.data.clone(),
        ..context.config.clone()
    };
    let every_s = config.backup.every_s;
    let every = Duration::from_secs(every_s);
    (every_s > 0).then(|| newest(&config.backup_folder(), cluster_id, every, now_ms))
}

fn newest(folder: &Path, cluster_id: &str, every: Duration, now_ms: u64) -> Finding {
    let place = folder.display();
    let advice = "Whoever leads makes it, on its own machine: look there as well. When it fails, the log of that node says \
                  why (`menagerie logs`).";
    let made_ms = match kvstore::newest_backup_ms(folder, cluster_id) {
        Ok(made_ms) => made_ms,
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Finding::warning("backups", format!("{place} cannot be read: {error}"), advice),
    };
    let Some(made_ms) = made_ms else {
        return Finding::warning(
            "backups",
            format!("there is none of this cluster in {place}"),
            advice,
        );
    };
    let age = Duration::from_millis(now_ms.saturating_sub(made_ms));
    let said = format!(
        "the newest in {place} is {} s old, and one is due every {} s",
        age.as_secs(),
        every.as_secs()
    );
    if age > every.saturating_add(LATE) {
        Finding::warning("backups", said, advice)
    } else {
        Finding::good("backups", said)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn told(mode: &str, on_loss: &str, state: &str) -> MirrorStatus {
        MirrorStatus {
            name: "one".to_owned(),
            mode: mode.to_owned(),
            on_loss: on_loss.to_owned(),
            state: state.to_owned(),
            acknowledged_revision: None,
            lag_revisions: Some(7),
            heard_ms_ago: None,
        }
    }

    #[test]
    fn a_mirror_that_lacks_acknowledged_writes_is_not_well() {
        for (mode, on_loss, state, verdict) in [
            ("sync", "degrade", "ok", Verdict::Good),
            ("sync", "degrade", "catching_up", Verdict::Warning),
            ("sync", "degrade", "degraded", Verdict::Warning),
            ("sync", "block", "ok", Verdict::Good),
            ("sync", "block", "catching_up", Verdict::Warning),
            ("sync", "block", "degraded", Verdict::Bad),
            ("async", "degrade", "ok", Verdict::Good),
            ("async", "degrade", "degraded", Verdict::Warning),
        ] {
            let found = mirrors(&[], &[told(mode, on_loss, state)]);
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].verdict, verdict, "{mode} {on_loss} {state}");
            assert!(found[0].said.contains("lacks 7 revisions"), "{:?}", found[0]);
        }
    }

    #[test]
    fn a_mirror_that_never_came_is_missed() {
        let configured = MirrorConfig {
            name: "two".to_owned(),
            address: "127.0.0.1:1".to_owned(),
            engine: service::config::MirrorEngine::default(),
            mode: service::config::MirrorMode::Sync,
            on_loss: service::config::OnLoss::default(),
            interval_ms: 100,
        };
        let found = mirrors(&[configured], &[told("sync", "degrade", "ok")]);
        let seen: Vec<_> = found
            .iter()
            .map(|finding| (finding.what.as_str(), finding.verdict))
            .collect();
        let expected = [("mirror one", Verdict::Good), ("mirror two", Verdict::Warning)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn backups_are_judged_by_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let every = Duration::from_hours(1);
        let made_ms = 1_700_000_000_000;
        let id = "0123456789abcdef0123456789abcdef";
        let after = |age: Duration| {
            let age_ms = u64::try_from(age.as_millis()).unwrap();
            newest(folder.path(), id, every, made_ms + age_ms).verdict
        };
        let write = |cluster: &str, made_ms: u64| {
            let name = format!("backup-{cluster}-{made_ms:015}.mng");
            std::fs::write(folder.path().join(name), "").unwrap();
        };
        write("fedcba98", made_ms);
        assert_eq!(
            after(Duration::ZERO),
            Verdict::Warning,
            "there is none of this cluster"
        );
        for made_ms in [made_ms - 3_600_000, made_ms] {
            write("01234567", made_ms);
        }
        assert_eq!(after(every), Verdict::Good);
        assert_eq!(after(every + 2 * LATE), Verdict::Warning);
        assert_eq!(
            newest(&folder.path().join("none"), "c", every, made_ms).verdict,
            Verdict::Warning
        );
    }
}
