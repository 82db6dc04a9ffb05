//! Two faults at once: what one of them takes away is what would have made up for the other.
//! Invariant: the first was seen to happen before the second began, and lasts until that one is over.

use super::{disks, links, processes};
use crate::chaos::ground::Ground;
use crate::chaos::random::Random;

/// The leader dies while a follower is cut off: the third alone may serve nothing until one of them is back.
pub(super) async fn kill_while_cut_off(
    ground: &mut Ground,
    (leader, follower): (usize, usize),
    random: &mut Random,
) -> anyhow::Result<String> {
    let cut = links::cut(ground, follower).await;
    let third = links::others(leader).find(|other| *other != follower);
    // Where the cut failed, the two are a majority.
    let alone = third.filter(|_| cut.is_ok());
    let killed = processes::kill(ground, &[leader], alone, random).await;
    ground.wires.heal().await?;
    cut?;
    Ok(format!("{}, with n{} cut off", killed?, follower + 1))
}

/// The leader dies while what reaches a follower, perhaps the next leader, gets lost.
pub(super) async fn kill_while_lossy(
    ground: &mut Ground,
    (leader, follower): (usize, usize),
    random: &mut Random,
) -> anyhow::Result<String> {
    let lost = links::lose(ground, follower).await;
    let killed = processes::kill(ground, &[leader], None, random).await;
    ground.wires.heal().await?;
    Ok(format!("{}, while {}", killed?, lost?))
}

/// Power fails at one node while another cannot sync in time: what only those two had acknowledged must be there.
pub(super) async fn power_loss_while_slow(
    ground: &mut Ground,
    (one, other): (usize, usize),
) -> anyhow::Result<String> {
    let seen = disks::SlowSync::begin(ground, other).await;
    let lost = disks::power_loss(ground, &[one]).await;
    let slow = disks::SlowSync::end(ground, other);
    seen?;
    slow?;
    Ok(format!("{}, while syncs of n{} were slow", lost?, other + 1))
}
