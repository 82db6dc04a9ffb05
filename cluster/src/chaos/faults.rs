//! The faults: which there are, and what each needs. How each is caused stands in the folder.
//! Invariant: a fault answers only when it was seen to have happened; one that cannot be caused is an error.

mod disks;
mod guests;
mod links;
mod overload;
mod processes;
mod steps;
mod together;

use std::time::Duration;

use serde::Serialize;

use super::ground::Ground;
use super::random::Random;
use super::shim::Order;
use crate::arena::SERVERS;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    KillLeader,
    KillFollower,
    KillTwo,
    KillAll,
    PauseLeader,
    PauseFollower,
    RollingRestart,
    Membership,
    Overload,
    LeaderCutOff,
    LeaderWithoutPeers,
    FollowerCutOff,
    Ring,
    OneWay,
    EverybodyAlone,
    SlowLink,
    LossyLink,
    PowerLossOfOne,
    PowerLossOfAll,
    DiskFull,
    SlowSync,
    FailedSync,
    FailedWrite,
    ClockJump,
    ClockDrift,
    CutLog,
    FlippedBit,
    KillWhileCutOff,
    KillWhileLossy,
    PowerLossWhileSlow,
    KillAtStep,
    PowerLossAtStep,
    Starved,
    BadGuests,
}

pub(super) const ALL: [Kind; 34] = [
    Kind::KillLeader,
    Kind::KillFollower,
    Kind::KillTwo,
    Kind::KillAll,
    Kind::PauseLeader,
    Kind::PauseFollower,
    Kind::RollingRestart,
    Kind::Membership,
    Kind::Overload,
    Kind::LeaderCutOff,
    Kind::LeaderWithoutPeers,
    Kind::FollowerCutOff,
    Kind::Ring,
    Kind::OneWay,
    Kind::EverybodyAlone,
    Kind::SlowLink,
    Kind::LossyLink,
    Kind::PowerLossOfOne,
    Kind::PowerLossOfAll,
    Kind::DiskFull,
    Kind::SlowSync,
    Kind::FailedSync,
    Kind::FailedWrite,
    Kind::ClockJump,
    Kind::ClockDrift,
    Kind::CutLog,
    Kind::FlippedBit,
    Kind::KillWhileCutOff,
    Kind::KillWhileLossy,
    Kind::PowerLossWhileSlow,
    Kind::KillAtStep,
    Kind::PowerLossAtStep,
    Kind::Starved,
    Kind::BadGuests,
];

impl Kind {
    pub(super) fn word(self) -> String {
        let word = serde_json::to_value(self).unwrap_or_default();
        word.as_str().unwrap_or_default().to_owned()
    }

    /// Whether this machine lets us cause it.
    pub(super) fn is_possible(self, ground: &Ground) -> bool {
        (!self.needs_root() || !ground.disks.is_empty()) && (!self.needs_shim() || !ground.shims.is_empty())
    }

    /// Whether each node needs a disk of its own for it, which only root can have.
    pub(super) fn needs_root(self) -> bool {
        matches!(
            self,
            Self::PowerLossOfOne
                | Self::PowerLossOfAll
                | Self::DiskFull
                | Self::PowerLossWhileSlow
                | Self::PowerLossAtStep
        )
    }

    fn needs_shim(self) -> bool {
        matches!(
            self,
            Self::SlowSync
                | Self::FailedSync
                | Self::FailedWrite
                | Self::ClockJump
                | Self::ClockDrift
                | Self::KillAtStep
                | Self::PowerLossWhileSlow
                | Self::PowerLossAtStep
        )
    }

    /// Causes it, lets it last, and ends it; the nodes need not be well again. `leader` leads as it begins.
    /// Answers what happened, in words.
    pub(super) async fn happen(
        self,
        ground: &mut Ground,
        leader: usize,
        random: &mut Random,
    ) -> anyhow::Result<String> {
        let follower = (leader + 1 + usize::try_from(random.below(2))?) % SERVERS;
        let either = *random.choose(&[leader, follower]);
        let short = Duration::from_millis(300 + random.below(1700));
        let third = links::others(leader).find(|other| *other != follower);
        match self {
            Self::KillLeader => processes::kill(ground, &[leader], None, random).await,
            Self::KillFollower => processes::kill(ground, &[follower], None, random).await,
            Self::KillTwo => processes::kill(ground, &[leader, follower], third, random).await,
            Self::KillAll => processes::kill(ground, &[0, 1, 2], None, random).await,
            Self::PauseLeader => processes::pause(ground, leader, pause(random)).await,
            Self::PauseFollower => processes::pause(ground, follower, pause(random)).await,
            Self::RollingRestart => processes::restart_all(ground).await,
            Self::Membership => processes::leave_and_come_back(ground, either).await,
            Self::Overload => overload::flood(ground).await,
            Self::LeaderCutOff => links::cut_off(ground, leader, short).await,
            Self::FollowerCutOff => links::cut_off(ground, follower, short).await,
            Self::LeaderWithoutPeers => links::without_peers(ground, leader, short).await,
            Self::Ring => links::ring(ground, either, short).await,
            Self::OneWay => {
                let (from, to) = *random.choose(&[(leader, follower), (follower, leader)]);
                links::one_way(ground, from, to, short).await
            }
            Self::EverybodyAlone => links::everybody_alone(ground, short).await,
            Self::SlowLink => links::slow(ground, either, short).await,
            Self::LossyLink => links::lossy(ground, either, short).await,
            Self::PowerLossOfOne => disks::power_loss(ground, &[either]).await,
            Self::PowerLossOfAll => disks::power_loss(ground, &[0, 1, 2]).await,
            Self::DiskFull => disks::full(ground, (leader, follower), random).await,
            Self::SlowSync => disks::slow_sync(ground, either, short).await,
            Self::FailedSync => disks::failing(ground, either, Order::SyncFails).await,
            Self::FailedWrite => disks::failing(ground, either, Order::WriteFails).await,
            Self::ClockJump => {
                let hour = *random.choose(&[-3600, 3600]);
                disks::clock_jump(ground, (either, leader), hour, short).await
            }
            Self::ClockDrift => {
                let permille = *random.choose(&[-100, 100]);
                disks::clock_drift(ground, either, permille, 2 * short).await
            }
            Self::CutLog => disks::damage(ground, follower, disks::Damage::CutEnd, random).await,
            Self::FlippedBit => disks::damage(ground, follower, disks::Damage::FlipBit, random).await,
            Self::KillWhileCutOff => together::kill_while_cut_off(ground, (leader, follower), random).await,
            Self::KillWhileLossy => together::kill_while_lossy(ground, (leader, follower), random).await,
            Self::PowerLossWhileSlow => {
                let (one, other) = *random.choose(&[(leader, follower), (follower, leader)]);
                together::power_loss_while_slow(ground, (one, other)).await
            }
            Self::KillAtStep => steps::end_at(ground, either, None, random).await,
            Self::PowerLossAtStep => {
                let disk = ground.disks[either].number()?;
                steps::end_at(ground, either, Some(disk), random).await
            }
            Self::Starved => processes::starve(ground, either, 2 * short).await,
            Self::BadGuests => guests::misbehave(ground, either).await,
        }
    }
}

/// Mostly shorter than a lease of a client, now and then longer than anything waits.
fn pause(random: &mut Random) -> Duration {
    let (least, most) = *random.choose(&[(100, 2000), (100, 2000), (100, 2000), (3000, 7000)]);
    Duration::from_millis(least + random.below(most - least))
}
