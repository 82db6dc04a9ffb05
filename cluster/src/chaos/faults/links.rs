//! What happens to links: cut both ways or one way, slow, lossy.
//! Invariant: that a link was cut is seen by trying to connect through it, and all links carry again at the end. A node
//! that is left without a majority, by whichever fault, and that its clients reach, is asked what it tells them.

use std::time::Duration;

use anyhow::{bail, ensure};
use futures_util::future::join_all;

use crate::arena::{SERVERS, wait_for};
use crate::chaos::ground::Ground;
use crate::chaos::wires::Wires;
use kvstore_client::wire::level::Consistency;
use kvstore_client::{KvClient, ReadOptions};

/// A leader that hears nobody falls silent within its lease; what was confirmed before may still be answered.
const SILENT_AFTER: Duration = Duration::from_millis(700);
const TRY: Duration = Duration::from_millis(500);
/// What a node can do alone it does at some time, also on a busy machine.
const ALONE: Duration = Duration::from_secs(5);
/// On a busy machine an answer may be late once.
const CARRY_DEADLINE: Duration = Duration::from_secs(3);
const EFFECT_DEADLINE: Duration = Duration::from_secs(20);

pub(super) fn others(server: usize) -> impl Iterator<Item = usize> {
    (0..SERVERS).filter(move |other| *other != server)
}

/// From the first to the second; a link that carries nothing before it is cut shows nothing by being cut.
async fn ensure_carry(wires: &Wires, links: &[(usize, usize)]) -> anyhow::Result<()> {
    for (from, to) in links {
        let what = "a link that is to be cut to carry something before";
        wait_for(what, CARRY_DEADLINE, async || {
            wires.reaches(*from, *to).await.then_some(())
        })
        .await?;
    }
    Ok(())
}

async fn ensure_cut(wires: &Wires, links: &[(usize, usize)]) -> anyhow::Result<()> {
    ensure!(
        !wires.any_reaches(links).await,
        "a link was cut, and still carries"
    );
    Ok(())
}

/// Those from everybody else.
fn links_to(server: usize) -> Vec<(usize, usize)> {
    others(server).map(|other| (other, server)).collect()
}

/// Cuts a node off, and sees that it is; whoever calls this heals.
pub(super) async fn cut(ground: &Ground, victim: usize) -> anyhow::Result<()> {
    let wires = &ground.wires;
    let links = links_to(victim);
    ensure_carry(wires, &links).await?;
    wires.cut(&[victim]).await?;
    ensure_cut(wires, &links).await
}

pub(super) async fn cut_off(ground: &mut Ground, victim: usize, time: Duration) -> anyhow::Result<String> {
    let cut = cut(ground, victim).await;
    tokio::time::sleep(time).await;
    ground.wires.heal().await?;
    cut?;
    Ok(format!("n{} cut off for {} ms", victim + 1, time.as_millis()))
}

/// It still hears clients, and must tell them nothing that only a majority can know.
pub(super) async fn without_peers(
    ground: &mut Ground,
    victim: usize,
    time: Duration,
) -> anyhow::Result<String> {
    let wires = &ground.wires;
    let links = links_to(victim);
    ensure_carry(wires, &links).await?;
    let both_ways = others(victim).flat_map(|other| [(victim, other), (other, victim)]);
    let deafened = wires.deafen(&both_ways.collect::<Vec<_>>()).await;
    let cut = ensure_cut(wires, &links).await;
    let told = alone(ground, &[victim], time).await;
    wires.heal().await?;
    deafened.and(cut)?;
    told?;
    Ok(format!(
        "n{} without the others for {} ms",
        victim + 1,
        time.as_millis()
    ))
}

/// Lets time go by for nodes each of which is without a majority, as much at least as they need to fall silent; then they
/// must serve nothing that only a majority can know.
pub(super) async fn alone(ground: &Ground, nodes: &[usize], time: Duration) -> anyhow::Result<()> {
    tokio::time::sleep(time.max(SILENT_AFTER)).await;
    let asked = nodes.iter().map(async |node| {
        let client = ground.only(*node)?;
        serves_nothing(&client.with_deadline(TRY)).await
    });
    join_all(asked).await.into_iter().collect()
}

async fn serves_nothing(client: &KvClient) -> anyhow::Result<()> {
    if let Ok(put) = client.put("chaos/alone", "nobody else has this").await {
        bail!("VIOLATION: a node without a majority acknowledged a write: {put:?}");
    }
    if let Ok(read) = client.get("chaos/alone").await {
        bail!("VIOLATION: a node without a majority served a linearizable read: {read:?}");
    }
    let local = ReadOptions {
        consistency: Consistency::Local,
        revision: None,
    };
    let patient = client.with_deadline(ALONE);
    if let Err(error) = patient.get_with("chaos/alone", local).await {
        bail!("VIOLATION: a local read needs nobody else: {error:?}");
    }
    Ok(())
}

/// Two see each other no longer, and the third sees both.
pub(super) async fn ring(ground: &mut Ground, one: usize, time: Duration) -> anyhow::Result<String> {
    let other = (one + 1) % SERVERS;
    let wires = &ground.wires;
    let links = [(other, one)];
    ensure_carry(wires, &links).await?;
    let deafened = wires.deafen(&[(one, other), (other, one)]).await;
    let cut = ensure_cut(wires, &links).await;
    tokio::time::sleep(time).await;
    wires.heal().await?;
    deafened.and(cut)?;
    Ok(format!(
        "n{} and n{} did not see each other for {} ms",
        one + 1,
        other + 1,
        time.as_millis()
    ))
}

