//! Whether anything that nobody may read stands where others could: in a file of a node or a service, in the tables of
//! a node, which are compressed, or among the words their processes were started with.
//! Invariant: a search that does not find at each node what is everywhere is no search.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use memchr::memmem;
use service::secrets::{FILE_NAME, Secret, Secrets};

use super::checkouts::Checkouts;
use super::clients::PREFIX;
use super::disk::{IMAGE, MOUNTED};
use super::ground::Ground;
use crate::arena::elsewhere;

/// So many places are told.
const SHOWN_MAX: usize = 8;

struct Needle {
    name: String,
    text: String,
}

/// Where what was found, in words that do not repeat it. Reads all files there are.
pub(super) async fn look(ground: &Ground, checkouts: &Checkouts) -> anyhow::Result<Vec<String>> {
    let needles = needles(ground, &checkouts.cards)?;
    let mut pids = ground.store.pids();
    pids.extend(checkouts.pids());
    let (folder, nodes) = (ground.folder().to_owned(), nodes(ground));
    elsewhere(move || everywhere(&folder, &nodes, &pids, &needles)).await
}

/// The same in all rows of nodes that have stopped.
pub(super) async fn look_into_tables(ground: &Ground, cards: &[String]) -> anyhow::Result<Vec<String>> {
    let (needles, nodes) = (needles(ground, cards)?, nodes(ground));
    elsewhere(move || in_tables(&nodes, &needles)).await
}

/// The folder of each node.
pub(super) fn nodes(ground: &Ground) -> Vec<PathBuf> {
    let config = &ground.store.config;
    let names = config.nodes.iter().map(service::config::NodeConfig::name);
    names.map(|name| config.data.join(name)).collect()
}

fn needles(ground: &Ground, cards: &[String]) -> anyhow::Result<Vec<Needle>> {
    let secrets = service::secrets::load(&ground.store.config.data).context("read the secrets")?;
    let mut needles = needles_of(&secrets);
    needles.extend(cards.iter().enumerate().map(|(index, card)| Needle {
        name: format!("the number of card {index}"),
        text: card.clone(),
    }));
    Ok(needles)
}

fn everywhere(
    folder: &Path,
    nodes: &[PathBuf],
    pids: &[u32],
    needles: &[Needle],
) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut files = Vec::new();
    list(folder, &mut files)?;
    let mut unsearched: Vec<&PathBuf> = nodes.iter().collect();
    for file in &files {
        // Compaction removes files at any time.
        let Ok(content) = std::fs::read(file) else {
            continue;
        };
        if is_everywhere(&content) {
            unsearched.retain(|node| !file.starts_with(node));
        }
        search(&content, &file.display().to_string(), needles, &mut found);
    }
    ensure!(
        unsearched.is_empty(),
        "the search for secrets found no {PREFIX} in any file of {unsearched:?}"
    );
    for pid in pids {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).context("read the words of a process")?;
        search(
            &words,
            &format!("the words of process {pid}"),
            needles,
            &mut found,
        );
    }
    found.truncate(SHOWN_MAX);
    Ok(found)
}

fn in_tables(nodes: &[PathBuf], needles: &[Needle]) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for node in nodes {
        let databases = kvstore::databases_in(node);
        let databases = databases.with_context(|| format!("look for the databases of {}", node.display()))?;
        in_databases(node, &databases, needles, &mut found)?;
    }
    found.truncate(SHOWN_MAX);
    Ok(found)
}

fn in_databases(
    node: &Path,
    databases: &[PathBuf],
    needles: &[Needle],
    found: &mut Vec<String>,
) -> anyhow::Result<()> {
    let mut is_searched = false;
    for database in databases {
        let mut look = |table: &str, key: &[u8], value: &[u8]| {
            let place = format!("the table {table} of {}", database.display());
            for text in [key, value] {
                is_searched |= is_everywhere(text);
                search(text, &place, needles, found);
            }
        };
        let visited = kvstore::visit_rows(database, &mut look);
        visited.with_context(|| format!("read the tables of {}", database.display()))?;
    }
    ensure!(
        is_searched,
        "the search for secrets found no {PREFIX} in the tables of {}",
        node.display()
    );
    Ok(())
}

