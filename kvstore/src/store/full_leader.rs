//! A leader that has no room, and what it finds before it once it has some.
//! The leader here is the test; the node takes it for the one that leads.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use service::config::Config;
use service::time::Since;
use tokio::net::TcpListener;

use super::propose::{IN_FLIGHT, Proposals};
use crate::command::{Action, Actor, Command, Expect};
use crate::raft::bare::{Bare, DEADLINE, trust};
use crate::raft::led::{FOLLOWER, LEADER, begin_to_lead};
use crate::raft::network::frame::write_frame;
use crate::raft::network::handshake::{Trust, accept};
use crate::raft::network::message::{self, Ask, NotNow, Told};

const WRITERS: usize = 32;

/// What became of the batches that it was sent.
#[derive(Default)]
struct FullLeader {
    has_room: AtomicBool,
    refused: Mutex<HashSet<Bytes>>,
    /// Taken, and never answered.
    taken: AtomicUsize,
}

impl FullLeader {
    async fn serve(self: Arc<Self>, listener: TcpListener, trust: Arc<Trust>) {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = accept(&trust, stream).await.unwrap();
        while let Ok(Some(frame)) = connection.reader.next().await {
            let (number, body) = frame.split_at(8);
            let Ask::Propose(commands) = message::decode(body).unwrap() else {
                continue;
            };
            if self.has_room.load(Ordering::Relaxed) {
                self.taken.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            self.refused.lock().unwrap().insert(commands);
            let told = message::encode(&Told::Proposed(Err(NotNow::Overloaded)));
            let answer = [number, told.as_slice()].concat();
            write_frame(&mut connection.writer, &answer).await.unwrap();
        }
    }

    fn refused(&self) -> usize {
        self.refused.lock().unwrap().len()
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

fn put(number: usize) -> Command {
    Command {
        actor: Actor::System,
        action: Action::Put {
            key: Bytes::from(number.to_string()),
            value: Bytes::new(),
            lease: 0,
            expect: Expect::Any,
        },
        once: None,
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < DEADLINE, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_that_were_refused_few_are_under_way_once_there_is_room() {
    let mut config = Config::default();
    // Nobody but this leader stands for election, and nothing is too old.
    (config.store.election_min_ms, config.store.election_max_ms) = (60_000, 90_000);
    config.limits.proposal_age_ms_max = 60_000;
    let follower = Bare::start(FOLLOWER, &config).await;
    let (desk, tasks) = (&follower.desk, &follower.tasks);
    let (there, leader) = (tempfile::tempdir().unwrap(), Arc::new(FullLeader::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = Arc::clone(&leader).serve(listener, trust(there.path(), LEADER));
    tasks.spawn("leader", serving);
    begin_to_lead(desk, &address).await;
    let proposals = Arc::new(Proposals::start(Arc::clone(desk), tasks, &config.limits));
    for number in 0..WRITERS {
        let proposals = Arc::clone(&proposals);
        tasks.spawn("writer", async move {
            proposals.propose(put(number), Since::now()).await
        });
        // So each is a batch of its own.
        until("one more batch to be refused", || leader.refused() > number).await;
    }
    leader.has_room.store(true, Ordering::Relaxed);
    until("a batch to be taken", || leader.taken() > 0).await;
    // Longer than any of them rests.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let taken = leader.taken();
    assert!(
        (1..=IN_FLIGHT).contains(&taken),
        "{taken} of {WRITERS} are under way"
    );
    follower.end().await;
}
