//! The control socket: how `status`, `kill` and the others talk to the supervisor. One line of JSON each way.
//! Invariant: only the owner of the data folder can connect (folder 0700, socket 0600);
//! lines, connections and waiting are bounded.
//! It must not know how a request is carried out.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use service::tasks::Tasks;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::keeper::STOP_DEADLINE;
use super::place::Place;
use super::supervisor::Supervisor;
use super::{Action, Status, View};
use crate::signals;

const REQUEST_BYTES_MAX: u64 = 4096;
const ANSWER_BYTES_MAX: u64 = 1 << 20;
const CONNECTIONS_MAX: usize = 64;
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// A supervisor that begins holds the folder before it listens, and one whose processes have all stopped for a moment
/// after it has listened.
const MOMENT_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A supervisor asks the nodes who leads, none of them for long, and everything else it knows.
const STATUS_MAX: Duration = Duration::from_secs(5);
/// The process may have to be killed in the end, and may be about to end at somebody else's word before.
const ACT_MAX: Duration = Duration::from_secs(3 * STOP_DEADLINE.as_secs());
/// While something else takes its time.
const STATUS_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub(crate) enum Request {
    Status,
    Down,
    Act { action: Action, name: String },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    Status(Status),
    Done(View),
    /// All processes have stopped.
    Stopped,
    /// There is no process of this name: whoever asked has mistyped it.
    Stranger(String),
    Error(String),
}

/// Sends one request. None: no supervisor runs on this data folder. One that does not answer fails it: it may stand still
/// (Ctrl-Z), for as long as it likes.
pub(crate) async fn ask(place: &Place, request: &Request) -> anyhow::Result<Option<Answer>> {
    let Some(stream) = connect(place, MOMENT_MAX).await? else {
        return Ok(None);
    };
    // Of whoever listens, by the word of the kernel.
    let pid = stream.peer_cred().ok().and_then(|supervisor| supervisor.pid());
    let patience = match request {
        Request::Status => STATUS_MAX,
        Request::Act { .. } => ACT_MAX,
        // Each process may take its time to stop, one after the other.
        Request::Down => Duration::MAX,
    };
    tokio::select! {
        answer = exchange(stream, request) => answer.map(Some),
        () = tokio::time::sleep(patience) => bail!(unanswered(pid, request)),
        () = silence(place), if !matches!(request, Request::Status) => bail!(unanswered(pid, request)),
    }
}

/// Returns when the supervisor no longer says how it stands. That it cannot be reached is no silence: it has ended, and so
/// has what it was asked for.
async fn silence(place: &Place) {
    loop {
        tokio::time::sleep(STATUS_EVERY).await;
        let asking = async {
            match connect(place, Duration::ZERO).await? {
                Some(stream) => exchange(stream, &Request::Status).await.map(drop),
                None => Ok(()),
            }
        };
        if tokio::time::timeout(STATUS_MAX, asking).await.is_err() {
            return;
        }
    }
}

fn unanswered(pid: Option<i32>, request: &Request) -> String {
    let mut told = match pid {
        Some(pid) if signals::stands_still(pid) => {
            format!("the launcher (process {pid}) stands still: `kill -CONT {pid}` lets it go on")
        }
        Some(pid) => format!("the launcher (process {pid}) does not answer"),
        None => "the launcher does not answer".to_owned(),
    };
    if !matches!(request, Request::Status) {
        told.push_str("; what it was asked for may still be done");
    }
    told
}

async fn exchange(mut stream: UnixStream, request: &Request) -> anyhow::Result<Answer> {
    let mut line = serde_json::to_vec(request).context("write the request")?;
    line.push(b'\n');
    stream.write_all(&line).await.context("ask the launcher")?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX))
        .read_until(b'\n', &mut answer)
        .await
        .context("hear the launcher's answer")?;
    if answer.is_empty() {
        bail!("the launcher ended before it answered");
    }
    serde_json::from_slice(&answer).context("understand the launcher's answer")
}

