//! What has come of a start so far: whether all runs, or enough to go on with, and how long the rest is waited for.
//! Invariant: while most of the voters may come, what fails is no reason to stop the others; only at the very first
//! start it is, since there it is the configuration that is wrong.
//! It must not know how processes are started or stopped.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Deserialize;
use service::config::{Config, NodeConfig, Role};

use super::place::Place;
use super::{State, Status, View, supervisor};

/// A node that has much log to replay takes its time; a node that fails says so long before.
const PATIENCE: Duration = Duration::from_mins(2);
/// Beyond that, for somebody to lead and to be heard: on a busy machine, one look may miss it.
const LEADER_PATIENCE: Duration = Duration::from_secs(15);
/// A mirror asks the store, too, before it answers.
const ASK_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// Everything runs.
    All,
    /// Most of the voters run, and the rest is waited for no longer: enough, if one of them leads.
    Enough,
    /// What is missing may still come.
    Open,
    /// This process failed, and with it all that there was to wait for.
    Hopeless(String),
}

/// What is waited for, and until when.
pub(super) struct Coming {
    voters: Vec<String>,
    /// No node was ever started on this data folder.
    is_first: bool,
    until: Instant,
    /// The most keys that the first copy of each mirror was ever seen to have.
    copied: BTreeMap<String, u64>,
}

impl Coming {
    pub(super) fn new(config: &Config, is_first: bool, now: Instant) -> Self {
        let voters = config.nodes.iter().filter(|node| node.role == Role::Voter);
        Self {
            voters: voters.map(NodeConfig::name).collect(),
            is_first,
            until: now + PATIENCE,
            copied: BTreeMap::new(),
        }
    }

    pub(super) fn outlook(&self, status: &Status, now: Instant) -> Outlook {
        if status.all_run() {
            return Outlook::All;
        }
        let voters = status.processes.iter();
        let voters: Vec<&View> = voters.filter(|view| self.voters.contains(&view.name)).collect();
        let count = |state: State| voters.iter().filter(|view| view.state == state).count();
        let majority = self.voters.len() / 2 + 1;
        let given_up = if self.is_first {
            status.failed()
        } else if count(State::Failed) + majority > self.voters.len() {
            voters.iter().copied().find(|view| view.state == State::Failed)
        } else {
            None
        };
        if let Some(view) = given_up {
            return Outlook::Hopeless(view.name.clone());
        }
        let mut processes = status.processes.iter();
        let is_awaited = now < self.until && processes.any(|view| view.state == State::Starting);
        if count(State::Running) >= majority && !is_awaited {
            Outlook::Enough
        } else {
            Outlook::Open
        }
    }

    /// Whether also that is over in which somebody may yet lead.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.until + LEADER_PATIENCE
    }

    /// Asks the mirrors that are not ready yet how far they are. The first copy of a large store takes as long as it
    /// takes, and all of it would be lost if it were stopped before its end.
    pub(super) async fn look_at_copies(&mut self, http: &reqwest::Client, status: &Status) {
        let starting = status
            .processes
            .iter()
            .filter(|view| view.kind == "mirror" && view.state == State::Starting);
        let asked = starting.map(async |view| (view.name.clone(), copied(http, &view.address).await));
        for (name, keys) in join_all(asked).await {
            self.note_copy(&name, keys.unwrap_or(0), Instant::now());
        }
    }

    /// One that is begun anew again and again gets no further, and so no more time.
    fn note_copy(&mut self, mirror: &str, keys: u64, now: Instant) {
        let most = self.copied.entry(mirror.to_owned()).or_default();
        if keys > *most {
            *most = keys;
            self.until = now + PATIENCE;
        }
    }
}

/// Of what a mirror says at `/status`.
#[derive(Deserialize)]
struct Copying {
    rebuilding_keys: Option<u64>,
}

/// How many keys the copy has that a mirror is making at the moment.
async fn copied(http: &reqwest::Client, address: &str) -> Option<u64> {
    let url = format!("{}/status", service::http::base(address));
    let answer = http.get(url).timeout(ASK_MAX).send().await.ok()?;
    answer.json::<Copying>().await.ok()?.rebuilding_keys
}

/// What has not come, each with what to do about it; nothing once all was ready.
pub(super) fn lack(place: &Place, status: &Status) -> Option<String> {
    let missing = status
        .processes
        .iter()
        .filter(|view| view.state != State::Running);
    let missing: Vec<String> = missing.map(|view| remedy(place, view)).collect();
    let is_whole = status.ready || missing.is_empty();
    (!is_whole).then(|| format!("not all of it has come:\n{}", missing.join("\n")))
}

