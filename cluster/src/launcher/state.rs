//! What the launcher says about its processes, and what one may ask it to do with them.
//! Invariant: these are the wire types of the control socket and of `status --json`; names of members never change.

use serde::{Deserialize, Serialize};

/// What a user may do to one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Kill,
    Term,
    Pause,
    Resume,
    Start,
    Restart,
}

impl Action {
    pub(crate) const ALL: [Self; 6] = [
        Self::Kill,
        Self::Term,
        Self::Pause,
        Self::Resume,
        Self::Start,
        Self::Restart,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Term => "term",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Start => "start",
            Self::Restart => "restart",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It runs, or will after a short pause, and is not ready yet.
    Starting,
    /// It has said that it is ready.
    Running,
    Paused,
    /// It was told to stop and stays down.
    Stopped,
    /// A user killed it and it stays down.
    Killed,
    /// It died so often that starting it again makes no sense.
    Failed,
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Killed => "killed",
            Self::Failed => "failed",
        }
    }
}

/// One process as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) pid: Option<u32>,
    pub(crate) address: String,
    pub(crate) state: State,
    /// How often it was started again after it had died by itself.
    pub(crate) restarts: u32,
}

impl View {
    /// Whether it can answer at all.
    pub(crate) fn is_awake(&self) -> bool {
        self.pid.is_some() && self.state != State::Paused
    }
}

/// The whole as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) processes: Vec<View>,
    pub(crate) leader: Option<String>,
    pub(crate) data: String,
    /// The process that watches over the others; none when they were started by hand or not at all.
    pub(crate) supervisor: Option<u32>,
    /// Where the console is, if there is one.
    pub(crate) console: Option<String>,
    /// Whether all has been ready since the start; later deaths do not take that back.
    #[serde(default)]
    pub(crate) ready: bool,
    /// Whether the start is over without that: most of the nodes serve, and go on without what does not run. Once all
    /// runs, it is ready instead.
    #[serde(default)]
    pub(crate) partial: bool,
}

impl Status {
    pub(crate) fn all_run(&self) -> bool {
        self.processes.iter().all(|view| view.state == State::Running)
    }

    pub(crate) fn failed(&self) -> Option<&View> {
        self.processes.iter().find(|view| view.state == State::Failed)
    }
}
