//! What is done while somebody looks: the probe works, the nodes are asked, and the page is told.
//! Invariant: all of it ends when nobody looks any more, and the probe's keys go with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::nodes::{self, Standings};
use super::{Console, picture, services};
use crate::launcher::View;
use crate::launcher::journal::{Fault, Tone};
use crate::probe::{Probe, Tally};

const BEAT: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Right after a fault every millisecond is of interest.
const ASK_OFTEN: Duration = Duration::from_millis(10);
const ASK_WITHOUT_LEADER: Duration = Duration::from_millis(50);
const OFTEN_FOR: Duration = Duration::from_secs(2);
/// A change of leader within this time has to do with the fault.
const FAULT_COUNTS: Duration = Duration::from_secs(10);
/// One that is not further behind has caught up.
const LAG_SMALL: u64 = 64;

/// Waits for somebody to look, works, and waits again, until the tasks stop.
pub(super) async fn watch_over(console: Arc<Console>) {
    let mut tally = Tally::default();
    loop {
        tokio::select! {
            () = console.hub.somebody_looks() => {}
            () = console.tasks.stopping() => return,
        }
        let session = Session {
            stop: CancellationToken::new(),
            board: Mutex::new(Board::new(Instant::now())),
            console: Arc::clone(&console),
        };
        Box::pin(session.run(&mut tally)).await;
    }
}

struct Session {
    console: Arc<Console>,
    board: Mutex<Board>,
    stop: CancellationToken,
}

impl Session {
    async fn run(&self, tally: &mut Tally) {
        let views = self.console.supervisor.present().processes;
        let nodes: Vec<(String, String)> = views
            .into_iter()
            .filter(|view| view.kind == "node")
            .map(|view| (view.name, view.address))
            .collect();
        let probe = Probe::new("console", &nodes, self.console.nodes.token(), &self.console.tasks);
        let end = async {
            tokio::select! {
                () = self.console.hub.nobody_looks() => {}
                () = self.console.tasks.stopping() => {}
            }
            self.stop.cancel();
        };
        let probing = async {
            match probe {
                Ok(probe) => {
                    let report = |tally: &Tally, event| self.with_board(|board| board.note(tally, &event));
                    probe.run(self.stop.cancelled(), tally, report).await;
                }
                Err(error) => tracing::warn!(%error, "the probe cannot work"),
            }
        };
        let asking = async {
            tokio::select! {
                () = self.ask_services() => {}
                () = self.stop.cancelled() => {}
            }
        };
        tokio::join!(end, probing, asking, self.watch(), self.tell(), self.pass_on());
    }

    /// Apart from the nodes: a service that hangs shall not hold up what is told of a fault.
    async fn ask_services(&self) {
        loop {
            let views = self.console.supervisor.present().processes;
            self.console.nodes.services.ask(&views).await;
            tokio::time::sleep(services::ASK_EVERY).await;
        }
    }

