//! The faults: which there are, and what each needs. How they are caused stands in `processes`, `links` and `disks`.
//! Invariant: a fault answers only when it was seen to have happened; one that cannot be caused is an error.

mod disks;
mod links;
mod processes;

use std::time::Duration;

use serde::Serialize;

use super::ground::Ground;
use super::random::Random;
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
    ClockJump,
    CutLog,
    FlippedBit,
}

pub(super) const ALL: [Kind; 25] = [
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
    Kind::ClockJump,
    Kind::CutLog,
    Kind::FlippedBit,
];

impl Kind {
    pub(super) fn word(self) -> String {
        let word = serde_json::to_value(self).unwrap_or_default();
        word.as_str().unwrap_or_default().to_owned()
    }

    /// Whether this machine lets us cause it.
    pub(super) fn is_possible(self, ground: &Ground) -> bool {
        match self {
            Self::LeaderCutOff
            | Self::LeaderWithoutPeers
            | Self::FollowerCutOff
            | Self::Ring
            | Self::OneWay
            | Self::EverybodyAlone
            | Self::SlowLink
            | Self::LossyLink => ground.network.is_some(),
            Self::PowerLossOfOne | Self::PowerLossOfAll | Self::DiskFull => !ground.disks.is_empty(),
            Self::SlowSync | Self::FailedSync | Self::ClockJump => !ground.shims.is_empty(),
            _ => true,
        }
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
        let short = Duration::from_millis(300 + random.below(1700));
        match self {
            Self::KillLeader => processes::kill(ground, &[leader]).await,
            Self::KillFollower => processes::kill(ground, &[follower]).await,
            Self::KillTwo => processes::kill(ground, &[leader, follower]).await,
            Self::KillAll => processes::kill(ground, &[0, 1, 2]).await,
            Self::PauseLeader => processes::pause(ground, leader, short).await,
            Self::PauseFollower => processes::pause(ground, follower, short).await,
            Self::RollingRestart => processes::restart_all(ground).await,
            Self::Membership => processes::leave_and_come_back(ground, follower).await,
            Self::Overload => processes::overload(ground).await,
            Self::LeaderCutOff => links::cut_off(ground, leader, short).await,
            Self::FollowerCutOff => links::cut_off(ground, follower, short).await,
            Self::LeaderWithoutPeers => links::without_peers(ground, leader, short).await,
            Self::Ring => links::ring(ground, leader, short).await,
            Self::OneWay => links::one_way(ground, leader, follower, short).await,
            Self::EverybodyAlone => links::everybody_alone(ground, short).await,
            Self::SlowLink => links::slow(ground, leader, short).await,
            Self::LossyLink => links::lossy(ground, leader, short).await,
            Self::PowerLossOfOne => disks::power_loss(ground, &[*random.choose(&[leader, follower])]).await,
            Self::PowerLossOfAll => disks::power_loss(ground, &[0, 1, 2]).await,
            Self::DiskFull => disks::full(ground, leader).await,
            Self::SlowSync => disks::slow_sync(ground, leader, short).await,
            Self::FailedSync => disks::failed_sync(ground, *random.choose(&[leader, follower])).await,
            Self::ClockJump => {
                let hour = *random.choose(&[-3600, 3600]);
                disks::clock_jump(ground, leader, hour, short).await
            }
            Self::CutLog => disks::damage(ground, follower, disks::Damage::CutEnd, random).await,
            Self::FlippedBit => disks::damage(ground, follower, disks::Damage::FlipBit, random).await,
        }
    }
}