fn remedy(place: &Place, view: &View) -> String {
    let (name, word) = (&view.name, view.state.word());
    match view.state {
        State::Failed => match place.damage_of(name) {
            Some(damage) => format!(
                "{name} does not start on its folder again: {damage}\n`menagerie kv member replace {} NEW` puts a new \
                 node in its place",
                name.trim_start_matches('n')
            ),
            None => format!(
                "{}\n`menagerie start {name}` tries it again",
                supervisor::why_failed(&place.data, name)
            ),
        },
        State::Paused => format!("{name} is {word}: `menagerie resume {name}` lets it go on"),
        State::Stopped | State::Killed => format!("{name} is {word}: `menagerie start {name}` starts it"),
        State::Starting | State::Running => {
            format!("{name} is still {word}: `menagerie logs {name}` says what it waits for")
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use axum::{Json, Router};
    use service::http::{self, Timeouts};
    use service::serve::{Limits, serve};
    use service::tasks::Tasks;
    use tokio::net::TcpListener;

    use super::State::{Failed, Running, Starting};
    use super::*;

    fn view(name: &str, kind: &str, state: State) -> View {
        View {
            name: name.to_owned(),
            kind: kind.to_owned(),
            pid: None,
            address: "127.0.0.1:1".to_owned(),
            state,
            restarts: 0,
        }
    }

    /// Three voters and a service.
    fn status(nodes: [State; 3], service: State) -> Status {
        let names = ["n1", "n2", "n3"].into_iter().zip(nodes);
        let nodes = names.map(|(name, state)| view(name, "node", state));
        Status {
            processes: nodes.chain([view("shop1", "petstore", service)]).collect(),
            leader: None,
            data: "data".to_owned(),
            supervisor: None,
            console: None,
            ready: false,
            partial: false,
        }
    }

    fn coming(is_first: bool, now: Instant) -> Coming {
        let node = Config::default().nodes.remove(0);
        let nodes = (1..=3).map(|id| NodeConfig { id, ..node.clone() });
        let config = Config {
            nodes: nodes.collect(),
            ..Config::default()
        };
        Coming::new(&config, is_first, now)
    }

    #[test]
    fn a_majority_goes_on_without_what_failed() {
        let now = Instant::now();
        let outlook = |nodes, service| coming(false, now).outlook(&status(nodes, service), now);
        assert_eq!(outlook([Running; 3], Running), Outlook::All);
        assert_eq!(outlook([Running, Running, Failed], Running), Outlook::Enough);
        assert_eq!(outlook([Running; 3], Failed), Outlook::Enough);
        // Something may still come.
        assert_eq!(outlook([Running, Running, Failed], Starting), Outlook::Open);
        assert_eq!(outlook([Running, Starting, Failed], Running), Outlook::Open);
        assert_eq!(outlook([Running, Running, Starting], Running), Outlook::Open);
        let hopeless = Outlook::Hopeless("n2".to_owned());
        assert_eq!(outlook([Starting, Failed, Failed], Starting), hopeless);
    }

    #[test]
    fn at_the_first_start_what_fails_stops_everything() {
        let now = Instant::now();
        let outlook = |nodes, service| coming(true, now).outlook(&status(nodes, service), now);
        let hopeless = |name: &str| Outlook::Hopeless(name.to_owned());
        assert_eq!(outlook([Running, Running, Failed], Running), hopeless("n3"));
        assert_eq!(outlook([Running; 3], Failed), hopeless("shop1"));
        assert_eq!(outlook([Running; 3], Starting), Outlook::Open);
    }

    #[test]
    fn what_is_late_is_waited_for_no_longer() {
        let now = Instant::now();
        let coming = coming(false, now);
        let late = now + PATIENCE;
        let served = status([Running, Running, Starting], Starting);
        assert_eq!(coming.outlook(&served, late), Outlook::Enough);
        let alone = status([Running, Starting, Starting], Running);
        assert_eq!(coming.outlook(&alone, late), Outlook::Open);
        assert!(!coming.is_over(late) && coming.is_over(late + LEADER_PATIENCE));
    }

    #[test]
    fn a_copy_is_waited_for_while_it_grows() {
        let began = Instant::now();
        let mut coming = coming(false, began);
        let copying = status([Running; 3], Starting);
        let mut now = began;
        for keys in [10_000, 20_000, 30_000] {
            now += PATIENCE.saturating_sub(Duration::from_secs(1));
            assert_eq!(coming.outlook(&copying, now), Outlook::Open);
            coming.note_copy("one", keys, now);
        }
        // Another one that has fewer grows, too; that the first is made anew is no growth.
        now += PATIENCE.saturating_sub(Duration::from_secs(1));
        coming.note_copy("two", 10_000, now);
        now += PATIENCE.saturating_sub(Duration::from_secs(1));
        coming.note_copy("one", 20_000, now);
        assert_eq!(coming.outlook(&copying, now), Outlook::Open);
        now += Duration::from_secs(1);
        assert_eq!(coming.outlook(&copying, now), Outlook::Enough);
    }

    #[tokio::test]
    async fn mirrors_that_are_not_ready_are_asked() {
        let said = async || Json(serde_json::json!({"state": "catching_up", "rebuilding_keys": 30_000}));
        let app = Router::new().route("/status", get(said));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tasks = Tasks::new();
        tasks.spawn("mirror", serve(listener, app, Limits::default(), tasks.clone()));
        let mut status = status([Running; 3], Running);
        for (name, state) in [("one", Starting), ("two", Running)] {
            status.processes.push(View {
                address: address.clone(),
                ..view(name, "mirror", state)
            });
        }
        let mut coming = coming(false, Instant::now());
        coming
            .look_at_copies(&http::client(Timeouts::default()), &status)
            .await;
        assert_eq!(coming.copied, BTreeMap::from([("one".to_owned(), 30_000)]));
        tasks.stop();
    }

    #[test]
    fn what_is_missing_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path());
        place.make().unwrap();
        let whole = status([Running; 3], Running);
        assert_eq!(lack(&place, &whole), None);
        let mut part = status([Running, Failed, Failed], Starting);
        std::fs::write(place.log_of("n2"), "no room\n").unwrap();
        std::fs::create_dir(folder.path().join("n3")).unwrap();
        std::fs::write(folder.path().join("n3/DAMAGED"), "tables are damaged").unwrap();
        let told = lack(&place, &part).unwrap();
        for text in [
            "no room",
            "menagerie start n2",
            "tables are damaged",
            "kv member replace 3 NEW",
            "shop1 is still starting",
        ] {
            assert!(told.contains(text), "{text} is missing in {told}");
        }
        assert!(!told.contains("n1 is") && !told.contains("start n3"), "{told}");
        // What dies later is not for the start to tell.
        part.ready = true;
        assert_eq!(lack(&place, &part), None);
    }
}
