//! What must hold whatever models say and whatever is true: conservation, fairness, indifference to order and splits.

use predictors::stakes::{
    Account, Forecast, ForecastFault, Params, Side, Stand, Temperature, Voice, pool, settle,
};
use proptest::prelude::*;

const CLASSES: usize = 3;

fn forecast() -> impl Strategy<Value = Forecast> {
    prop_oneof![
        3 => (1_u32..1000, 1_u32..1000, 1_u32..1000).prop_map(|(a, b, c)| {
            let sum = f64::from(a + b + c);
            let parts = [a, b, c].map(|part| f64::from(part) / sum);
            Forecast::ingest(&parts, CLASSES).unwrap()
        }),
        1 => (0_usize..CLASSES).prop_map(|sure| {
            let mut parts = [0.0; CLASSES];
            parts[sure] = 1.0;
            Forecast::ingest(&parts, CLASSES).unwrap()
        }),
    ]
}

fn stand() -> impl Strategy<Value = Option<(Forecast, u64)>> {
    prop_oneof![
        5 => (forecast(), 0_u64..3_000_000_000).prop_map(Some),
        1 => Just(None),
    ]
}

fn account() -> impl Strategy<Value = Account> {
    (0_u64..3_000_000_000, 0_u32..15).prop_map(|(stake_micro, misses)| Account {
        misses,
        ejected: stake_micro < Params::default().stake_min_micro,
        ..Account::newcomer(&Params::default(), CLASSES, stake_micro)
    })
}