/// None: nobody listens, and nobody holds the folder either. All else that is in the way is told.
async fn connect(place: &Place, patience: Duration) -> anyhow::Result<Option<UnixStream>> {
    let (socket, deadline) = (place.control(), Instant::now() + patience);
    loop {
        let error = match UnixStream::connect(&socket).await {
            Ok(stream) => return Ok(Some(stream)),
            Err(error) => error,
        };
        match error.kind() {
            // The path is too long for a socket, so nobody can ever have listened there.
            ErrorKind::InvalidInput => return Ok(None),
            ErrorKind::NotFound | ErrorKind::ConnectionRefused if !place.is_locked() => return Ok(None),
            ErrorKind::NotFound | ErrorKind::ConnectionRefused if Instant::now() < deadline => {}
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                return Err(error).with_context(|| {
                    format!(
                        "a launcher holds {}, but nobody listens at {}",
                        place.data.display(),
                        socket.display()
                    )
                });
            }
            _ => return Err(error).with_context(|| format!("reach the launcher at {}", socket.display())),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Takes over the path from a predecessor that died without tidying up. The caller holds the lock.
pub(crate) fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove the old {}", socket.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("make {} private", socket.display()))?;
    Ok(listener)
}

/// Answers requests until all processes have stopped, which takes its time when one hangs: who asks meanwhile how it
/// stands, or for the end, is answered. Requests under way are answered to their end.
pub(crate) async fn serve(listener: UnixListener, supervisor: Arc<Supervisor>, tasks: Tasks) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // When all rooms are taken, further callers wait in the socket's own queue.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            // Who was let in before the socket's name went is answered too.
            biased;
            accepted = listener.accept() => accepted,
            () = supervisor.until_stopped() => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        let supervisor = Arc::clone(&supervisor);
        tasks.spawn("control", async move {
            let _place = place;
            if let Err(error) = talk(stream, &supervisor).await {
                tracing::debug!(error = format!("{error:#}"), "a control connection broke");
            }
        });
    }
}

async fn talk(stream: UnixStream, supervisor: &Supervisor) -> anyhow::Result<()> {
    let (reading, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut lines = BufReader::new(reading.take(REQUEST_BYTES_MAX));
    tokio::time::timeout(REQUEST_DEADLINE, lines.read_until(b'\n', &mut line))
        .await
        .context("wait for a request")??;
    let answer = match read(&line) {
        Ok(request) => supervisor.answer(request).await,
        Err(refused) => Answer::Error(refused),
    };
    let mut answer = serde_json::to_vec(&answer).context("write the answer")?;
    answer.push(b'\n');
    write.write_all(&answer).await.context("answer")
}

/// The request of a line, or words for whoever wrote it.
pub(super) fn read(line: &[u8]) -> Result<Request, String> {
    serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_is_there_only_where_nobody_holds_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(&folder.path().join("data"));
        let reach = async || connect(&place, Duration::ZERO).await;
        assert!(reach().await.unwrap().is_none(), "there is no folder");
        place.make().unwrap();
        let lock = place.lock().unwrap();
        let told = format!("{:#}", reach().await.unwrap_err());
        assert!(told.contains("but nobody listens"), "{told}");
        let listener = listen(&place.control()).unwrap();
        assert!(reach().await.unwrap().is_some());
        // As if it had died without tidying up.
        drop((listener, lock));
        assert!(place.control().exists());
        assert!(reach().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_line_that_does_not_end_is_read_no_further_than_it_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(&folder.path().join("data"));
        let supervisor = Supervisor::of_nothing(place, &Tasks::new()).unwrap();
        let (mut asker, asked) = UnixStream::pair().unwrap();
        let line = vec![b' '; usize::try_from(REQUEST_BYTES_MAX).unwrap()];
        asker.write_all(&line).await.unwrap();
        talk(asked, &supervisor).await.unwrap();
        let mut answer = String::new();
        asker.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("not a request"), "{answer}");
    }

    #[tokio::test]
    async fn what_else_is_in_the_way_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data");
        std::fs::write(&file, "no folder").unwrap();
        let told = connect(&Place::new(&file), Duration::ZERO).await.unwrap_err();
        assert!(told.to_string().contains("reach the launcher at"), "{told:#}");
    }
}