pub(super) async fn one_way(
    ground: &mut Ground,
    from: usize,
    to: usize,
    time: Duration,
) -> anyhow::Result<String> {
    let wires = &ground.wires;
    let links = [(from, to)];
    ensure_carry(wires, &links).await?;
    wires.deafen(&links).await?;
    let cut = ensure_cut(wires, &links).await;
    tokio::time::sleep(time).await;
    wires.heal().await?;
    cut?;
    let (from, to) = (from + 1, to + 1);
    Ok(format!("n{to} did not hear n{from} for {} ms", time.as_millis()))
}

/// All of them still hear clients.
pub(super) async fn everybody_alone(ground: &mut Ground, time: Duration) -> anyhow::Result<String> {
    const EVERYBODY: [usize; SERVERS] = [0, 1, 2];
    let wires = &ground.wires;
    let links: Vec<(usize, usize)> = EVERYBODY.into_iter().flat_map(links_to).collect();
    ensure_carry(wires, &links).await?;
    let deafened = wires.deafen(&links).await;
    let cut = ensure_cut(wires, &links).await;
    let told = alone(ground, &EVERYBODY, time).await;
    wires.heal().await?;
    deafened.and(cut)?;
    told?;
    Ok(format!("everybody alone for {} ms", time.as_millis()))
}

pub(super) async fn slow(ground: &mut Ground, victim: usize, time: Duration) -> anyhow::Result<String> {
    const KILOBITS: u32 = 1500;
    let wires = &ground.wires;
    let before = wires.trouble(victim).await?.held_up;
    wires.narrow(victim, KILOBITS).await?;
    tokio::time::sleep(time).await;
    let what = "a slow link to hold something up";
    let held_up = more_than(before, what, async || Ok(wires.trouble(victim).await?.held_up)).await;
    wires.heal().await?;
    let held_up = held_up?;
    Ok(format!(
        "what reaches n{} went through {KILOBITS} kbit/s; held up {held_up} times",
        victim + 1
    ))
}

pub(super) async fn lossy(ground: &mut Ground, victim: usize, time: Duration) -> anyhow::Result<String> {
    let lost = lose(ground, victim).await;
    tokio::time::sleep(time).await;
    ground.wires.heal().await?;
    lost
}

/// Makes what reaches this node get lost, and sees something lost; whoever calls this heals.
pub(super) async fn lose(ground: &Ground, victim: usize) -> anyhow::Result<String> {
    let wires = &ground.wires;
    let before = wires.trouble(victim).await?.lost;
    wires.lose(victim).await?;
    let what = "a lossy link to lose something";
    more_than(before, what, async || Ok(wires.trouble(victim).await?.lost)).await?;
    let what = wires.what_is_lost();
    Ok(format!("{what} to n{} were lost", victim + 1))
}

/// How much more it became. On a busy machine little is said: the fault lasts until it has had its effect.
async fn more_than(
    before: u64,
    what: &str,
    count: impl AsyncFn() -> anyhow::Result<u64>,
) -> anyhow::Result<u64> {
    wait_for(what, EFFECT_DEADLINE, async || {
        let more = count().await.ok()?.saturating_sub(before);
        (more > 0).then_some(more)
    })
    .await
}

#[cfg(test)]
mod tests {
    use axum::extract::State;
    use axum::http::{Method, StatusCode, Uri};
    use axum::response::{IntoResponse as _, Response};
    use axum::{Json, Router};
    use service::serve::{Limits, serve};
    use service::tasks::Tasks;
    use tokio::net::TcpListener;

    use super::*;

    /// What a node serves beside local reads.
    #[derive(Clone, Copy, PartialEq)]
    enum Serves {
        Nothing,
        Writes,
        Reads,
    }

    async fn answer(State(serves): State<Serves>, method: Method, uri: Uri) -> Response {
        let is_local = uri.query().is_some_and(|query| query.contains("local"));
        if method == Method::PUT && serves == Serves::Writes {
            let put = serde_json::json!({"key": "chaos/alone", "revision": 7, "version": 1, "created": true});
            return Json(put).into_response();
        }
        if method == Method::GET && (serves == Serves::Reads || is_local) {
            let absent = Json(serde_json::json!({"code": "key-not-found"}));
            return (StatusCode::NOT_FOUND, [("x-kv-revision", "6")], absent).into_response();
        }
        let no_leader = Json(serde_json::json!({"code": "no-leader"}));
        (StatusCode::SERVICE_UNAVAILABLE, no_leader).into_response()
    }

    /// What is said of a node that is alone and serves this.
    async fn said_of(serves: Serves) -> anyhow::Result<()> {
        let app = Router::new().fallback(answer).with_state(serves);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tasks = Tasks::new();
        tasks.spawn("node", serve(listener, app, Limits::default(), tasks.clone()));
        let client = KvClient::builder([address]).deadline(TRY).build().unwrap();
        let said = serves_nothing(&client).await;
        tasks.stop();
        said
    }

    #[tokio::test]
    async fn who_is_alone_may_serve_local_reads_and_no_more() {
        said_of(Serves::Nothing).await.unwrap();
        for (serves, words) in [
            (Serves::Writes, "a write"),
            (Serves::Reads, "a linearizable read"),
        ] {
            let said = said_of(serves).await.unwrap_err().to_string();
            assert!(said.starts_with("VIOLATION") && said.contains(words), "{said}");
        }
    }
}
