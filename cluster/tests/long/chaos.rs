//! `menagerie chaos` with every kind of fault there is, by seeds that stay and by one that is new each time.
//! Invariant: a run that could not cause a fault has not passed.

use crate::harness::Cluster;
use crate::load::say;

const SEEDS: [Option<&str>; 3] = [Some("1"), Some("7"), None];
const MINUTES: &str = "2";
/// So many kinds of fault there are.
const KINDS: usize = 27;

#[tokio::test]
async fn all_faults_by_three_seeds_break_nothing() {
    let cluster = Cluster::new(1);
    for seed in SEEDS {
        let mut arguments = vec!["--json", "chaos", "--minutes", MINUTES];
        if let Some(seed) = seed {
            arguments.extend(["--seed", seed]);
        }
        let verdict = cluster.run(&arguments).await.json();
        say(&format!(
            "{}: {} in {} histories",
            verdict["replay"], verdict["operations"], verdict["histories"]
        ));
        assert_eq!(verdict["passed"], true, "{verdict}");
        assert_eq!(verdict["left_out"], serde_json::json!([]), "{verdict}");
        assert_eq!(verdict["not_caused"], serde_json::json!([]), "{verdict}");
        assert_eq!(verdict["not_reached"], serde_json::json!([]), "{verdict}");
        let faults = verdict["faults"].as_object().unwrap();
        assert_eq!(faults.len(), KINDS, "{verdict}");
    }
}
