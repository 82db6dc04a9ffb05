//! Wrong usage, completion, tokens and messages: what the binary says before it reaches any store.
//! Invariant: wrong usage ends with 2, failure with 1, and every message says what to do.

use std::process::Stdio;

use insta::assert_snapshot;
use serde_json::Value;

use crate::harness::{Cluster, Ran};

#[tokio::test]
async fn wrong_usage_ends_with_2() {
    let cluster = Cluster::new(1);
    for arguments in [
        &["frobnicate"][..],
        &["kill"],
        &["kv", "put"],
        &["kv", "del"],
        &["kv", "del", "key", "--prefix", "p"],
        &["kv", "watch"],
        &["kv", "put", "key", "value", "--if-absent", "--if-match", "3"],
        &["kv", "get", "key", "--consistency", "sometimes"],
        &["kv", "ls", "--limit", "0"],
        &["kv", "lease", "grant", "5"],
        &["kv", "lease", "hold", "5s"],
        &["kv", "leader", "--to", "first"],
        &[
            "kv",
            "member",
            "replace",
            "3",
            "4",
            "--wait",
            "18446744073709551615",
        ],
        &["node", "--id", "one"],
        &["bench", "kv", "--timeout", "5s"],
        &["bench", "failover", "--running", "--idempotency-key", "once"],
        &["bench", "--seconds", "nan"],
        &["bench", "--seconds", "inf"],
        &["chaos", "--minutes", "nan"],
        &["predictor", "--model", "knn", "--label", "species"],
        &["predictors", "evaluate", "--ignore", "id"],
        &["predictors", "evaluate", "--impute", "mean"],
        &["completion", "tcsh"],
    ] {
        let told = cluster.run(arguments).await.fails(2);
        assert!(!told.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn help_names_every_command() {
    let cluster = Cluster::new(1);
    let help = cluster.run(&["--help"]).await.ok();
    for command in [
        "up",
        "down",
        "status",
        "logs",
        "kill",
        "pause",
        "resume",
        "start",
        "node",
        "demo",
        "units",
        "token",
        "kv",
        "bench",
        "pay",
        "shop",
        "gateway",
        "predictor",
        "consensus",
        "predictors",
        "check",
    ] {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command} is missing in\n{help}"
        );
    }
}

#[tokio::test]
async fn completion_covers_the_subcommands() {
    let cluster = Cluster::new(1);
    for shell in ["bash", "zsh", "fish"] {
        let script = cluster.run(&["completion", shell]).await.ok();
        assert!(
            script.contains("keepalive") && script.contains("resume"),
            "{shell}"
        );
    }
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let cluster = Cluster::new(1);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = cluster.command(&["completion", "bash"]);
    let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let ran = Ran::of(child.wait_with_output().await.unwrap());
    assert_eq!(ran.stderr, "");
    ran.ok();
}

#[tokio::test]
async fn completion_needs_no_sound_configuration() {
    let cluster = Cluster::new(1);
    std::fs::write(cluster.folder().join("cluster.toml"), "nonsense").unwrap();
    cluster.run(&["completion", "bash"]).await.ok();
    let told = cluster.run(&["status"]).await.fails(2);
    assert!(told.contains("cluster.toml:1"), "{told}");
}

#[tokio::test]
async fn a_missing_store_or_data_folder_is_explained() {
    let cluster = Cluster::new(1);
    let told = cluster.run(&["kv", "get", "key"]).await.fails(1);
    assert!(told.contains("the first `menagerie up` makes them"), "{told}");

    let mut command = cluster.command(&["kv", "get", "key", "--timeout", "300ms"]);
    let output = command
        .env("MENAGERIE_TOKEN", "of-no-meaning-here")
        .output()
        .await
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let expected = format!(
        "menagerie: no node answers at {}: start them with `menagerie up`, or name others with --endpoints\n",
        cluster.address("n1")
    );
    assert_eq!(told, expected);

    let mut command = cluster.command(&["kv", "get", "key", "--timeout", "300ms", "--json"]);
    let output = command
        .env("MENAGERIE_TOKEN", "of-no-meaning-here")
        .output()
        .await
        .unwrap();
    let told: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(told["code"], "connection");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn a_check_that_asks_nobody_proves_nothing() {
    let cluster = Cluster::new(1);
    let told = cluster.run(&["check"]).await.fails(1);
    assert!(
        told.contains("nothing is proved") && told.contains("cluster.toml"),
        "{told}"
    );
    // As from another folder, where the configuration of the services is not found.
    let empty = cluster.folder().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let mut command = cluster.command(&["check", "--data", cluster.data().to_str().unwrap()]);
    let output = command.current_dir(&empty).output().await.unwrap();
    let told = Ran::of(output).fails(1);
    assert!(told.contains("the built-in configuration"), "{told}");
}

#[tokio::test]
async fn commands_that_need_the_launcher_say_so() {
    let cluster = Cluster::new(1);
    for arguments in [&["kill", "n1"][..], &["pause", "n1"], &["start", "n1"], &["down"]] {
        let told = cluster.run(arguments).await.fails(1);
        assert!(told.contains("start it with `menagerie up`"), "{told}");
    }
}

#[tokio::test]
async fn names_and_ids_that_are_unknown_are_answered_with_those_that_are_known() {
    let cluster = Cluster::start(2).await;
    let told = cluster.run(&["kill", "n9"]).await.fails(2);
    assert_snapshot!(told, @r#"menagerie: there is no process "n9"; there are: n1, n2, and leader"#);
    let told = cluster.run(&["node", "--id", "9"]).await.fails(2);
    assert_snapshot!(told, @"menagerie: the configuration has no node 9; it has: 1, 2");
    let told = cluster.run(&["token", "nobody"]).await.fails(2);
    assert_snapshot!(told, @r#"menagerie: no token is named "nobody"; there are: gateway, merchant, mirror, operator, oracle, payment, petstore, predictors, root"#);
}

#[tokio::test]
async fn token_prints_one_token_and_nothing_else() {
    let cluster = Cluster::start(1).await;
    let token = cluster.run(&["token"]).await.ok();
    assert_eq!(token, format!("{}\n", cluster.token("root")));
    let token = cluster.run(&["token", "petstore", "--json"]).await.json();
    assert_eq!(token["token"], cluster.token("petstore").as_str());
}
