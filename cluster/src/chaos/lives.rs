//! Whether nodes and services live for as long as nobody ends them, nothing in them panics, and none finds its own books
//! wrong.
//! Invariant: an end that nobody caused is a violation with the last words before it, also of a node that was to be
//! killed next: that kill has not happened, and would hide it. So is a panic, which need not end a process, and an answer
//! that something is wrong inside. Only what a fault does to a disk may be answered like that, by the process to which it
//! does it: all other trouble is below a service, which says so.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use futures_util::future::join_all;
use rustix::process::Signal;

use super::book::Book;
use crate::arena::{ENDED, Server, elsewhere};

/// What stands in the log of a node from where its disk is made to fail.
const EXCUSED: &str = "---- its disk fails, so it may panic";
const PANIC: &str = "panicked";
/// What a service says that has found what no sequence of requests can lead to, nor any trouble with the store. That the
/// store's answer does not fit is not among that: a node whose disk fails may answer anything that is no promise.
const UNSOUND: [&str; 5] = [
    r#""message":"failed to keep the "#,
    // What it has written itself.
    r#""message":"failed to read "#,
    r#""message":"the ledger is not balanced""#,
    r#""message":"the shop is not sound""#,
    r#""message":"the payment service gave an answer that does not fit""#,
];
/// A panic can tell a long story.
const SHOWN_CHARS_MAX: usize = 600;

pub(super) fn ensure_lives(server: &mut Server) -> anyhow::Result<()> {
    ensure!(
        !server.has_ended(),
        "VIOLATION: {} had ended by itself: {}",
        server.name(),
        server.last_words()
    );
    Ok(())
}

/// Kills those that stand there, all in the same moment, and sees them dead; each of them must have lived until then.
pub(super) async fn kill(servers: &mut [Server], victims: &[usize]) -> anyhow::Result<()> {
    for victim in victims {
        ensure_lives(&mut servers[*victim])?;
    }
    end(servers, victims).await
}

/// The same with those that may have ended by what was done to them.
pub(super) async fn end(servers: &mut [Server], victims: &[usize]) -> anyhow::Result<()> {
    let servers = servers.iter_mut().enumerate();
    let victims = servers.filter(|(index, _)| victims.contains(index));
    let killed = join_all(victims.map(|(_, server)| server.kill())).await;
    killed.into_iter().collect()
}

/// Until its end it may panic, and end by itself: that is better than to go on with a disk that fails.
pub(super) fn excuse(server: &mut Server) -> anyhow::Result<()> {
    ensure_lives(server)?;
    server.remark(EXCUSED)
}

/// Asks it to stop, and sees that it does so in good order.
pub(super) async fn stop(server: &mut Server) -> anyhow::Result<()> {
    ensure_lives(server)?;
    server.signal(Signal::TERM)?;
    let status = server.ended().await?;
    ensure!(
        status.success(),
        "VIOLATION: {} was asked to stop, and ended with {status}: {}",
        server.name(),
        server.last_words()
    );
    Ok(())
}

/// After all faults everybody lives, and nothing has panicked without an excuse, nor was anything wrong inside of anybody.
pub(super) async fn judge<'run>(servers: impl IntoIterator<Item = &'run mut Server>, book: &Book) {
    let mut logs = Vec::new();
    for server in servers {
        if let Err(ended) = ensure_lives(server) {
            book.violation(format!("{ended:#}"));
        }
        let log = server.start.log.clone();
        let said = elsewhere(move || std::fs::read(log).context("read what a process has said")).await;
        match said {
            Ok(said) => {
                let said = String::from_utf8_lossy(&said).into_owned();
                book_lines(server.name(), &said, book);
                logs.push(said);
            }
            Err(error) => book.violation(format!("the end could not be judged: {error:#}")),
        }
    }
    book_internal(&logs, book);
}

fn book_lines(name: &str, said: &str, book: &Book) {
    for (did, words) in [
        ("panicked", &[PANIC][..]),
        ("found its books wrong", &UNSOUND[..]),
    ] {
        let lines = without_excuse(said).filter(|line| words.iter().any(|word| line.contains(word)));
        let lines: Vec<&str> = lines.collect();
        if let Some(first) = lines.first() {
            let (count, first) = (lines.len(), beginning(first));
            book.violation(format!("{name} {did}, as {count} lines tell, the first: {first}"));
        }
    }
}

