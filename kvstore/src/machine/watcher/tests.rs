//! Watchers of a machine without a node, where the test says how long the work of others takes.

use std::fmt::Write as _;
use std::sync::{Mutex, mpsc};

use futures_util::FutureExt as _;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::command::{Action, Expect};
use crate::machine::found::Delivery;
use crate::machine::host::Machine;
use crate::machine::reading::Words;
use crate::machine::registry::Selector;
use crate::machine::small::{entry, opened};

const DEADLINE: Duration = Duration::from_secs(20);
const PREFIX: &[u8] = b"k/";

fn key(n: usize) -> Bytes {
    Bytes::from(format!("k/{n:05}"))
}

/// So many keys, each put by a revision of its own, and a watcher that does not want to know of that.
struct Put {
    _folder: TempDir,
    machine: Arc<Machine>,
    keys: usize,
    tasks: Tasks,
}

impl Put {
    fn new(keys: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = opened(folder.path());
        let puts = (0..keys).map(|n| Action::Put {
            key: key(n),
            value: Bytes::new(),
            lease: 0,
            expect: Expect::Any,
        });
        machine.apply(vec![entry(1, 1, puts)]).unwrap();
        Self {
            _folder: folder,
            machine,
            keys,
            tasks: Tasks::new(),
        }
    }

    /// All of them, by the revision that is answered.
    fn delete(&self) -> u64 {
        let prefix = Bytes::from_static(PREFIX);
        let delete = Action::DeletePrefix { prefix };
        self.machine.apply(vec![entry(2, 1, [delete])]).unwrap();
        self.keys as u64 + 1
    }

    fn watcher(&self, selector: Selector, next: u64) -> Watcher {
        self.watcher_in(selector, next, Arc::new(plain_words))
    }

    fn watcher_in(&self, selector: Selector, next: u64, words: Words) -> Watcher {
        let reader = Reader {
            machine: Arc::clone(&self.machine),
            selector,
            with_previous: false,
            with_aside: false,
            words,
        };
        Watcher::open(reader, next, "own", self.tasks.clone())
    }

    /// What is to be told of the deletion.
    fn deleted(&self) -> String {
        let keys: Vec<String> = (0..self.keys)
            .map(|n| String::from_utf8(key(n).to_vec()).unwrap())
            .collect();
        keys.join(" ") + " ."
    }
}

fn all() -> Selector {
    Selector::Prefix(Bytes::from_static(PREFIX))
}

/// The keys, and a dot at the end of each revision.
fn plain_words(_machine: &Machine, deliveries: Vec<Delivery>) -> Bytes {
    let mut text = String::new();
    for Delivery { events, ends, .. } in deliveries {
        for noted in events {
            write!(text, "{} ", str::from_utf8(&noted.event.key).unwrap()).unwrap();
        }
        text += if ends { ". " } else { "" };
    }
    Bytes::from(text)
}