    fn with_board<T>(&self, work: impl FnOnce(&mut Board) -> T) -> T {
        work(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells what the probe sees.
    async fn tell(&self) {
        let mut beat = tokio::time::interval(BEAT);
        let mut second = tokio::time::interval(SECOND);
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    let now = Instant::now();
                    if let Some((pause, tally)) = self.with_board(|board| board.take_aftermath(now)) {
                        self.tell_aftermath(pause, &tally);
                    }
                    let beat = self.with_board(|board| board.take_beat(now));
                    self.console.hub.tell("beat", &beat);
                }
                _ = second.tick() => {
                    let second = self.with_board(Board::take_second);
                    self.console.hub.tell("second", &second);
                }
                () = self.stop.cancelled() => return,
            }
        }
    }

    fn tell_aftermath(&self, pause: Duration, tally: &Tally) {
        let ms = pause.as_millis();
        let Tally {
            acknowledged, lost, ..
        } = tally;
        let (tone, loss) = match lost {
            0 => (Tone::Good, "none lost".to_owned()),
            lost => (Tone::Bad, format!("{lost} LOST")),
        };
        let journal = &self.console.supervisor.journal;
        journal.write(
            tone,
            format!("writes paused for {ms} ms at most; {acknowledged} acknowledged so far, {loss}"),
        );
    }

    /// Hands on what is written into the journal. Never waits for a node, so that a fault is noted at once.
    async fn pass_on(&self) {
        let (_, mut news) = self.console.supervisor.journal.read();
        let mut faults = self.console.supervisor.journal.faults();
        loop {
            tokio::select! {
                entry = news.recv() => match entry {
                    Ok(entry) => self.console.hub.tell("entry", &entry),
                    // The page gets on without the oldest.
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                },
                _ = faults.changed() => {
                    let fault = faults.borrow_and_update().clone();
                    if let Some(fault) = fault {
                        self.with_board(|board| board.fault(fault.at.into_std()));
                    }
                }
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Asks the nodes again and again, and tells what has changed.
    async fn watch(&self) {
        let supervisor = &self.console.supervisor;
        let mut faults = supervisor.journal.faults();
        let mut told = None;
        let mut memory = Memory::default();
        loop {
            let views = supervisor.present().processes;
            let standings = self.console.nodes.ask(&views).await;
            memory.fault.clone_from(&faults.borrow_and_update());
            let revision = standings.nodes.values().map(|status| status.revision).max();
            self.with_board(|board| board.set_revision(revision.unwrap_or(0)));
            memory.note(self, &views, &standings);
            let picture = picture::draw(&views, &standings);
            let headless = picture.leader.is_none();
            if told.as_ref() != Some(&picture) {
                self.console.hub.tell("picture", &picture);
                told = Some(picture);
            }
            let recent = memory
                .fault
                .as_ref()
                .is_some_and(|fault| fault.at.elapsed() < OFTEN_FOR);
            let pause = match (recent, headless) {
                (true, _) => ASK_OFTEN,
                (false, true) => ASK_WITHOUT_LEADER,
                (false, false) => ASK_EVERY,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = supervisor.changed() => {}
                _ = faults.changed() => {}
                () = self.stop.cancelled() => return,
            }
        }
    }
}

/// What the watch must remember to see a change.
#[derive(Default)]
struct Memory {
    leader: Option<(String, u64)>,
    fault: Option<Fault>,
    /// Nodes that were away and have not caught up yet.
    behind: Vec<String>,
}

impl Memory {
    fn note(&mut self, session: &Session, views: &[View], standings: &Standings) {
        let journal = &session.console.supervisor.journal;
        let Some((name, term)) = nodes::leader(standings) else {
            return;
        };
        let newer = self.leader.as_ref().is_none_or(|(_, known)| term > *known);
        if newer {
            let before = self.leader.replace((name.to_owned(), term));
            let fault = self.fault.as_ref().filter(|fault| {
                let took_the_lead = before.as_ref().is_some_and(|(before, _)| *before == fault.name);
                took_the_lead && fault.at.elapsed() < FAULT_COUNTS
            });
            let after = fault.map_or(String::new(), |fault| {
                format!(" after {} ms", fault.at.elapsed().as_millis())
            });
            // The first one seen is news to this page only, not to the journal.
            if before.is_some() {
                journal.write(Tone::Good, format!("{name} leads term {term}{after}"));
            }
        }
        let end = standings.nodes.get(name).map_or(0, |leader| leader.last_log);
        for view in views.iter().filter(|view| view.kind == "node") {
            let away = self.behind.iter().position(|name| *name == view.name);
            match (away, standings.nodes.get(&view.name)) {
                (None, None) => self.behind.push(view.name.clone()),
                (Some(index), Some(standing)) if standing.applied + LAG_SMALL > end => {
                    self.behind.swap_remove(index);
                    journal.write(
                        Tone::Good,
                        format!("{} has caught up with the others, up to entry {end}", view.name),
                    );
                }
                _ => {}
            }
        }
    }
}
