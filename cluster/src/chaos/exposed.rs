//! Whether anything that nobody may read stands where others could: in a file of a node or a service, or among the words
//! their processes were started with. Invariant: a search that does not find what is everywhere is no search.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use memchr::memmem;
use service::secrets::{FILE_NAME, Secret, Secrets};

use super::checkouts::Checkouts;
use super::clients::PREFIX;
use super::disk::{IMAGE, MOUNTED};
use super::ground::Ground;

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
    let folder = ground.folder().to_owned();
    let search = tokio::task::spawn_blocking(move || everywhere(&folder, &pids, &needles));
    search.await.context("search for secrets")?
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

fn everywhere(folder: &Path, pids: &[u32], needles: &[Needle]) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut files = Vec::new();
    list(folder, &mut files)?;
    let mut is_searched = false;
    for file in &files {
        // Compaction removes files at any time.
        let Ok(content) = std::fs::read(file) else {
            continue;
        };
        is_searched |= memmem::find(&content, PREFIX.as_bytes()).is_some();
        search(&content, &file.display().to_string(), needles, &mut found);
    }
    ensure!(
        is_searched,
        "the search for secrets found no {PREFIX} in any file"
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
            found.push(format!("{} stands in {place}", needle.name));
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
}
