//! The whole at one moment, in the words and numbers that the page shows.
//! Invariant: made from what is given and nothing else, so that the first page and every later change of it
//! come from one place. It must not know HTML.

use kvstore_client::wire::cluster::{NodeStatus, Role};
use kvstore_client::wire::mirror::MirrorStatus;
use serde::Serialize;

use super::nodes::{self, Standings};
use super::services::Readiness;
use crate::launcher::{Action, State, View};

/// A follower that has less than this to fetch is up to date: under load something is always under way.
const LAG_SMALL: u64 = 64;
/// Of a process that is there and says nothing.
const SILENT: &str = "does not answer";

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Picture {
    /// One sentence that says how it is.
    pub(super) headline: String,
    pub(super) health: Health,
    pub(super) leader: Option<String>,
    pub(super) term: Option<u64>,
    pub(super) processes: Vec<Portrait>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Health {
    Good,
    /// It is on its way, or was sent to sleep.
    Waiting,
    Bad,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Portrait {
    pub(super) name: String,
    pub(super) health: Health,
    pub(super) leads: bool,
    /// What it is doing, in few words.
    pub(super) says: String,
    pub(super) term: Option<u64>,
    pub(super) log: Option<u64>,
    /// How many entries it has not applied that the leader has; of a mirror, how many revisions.
    pub(super) lag: Option<u64>,
    pub(super) restarts: u32,
    pub(super) pid: Option<u32>,
    pub(super) actions: Vec<Action>,
}

pub(super) fn draw(views: &[View], standings: &Standings) -> Picture {
    let leader = nodes::leader(standings);
    let log_end = leader
        .and_then(|(name, _)| standings.nodes.get(name))
        .map(|status| status.last_log);
    let portraits: Vec<Portrait> = views
        .iter()
        .map(|view| {
            let leads = leader.is_some_and(|(name, _)| name == view.name);
            let said = standings.services.get(&view.name).copied();
            match standings.mirrors.get(&view.name) {
                Some(mirror) if view.kind == "mirror" => portrait_of_mirror(view, mirror, said),
                _ if view.kind == "node" => portrait(view, standings.nodes.get(&view.name), leads, log_end),
                _ => portrait_of_service(view, said),
            }
        })
        .collect();
    let (headline, health) = headline(&portraits, leader);
    Picture {
        headline,
        health,
        leader: leader.map(|(name, _)| name.to_owned()),
        term: leader.map(|(_, term)| term),
        processes: portraits,
    }
}

fn portrait(view: &View, standing: Option<&NodeStatus>, leads: bool, log_end: Option<u64>) -> Portrait {
    let lag = standing
        .zip(log_end)
        .map(|(standing, end)| end.saturating_sub(standing.applied));
    let (says, health) = says(view, standing, leads, lag);
    Portrait {
        name: view.name.clone(),
        health,
        leads,
        says,
        term: standing.map(|standing| standing.term),
        log: standing.map(|standing| standing.last_log),
        lag,
        restarts: view.restarts,
        pid: view.pid,
        actions: actions(view.state).to_vec(),
    }
}

fn portrait_of_service(view: &View, said: Option<Readiness>) -> Portrait {
    let (says, health) = match absent(view.state) {
        Some(told) => told,
        None => says_of_service(said),
    };
    Portrait {
        health,
        says,
        ..portrait(view, None, false, None)
    }
}

fn says_of_service(said: Option<Readiness>) -> (String, Health) {
    let (says, health) = match said {
        // Of one that was not asked yet it is known that it was ready when it had started.
        Some(Readiness::Ready) | None => ("serves", Health::Good),
        Some(Readiness::NotReady) => ("is not ready", Health::Waiting),
        Some(Readiness::Silent) => (SILENT, Health::Bad),
    };
    (says.to_owned(), health)
}

fn portrait_of_mirror(view: &View, mirror: &MirrorStatus, said: Option<Readiness>) -> Portrait {
    let (says, health) = match absent(view.state) {
        Some(told) => told,
        None if said == Some(Readiness::Silent) => says_of_service(said),
        None => says_of_mirror(mirror),
    };
    Portrait {
        says,
        health,
        lag: mirror.lag_revisions,
        ..portrait(view, None, false, None)
    }
}

/// What the leader makes of it: whether writes wait for it counts more than how far it is.
fn says_of_mirror(mirror: &MirrorStatus) -> (String, Health) {
    match (mirror.mode.as_str(), mirror.state.as_str()) {
        ("sync", "ok") => ("has every write".to_owned(), Health::Good),
        ("sync", "degraded") => ("left out, writes do not wait".to_owned(), Health::Bad),
        ("sync", _) => ("catches up".to_owned(), Health::Waiting),
        (_, "ok") => ("copies".to_owned(), Health::Good),
        _ => ("catches up".to_owned(), Health::Waiting),
    }
}

/// Why it does nothing at all, if that is so.
fn absent(state: State) -> Option<(String, Health)> {
    let (says, health) = match state {
        State::Killed => ("killed", Health::Bad),
        State::Stopped => ("stopped", Health::Bad),
        State::Failed => ("dies again and again", Health::Bad),
        State::Paused => ("paused", Health::Waiting),
        State::Starting => ("starting", Health::Waiting),
        State::Running => return None,
    };
    Some((says.to_owned(), health))
}

fn says(view: &View, standing: Option<&NodeStatus>, leads: bool, lag: Option<u64>) -> (String, Health) {
    if let Some(told) = absent(view.state) {
        return told;
    }
    let Some(standing) = standing else {
        return (SILENT.to_owned(), Health::Bad);
    };
    match lag {
        _ if leads => ("leads".to_owned(), Health::Good),
        None => ("has no leader".to_owned(), Health::Waiting),
        Some(lag) if lag >= LAG_SMALL => (format!("catches up, {lag} behind"), Health::Waiting),
        Some(_) if standing.role == Role::Learner => ("learns".to_owned(), Health::Good),
        Some(_) => ("follows".to_owned(), Health::Good),
    }
}

/// What makes sense to do with it; the page shows buttons for these.
pub(super) fn actions(state: State) -> &'static [Action] {
    match state {
        State::Starting | State::Running => &[Action::Kill, Action::Pause],
        State::Paused => &[Action::Kill, Action::Resume],
        State::Stopped | State::Killed | State::Failed => &[Action::Start],
    }
}

fn headline(portraits: &[Portrait], leader: Option<(&str, u64)>) -> (String, Health) {
    let all = |health| {
        let names = portraits.iter().filter(move |portrait| portrait.health == health);
        names.map(|portrait| portrait.name.as_str()).collect::<Vec<_>>()
    };
    let (bad, waiting) = (all(Health::Bad), all(Health::Waiting));
    let Some((leader, _)) = leader else {
        let health = if bad.is_empty() {
            Health::Waiting
        } else {
            Health::Bad
        };
        return ("Nobody leads at the moment.".to_owned(), health);
    };
    match (bad.as_slice(), waiting.as_slice()) {
        ([], []) => (format!("{leader} leads, and all is well."), Health::Good),
        ([], waiting) => (
            format!("{leader} leads; {} not there yet.", are(waiting)),
            Health::Waiting,
        ),
        (bad, _) => (format!("{leader} leads without {}.", list(bad)), Health::Bad),
    }
}

fn are(names: &[&str]) -> String {
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", list(names))
}

fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(name: &str, state: State) -> View {
        View {
            name: name.to_owned(),
            kind: "node".to_owned(),
            pid: Some(1),
            address: "127.0.0.1:1".to_owned(),
            state,
            restarts: 0,
        }
    }

    fn standing(role: &str, applied: u64) -> NodeStatus {
        let status = serde_json::json!({
            "id": 1, "role": role, "term": 5, "leader": 1, "last_log": applied, "committed": applied,
            "applied": applied, "revision": 1, "compacted_revision": 0, "db_bytes": 0, "uptime_ms": 0,
            "version": "1", "state_hash": "0",
        });
        serde_json::from_value(status).unwrap()
    }

    fn told(states: [State; 3], standings: &[(&str, &str, u64)]) -> (String, Vec<String>) {
        let views: Vec<View> = ["n1", "n2", "n3"]
            .into_iter()
            .zip(states)
            .map(|(name, state)| view(name, state))
            .collect();
        let nodes = standings
            .iter()
            .map(|(name, role, applied)| ((*name).to_owned(), standing(role, *applied)));
        let standings = Standings {
            nodes: nodes.collect(),
            ..Standings::default()
        };
        let picture = draw(&views, &standings);
        (
            picture.headline,
            picture
                .processes
                .into_iter()
                .map(|portrait| portrait.says)
                .collect(),
        )
    }

    #[test]
    fn says_in_words_how_it_is() {
        use State::{Killed, Paused, Running, Starting};
        let all = [
            ("n1", "leader", 500),
            ("n2", "follower", 499),
            ("n3", "learner", 500),
        ];
        let (headline, says) = told([Running; 3], &all);
        assert_eq!(headline, "n1 leads, and all is well.");
        assert_eq!(says, ["leads", "follows", "learns"]);

        let (headline, says) = told([Running, Running, Killed], &all[..2]);
        assert_eq!(headline, "n1 leads without n3.");
        assert_eq!(says, ["leads", "follows", "killed"]);

        let (headline, says) = told([Running, Paused, Starting], &all[..1]);
        assert_eq!(headline, "n1 leads; n2 and n3 are not there yet.");
        assert_eq!(says, ["leads", "paused", "starting"]);

        let (headline, says) = told([Running, Running, Killed], &[("n2", "follower", 9)]);
        assert_eq!(headline, "Nobody leads at the moment.");
        assert_eq!(says, ["does not answer", "has no leader", "killed"]);

        let (_, says) = told([Running; 3], &[("n1", "leader", 500), ("n2", "follower", 100)]);
        assert_eq!(says[1], "catches up, 400 behind");
    }

    #[test]
    fn a_service_that_hangs_or_is_not_ready_is_not_well() {
        let mut shop = view("shop1", State::Running);
        shop.kind = "petstore".to_owned();
        let told = |said: Option<Readiness>, state: State| {
            let standings = Standings {
                nodes: [("n1".to_owned(), standing("leader", 12))].into(),
                services: said.map(|said| ("shop1".to_owned(), said)).into_iter().collect(),
                ..Standings::default()
            };
            let shop = View {
                state,
                ..shop.clone()
            };
            let picture = draw(&[view("n1", State::Running), shop], &standings);
            (picture.headline, picture.processes[1].says.clone())
        };
        let (well, serves) = ("n1 leads, and all is well.".to_owned(), "serves".to_owned());
        assert_eq!(told(None, State::Running), (well.clone(), serves.clone()));
        assert_eq!(told(Some(Readiness::Ready), State::Running), (well, serves));
        let (headline, says) = told(Some(Readiness::NotReady), State::Running);
        assert_eq!(headline, "n1 leads; shop1 is not there yet.");
        assert_eq!(says, "is not ready");
        let (headline, says) = told(Some(Readiness::Silent), State::Running);
        assert_eq!(headline, "n1 leads without shop1.");
        assert_eq!(says, "does not answer");
        assert_eq!(told(Some(Readiness::Ready), State::Killed).1, "killed");
    }

    #[test]
    fn of_two_leaders_the_newer_one_counts() {
        let mut old = standing("leader", 10);
        old.term = 4;
        let standings = Standings {
            nodes: [("n1".to_owned(), old), ("n2".to_owned(), standing("leader", 12))].into(),
            ..Standings::default()
        };
        let picture = draw(
            &[view("n1", State::Running), view("n2", State::Running)],
            &standings,
        );
        assert_eq!(picture.leader.as_deref(), Some("n2"));
        assert!(!picture.processes[0].leads);
    }

    #[test]
    fn a_mirror_that_is_left_out_is_named() {
        let mut copy = view("mirror-sync", State::Running);
        copy.kind = "mirror".to_owned();
        let told = |state: &str, process: State| {
            let mirror = MirrorStatus {
                name: "mirror-sync".to_owned(),
                mode: "sync".to_owned(),
                on_loss: "degrade".to_owned(),
                state: state.to_owned(),
                acknowledged_revision: Some(7),
                lag_revisions: Some(3),
                heard_ms_ago: Some(1),
            };
            let standings = Standings {
                nodes: [("n1".to_owned(), standing("leader", 12))].into(),
                mirrors: [("mirror-sync".to_owned(), mirror)].into(),
                ..Standings::default()
            };
            let copy = View {
                state: process,
                ..copy.clone()
            };
            let picture = draw(&[view("n1", State::Running), copy], &standings);
            let portrait = &picture.processes[1];
            (picture.headline.clone(), portrait.says.clone(), portrait.lag)
        };
        let well = "n1 leads, and all is well.".to_owned();
        assert_eq!(
            told("ok", State::Running),
            (well, "has every write".to_owned(), Some(3))
        );
        let without = "n1 leads without mirror-sync.".to_owned();
        let left_out = "left out, writes do not wait".to_owned();
        assert_eq!(
            told("degraded", State::Running),
            (without.clone(), left_out, Some(3))
        );
        assert_eq!(
            told("degraded", State::Killed),
            (without, "killed".to_owned(), Some(3))
        );
        let (headline, says, _) = told("catching_up", State::Running);
        assert_eq!(headline, "n1 leads; mirror-sync is not there yet.");
        assert_eq!(says, "catches up");
    }
}
