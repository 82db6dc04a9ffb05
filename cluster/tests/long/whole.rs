//! The whole system, as the `cluster.toml` of this project has it: how soon it is there, what it takes while nobody
//! asks for anything, and how soon it is measured.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::harness::{Cluster, free_ports};
use crate::load::say;
use crate::used::{computed, resident_mib};

const DEFAULTS: &str = include_str!("../../../cluster.toml");
const HOST: &str = "127.0.0.1:";

const START_MAX: Duration = Duration::from_secs(5);
/// After the start, so that what a start brings with it is over.
const SETTLED: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(40);
/// 3.4 on a quick machine, 6.5 on one where a write takes twice as long too.
const IDLE_PERCENT_MAX: f64 = 8.0;
const RESIDENT_MIB_MAX: u64 = 1024;
/// What its help promises.
const QUICK_MAX: Duration = Duration::from_mins(2);

/// The same system on free ports.
fn whole() -> Cluster {
    let places = DEFAULTS.matches(HOST).count();
    let mut ports = free_ports(places).into_iter();
    let mut parts = DEFAULTS.split(HOST);
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|letter: char| letter.is_ascii_digit());
        write!(text, "{HOST}{}{rest}", ports.next().unwrap()).unwrap();
    }
    let config = service::config::parse(&text, "cluster.toml").unwrap();
    Cluster::with(0, |own| {
        let (data, console) = (own.data.clone(), own.console.clone());
        *own = config;
        own.data = data;
        own.console = console;
    })
}

async fn processes(cluster: &Cluster) -> Vec<(String, u32)> {
    let status = cluster.status().await;
    let all = status["processes"].as_array().unwrap();
    let all = all.iter().map(|process| {
        let name = process["name"].as_str().unwrap().to_owned();
        (name, u32::try_from(process["pid"].as_u64().unwrap()).unwrap())
    });
    all.collect()
}

#[tokio::test]
async fn the_whole_system_is_soon_there_and_takes_little_while_nobody_asks() {
    let cluster = whole();
    cluster.up().await;
    cluster.down().await;
    let asked = Instant::now();
    cluster.up().await;
    let took = asked.elapsed();
    say(&format!("all is ready after {took:?}"));
    assert!(took < START_MAX, "all is ready only after {took:?}");

    tokio::time::sleep(SETTLED).await;
    let processes = processes(&cluster).await;
    assert!(processes.len() > 15, "the whole system: {processes:?}");
    let ticks = || processes.iter().map(|(_, pid)| computed(*pid)).sum::<u64>();
    let (before, since) = (ticks(), Instant::now());
    tokio::time::sleep(IDLE).await;
    #[expect(clippy::cast_precision_loss, reason = "some thousand ticks at most")]
    let percent = (ticks() - before) as f64 / since.elapsed().as_secs_f64();
    let resident: u64 = processes.iter().map(|(_, pid)| resident_mib(*pid)).sum();
    say(&format!(
        "idle: {percent:.1} % of a processor, {resident} MiB in memory"
    ));
    assert!(percent < IDLE_PERCENT_MAX, "{percent} % of a processor");
    assert!(resident < RESIDENT_MIB_MAX, "{resident} MiB in memory");
}

#[tokio::test]
async fn a_quick_comparison_is_done_in_two_minutes_and_gives_nothing_up_for_it() {
    let cluster = whole();
    let asked = Instant::now();
    let report = cluster
        .run(&["--json", "bench", "--quick", "--out", "report"])
        .await;
    let (report, took) = (report.json(), asked.elapsed());
    let left_out = &report["left_out"];
    say(&format!("measured in {took:?}; left out: {left_out}"));
    assert!(took < QUICK_MAX, "measured only after {took:?}");

    assert_eq!(report["rounds"], 3, "{report}");
    let rows = report["rows"].as_array().unwrap();
    assert!(rows.len() >= 7, "{rows:?}");
    for row in rows {
        assert_eq!(row["menagerie"]["rounds"].as_array().unwrap().len(), 3, "{row}");
    }
    assert_eq!(report["services"][0]["name"], "checkout-spread", "{report}");
}