/// Answers that something is wrong inside, of processes whose disks were well. Each has left a line in the log of who
/// gave it, which tells when that was.
fn book_internal(logs: &[String], book: &Book) {
    let excused: BTreeSet<&str> = logs
        .iter()
        .flat_map(|said| with_excuse(said))
        .filter_map(request_of)
        .collect();
    let told = std::mem::take(&mut book.pages().internal);
    for (who, requests) in told {
        let requests = requests
            .iter()
            .filter(|request| !excused.contains(request.as_str()));
        let requests: Vec<&String> = requests.collect();
        if let Some(first) = requests.first() {
            let mut lines = logs.iter().flat_map(|said| said.lines());
            let line = lines.find(|line| request_of(line) == Some(first.as_str()));
            let line = line.map_or_else(|| "of which no log tells".to_owned(), beginning);
            book.violation(format!(
                "{who}: {} answers were that something is wrong inside, the first to request {first:?}: {line}",
                requests.len()
            ));
        }
    }
}

fn beginning(line: &str) -> String {
    line.chars().take(SHOWN_CHARS_MAX).collect()
}

/// Of each life, what was said before its disk was made to fail, if it was.
fn without_excuse(said: &str) -> impl Iterator<Item = &str> {
    let lives = said.split(ENDED);
    let judged = lives.map(|life| life.split_once(EXCUSED).map_or(life, |(before, _)| before));
    judged.flat_map(str::lines)
}

/// What was said from then on.
fn with_excuse(said: &str) -> impl Iterator<Item = &str> {
    let lives = said.split(ENDED);
    let excused = lives.filter_map(|life| life.split_once(EXCUSED).map(|(_, behind)| behind));
    excused.flat_map(str::lines)
}