/// Each node has a key of the run, in its log or its state.
fn is_everywhere(content: &[u8]) -> bool {
    memmem::find(content, PREFIX.as_bytes()).is_some()
}

fn needles_of(secrets: &Secrets) -> Vec<Needle> {
    let needle = |name: String, secret: &Secret| Needle {
        name,
        text: secret.expose().to_owned(),
    };
    let tokens = secrets.tokens.iter();
    let mut needles: Vec<Needle> = tokens
        .map(|(name, secret)| needle(format!("the token {name}"), secret))
        .collect();
    let keys = &secrets.keys;
    needles.push(needle("the secret of the cluster".to_owned(), &keys.cluster));
    needles.push(needle("the key for card numbers".to_owned(), &keys.card_hmac_1));
    let password = &secrets.shop.admin_password;
    needles.push(needle("the password of the shop".to_owned(), password));
    needles
}

fn search(content: &[u8], place: &str, needles: &[Needle], found: &mut Vec<String>) {
    for needle in needles {
        if memmem::find(content, needle.text.as_bytes()).is_some() {
            let told = format!("{} stands in {place}", needle.name);
            // A table may have it in many rows.
            if !found.contains(&told) {
                found.push(told);
            }
        }
    }
}

/// All files but the one that is there to hold secrets.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder);
    for entry in entries
        .with_context(|| format!("list {}", folder.display()))?
        .flatten()
    {
        // The disk of a node is a link to where it is mounted, so the disks themselves need no look.
        let path = entry.path();
        let ending = path.extension();
        if ending.is_some_and(|ending| ending == IMAGE || ending == MOUNTED) {
            continue;
        }
        let Ok(kind) = path.metadata() else {
            continue;
        };
        if kind.is_dir() {
            // A folder may go while it is looked at, too.
            let _ = list(&path, files);
        } else if kind.is_file() && entry.file_name() != FILE_NAME {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_stands_in_a_file_is_found_and_not_repeated() {
        let secrets = Secrets::generate().unwrap();
        let token = secrets.token("root").unwrap().expose();
        let mut found = Vec::new();
        let line = format!("GET /v1/kv/a authorization: Bearer {token} 200");
        search(line.as_bytes(), "n1.log", &needles_of(&secrets), &mut found);
        assert_eq!(found, ["the token root stands in n1.log"]);
        search(b"GET /v1/kv/a 200", "n2.log", &needles_of(&secrets), &mut found);
        assert_eq!(found.len(), 1);
    }

    fn needle(text: &str) -> [Needle; 1] {
        [Needle {
            name: "the secret".to_owned(),
            text: text.to_owned(),
        }]
    }

    #[test]
    fn the_files_of_each_node_are_searched() {
        let folder = tempfile::tempdir().unwrap();
        let nodes = ["n1", "n2"].map(|name| folder.path().join(name));
        for node in &nodes {
            std::fs::create_dir(node).unwrap();
        }
        let look = |text: &str| everywhere(folder.path(), &nodes, &[], &needle(text));
        std::fs::write(nodes[0].join("log"), "chaos/r/00001/2 and a secret").unwrap();
        let told = look("a secret").unwrap_err().to_string();
        let unsearched = format!("in any file of {:?}", [&nodes[1]]);
        assert!(told.ends_with(&unsearched), "{told}");
        std::fs::write(nodes[1].join("log"), "chaos/r/00001/2").unwrap();
        let found = look("a secret").unwrap();
        assert!(found.len() == 1 && found[0].contains("n1/log"), "{found:?}");
        assert_eq!(look("another secret").unwrap(), [""; 0]);
    }

    #[test]
    fn a_node_whose_tables_have_nothing_that_is_known_was_not_searched() {
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path();
        // Rows of nothing but this letter.
        kvstore::synced_batches(node, 1, 64, Duration::from_millis(20)).unwrap();
        let mut found = Vec::new();
        let searched = in_databases(node, &[node.to_owned()], &needle("rrrr"), &mut found);
        let told = searched.unwrap_err().to_string();
        assert!(told.contains("found no chaos/ in the tables"), "{told}");
        let place = format!("the secret stands in the table log of {}", node.display());
        assert_eq!(found, [place]);
    }
}
