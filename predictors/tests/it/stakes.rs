//! The reference run, round by round: every weight, stake and trust to the last digit.

use std::collections::BTreeMap;

use predictors::stakes::{Account, Forecast, Params, Side, Stand, Voice, pool, settle};
use serde::Deserialize;

const GOLDEN: &str = include_str!("../golden/stakes.json");

#[derive(Deserialize)]
struct Golden {
    trace: Vec<Round>,
}

#[derive(Deserialize)]
struct Round {
    predictions_ppm: BTreeMap<usize, Forecast>,
    outcome: usize,
    consensus_ppm: Forecast,
    weights: BTreeMap<usize, String>,
    stake_micro: Vec<u64>,
    treasury_micro: u64,
    trust_ppm: Vec<u32>,
    active: Vec<bool>,
}

const CLASSES: usize = 3;

fn check_pool(params: &Params, accounts: &[Account], round: &Round, number: usize) {
    let voices: Vec<Voice<'_>> = round
        .predictions_ppm
        .iter()
        .map(|(model, forecast)| Voice {
            stake_micro: accounts[*model].stake_micro,
            trust_ppm: accounts[*model].trust.ppm(CLASSES),
            forecast,
        })
        .collect();
    let pooled = pool(params, &voices).unwrap();
    let weights: Vec<String> = pooled.weights.iter().map(ToString::to_string).collect();
    assert_eq!(
        weights,
        round.weights.values().cloned().collect::<Vec<_>>(),
        "{number}"
    );
    assert_eq!(pooled.forecast, round.consensus_ppm, "round {number}");
}

#[test]
fn the_reference_run_is_reproduced_bit_for_bit() {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    let params = Params::default();
    let mut accounts = vec![Account::newcomer(&params, CLASSES, params.deposit_micro); 5];
    let mut treasury_micro = params.endowment_micro;
    assert_eq!(golden.trace.len(), 60);
    for (number, round) in golden.trace.iter().enumerate() {
        check_pool(&params, &accounts, round, number);
        let sides: Vec<Side> = accounts
            .iter()
            .enumerate()
            .map(|(model, account)| Side {
                account: *account,
                stand: match round.predictions_ppm.get(&model) {
                    Some(forecast) => Stand::Answered {
                        forecast: forecast.clone(),
                        stake_micro: account.stake_micro,
                    },
                    None => Stand::Out,
                },
            })
            .collect();
        let settled = settle(&params, treasury_micro, &sides, round.outcome);
        accounts = settled.accounts;
        treasury_micro = settled.treasury_micro;
        let stakes: Vec<u64> = accounts.iter().map(|account| account.stake_micro).collect();
        let trust: Vec<u32> = accounts
            .iter()
            .map(|account| account.trust.ppm(CLASSES))
            .collect();
        let active: Vec<bool> = accounts.iter().map(|account| !account.ejected).collect();
        assert_eq!(stakes, round.stake_micro, "round {number}");
        assert_eq!(treasury_micro, round.treasury_micro, "round {number}");
        assert_eq!(trust, round.trust_ppm, "round {number}");
        assert_eq!(active, round.active, "round {number}");
    }
}
