//! A leader that takes a batch and is lost before it says what became of it: what has a key is sent again, and nothing
//! else is. The leader here is the test; the node takes it for the one that leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use service::config::Config;
use service::time::Since;
use tokio::net::TcpListener;

use super::WriteError;
use super::propose::Proposals;
use crate::command::{Action, Actor, Answer, Command, Expect, MirrorsWere, Once, Reply};
use crate::raft::bare::{Bare, trust};
use crate::raft::led::{FOLLOWER, LEADER, begin_to_lead};
use crate::raft::network::frame::write_frame;
use crate::raft::network::handshake::{Trust, accept};
use crate::raft::network::message::{self, Ask, Proposed, Told};

const REVISION: u64 = 7;

fn put(once: Option<Once>) -> Command {
    Command {
        actor: Actor::System,
        action: Action::Put {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"v"),
            lease: 0,
            expect: Expect::Any,
        },
        once,
    }
}

/// Hangs up on the first batch, and says of each later one that it is done. `taken` counts all of them.
async fn serve(listener: TcpListener, trust: Arc<Trust>, taken: Arc<AtomicUsize>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = accept(&trust, stream).await.unwrap();
        while let Ok(Some(frame)) = connection.reader.next().await {
            let (number, body) = frame.split_at(8);
            let Ask::Propose(_commands) = message::decode(body).unwrap() else {
                continue;
            };
            if taken.fetch_add(1, Ordering::Relaxed) == 0 {
                break;
            }
            let reply = Reply {
                revision: REVISION,
                replayed: false,
                answer: Answer::Done,
                mirrors: MirrorsWere::None,
            };
            let proposed = Proposed {
                replies: vec![reply],
                mirrors: MirrorsWere::None,
            };
            let told = message::encode(&Told::Proposed(Ok(proposed)));
            let answer = [number, told.as_slice()].concat();
            write_frame(&mut connection.writer, &answer).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_sent_again_only_under_a_key() {
    let mut config = Config::default();
    // Nobody but this leader stands for election.
    (config.store.election_min_ms, config.store.election_max_ms) = (60_000, 90_000);
    let key = Once {
        key: "once".to_owned(),
        fingerprint: [0; 16],
        ttl_ms: 60_000,
        room_bytes: 1 << 20,
    };
    for (once, outcome, copies) in [
        (None, Err(WriteError::OutcomeUnknown), 1),
        (Some(key), Ok(REVISION), 2),
    ] {
        let follower = Bare::start(FOLLOWER, &config).await;
        let (desk, tasks) = (&follower.desk, &follower.tasks);
        let (there, taken) = (tempfile::tempdir().unwrap(), Arc::new(AtomicUsize::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = serve(listener, trust(there.path(), LEADER), Arc::clone(&taken));
        tasks.spawn("leader", serving);
        begin_to_lead(desk, &address).await;
        let proposals = Proposals::start(Arc::clone(desk), tasks, &config.limits);
        let told = proposals.propose(put(once), Since::now()).await;
        assert_eq!(told.map(|reply| reply.revision), outcome);
        assert_eq!(taken.load(Ordering::Relaxed), copies);
        follower.end().await;
    }
}
