//! What the truth does to the stakes: the wrong pay the right, and a little more to the treasury.
//! Invariant: stakes and treasury together stay the same to the micro-token; whoever was right never loses by it,
//! whoever was wrong always does; nobody's stake becomes negative; a stake raised after the round wins nothing more.

use serde::{Deserialize, Serialize};

use super::forecast::Forecast;
use super::params::{PPM, Params, share_ceil, share_floor};
use super::trust::Trust;

/// What a model owns and has earned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub stake_micro: u64,
    pub trust: Trust,
    /// Rounds in a row that it missed.
    pub misses: u32,
    /// Whether it fell below the minimum and was not brought back since.
    pub ejected: bool,
}

impl Account {
    pub fn newcomer(params: &Params, classes: usize, stake_micro: u64) -> Self {
        Self {
            stake_micro,
            trust: Trust::newcomer(params, classes),
            misses: 0,
            ejected: false,
        }
    }

    /// More stake. Once the deposit is reached, an ejected model is back, with the trust it had.
    #[must_use]
    pub fn top_up(mut self, params: &Params, amount_micro: u64) -> Self {
        self.stake_micro = self.stake_micro.saturating_add(amount_micro);
        self.ejected &= self.stake_micro < params.deposit_micro;
        self
    }
}

/// How a model stood in the round that is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It answered, with this stake when the round was closed.
    Answered { forecast: Forecast, stake_micro: u64 },
    /// It was asked and gave no answer that counts.
    Absent,
    /// It was not asked.
    Out,
}

#[derive(Clone, Debug)]
pub struct Side {
    pub account: Account,
    pub stand: Stand,
}

impl Side {
    /// What it can win with: not what was laid on top once the truth was known.
    fn at_stake_micro(&self) -> u64 {
        match &self.stand {
            Stand::Answered { stake_micro, .. } => self.account.stake_micro.min(*stake_micro),
            Stand::Absent | Stand::Out => 0,
        }
    }
}

/// What became of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// `None` when it took no part.
    pub right: Option<bool>,
    pub wager_micro: u64,
    pub gained_micro: u64,
    pub lost_micro: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// In the order of the sides.
    pub accounts: Vec<Account>,
    pub verdicts: Vec<Verdict>,
    pub treasury_micro: u64,
}

/// Sums over all who take part, fixed before the outcome is used.
#[derive(Clone, Copy)]
struct Sums {
    wagers_micro: u64,
    right_wagers_micro: u64,
    reward_ppm: u64,
}

pub fn settle(params: &Params, treasury_micro: u64, sides: &[Side], outcome: usize) -> Settlement {
    let sums = Sums::of(params, treasury_micro, sides, outcome);
    let verdicts: Vec<Verdict> = sides
        .iter()
        .map(|side| loss(params, &sums, side, outcome))
        .collect();
    let pool_micro = pool_of(&sums, &verdicts);
    let mut accounts = Vec::with_capacity(sides.len());
    let mut settled = Vec::with_capacity(sides.len());
    let (mut gained_micro, mut lost_micro) = (0, 0);
    for (side, mut verdict) in sides.iter().zip(verdicts) {
        if verdict.right == Some(true) {
            let won_micro = share_floor(pool_micro, verdict.wager_micro, sums.right_wagers_micro.max(1));
            let reward_micro = share_floor(side.at_stake_micro(), sums.reward_ppm, u64::from(PPM));
            verdict.gained_micro = won_micro + reward_micro;
        }
        gained_micro += verdict.gained_micro;
        lost_micro += verdict.lost_micro;
        accounts.push(after(params, side, &verdict, outcome));
        settled.push(verdict);
    }
    Settlement {
        accounts,
        verdicts: settled,
        // What rounding leaves over is in neither sum of the models, and so stays here.
        treasury_micro: treasury_micro + lost_micro - gained_micro,
    }
}

impl Sums {
    fn of(params: &Params, treasury_micro: u64, sides: &[Side], outcome: usize) -> Self {
        let (mut stakes_micro, mut wagers_micro, mut right_wagers_micro) = (0_u64, 0_u64, 0_u64);
        for side in sides {
            let Some((forecast, wager_micro)) = wager(params, side) else {
                continue;
            };
            // They only tell what share somebody has: no token is lost where they stop at the largest number.
            stakes_micro = stakes_micro.saturating_add(side.at_stake_micro());
            wagers_micro = wagers_micro.saturating_add(wager_micro);
            if forecast.label() == outcome {
                right_wagers_micro = right_wagers_micro.saturating_add(wager_micro);
            }
        }
        let affordable_ppm = share_floor(params.drip_ppm, treasury_micro, stakes_micro.max(1));
        Self {
            wagers_micro,
            right_wagers_micro,
            reward_ppm: params.reward_ppm_max.min(affordable_ppm),
        }
    }
}

/// What a model wagers, if it takes part: whoever was ejected since sits out.
fn wager<'a>(params: &Params, side: &'a Side) -> Option<(&'a Forecast, u64)> {
    match &side.stand {
        Stand::Answered { forecast, .. } if !side.account.ejected => {
            let wager_micro = share_floor(side.at_stake_micro(), params.wager_ppm, u64::from(PPM));
            Some((forecast, wager_micro))
        }
        _ => None,
    }
}

fn loss(params: &Params, sums: &Sums, side: &Side, outcome: usize) -> Verdict {
    let stake_micro = side.account.stake_micro;
    let Some((forecast, wager_micro)) = wager(params, side) else {
        let leaks =
            side.stand == Stand::Absent && !side.account.ejected && side.account.misses >= params.misses_max;
        let leak_micro = share_ceil(stake_micro, params.leak_ppm, u64::from(PPM));
        return Verdict {
            right: None,
            wager_micro: 0,
            gained_micro: 0,
            lost_micro: if leaks { leak_micro } else { 0 },
        };
    };
    let right = forecast.label() == outcome;
    let lost_micro = if right {
        0
    } else {
        let slash_micro = share_ceil(stake_micro, params.slash_ppm, u64::from(PPM));
        to_pool(sums, wager_micro) + slash_micro
    };
    Verdict {
        right: Some(right),
        wager_micro,
        gained_micro: 0,
        lost_micro: lost_micro.min(stake_micro),
    }
}

fn to_pool(sums: &Sums, wager_micro: u64) -> u64 {
    share_floor(wager_micro, sums.right_wagers_micro, sums.wagers_micro.max(1))
}

fn pool_of(sums: &Sums, verdicts: &[Verdict]) -> u64 {
    let wrong = verdicts.iter().filter(|verdict| verdict.right == Some(false));
    wrong.map(|verdict| to_pool(sums, verdict.wager_micro)).sum()
}

fn after(params: &Params, side: &Side, verdict: &Verdict, outcome: usize) -> Account {
    let mut account = side.account;
    account.stake_micro = account.stake_micro + verdict.gained_micro - verdict.lost_micro;
    match &side.stand {
        Stand::Answered { forecast, .. } if !account.ejected => {
            account.trust = account.trust.learn(params, forecast, outcome);
            account.misses = 0;
        }
        Stand::Absent if !account.ejected => account.misses = account.misses.saturating_add(1),
        _ => {}
    }
    account.ejected |= account.stake_micro < params.stake_min_micro;
    account
}
