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

    /// What keeps the store from being whole. A service that is down is not its business.
    pub(crate) fn lack_of_store(&self) -> Option<String> {
        let nodes = self.processes.iter().filter(|view| view.kind == "node");
        let down = nodes.filter(|view| view.state != State::Running);
        let down: Vec<String> = down
            .map(|view| format!("{} is {}", view.name, view.state.word()))
            .collect();
        match (down.is_empty(), &self.leader) {
            (false, _) => Some(down.join(", ")),
            (true, None) => Some("no node leads".to_owned()),
            (true, Some(_)) => None,
        }
    }

    pub(crate) fn failed(&self) -> Option<&View> {
        self.processes.iter().find(|view| view.state == State::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(name: &str, kind: &str, state: State) -> View {
        View {
            name: name.to_owned(),
            kind: kind.to_owned(),
            pid: None,
            address: String::new(),
            state,
            restarts: 0,
        }
    }

    #[test]
    fn the_store_is_whole_whatever_services_are_down_and_else_those_are_named_that_it_lacks() {
        let mut status = Status {
            processes: vec![
                view("n1", "node", State::Running),
                view("n2", "node", State::Running),
                view("shop1", "shop", State::Killed),
            ],
            leader: Some("n1".to_owned()),
            data: String::new(),
            supervisor: Some(1),
            console: None,
            ready: true,
            partial: false,
        };
        assert_eq!(status.lack_of_store(), None);
        status.processes[1].state = State::Paused;
        assert_eq!(status.lack_of_store().unwrap(), "n2 is paused");
        status.processes[1].state = State::Running;
        status.leader = None;
        assert_eq!(status.lack_of_store().unwrap(), "no node leads");
    }
}