/// The id of the request that a line tells of.
fn request_of(line: &str) -> Option<&str> {
    let (_, id) = line.split_once(r#""request.id":""#)?;
    id.split_once('"').map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::arena::wait_for;

    const SOON: Duration = Duration::from_secs(10);
    const LIVES_ON: &str = "exec sleep 60";

    /// One that does this, once that much of it can be seen.
    async fn started(folder: &tempfile::TempDir, words: &str, so: impl Fn(&mut Server) -> bool) -> Server {
        let mut server = Server::of_shell(folder.path(), words);
        server.start().unwrap();
        let seen = wait_for("a process to come so far", SOON, async || {
            so(&mut server).then_some(())
        });
        seen.await.unwrap();
        server
    }

    #[tokio::test]
    async fn one_that_ended_by_itself_was_not_killed() {
        let folder = tempfile::tempdir().unwrap();
        let ended = started(&folder, "echo farewell; false", Server::has_ended).await;
        let lives = started(&folder, LIVES_ON, |_| true).await;
        let mut servers = [lives, ended];
        let told = kill(&mut servers, &[0, 1]).await.unwrap_err().to_string();
        assert!(
            told.starts_with("VIOLATION: shell had ended by itself") && told.contains("farewell"),
            "{told}"
        );
        assert!(!servers[0].has_ended(), "it was killed beside one that was not");
        let book = Book::new();
        judge(&mut servers, &book).await;
        assert_eq!(book.pages().violations.len(), 1);
        kill(&mut servers, &[0]).await.unwrap();
        // Where a fault may end it, it does not matter who did.
        end(&mut servers, &[0, 1]).await.unwrap();
        assert!(servers.iter().all(|server| server.pid().is_none()));
    }

    #[tokio::test]
    async fn one_that_fails_when_it_is_to_stop_has_not_stopped_in_good_order() {
        for (code, is_good) in [(0, true), (3, false)] {
            let folder = tempfile::tempdir().unwrap();
            let words = format!("trap 'exit {code}' TERM; echo ready; while :; do sleep 0.01; done");
            let is_ready = |server: &mut Server| server.last_words().contains("ready");
            let mut server = started(&folder, &words, is_ready).await;
            let stopped = stop(&mut server).await;
            assert_eq!(stopped.is_ok(), is_good, "{stopped:?}");
            if let Err(told) = stopped {
                let told = told.to_string();
                assert!(told.starts_with("VIOLATION: shell was asked to stop"), "{told}");
            }
        }
    }

    #[tokio::test]
    async fn a_panic_is_found_though_nothing_ended_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let words = format!("echo \"thread 'upkeep' panicked at a read\"; {LIVES_ON}");
        let has_said = |server: &mut Server| server.last_words().contains(PANIC);
        let mut server = started(&folder, &words, has_said).await;
        let book = Book::new();
        judge([&mut server], &book).await;
        let told = book.pages().violations.join("\n");
        assert!(
            told.starts_with("shell panicked, as 1 lines tell, the first: thread 'upkeep'"),
            "{told}"
        );
    }

    #[tokio::test]
    async fn a_panic_is_passed_over_where_a_disk_failed() {
        let folder = tempfile::tempdir().unwrap();
        let has_said = |server: &mut Server| server.last_words().contains("serving");
        let mut server = started(&folder, &format!("echo serving; {LIVES_ON}"), has_said).await;
        let says = |server: &Server| server.remark("panicked: a read failed").unwrap();
        excuse(&mut server).unwrap();
        says(&server);
        end(std::slice::from_mut(&mut server), &[0]).await.unwrap();
        let book = Book::new();
        judge([&mut server], &book).await;
        assert_eq!(book.pages().violations, [""; 0]);
        // The excuse is not one for those who come after it.
        server.start().unwrap();
        says(&server);
        judge([&mut server], &book).await;
        assert_eq!(book.pages().violations.len(), 1);
    }

    /// What is found of a service that has said these lines, each followed by the next.
    async fn found(lines: &[&str], book: &Book) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let mut server = started(&folder, LIVES_ON, |_| true).await;
        for line in lines {
            server.remark(line).unwrap();
        }
        judge([&mut server], book).await;
        book.pages().violations.clone()
    }

    #[tokio::test]
    async fn a_service_that_finds_its_books_wrong_is_named() {
        for line in [
            r#"{"error":"a hold is larger than all holds of its card","message":"failed to keep the ledger"}"#,
            r#"{"error":"an order is gone","message":"failed to keep the shop"}"#,
            r#"{"error":"expected value","message":"failed to read pay/p/1"}"#,
            r#"{"first":"debits","message":"the ledger is not balanced"}"#,
            r#"{"first":"stock","message":"the shop is not sound"}"#,
            r#"{"code":"conflict","message":"the payment service gave an answer that does not fit"}"#,
        ] {
            let told = found(&["serving", line], &Book::new()).await;
            let begin = format!("shell found its books wrong, as 1 lines tell, the first: {line}");
            assert_eq!(told, [begin]);
        }
        // What a broken store leads to.
        let passing = [
            r#"{"message":"the store cannot be reached"}"#,
            r#"{"message":"the store gave an answer that does not fit"}"#,
            r#"{"message":"what failed to keep the ledger busy"}"#,
        ];
        assert_eq!(found(&passing, &Book::new()).await, [""; 0]);
    }

    #[tokio::test]
    async fn an_answer_that_something_is_wrong_inside_has_no_excuse_but_a_disk_that_failed() {
        const SAID: &str = r#"{"message":"a handler failed","request.id":"a-1"}"#;
        let cases: [(&[&str], Option<&str>); 5] = [
            (&[SAID], Some(SAID)),
            (&[SAID, EXCUSED], Some(SAID)),
            (&[EXCUSED, ENDED, SAID], Some(SAID)),
            (&[EXCUSED], Some("no log tells")),
            (&[EXCUSED, SAID, ENDED], None),
        ];
        for (lines, words) in cases {
            let book = Book::new();
            book.internal("buyer chaos-0", "a-1");
            let told = found(lines, &book).await;
            assert_eq!(told.len(), usize::from(words.is_some()), "{lines:?}: {told:?}");
            if let Some(words) = words {
                let is_said = told[0].starts_with("buyer chaos-0: 1 answers") && told[0].contains(words);
                assert!(is_said, "{told:?}");
            }
        }
    }
}