fn total(accounts: &[Account]) -> u64 {
    accounts.iter().map(|account| account.stake_micro).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// 4000 networks × 16 rounds = 64 000 settlements.
    #[test]
    fn no_token_appears_or_vanishes_and_right_never_loses(
        first in prop::collection::vec(account(), 1..8),
        rounds in prop::collection::vec((prop::collection::vec(stand(), 8), 0_usize..CLASSES), 16),
        treasury in 0_u64..2_000_000_000,
    ) {
        let params = Params::default();
        let (mut accounts, mut treasury_micro) = (first, treasury);
        let before = total(&accounts) + treasury_micro;
        for (stands, outcome) in rounds {
            let sides: Vec<Side> = accounts.iter().zip(stands).map(|(account, stand)| Side {
                account: *account,
                stand: match stand {
                    Some((forecast, stake_micro)) => Stand::Answered { forecast, stake_micro },
                    None => Stand::Absent,
                },
            }).collect();
            let settled = settle(&params, treasury_micro, &sides, outcome);
            for ((side, after), verdict) in sides.iter().zip(&settled.accounts).zip(&settled.verdicts) {
                let (was, is) = (side.account.stake_micro, after.stake_micro);
                match verdict.right {
                    Some(true) => prop_assert!(is >= was),
                    Some(false) => prop_assert!(is < was || was == 0),
                    None => prop_assert!(is <= was && (is == was || side.account.misses >= 10)),
                }
                prop_assert!(after.ejected == (side.account.ejected || is < params.stake_min_micro));
            }
            accounts = settled.accounts;
            treasury_micro = settled.treasury_micro;
            prop_assert_eq!(total(&accounts) + treasury_micro, before);
        }
    }

    #[test]
    fn the_order_of_models_does_not_matter(
        sides in prop::collection::vec((account(), stand()), 2..8),
        outcome in 0_usize..CLASSES,
        turn in 0_usize..8,
    ) {
        let params = Params::default();
        let sides: Vec<Side> = sides.into_iter().map(|(account, stand)| Side {
            account,
            stand: match stand {
                Some((forecast, stake_micro)) => Stand::Answered { forecast, stake_micro },
                None => Stand::Absent,
            },
        }).collect();
        let turn = turn % sides.len();
        let mut turned = sides.clone();
        turned.rotate_left(turn);
        let (one, two) = (settle(&params, 1_000_000_000, &sides, outcome), settle(&params, 1_000_000_000, &turned, outcome));
        let mut accounts = one.accounts.clone();
        accounts.rotate_left(turn);
        prop_assert_eq!(&accounts, &two.accounts);
        prop_assert_eq!(one.treasury_micro, two.treasury_micro);
        let voices = |sides: &[Side]| sides.iter().filter_map(|side| match &side.stand {
            Stand::Answered { forecast, .. } => Some((side.account, forecast.clone())),
            _ => None,
        }).collect::<Vec<_>>();
        let pooled = |sides: &[Side]| {
            let voices = voices(sides);
            let voices: Vec<Voice<'_>> = voices.iter().map(|(account, forecast)| Voice {
                stake_micro: account.stake_micro, trust_ppm: account.trust.ppm(CLASSES), forecast,
            }).collect();
            pool(&params, &voices).map(|pool| pool.forecast)
        };
        prop_assert_eq!(pooled(&sides), pooled(&turned));
    }

    #[test]
    fn a_model_split_into_five_says_the_same(
        others in prop::collection::vec((500_000_000_u64..2_000_000_000, 0_u32..=1_000_000, forecast()), 1..6),
        mine in (100_000_000_u64..400_000_000, 100_000_u32..=1_000_000, forecast()),
    ) {
        let params = Params::default();
        let voice = |part: &(u64, u32, Forecast)| (part.0, part.1, part.2.clone());
        let mut whole: Vec<_> = others.iter().map(voice).collect();
        let mut split = whole.clone();
        whole.push((mine.0 * 5, mine.1, mine.2.clone()));
        split.extend(vec![(mine.0, mine.1, mine.2.clone()); 5]);
        let say = |parts: &[(u64, u32, Forecast)]| {
            let voices: Vec<Voice<'_>> = parts.iter().map(|(stake_micro, trust_ppm, forecast)| Voice {
                stake_micro: *stake_micro, trust_ppm: *trust_ppm, forecast,
            }).collect();
            pool(&params, &voices).unwrap().forecast
        };
        let (one, five) = (say(&whole), say(&split));
        for (a, b) in one.ppm().iter().zip(five.ppm()) {
            prop_assert!(a.abs_diff(*b) <= 1, "{:?} {:?}", one, five);
        }
    }

    #[test]
    fn a_forecast_sums_to_a_million_and_keeps_its_label(
        parts in prop::collection::vec(0.0_f64..1.0, 2..9), off in -0.0009_f64..0.0009,
    ) {
        let sum: f64 = parts.iter().sum();
        prop_assume!(sum > 1e-6);
        let parts: Vec<f64> = parts.iter().map(|part| part / sum * (1.0 + off)).collect();
        let forecast = Forecast::ingest(&parts, parts.len()).unwrap();
        prop_assert_eq!(forecast.ppm().iter().sum::<u32>(), 1_000_000);
        prop_assert!(forecast.ppm().iter().all(|part| *part > 0));
        let shown = Temperature(4_000_000).present(&forecast);
        prop_assert!((shown.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let most = shown.iter().copied().fold(0.0, f64::max);
        prop_assert!((shown[forecast.label()] - most).abs() < 1e-12);
    }

    /// Without slashes and rewards the shares of the stake follow the best model: the bound of the Prod rule.
    #[test]
    fn the_regret_of_the_stake_shares_is_bounded(
        rights in prop::collection::vec(prop::collection::vec(any::<bool>(), 5), 1..120),
    ) {
        let params = Params { slash_ppm: 0, reward_ppm_max: 0, stake_min_micro: 0, ..Params::default() };
        let mut accounts = vec![Account::newcomer(&params, CLASSES, 1_000_000_000_000); 5];
        let forecasts = [0, 1].map(|sure| {
            let mut parts = [0.0; CLASSES];
            parts[sure] = 1.0;
            Forecast::ingest(&parts, CLASSES).unwrap()
        });
        let mut regrets = [0.0_f64; 5];
        let mut squares = [0.0_f64; 5];
        for right in &rights {
            let all: u64 = total(&accounts);
            let good: u64 = accounts.iter().zip(right).filter(|(_, right)| **right).map(|(a, _)| a.stake_micro).sum();
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            let share = good as f64 / all as f64;
            for (model, right) in right.iter().enumerate() {
                let r = f64::from(u8::from(*right)) - share;
                regrets[model] += r;
                squares[model] += r * r;
            }
            let sides: Vec<Side> = accounts.iter().zip(right).map(|(account, right)| Side {
                account: *account,
                stand: Stand::Answered {
                    forecast: forecasts[usize::from(!*right)].clone(), stake_micro: account.stake_micro,
                },
            }).collect();
            accounts = settle(&params, 0, &sides, 0).accounts;
        }
        let wager = 0.05;
        for (regret, square) in regrets.iter().zip(squares) {
            prop_assert!(*regret <= 5.0_f64.ln() / wager + wager * square + 1e-6);
        }
    }
}

#[test]
fn a_lone_wrong_model_among_five() {
    let params = Params::default();
    let account = Account::newcomer(&params, CLASSES, params.deposit_micro);
    let sides: Vec<Side> = (0..5)
        .map(|model| Side {
            account,
            stand: Stand::Answered {
                forecast: Forecast::ingest(
                    if model == 4 {
                        &[0.0, 1.0, 0.0]
                    } else {
                        &[1.0, 0.0, 0.0]
                    },
                    3,
                )
                .unwrap(),
                stake_micro: account.stake_micro,
            },
        })
        .collect();
    let settled = settle(&params, params.endowment_micro, &sides, 0);
    let stakes: Vec<u64> = settled
        .accounts
        .iter()
        .map(|account| account.stake_micro / 1_000_000)
        .collect();
    assert_eq!(stakes, [1011, 1011, 1011, 1011, 955]);
}

#[test]
fn a_top_up_after_the_truth_is_known_wins_nothing() {
    let params = Params::default();
    let say =
        |right: bool| Forecast::ingest(if right { &[1.0, 0.0, 0.0] } else { &[0.0, 1.0, 0.0] }, 3).unwrap();
    let gained = |treasury_micro: u64, stake_now: u64| {
        let side = |right, now| Side {
            account: Account::newcomer(&params, CLASSES, now),
            stand: Stand::Answered {
                forecast: say(right),
                stake_micro: 1_000_000_000,
            },
        };
        let sides = [side(true, stake_now), side(false, 1_000_000_000)];
        let settled = settle(&params, treasury_micro, &sides, 0);
        settled.verdicts[0].gained_micro
    };
    for treasury_micro in [0, params.endowment_micro] {
        assert_eq!(
            gained(treasury_micro, 1_000_000_000),
            gained(treasury_micro, 9_000_000_000)
        );
    }
    // The treasury does give something, so that there was something to win by it.
    assert!(gained(params.endowment_micro, 1_000_000_000) > gained(0, 1_000_000_000));
}

/// Together they are more than a number can hold.
#[test]
fn the_largest_stakes_are_settled() {
    let params = Params::default();
    let stake_micro = 15_000_000_000_000_000_000;
    let sides = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]].map(|says| Side {
        account: Account::newcomer(&params, CLASSES, stake_micro),
        stand: Stand::Answered {
            forecast: Forecast::ingest(&says, CLASSES).unwrap(),
            stake_micro,
        },
    });
    let settled = settle(&params, params.endowment_micro, &sides, 0);
    let sum = |treasury_micro: u64, stakes: [u64; 2]| {
        u128::from(treasury_micro) + stakes.map(u128::from).iter().sum::<u128>()
    };
    let stakes = [0_usize, 1].map(|side| settled.accounts[side].stake_micro);
    assert!(stakes[0] > stakes[1], "{stakes:?}");
    assert_eq!(
        sum(settled.treasury_micro, stakes),
        sum(params.endowment_micro, [stake_micro; 2])
    );
}

