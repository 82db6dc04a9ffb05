//! “The network is reliable”: the leader is cut off from the others in the middle of a request, and the same request is
//! sent again elsewhere.

use std::time::{Duration, Instant};

use super::ground::Ground;
use super::told::{Told, ms};
use crate::arena::Weather;

const COUNT: &str = "fallacies/network/count";
/// Longer than any lease of a leader that hears nobody.
const IMPATIENT: Duration = Duration::from_millis(1200);
const REQUEST: &str = "fallacies-network-once";

pub(super) async fn play(ground: &mut Ground, told: &mut Told<'_>) -> anyhow::Result<()> {
    let leader = ground.store.ready().await?;
    let name = ground.name(leader).to_owned();
    told.say(format_args!(
        "{name} leads. Its links to both others are cut. A client that can reach only {name} asks it to add 1 to a counter."
    ));
    let alone = ground.only(leader)?.with_deadline(IMPATIENT);
    ground.links.set(Weather::isolated(&[ground.id(leader)]));
    let cut_at = Instant::now();
    let first = alone
        .with_idempotency_key(REQUEST)?
        .add(COUNT, 1, None, None)
        .await;
    match &first {
        Ok(count) => told.claim(
            false,
            format_args!("{name} acknowledged a write that nobody else has: {count:?}"),
        ),
        Err(error) => told.claim(
            true,
            format_args!(
                "{name} acknowledged nothing that nobody else has; the client was told: {}",
                error.code()
            ),
        ),
    }
    let read = alone.get(COUNT).await;
    told.claim(
        read.is_err(),
        format_args!("nor did {name} answer a read, since others may know better by now"),
    );
    // The client gives up on that node and sends the very same request to all of them.
    let again = ground
        .client
        .with_idempotency_key(REQUEST)?
        .add(COUNT, 1, None, None)
        .await?;
    let gap = cut_at.elapsed();
    told.figure("cut_to_acknowledged_ms", ms(gap));
    told.claim(
        again == Some(1),
        format_args!(
            "the others have elected a leader, who acknowledged the same request {:.0} ms after the cut: the count is {}",
            ms(gap),
            again.unwrap_or_default()
        ),
    );
    ground.links.heal();
    ground.store.ready().await?;
    let count = ground.only(leader)?.get(COUNT).await?;
    let count = count.map(|found| String::from_utf8_lossy(&found.bytes()).into_owned());
    told.claim(
        count.as_deref() == Some("1"),
        format_args!("the links are back, and {name} has learned it: sent twice, done once"),
    );
    Ok(())
}
