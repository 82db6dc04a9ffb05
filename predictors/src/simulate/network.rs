//! A network of models and its treasury, in memory.

use crate::evaluate::Figures;
use crate::stakes::{Account, Forecast, MICRO, Params, Side, Stand, Temperature, Voice, pool, settle};

#[derive(Clone, Debug)]
pub struct Network {
    params: Params,
    classes: usize,
    pub accounts: Vec<Account>,
    treasury_micro: u64,
    temperature: Temperature,
}

/// What a round brought.
#[derive(Clone, Debug)]
pub struct Played {
    pub label: usize,
    /// The probabilities as they would be shown.
    pub shown: Vec<f64>,
    /// The weight of each model, as a share of all; 0 for those that did not take part.
    pub shares: Vec<f64>,
}

impl Network {
    pub fn new(classes: usize, models: usize) -> Self {
        let params = Params::default();
        Self {
            accounts: vec![Account::newcomer(&params, classes, params.deposit_micro); models],
            treasury_micro: params.endowment_micro,
            temperature: Temperature::default(),
            params,
            classes,
        }
    }

    /// One round with its outcome. `None` when nobody took part.
    pub fn play(&mut self, said: &[Option<Forecast>], outcome: usize) -> Option<Played> {
        let mut speakers = Vec::new();
        let mut voices = Vec::new();
        for (model, (account, forecast)) in self.accounts.iter().zip(said).enumerate() {
            if let (false, Some(forecast)) = (account.ejected, forecast) {
                speakers.push(model);
                voices.push(Voice {
                    stake_micro: account.stake_micro,
                    trust_ppm: account.trust.ppm(self.classes),
                    forecast,
                });
            }
        }
        let pooled = pool(&self.params, &voices)?;
        let mut shares = vec![0.0; self.accounts.len()];
        for (voice, model) in speakers.iter().enumerate() {
            shares[*model] = f64::from(pooled.share_ppm(voice)) / 1e6;
        }
        let played = Played {
            label: pooled.forecast.label(),
            shown: self.temperature.present(&pooled.forecast),
            shares,
        };
        let sides = self.accounts.iter().zip(said).map(|(account, forecast)| Side {
            account: *account,
            stand: match forecast {
                _ if account.ejected => Stand::Out,
                Some(forecast) => Stand::Answered {
                    forecast: forecast.clone(),
                    stake_micro: account.stake_micro,
                },
                None => Stand::Absent,
            },
        });
        let settled = settle(
            &self.params,
            self.treasury_micro,
            &sides.collect::<Vec<_>>(),
            outcome,
        );
        self.accounts = settled.accounts;
        self.treasury_micro = settled.treasury_micro;
        self.temperature = self.temperature.learn(&pooled.forecast, outcome);
        Some(played)
    }

    /// Brings every stake back to the deposit, as an operator would who has lost the whole network.
    pub fn revive(&mut self) {
        for account in &mut self.accounts {
            let missing = self.params.deposit_micro.saturating_sub(account.stake_micro);
            *account = account.top_up(&self.params, missing);
        }
    }

    /// In tokens, for people.
    pub fn stakes(&self) -> impl Iterator<Item = f64> {
        let accounts = self.accounts.iter();
        accounts.map(|account| tokens(account.stake_micro))
    }

    pub fn trust(&self, model: usize) -> f64 {
        f64::from(self.accounts[model].trust.ppm(self.classes)) / 1e6
    }

    pub fn treasury(&self) -> f64 {
        tokens(self.treasury_micro)
    }

    /// Everything there is, which never changes.
    pub fn total_micro(&self) -> u64 {
        let stakes = self.accounts.iter().map(|account| account.stake_micro);
        stakes.sum::<u64>() + self.treasury_micro
    }

    pub(super) fn figures(&self) -> Figures {
        Figures::new(self.classes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "tokens for people to read")]
pub(crate) fn tokens(micro: u64) -> f64 {
    micro as f64 / MICRO as f64
}