#[test]
fn what_is_no_forecast_is_told_apart() {
    let fault = |parts: &[f64]| Forecast::ingest(parts, CLASSES).unwrap_err();
    assert_eq!(fault(&[0.5, 0.5]), ForecastFault::Length);
    assert_eq!(fault(&[f64::NAN, 0.5, 0.5]), ForecastFault::NotFinite);
    assert_eq!(fault(&[-0.1, 0.6, 0.5]), ForecastFault::Negative);
    assert_eq!(fault(&[0.5, 0.5, 0.1]), ForecastFault::Sum);
}

#[test]
fn a_top_up_brings_an_ejected_model_back_with_its_old_trust() {
    let params = Params::default();
    let mut account = Account::newcomer(&params, CLASSES, 400_000_000);
    account.ejected = true;
    assert!(account.top_up(&params, 599_999_999).ejected);
    let back = account.top_up(&params, 600_000_000);
    assert!(!back.ejected);
    assert_eq!(back.trust, account.trust);
}

/// The fastest that anybody can be ejected from a network of five that are right all the time.
#[test]
fn an_always_wrong_model_is_ejected_after_fifteen_rounds_at_the_earliest() {
    let params = Params::default();
    let right = Forecast::ingest(&[1.0, 0.0, 0.0], CLASSES).unwrap();
    let wrong = Forecast::ingest(&[0.0, 1.0, 0.0], CLASSES).unwrap();
    let mut accounts = vec![Account::newcomer(&params, CLASSES, params.deposit_micro); 5];
    let mut treasury_micro = params.endowment_micro;
    let mut rounds = 0;
    while !accounts[4].ejected {
        let sides = accounts.iter().enumerate().map(|(model, account)| Side {
            account: *account,
            stand: Stand::Answered {
                forecast: if model == 4 { wrong.clone() } else { right.clone() },
                stake_micro: account.stake_micro,
            },
        });
        let settled = settle(&params, treasury_micro, &sides.collect::<Vec<_>>(), 0);
        accounts = settled.accounts;
        treasury_micro = settled.treasury_micro;
        rounds += 1;
    }
    assert_eq!(rounds, 15);
}
