//! What the launcher refuses to begin, and what it does with processes that do not stay up.
//! Invariant: a refusal names the line, ends with 2, and leaves nothing started.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::harness::{Cluster, SOON, signal, wait_until};

/// Runs `up` in both ways; answers what it said when refusing.
async fn refused(cluster: &Cluster, further: &[&str]) -> String {
    let foreground = cluster.run(&[&["up"], further].concat()).await.fails(2);
    let detached = cluster
        .run(&[&["up", "--detach"], further].concat())
        .await
        .fails(2);
    assert_eq!(foreground, detached);
    assert!(!cluster.data().join("n1").exists(), "nothing was started");
    assert!(!cluster.data().join("secrets.toml").exists());
    foreground
}

#[tokio::test]
async fn a_broken_or_contradictory_configuration_names_the_line() {
    let cluster = Cluster::new(2);
    let file = cluster.folder().join("cluster.toml");
    let sound = std::fs::read_to_string(&file).unwrap();
    let last = sound.lines().count();

    std::fs::write(&file, format!("{sound}colour = \"red\"\n")).unwrap();
    let told = refused(&cluster, &[]).await;
    let expected = format!("menagerie: cluster.toml:{}: unknown key \"colour\"", last + 1);
    assert!(told.starts_with(&expected), "{told}");

    std::fs::write(&file, format!("{sound}[[node\n")).unwrap();
    let told = refused(&cluster, &[]).await;
    assert!(
        told.starts_with(&format!("menagerie: cluster.toml:{}: ", last + 1)),
        "{told}"
    );

    // The second node with the id of the first one.
    std::fs::write(&file, sound.replace("id = 2", "id = 1")).unwrap();
    let told = refused(&cluster, &[]).await;
    let (first, second) = (
        cluster.line_of("id = 1"),
        sound.lines().position(|line| line == "id = 2").unwrap() + 1,
    );
    let expected =
        format!("menagerie: cluster.toml:{second}: node id 1 is taken already, at cluster.toml:{first}\n");
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_had_is_refused_with_its_setting() {
    let mut cluster = Cluster::new(1);
    let data = cluster.data();
    let file = cluster.folder().join("a-file");
    std::fs::write(&file, "").unwrap();
    cluster.config.data = file.join("below");
    cluster.write_config();
    let told = cluster.run(&["up"]).await.fails(2);
    let line = cluster.line_of(&format!("data = \"{}\"", file.join("below").display()));
    assert!(
        told.starts_with(&format!("menagerie: cluster.toml:{line}: make the data folder ")),
        "{told}"
    );
    cluster.config.data = data;
    let told = refused(&cluster, &["--data", file.join("below").to_str().unwrap()]).await;
    assert!(
        told.starts_with("menagerie: --data: make the data folder "),
        "{told}"
    );
}

#[tokio::test]
async fn a_folder_that_is_nobodys_data_is_left_as_it_is() {
    let cluster = Cluster::with(1, |config| config.tls.enabled = true);
    let data = cluster.data();
    let open = |mode| std::fs::set_permissions(&data, Permissions::from_mode(mode)).unwrap();
    let mode = || std::fs::metadata(&data).unwrap().permissions().mode() & 0o7777;
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("letter"), "dear").unwrap();
    open(0o755);
    let told = refused(&cluster, &[]).await;
    let line = cluster.line_of(&format!("data = \"{}\"", data.display()));
    let expected = format!(
        "menagerie: cluster.toml:{line}: {} is open to others",
        data.display()
    );
    assert!(
        told.starts_with(&expected) && told.contains("chmod 700"),
        "{told}"
    );
    assert_eq!((mode(), std::fs::read_dir(&data).unwrap().count()), (0o755, 1));
    // Everybody has things in it, though not just now.
    std::fs::remove_file(data.join("letter")).unwrap();
    open(0o1777);
    refused(&cluster, &[]).await;
    assert_eq!((mode(), std::fs::read_dir(&data).unwrap().count()), (0o1777, 0));
    // One that is empty becomes ours, and stays it.
    for _ in 0..2 {
        open(0o755);
        cluster.up().await;
        assert_eq!(mode(), 0o700);
        cluster.down().await;
    }
}