/// The next changes; nothing may come before but that nothing happens.
async fn changes(watcher: &mut Watcher) -> (String, u64) {
    let changes = async {
        loop {
            match watcher.next().await {
                Step::Changes { words, events } => return (words, events),
                Step::Idle | Step::Progress(_) | Step::Amid => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let (words, events) = timeout(DEADLINE, changes).await.expect("there are changes");
    (String::from_utf8(words.to_vec()).unwrap(), events)
}

#[tokio::test]
async fn few_changes_are_told_at_once() {
    let put = Put::new(200);
    let mut watcher = put.watcher(all(), 1);
    let mut told = 0;
    while told < 200 {
        let Some(Step::Changes { events, .. }) = watcher.next().now_or_never() else {
            panic!("{told} were told, and more are at hand");
        };
        told += events;
    }
    assert_eq!(told, 200);
}

#[tokio::test]
async fn very_many_events_of_a_revision_are_told_in_pieces_wherever_they_are_read_from() {
    const KEYS: usize = 5000;
    let put = Put::new(KEYS);
    let deleted = put.delete();
    // From the ring, from the database, and from one after the other.
    for reset_after in [usize::MAX, 0, 1] {
        let mut watcher = put.watcher(all(), deleted);
        let (mut text, mut pieces, mut told) = (String::new(), 0, 0);
        while told < KEYS as u64 {
            if pieces == reset_after {
                put.machine.hub.reset(deleted).wake();
            }
            let in_ring = put.machine.hub.read(deleted, deleted, 1).1.is_some();
            assert_eq!(in_ring, reset_after > pieces);
            let (words, events) = changes(&mut watcher).await;
            assert!(!text.contains('.'), "more comes after its end");
            text += &words;
            told += events;
            pieces += 1;
        }
        assert!(pieces > 2, "{pieces}");
        assert_eq!(text.trim_end(), put.deleted());
        if reset_after == 0 {
            // It is in the ring again for the next one.
            put.machine.hub.reset(deleted - 1).wake();
            let events = put.machine.generation().db().events_from(deleted);
            put.machine.hub.publish(events).wake();
        }
    }
}

#[tokio::test]
async fn a_turn_lasts_as_long_as_the_work_though_nobody_waits_for_it_any_more() {
    let put = Put::new(2000);
    let deleted = put.delete();
    let (begun, mut beginning) = tokio::sync::mpsc::channel(1);
    let (end, ending) = mpsc::channel::<()>();
    let ending = Mutex::new(ending);
    let words = move |_machine: &Machine, _deliveries| {
        begun.blocking_send(()).unwrap();
        ending.lock().unwrap().recv().ok();
        Bytes::new()
    };
    let mut watcher = put.watcher_in(all(), deleted, Arc::new(words));
    let working = async {
        loop {
            tokio::select! {
                step = watcher.next() => assert!(matches!(step, Step::Idle | Step::Progress(_)), "{step:?}"),
                _ = beginning.recv() => break,
            }
        }
    };
    timeout(DEADLINE, working).await.expect("it begins");
    drop(watcher);
    let turns = put.machine.hub.turns.of("own");
    assert!(turns.turn().now_or_never().is_none(), "it is at work");
    drop(end);
    let again = timeout(DEADLINE, turns.turn()).await;
    again.expect("the work is done");
}

#[tokio::test]
async fn who_finds_little_among_very_many_events_waits_for_nobody() {
    let put = Put::new(2000);
    let deleted = put.delete();
    let (one, other) = (put.machine.hub.turns.of("one"), put.machine.hub.turns.of("other"));
    let _all = (one.turn().await, other.turn().await);
    let mut watcher = put.watcher(Selector::Key(key(700)), deleted);
    let Some(Step::Changes { words, events }) = watcher.next().now_or_never() else {
        panic!("it waits");
    };
    assert_eq!((words.as_ref(), events), (&b"k/00700 . "[..], 1));
}

#[tokio::test]
async fn who_waits_for_its_turn_is_told_that_nothing_happens_but_not_within_a_revision() {
    let put = Put::new(5000);
    let deleted = put.delete();
    let mut watcher = put.watcher(all(), deleted);
    let turns = put.machine.hub.turns.of("own");
    let soon = async |watcher: &mut Watcher| {
        let step = timeout(2 * TICK, watcher.next()).await;
        step.expect("it says something at each tick")
    };
    let others = turns.turn().await;
    let idle = soon(&mut watcher).await;
    assert!(matches!(idle, Step::Idle), "{idle:?}");
    watcher.told_at -= PROGRESS_EVERY;
    let progress = soon(&mut watcher).await;
    assert!(
        matches!(progress, Step::Progress(upto) if upto == deleted - 1),
        "{progress:?}"
    );
    drop(others);
    let (words, mut told) = changes(&mut watcher).await;
    assert!(!words.contains('.'), "more comes");
    let others = turns.turn().await;
    watcher.told_at -= PROGRESS_EVERY;
    let amid = soon(&mut watcher).await;
    assert!(matches!(amid, Step::Amid), "{amid:?}");
    drop(others);
    while told < 5000 {
        told += changes(&mut watcher).await.1;
    }
    assert_eq!(told, 5000);
}
