//! Whether nodes and services live for as long as nobody ends them.
//! Invariant: an end that nobody caused is a violation with the last words before it, also of a node that was to be
//! killed next: that kill has not happened, and would hide it. Only what a fault does to a disk may be answered by an end.

use anyhow::ensure;
use futures_util::future::join_all;
use rustix::process::Signal;

use super::book::Book;
use crate::arena::Server;

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

/// After all faults everybody lives.
pub(super) fn judge<'run>(servers: impl IntoIterator<Item = &'run mut Server>, book: &Book) {
    for server in servers {
        if let Err(ended) = ensure_lives(server) {
            book.violation(format!("{ended:#}"));
        }
    }
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
        judge(&mut servers, &book);
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
}