#[tokio::test]
async fn ports_that_are_taken_are_named_with_their_holder_before_anything_starts() {
    let cluster = Cluster::new(2);
    let taken = std::net::TcpListener::bind(&cluster.config.nodes[1].peer).unwrap();
    let told = refused(&cluster, &[]).await;
    let address = &cluster.config.nodes[1].peer;
    let line = cluster.line_of(&format!("peer = \"{address}\""));
    let expected = format!("menagerie: cluster.toml:{line}: peer = \"{address}\" of n2 is taken by ");
    assert!(told.starts_with(&expected), "{told}");
    if cfg!(target_os = "linux") {
        assert!(
            told.contains(&format!("process {} (", std::process::id())),
            "{told}"
        );
    }
    drop(taken);
    cluster.up().await;
}

#[tokio::test]
async fn addresses_of_other_machines_and_doubled_ones_are_told_apart() {
    // A range for documentation: no machine has it.
    let cluster = Cluster::with(1, |config| {
        config.tls.plain_beyond_loopback = true;
        config.nodes[0].client_listen = Some("192.0.2.1:7001".to_owned());
    });
    let told = refused(&cluster, &[]).await;
    assert!(
        told.contains("client_listen = \"192.0.2.1:7001\" of n1 is no address of this machine"),
        "{told}"
    );
    let cluster = Cluster::with(2, |config| {
        config.nodes[1].client_listen = Some(config.nodes[0].client.replace("127.0.0.1", "localhost"));
    });
    let told = refused(&cluster, &[]).await;
    assert!(
        told.contains("of n2 is taken by another line of the same file"),
        "{told}"
    );
}

#[tokio::test]
async fn a_process_that_dies_again_and_again_is_left_down_and_reported() {
    let cluster = Cluster::start(1).await;
    let mut killed = Vec::new();
    wait_until("n1 is given up", SOON, async || {
        let process = cluster.process("n1").await;
        if process["state"] == "failed" {
            return Ok(());
        }
        if let Some(pid) = process["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
            && !killed.contains(&pid)
        {
            signal(pid, "KILL");
            killed.push(pid);
        }
        Err(process.to_string())
    })
    .await;
    assert_eq!(killed.len(), 5);
    let told = cluster.run(&["logs", "supervisor", "-n", "100"]).await.ok();
    assert!(told.contains("died again and again and is left down"), "{told}");
    let table = cluster.run(&["status"]).await.ok();
    assert!(table.contains("failed"), "{table}");
    cluster.run(&["start", "n1", "--wait"]).await.ok();
    assert_eq!(cluster.state("n1").await, "running");
}

#[tokio::test]
async fn others_find_a_node_at_its_address_wherever_it_listens() {
    let cluster = Cluster::with(2, |config| {
        config.tls.plain_beyond_loopback = true;
        for node in &mut config.nodes {
            node.client_listen = Some(node.client.replace("127.0.0.1", "0.0.0.0"));
            node.peer_listen = Some(node.peer.replace("127.0.0.1", "0.0.0.0"));
            node.client = node.client.replace("127.0.0.1", "127.0.0.2");
        }
    });
    cluster.up().await;
    let put = cluster.client().put("a", "1").await.unwrap();
    assert_eq!(put.revision, 1);
    let members = cluster.client().cluster().await.unwrap().members;
    let addresses: Vec<&str> = members.iter().map(|member| member.address.as_str()).collect();
    assert_eq!(addresses, cluster.config.client_addresses());
}

#[tokio::test]
async fn units_run_what_the_launcher_runs() {
    let cluster = Cluster::new(2);
    let told = cluster.run(&["units"]).await.ok();
    for part in [
        "# menagerie-n1.service",
        "# menagerie-n2.service",
        "ExecStart=/usr/local/bin/menagerie node --id 2 --config /etc/menagerie/cluster.toml --data /var/lib/menagerie\n",
        "Restart=always",
        // Of the section before; in another one systemd ignores it.
        "\nStartLimitIntervalSec=0\n\n[Service]\n",
        "User=menagerie",
        "\nLimitNOFILE=65536\n",
    ] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    let folder = cluster.folder().join("units");
    std::fs::create_dir(&folder).unwrap();
    let told = cluster
        .run(&[
            "units",
            "n2",
            "--into",
            folder.to_str().unwrap(),
            "--state",
            "/srv/pets",
        ])
        .await
        .ok();
    assert_eq!(told.trim(), folder.join("menagerie-n2.service").to_str().unwrap());
    let unit = std::fs::read_to_string(folder.join("menagerie-n2.service")).unwrap();
    assert!(
        unit.contains("ReadWritePaths=/srv/pets") && !unit.contains("StateDirectory"),
        "{unit}"
    );
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);

    let told = cluster.run(&["units", "n9"]).await.fails(2);
    assert!(told.contains("there are: n1, n2"), "{told}");
    let told = cluster
        .run(&["units", "--state", "/srv/two words"])
        .await
        .fails(2);
    assert!(told.contains("absolute path"), "{told}");
    let told = cluster
        .run(&["units", "--user", "root\nExecStartPre=/bin/rm"])
        .await
        .fails(2);
    assert!(told.contains("--user"), "{told}");
}

