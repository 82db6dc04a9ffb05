//! Lines on the control socket that neither a command nor a launcher writes.
//! Invariant: each is understood, or refused with words for whoever sent it.

use super::control::{self, Answer, Request};
use super::{Action, State, Status, View};
use crate::bent::feed;

#[test]
fn requests() {
    let act = |action| Request::Act {
        action,
        name: "n1".to_owned(),
    };
    let requests = Action::ALL.map(act).into_iter();
    let requests = requests.chain([Request::Status, Request::Down]);
    let whole = requests.map(|request| serde_json::to_vec(&request).expect("it is plain data"));
    let whole: Vec<Vec<u8>> = whole.collect();
    for line in &whole {
        control::read(line).expect("it is whole");
    }
    feed(&whole, |line| {
        if let Err(refused) = control::read(line) {
            assert!(refused.starts_with("not a request: "), "{refused}");
        }
    });
}

#[test]
fn answers() {
    let view = View {
        name: "n1".to_owned(),
        kind: "node".to_owned(),
        pid: Some(7),
        address: "127.0.0.1:7001".to_owned(),
        state: State::Running,
        restarts: u32::MAX,
    };
    let status = Status {
        processes: vec![view.clone()],
        leader: Some("n1".to_owned()),
        data: "data".to_owned(),
        supervisor: Some(8),
        console: None,
        ready: true,
        partial: false,
    };
    let answers = [
        Answer::Status(status),
        Answer::Done(view),
        Answer::Stopped,
        Answer::Stranger("n9".to_owned()),
        Answer::Error("no".to_owned()),
    ];
    let whole = answers.map(|answer| serde_json::to_vec(&answer).expect("it is plain data"));
    let read = |line: &[u8]| serde_json::from_slice::<Answer>(line);
    for line in &whole {
        read(line).expect("it is whole");
    }
    feed(&whole, |line| {
        if let Ok(Answer::Status(status)) = read(line) {
            assert!(!status.all_run() || status.failed().is_none());
        }
    });
}
