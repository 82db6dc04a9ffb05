//! `cluster.toml`: defaults, the file of this repository, and errors that name the line.

use std::path::{Path, PathBuf};

use insta::assert_snapshot;
use service::config::{
    self, Behaviour, Config, ConsensusConfig, GatewayConfig, PaymentConfig, PredictorConfig, Role, ShopConfig,
};
use service::serve::Limits;

fn refused(text: &str) -> String {
    let error = config::parse(text, "cluster.toml").unwrap_err();
    format!("{error:#}")
}

/// The folder of this crate, asked for when it runs: checkouts that share a target folder share the binary too.
fn crate_folder() -> PathBuf {
    std::env::var("CARGO_MANIFEST_DIR").unwrap().into()
}

fn repository_file() -> PathBuf {
    crate_folder().join("../../cluster.toml")
}

#[test]
fn an_empty_file_is_one_node() {
    let config = config::parse("", "cluster.toml").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.client_addresses(), ["127.0.0.1:7001"]);
    assert_eq!(config.data_of("n1"), Path::new("data/n1"));
    assert_eq!(config.node(1).unwrap().name(), "n1");
    assert!(config.node(2).is_none());
}

#[test]
fn the_file_of_the_repository_is_three_voters() {
    let config = config::load(&repository_file()).unwrap();
    assert_eq!(
        config.client_addresses(),
        ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"]
    );
    assert_eq!(config.voters().into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    let defaults = Config {
        nodes: config.nodes.clone(),
        payment: PaymentConfig {
            addresses: vec!["127.0.0.1:4001".to_owned(), "127.0.0.1:4002".to_owned()],
            ..PaymentConfig::default()
        },
        shop: ShopConfig {
            addresses: vec!["127.0.0.1:3001".to_owned(), "127.0.0.1:3002".to_owned()],
            ..ShopConfig::default()
        },
        gateway: GatewayConfig {
            address: "127.0.0.1:8000".to_owned(),
            ..GatewayConfig::default()
        },
        models: config.models.clone(),
        mirrors: config.mirrors.clone(),
        consensus: ConsensusConfig {
            addresses: vec!["127.0.0.1:6001".to_owned()],
            ..ConsensusConfig::default()
        },
        ..Config::default()
    };
    assert_eq!(config, defaults);
    assert_eq!(config.payment.address("pay2"), Some("127.0.0.1:4002"));
    assert_eq!(config.payment.address("pay3"), None);
    assert_eq!(config.shop.address("shop1"), Some("127.0.0.1:3001"));
    assert_eq!(config.consensus.address("consensus"), Some("127.0.0.1:6001"));
    let models: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(models, ["naive-bayes", "knn", "logistic", "tree", "forest"]);
    let mirrors: Vec<&str> = config.mirrors.iter().map(|mirror| mirror.name.as_str()).collect();
    assert_eq!(mirrors, ["mirror-sync", "mirror-async"]);
}

/// What other machines can reach is guarded, or said to be guarded by something else.
#[test]
fn a_port_beyond_loopback_needs_tls() {
    let with = |rest: &str| {
        format!("[[node]]\nid = 1\nclient = \"127.0.0.1:7001\"\npeer = \"10.0.0.1:7101\"\n{rest}")
    };
    let said = refused(&with(""));
    assert!(
        said.starts_with("cluster.toml:4: peer = \"10.0.0.1:7101\" can be reached"),
        "{said}"
    );
    for guard in [
        "[tls]\nenabled = true\n",
        "[tls]\nplain_beyond_loopback = true\n",
        "peer_listen = \"127.0.0.1:7101\"\n",
    ] {
        config::parse(&with(guard), "cluster.toml").unwrap();
    }
    let said = refused("[shop]\naddresses = [\"[2001:db8::1]:3001\"]\n");
    assert!(said.contains("can be reached from other machines"), "{said}");
}

/// The comments of the file show the defaults; taken at their word they must change nothing.
#[test]
fn the_comments_of_the_file_show_the_real_defaults() {
    let text = std::fs::read_to_string(repository_file()).unwrap();
    let mut shown = 0;
    let mut lines = Vec::new();
    for line in text.lines() {
        let setting = line.strip_prefix("# ").filter(|rest| rest.contains(" = "));
        shown += usize::from(setting.is_some());
        lines.push(setting.unwrap_or(line));
    }
    assert!(shown > 20, "found only {shown} settings in the comments");
    let with_comments = config::parse(&lines.join("\n"), "cluster.toml").unwrap();
    assert_eq!(with_comments, config::load(&repository_file()).unwrap());
}

#[test]
fn what_is_written_is_read_again() {
    let mut config = Config::default();
    config.tls.plain_beyond_loopback = true;
    config.store.heartbeat_ms = 20;
    config.nodes[0].role = Role::Voter;
    config.nodes.push(config::NodeConfig {
        id: 7,
        client: "[::1]:7007".to_owned(),
        peer: "host.example:7107".to_owned(),
        role: Role::Learner,
        client_listen: Some("0.0.0.0:7007".to_owned()),
        peer_listen: None,
    });
    let text = config.to_toml().unwrap();
    assert_eq!(config::parse(&text, "written").unwrap(), config);
    assert_eq!(config.voters().len(), 1);
}

#[test]
fn listening_is_apart_from_the_address_that_others_use() {
    let text = "
[[node]]
id = 1
client = \"n1:7001\"
peer = \"n1:7101\"
client_listen = \"0.0.0.0:7001\"

[[node]]
id = 2
client = \"n2:7001\"
peer = \"n2:7101\"
client_listen = \"0.0.0.0:7001\"
peer_listen = \"everywhere\"

[console]
address = \"n2:7101\"

[tls]
enabled = true
";
    assert_snapshot!(refused(text), @r#"
    cluster.toml:13: peer_listen = "everywhere" must be host:port, such as 127.0.0.1:7001
    cluster.toml:16: address = "n2:7101" is taken already, at cluster.toml:11
    "#);
    let sound = text
        .replace("everywhere", "0.0.0.0:7101")
        .replace("n2:7101\"\n\n[console", "n2:7102\"\n\n[console");
    let sound = sound.replace("address = \"n2:7101\"", "address = \"\"");
    let config = config::parse(&sound, "cluster.toml").unwrap();
    let [first, second] = [&config.nodes[0], &config.nodes[1]];
    assert_eq!(first.listens_to_clients(), "0.0.0.0:7001");
    assert_eq!(first.listens_to_peers(), "n1:7101");
    assert_eq!(second.listens_to_peers(), "0.0.0.0:7101");
    assert_eq!(config.client_addresses(), ["n1:7001", "n2:7001"]);
}

#[test]
fn the_place_of_a_setting_is_found_later_too() {
    use service::config::Step;
    let file = repository_file();
    let text = std::fs::read_to_string(&file).unwrap();
    let line = 1 + text
        .lines()
        .position(|line| line.starts_with("peer = \"127.0.0.1:7102\""))
        .unwrap();
    let place = config::locate(&file, &[Step::Key("node"), Step::Index(1), Step::Key("peer")]);
    assert_eq!(place, format!("{}:{line}", file.display()));
    let gone = config::locate(Path::new("/nowhere/cluster.toml"), &[Step::Key("data")]);
    assert_eq!(gone, "/nowhere/cluster.toml:1");
}

#[test]
fn the_file_for_containers_is_sound() {
    let file = crate_folder().join("../deploy/cluster.toml");
    let config = config::load(&file).unwrap();
    assert_eq!(config.voters().len(), 3);
    for node in &config.nodes {
        assert!(node.listens_to_clients().starts_with("0.0.0.0:"), "{node:?}");
        assert!(node.client.starts_with(&node.name()), "{node:?}");
    }
}

#[test]
fn unknown_keys_name_the_line() {
    assert_snapshot!(refused("data = \"d\"\nfoo = 1\n"), @r#"cluster.toml:2: unknown key "foo" (expected one of data, cluster, tls, console, store, backup, limits, node, payment, shop, gateway, predictors, predictor, consensus, mirror)"#);
    assert_snapshot!(refused("[store]\n\nheartbeat = 5\n"), @r#"cluster.toml:3: unknown key "heartbeat" (expected one of heartbeat_ms, election_min_ms, election_max_ms, fast_failover, worker_threads, history_max_age_s, history_bytes_max, snapshot_log_entries, snapshot_log_bytes, log_keep_entries, log_keep_bytes, flush_every_s, memtable_mib, block_cache_mib, records_cache_mib, heads_cache_mib, agreement_every_s, slow_disk_ms)"#);
    assert_snapshot!(refused("[[node]]\nid = 1\nclient = \"a:1\"\npeer = \"a:2\"\nroll = \"voter\"\n"), @r#"cluster.toml:5: unknown key "roll" (expected one of id, client, peer, role, client_listen, peer_listen)"#);
}

#[test]
fn wrong_types_and_syntax_name_the_line() {
    assert_snapshot!(refused("[store]\nheartbeat_ms = \"soon\"\n"), @r#"cluster.toml:2: invalid type: string "soon", expected a whole number, 0 or more"#);
    assert_snapshot!(refused("[limits]\nkey_bytes_max = -1\n"), @"cluster.toml:2: invalid value: integer `-1`, expected a whole number, 0 or more");
    assert_snapshot!(refused("[store\n"), @"cluster.toml:1: unclosed table, expected `]`");
    assert_snapshot!(refused("[[node]]\nid = 1\nclient = \"a:1\"\n"), @"cluster.toml:1: missing field `peer`");
    assert_snapshot!(refused("[[node]]\nid = 1\nclient = \"a:1\"\npeer = \"a:2\"\nrole = \"king\"\n"), @"cluster.toml:5: unknown variant `king`, expected `voter` or `learner`");
}

#[test]
fn ids_and_addresses_stand_once() {
    let text = "
[[node]]
id = 1
client = \"127.0.0.1:7001\"
peer = \"127.0.0.1:7101\"

[[node]]
id = 1
client = \"127.0.0.1:7002\"
peer = \"127.0.0.1:7001\"
";
    assert_snapshot!(refused(text), @r#"
    cluster.toml:8: node id 1 is taken already, at cluster.toml:3
    cluster.toml:10: peer = "127.0.0.1:7001" is taken already, at cluster.toml:4
    "#);
}

#[test]
fn addresses_can_be_dialled() {
    let with = |client: &str| {
        let node = |id: u8, client: &str| {
            format!("[[node]]\nid = {id}\nclient = \"{client}\"\npeer = \"10.0.0.{id}:7101\"\n")
        };
        node(1, client) + &node(2, "10.0.0.2:7001")
    };
    for wrong in [
        "7001",
        ":7001",
        "host",
        "host:",
        "host:70000",
        "http://host:1",
        "a b:1",
        "::1:7001",
        "h:0",
    ] {
        assert!(
            refused(&with(wrong)).starts_with("cluster.toml:3: client = "),
            "{wrong}"
        );
    }
    for right in ["localhost:1", "[::1]:7001", "n1.example:65535"] {
        let text = format!("{}[tls]\nenabled = true\n", with(right));
        assert!(config::parse(&text, "cluster.toml").is_ok(), "{right}");
    }
    let alone = "[[node]]\nid = 1\nclient = \"127.0.0.1:0\"\npeer = \"127.0.0.1:0\"\n";
    assert!(
        config::parse(alone, "cluster.toml").is_ok(),
        "a node alone may take any free port"
    );
}

#[test]
fn numbers_have_bounds_and_relations() {
    assert_snapshot!(refused("[store]\nheartbeat_ms = 150\nelection_max_ms = 199\n[limits]\ntxn_ops_max = 0\n"), @r"
    cluster.toml:5: limits.txn_ops_max = 0 must be between 128 and 10000: with less, the store would refuse transactions that the services send
    cluster.toml:1: store.election_min_ms = 200 must be more than twice store.heartbeat_ms = 150, or one lost heartbeat begins an election
    cluster.toml:3: store.election_max_ms = 199 must not be less than store.election_min_ms = 200
    ");
    assert_snapshot!(refused("[limits]\nrange_rows_max = 1999\n"), @"cluster.toml:2: limits.range_rows_max = 1999 must be between 2000 and 100000: with less, the store would refuse pages that the services ask for");
    let least = format!("[limits]\nrange_rows_max = {}\n", config::RANGE_ROWS_MIN);
    assert!(config::parse(&least, "cluster.toml").is_ok(), "{least}");
    assert_snapshot!(refused("[limits]\ntxn_ops_max = 127\n"), @"cluster.toml:2: limits.txn_ops_max = 127 must be between 128 and 10000: with less, the store would refuse transactions that the services send");
    let least = format!("[limits]\ntxn_ops_max = {}\n", config::TXN_OPS_MIN);
    assert!(config::parse(&least, "cluster.toml").is_ok(), "{least}");
    assert_snapshot!(refused("[limits]\nleases_max = 15\n"), @"cluster.toml:2: limits.leases_max = 15 must be between 16 and 10000000");
    assert_snapshot!(refused("node = []\n[cluster]\nname = \"two words\"\n"), @r#"
    cluster.toml:3: cluster.name = "two words" must be 1 to 63 letters, digits, hyphens or underscores
    cluster.toml:1: at least one node must have role = "voter"
    "#);
}

#[test]
fn sizes_have_bounds_and_relations() {
    // What the services write, and what everybody may by the contract.
    assert_snapshot!(refused("[limits]\nkey_bytes_max = 1023\nvalue_bytes_max = 1048575\nrequest_bytes_max = 4194303\n"), @r"
    cluster.toml:2: limits.key_bytes_max = 1023 must be between 1024 and 4096: with less, the store would refuse keys that the services write
    cluster.toml:3: limits.value_bytes_max = 1048575 must be between 1048576 and 16777216: with less, the store would refuse values that the services write
    cluster.toml:4: limits.request_bytes_max = 4194303 must be between 4194304 and 16777216: with less, the store would refuse transactions that the services send
    ");
    let least = "[limits]\nkey_bytes_max = 1024\nvalue_bytes_max = 1048576\nrequest_bytes_max = 4194304\n";
    assert!(config::parse(least, "cluster.toml").is_ok(), "{least}");
    // What no frame between nodes takes.
    assert_snapshot!(refused("[limits]\nvalue_bytes_max = 33554432\nrequest_bytes_max = 33554432\n"), @r"
    cluster.toml:2: limits.value_bytes_max = 33554432 must be between 1048576 and 16777216: with less, the store would refuse values that the services write
    cluster.toml:3: limits.request_bytes_max = 33554432 must be between 4194304 and 16777216: with less, the store would refuse transactions that the services send
    ");
    let most = format!("[limits]\nrequest_bytes_max = {}\n", config::REQUEST_BYTES_MAX);
    assert!(config::parse(&most, "cluster.toml").is_ok(), "{most}");
    assert_snapshot!(refused("[limits]\nvalue_bytes_max = 8388608\n"), @"cluster.toml:2: limits.value_bytes_max must not be more than limits.request_bytes_max, or the largest value fits in no request");
    // The least request, and less than that for all that wait.
    assert_snapshot!(refused("[limits]\nproposals_bytes_max = 65536\n"), @"cluster.toml:1: limits.request_bytes_max must not be more than limits.proposals_bytes_max, or the largest request is always refused");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = config::load(Path::new("no/such/cluster.toml")).unwrap_err();
    assert_eq!(error.to_string(), "read no/such/cluster.toml");
}

#[test]
fn limits_reach_the_server() {
    let config = config::parse("[limits]\nconnections_max = 7\n", "cluster.toml").unwrap();
    assert_eq!(Limits::from(&config.limits).connections_max, 7);
}

#[test]
fn models_that_cannot_be_are_refused() {
    let model = "[[predictor]]\nname = \"knn\"\nmodel = \"knn\"\naddress = \"127.0.0.1:5001\"\n";
    let parsed = config::parse(model, "cluster.toml").unwrap();
    let expected: &PredictorConfig = &parsed.models[0];
    assert_eq!((expected.seed, expected.behave.as_str()), (1, ""));
    assert_snapshot!(refused(&model.replace("model = \"knn\"", "model = \"oracle\"")), @r#"cluster.toml:3: model = "oracle" must be one of naive-bayes, knn, logistic, tree, forest"#);
    assert_snapshot!(refused(&(model.to_owned() + "behave = \"nicely\"\n")), @r#"cluster.toml:5: behave = "nicely" must be random, always-wrong, copy, sleep, "turn-bad-after N" or "slow MS""#);
    assert_snapshot!(refused(&(model.to_owned() + "impute = \"zero\"\n")), @r#"cluster.toml:5: impute = "zero" must be "mean" or empty"#);
    assert_snapshot!(refused(&(model.to_owned() + model)), @r#"
    cluster.toml:6: name = "knn" is taken already
    cluster.toml:8: predictor = "127.0.0.1:5001" is taken already, at cluster.toml:4
    "#);
    assert_snapshot!(refused("[consensus]\nclasses = [\"yes\"]\nround_ms = 1\n"), @r"
    cluster.toml:3: consensus.round_ms = 1 must be between 10 and 60000
    cluster.toml:2: consensus.classes must name 2 to 32
    ");
}

/// Its log, its folder or its certificate would be that of another, or a command would mean either.
#[test]
fn no_model_and_no_mirror_has_the_name_of_something_else() {
    let services = "[payment]\naddresses = [\"127.0.0.1:4001\"]\n[shop]\naddresses = [\"127.0.0.1:3001\"]\n\
                    [consensus]\naddresses = [\"127.0.0.1:6001\"]\n";
    let model = "[[predictor]]\nname = \"NAME\"\nmodel = \"knn\"\naddress = \"127.0.0.1:5001\"\n";
    let mirror = "[[mirror]]\nname = \"NAME\"\naddress = \"127.0.0.1:3010\"\n";
    let of_processes = ["n1", "pay1", "shop1", "gateway", "consensus"];
    let of_the_launcher = [
        "leader",
        "supervisor",
        "lock",
        "logs",
        "backups",
        "tls",
        "ca",
        "client",
        "console",
    ];
    for name in of_processes.into_iter().chain(of_the_launcher) {
        for (one, other) in [(model, "call the model"), (mirror, "call the mirror")] {
            let said = refused(&(services.to_owned() + &one.replace("NAME", name)));
            let expected = format!("cluster.toml:8: name = \"{name}\" is taken already, by ");
            assert!(said.starts_with(&expected) && said.contains(other), "{said}");
            assert!(!said.contains('\n'), "said once: {said}");
        }
    }
    for free in ["shop2", "knn", "gateways"] {
        let text = services.to_owned() + &model.replace("NAME", free);
        config::parse(&text, "cluster.toml").unwrap();
    }
    let both = refused(&(model.replace("NAME", "knn") + &mirror.replace("NAME", "knn")));
    assert!(
        both.starts_with("cluster.toml:6: name = \"knn\" is taken already, by a model"),
        "{both}"
    );
    assert_snapshot!(refused(&(services.to_owned() + &model.replace("NAME", "shop1"))), @r#"cluster.toml:8: name = "shop1" is taken already, by a shop: call the model something else, such as "model-shop1". It joins the consensus anew; DELETE /models/shop1 there lets the old one leave"#);
}

#[test]
fn behaviours_are_words_and_numbers() {
    assert_eq!("turn-bad-after 20".parse(), Ok(Behaviour::TurnBadAfter(20)));
    assert_eq!("slow 300".parse(), Ok(Behaviour::SlowMs(300)));
    assert_eq!("sleep".parse(), Ok(Behaviour::Sleep));
    for wrong in ["", "slow", "slow fast", "copy 3", "turn-bad-after 1 2"] {
        assert!(wrong.parse::<Behaviour>().is_err(), "{wrong}");
    }
}

#[test]
fn bent_files_are_read_or_refused() {
    let whole = include_bytes!("../../../../cluster.toml").to_vec();
    crate::bent::feed(&[whole], |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            drop(service::config::parse(text, "cluster.toml"));
        }
    });
}