#[tokio::test]
async fn units_allow_the_files_that_the_configured_connections_need() {
    let cluster = Cluster::with(1, |config| config.limits.connections_max = 100_000);
    let told = cluster.run(&["units", "n1"]).await.ok();
    assert!(told.contains("\nLimitNOFILE=102048\n"), "{told}");
}

#[tokio::test]
async fn units_let_nodes_write_backups_where_the_configuration_says() {
    let mut cluster = Cluster::with(1, |config| {
        config.backup.folder = "/srv/backups".into();
        config.gateway.address = "127.0.0.1:1".to_owned();
    });
    let unit = async |name: &str| cluster.run(&["units", name]).await.ok();
    let told = unit("n1").await;
    assert!(told.contains("\nReadWritePaths=-/srv/backups\n"), "{told}");
    let told = unit("gateway").await;
    assert!(!told.contains("backups"), "only nodes write them: {told}");
    let told = cluster.run(&["units", "n1", "--state", "/srv"]).await.ok();
    assert!(!told.contains("backups"), "it may write there anyway: {told}");
    // It would be one folder where somebody tries it, and another one where systemd runs it.
    cluster.config.backup.folder = "backups".into();
    cluster.write_config();
    let told = cluster.run(&["units"]).await.fails(2);
    assert!(
        told.contains("cluster.toml:") && told.contains("absolute path"),
        "{told}"
    );
}

#[tokio::test]
async fn units_take_no_path_that_is_another_one_where_systemd_runs_them() {
    let mut cluster = Cluster::with(1, |config| {
        config.models = service::config::parse(
            "[[predictor]]\nname = \"knn\"\nmodel = \"knn\"\naddress = \"127.0.0.1:1\"\n",
            "knn.toml",
        )
        .unwrap()
        .models;
    });
    cluster.run(&["units"]).await.ok();
    cluster.config.models[0].table = "flowers.csv".to_owned();
    cluster.write_config();
    let told = cluster.run(&["units"]).await.fails(2);
    let line = cluster.line_of("table = \"flowers.csv\"");
    assert!(
        told.contains(&format!("cluster.toml:{line}:")) && told.contains("absolute path"),
        "{told}"
    );
    cluster.config.models[0].table = "/srv/flowers.csv".to_owned();
    cluster.config.tls.folder = "certificates".into();
    cluster.write_config();
    let told = cluster.run(&["units"]).await.fails(2);
    assert!(
        told.contains("tls.folder = \"certificates\"") && told.contains("absolute path"),
        "{told}"
    );
    cluster.config.tls.folder = "/srv/certificates".into();
    cluster.write_config();
    cluster.run(&["units"]).await.ok();
}

/// The unit is not only text that looks like one, where there is somebody to ask.
#[tokio::test]
async fn systemd_takes_the_units() {
    let cluster = Cluster::with(1, |config| config.backup.folder = "/srv/backups".into());
    let binary = crate::harness::BINARY;
    let folder = cluster.folder().to_str().unwrap().to_owned();
    cluster
        .run(&["units", "--into", &folder, "--program", binary, "--user", "root"])
        .await
        .ok();
    let checked = tokio::time::timeout(
        Duration::from_secs(30),
        tokio::process::Command::new("systemd-analyze")
            .args(["verify", "--man=no", &format!("{folder}/menagerie-n1.service")])
            .output(),
    );
    match checked.await.unwrap() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let about_us: Vec<&str> = said
                .lines()
                .filter(|line| line.contains("menagerie-n1"))
                .collect();
            assert!(about_us.is_empty(), "{said}");
        }
        // Machines without systemd run no units either.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
    }
}
