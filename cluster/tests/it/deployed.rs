//! What `cluster/deploy` says, followed without Docker: a folder stands for the file system of the containers, which are
//! all on this machine and share it. Invariant: the command that the compose file tells people to type works there.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use service::config::{self, Config};
use tokio::process::Command;

use crate::harness::{BINARY, Cluster, Ran, SOON, wait_until};

const DOCKERFILE: &str = include_str!("../../deploy/Dockerfile");
const COMPOSE: &str = include_str!("../../deploy/compose.yaml");
const CONFIG: &str = include_str!("../../deploy/cluster.toml");

/// What the last stage says by this word.
fn instruction(word: &str) -> Option<&'static str> {
    let stage = DOCKERFILE.rsplit("\nFROM ").next().unwrap();
    let mut said = stage.lines().filter_map(|line| line.strip_prefix(word));
    said.next_back().map(str::trim)
}

/// Where the image has what was built from this.
fn copied(source: &str) -> &'static str {
    let place = instruction(&format!("COPY {source}"));
    place.unwrap_or_else(|| panic!("{source} is not in the image"))
}

/// The command of a service of the compose file.
fn command_of(service: &str) -> Vec<String> {
    let begin = format!("  {service}: {{");
    let line = COMPOSE.lines().find(|line| line.starts_with(&begin)).unwrap();
    let command = line.split("command: ").nth(1).unwrap();
    let end = command.find(']').unwrap();
    serde_json::from_str(&command[..=end]).unwrap()
}

/// What one types to have something run in a container that runs.
fn executed() -> Vec<&'static str> {
    let mut lines = COMPOSE.lines();
    let line = lines.find_map(|line| line.split_once(" exec n1 ")).unwrap();
    line.1.split_whitespace().collect()
}

/// A path of the containers.
fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.strip_prefix('/').unwrap())
}

/// The program, as Docker starts it with these arguments.
fn program(root: &Path, arguments: &[String]) -> Command {
    let arguments = arguments.iter().map(|argument| {
        if argument.starts_with('/') {
            inside(root, argument)
        } else {
            PathBuf::from(argument)
        }
    });
    let mut command = Command::new(BINARY);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command.current_dir(inside(root, instruction("WORKDIR ").unwrap_or("/")));
    command.env_remove("MENAGERIE_TOKEN");
    command
}

#[tokio::test]
async fn the_command_that_the_compose_file_shows_works_in_a_container() {
    let cluster = Cluster::with(3, |config| {
        let deployed = config::parse(CONFIG, "cluster.toml").unwrap();
        assert!(
            deployed.data.is_absolute(),
            "it depends on where a command is run"
        );
        // Ports, the data folder and the disk are this machine's.
        let Config {
            nodes, data, limits, ..
        } = config.clone();
        *config = Config {
            nodes,
            data,
            limits,
            ..deployed
        };
    });
    let root = cluster.folder().join("container");
    let configuration = inside(&root, copied("cluster/deploy/cluster.toml"));
    std::fs::create_dir_all(configuration.parent().unwrap()).unwrap();
    std::fs::rename(cluster.folder().join("cluster.toml"), configuration).unwrap();
    let entry: Vec<String> = serde_json::from_str(instruction("ENTRYPOINT ").unwrap()).unwrap();
    let executed = executed();
    let menagerie = copied("--from=build /src/target/release/menagerie");
    assert_eq!((entry[0].as_str(), executed[0]), (menagerie, menagerie));
    let nodes: Vec<_> = ["n1", "n2", "n3"]
        .iter()
        .map(|name| {
            let arguments = [&entry[1..], &command_of(name)[..]].concat();
            program(&root, &arguments).spawn().unwrap()
        })
        .collect();
    let arguments: Vec<String> = executed[1..].iter().map(ToString::to_string).collect();
    wait_until("the command to work", SOON, async || {
        let ran = Ran::of(program(&root, &arguments).output().await.unwrap());
        let worked = ran.code == Some(0);
        worked.then_some(()).ok_or_else(|| format!("{ran:?}"))
    })
    .await;
    drop(nodes);
}
