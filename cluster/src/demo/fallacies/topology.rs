//! “Topology doesn't change”: the leader dies and returns, and a member leaves and comes back, while somebody writes and
//! somebody follows. Invariant: the follower must see every acknowledged write once and in order.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kvstore_client::wire::cluster::NewMember;
use kvstore_client::{KvClient, WatchRequest};
use tokio_util::sync::CancellationToken;

use super::ground::Ground;
use super::told::{Told, ms};
use crate::arena::{SERVERS, wait_for};

const PREFIX: &str = "fallacies/topology/";
const PAUSE: Duration = Duration::from_millis(10);
const STEP_MAX: Duration = Duration::from_secs(40);
/// How many writes are to succeed between two changes.
const CALM: usize = 20;

#[derive(Default)]
struct Seen {
    /// The revisions of writes, as acknowledged and as followed.
    written: RefCell<Vec<u64>>,
    followed: RefCell<Vec<u64>>,
    last_success: Cell<Option<Instant>>,
    longest_gap: Cell<Duration>,
}

pub(super) async fn play(ground: &mut Ground, told: &mut Told<'_>) -> anyhow::Result<()> {
    let (seen, stop, written_all) = (
        Seen::default(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    let client = ground.client.clone();
    let from = client.revision().await? + 1;
    let story = async {
        let changed = change_everything(ground, &seen, told).await;
        stop.cancel();
        changed
    };
    let writing = async {
        let written = write(&client, &seen, &stop).await;
        written_all.cancel();
        written
    };
    let following = follow(&client, from, &seen, &written_all);
    let (story, written, followed) = tokio::join!(story, writing, following);
    story?;
    written?;
    followed?;
    let written = seen.written.borrow();
    told.figure("writes", u32::try_from(written.len()).unwrap_or(u32::MAX).into());
    told.figure("longest_gap_ms", ms(seen.longest_gap.get()));
    told.claim(
        *written == *seen.followed.borrow(),
        format_args!(
            "whoever followed has seen all {} writes, each once and in order; the longest wait for one was {:.0} ms",
            written.len(),
            ms(seen.longest_gap.get())
        ),
    );
    Ok(())
}

async fn change_everything(ground: &mut Ground, seen: &Seen, told: &mut Told<'_>) -> anyhow::Result<()> {
    let leader = ground.store.ready().await?;
    let killed = ground.name(leader).to_owned();
    told.say(format_args!(
        "One client writes and one follows; both know the addresses of all nodes. {killed}, which leads, is killed with kill -9."
    ));
    calm(seen).await?;
    ground.store.servers[leader].kill().await?;
    calm(seen).await?;
    let now = ground.client.cluster().await?.leader;
    told.claim(
        now.is_some_and(|now| now != ground.id(leader)),
        format_args!("n{} leads now, and writes go on there", now.unwrap_or_default()),
    );
    ground.store.servers[leader].start()?;
    let leader = ground.store.ready().await?;
    let victim = (leader + 1) % SERVERS;
    let name = ground.name(victim).to_owned();
    told.say(format_args!(
        "{killed} is back. Now {name} is taken out of the cluster while it runs, and let in again."
    ));
    let members = leave_and_return(ground, victim, seen).await?;
    told.claim(
        members == [2, 3],
        format_args!("{} members could vote, then {} again", members[0], members[1]),
    );
    calm(seen).await?;
    ground.store.ready().await?;
    Ok(())
}

/// How many members had a vote without it, and how many with it.
async fn leave_and_return(ground: &Ground, victim: usize, seen: &Seen) -> anyhow::Result<[usize; 2]> {
    let node = &ground.store.config.nodes[victim];
    let member = NewMember {
        id: node.id,
        peer_address: node.peer.clone(),
        client_address: node.client.clone(),
    };
    // A node that is taken out may never hear of it, so those that stay are asked.
    let client = ground.without(victim)?;
    let voters = async || {
        let members = client.cluster().await.ok()?.members;
        let present = members
            .iter()
            .find(|member| member.id == node.id)
            .map(|member| member.voter);
        Some((present, members.iter().filter(|member| member.voter).count()))
    };
    let without = wait_for("a member to leave", STEP_MAX, async || {
        if let (None, voters) = voters().await? {
            return Some(voters);
        }
        // Whether it was done shows in the members, whatever the answer was.
        let _ = client.member_remove(member.id).await;
        None
    });
    let without = without.await?;
    calm(seen).await?;
    let with = wait_for("a member to come back", STEP_MAX, async || {
        let _ = match voters().await? {
            (None, _) => client.member_add(&member).await,
            (Some(false), _) => client.member_promote(member.id).await,
            (Some(true), voters) => return Some(voters),
        };
        None
    });
    Ok([without, with.await?])
}

/// Waits until writes have succeeded for a while.
async fn calm(seen: &Seen) -> anyhow::Result<()> {
    let before = seen.written.borrow().len();
    wait_for("writes to go on", STEP_MAX, async || {
        (seen.written.borrow().len() >= before + CALM).then_some(())
    })
    .await
}

/// One write after the other; one whose outcome is open is sent again with its key until it is known.
async fn write(client: &KvClient, seen: &Seen, stop: &CancellationToken) -> anyhow::Result<()> {
    for n in 0_u32.. {
        if stop.is_cancelled() {
            break;
        }
        let once = client.with_idempotency_key(&format!("fallacies-topology-{n}"))?;
        let put = wait_for("a write to be acknowledged", STEP_MAX, async || {
            once.put(&format!("{PREFIX}{n}"), n.to_string()).await.ok()
        })
        .await?;
        let now = Instant::now();
        if let Some(last) = seen.last_success.replace(Some(now)) {
            seen.longest_gap.set(seen.longest_gap.get().max(now - last));
        }
        seen.written.borrow_mut().push(put.revision);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Follows until nothing more is written and everything that was has been seen.
async fn follow(client: &KvClient, from: u64, seen: &Seen, end: &CancellationToken) -> anyhow::Result<()> {
    let mut watch = client.watch(WatchRequest::prefix(PREFIX).from(from)).await?;
    loop {
        let all = seen.written.borrow().last() <= seen.followed.borrow().last();
        if end.is_cancelled() && all {
            return Ok(());
        }
        tokio::select! {
            next = tokio::time::timeout(STEP_MAX, watch.next()) => {
                let next = next.context("wait for a change to be told")??;
                seen.followed.borrow_mut().push(next.revision);
            }
            () = end.cancelled(), if all => {}
        }
    }
}
