//! The constants of the mechanism.
//! Invariant: amounts are in micro-tokens and shares in parts per million.

use serde::{Deserialize, Serialize};

/// Micro-tokens a token.
pub const MICRO: u64 = 1_000_000;
/// Parts of a whole.
pub const PPM: u32 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Params {
    /// What a model brings when it joins, and what brings an ejected one back.
    pub deposit_micro: u64,
    /// Below it a model is ejected.
    pub stake_min_micro: u64,
    /// What the treasury begins with.
    pub endowment_micro: u64,
    /// The share of its stake that a model wagers in a round.
    pub wager_ppm: u64,
    /// The share of its stake that a wrong model loses on top.
    pub slash_ppm: u64,
    /// The most that a right model gains from the treasury, as a share of its stake.
    pub reward_ppm_max: u64,
    /// The most that the treasury gives away in a round, as a share of itself.
    pub drip_ppm: u64,
    /// More stake than this weighs no more.
    pub weight_stake_micro_max: u64,
    /// How many rounds a newcomer's trust of one half counts for.
    pub newcomer_rounds: u64,
    /// Trust remembers two to the power of this many rounds.
    pub memory_shift: u32,
    /// Rounds in a row that a model may miss before its stake leaks.
    pub misses_max: u32,
    /// What leaks with each further miss.
    pub leak_ppm: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            deposit_micro: 1000 * MICRO,
            stake_min_micro: 500 * MICRO,
            endowment_micro: 1000 * MICRO,
            wager_ppm: 50_000,
            slash_ppm: 5_000,
            reward_ppm_max: 1_000,
            drip_ppm: 10_000,
            weight_stake_micro_max: 2000 * MICRO,
            newcomer_rounds: 8,
            memory_shift: 5,
            misses_max: 10,
            leak_ppm: 1_600,
        }
    }
}

/// A share of an amount, rounded down.
pub(super) fn share_floor(amount: u64, part: u64, whole: u64) -> u64 {
    let product = u128::from(amount) * u128::from(part) / u128::from(whole);
    u64::try_from(product).expect("a part of an amount is no more than fits")
}

/// The same, rounded up: against whoever pays.
pub(super) fn share_ceil(amount: u64, part: u64, whole: u64) -> u64 {
    let product = (u128::from(amount) * u128::from(part)).div_ceil(u128::from(whole));
    u64::try_from(product).expect("a part of an amount is no more than fits")
}
