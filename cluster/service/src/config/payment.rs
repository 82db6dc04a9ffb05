//! The settings of the payment services.
//! Invariant: the defaults here are the ones the documentation states; bounds stand in `bounds`.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PaymentConfig {
    /// `host:port` of each instance: the first is `pay1`.
    pub addresses: Vec<String>,
    /// Whether browsers may pay, ask for a balance and make tokens without a credential, and whether
    /// cards for trying out are opened on the first start.
    pub demo: bool,
    /// How many such requests a second one address may make at each instance.
    pub open_per_s_max: u32,
    /// To whom a payment goes that names no merchant.
    pub merchant: String,
    /// In which currency is paid that names none.
    pub currency: String,
    /// How long a hold lasts unless it is captured or canceled.
    pub hold_s: u64,
    /// How long a card token can be used.
    pub token_s: u64,
    /// How long answers to idempotency keys are kept.
    pub answer_s: u64,
    /// How often what has run out is looked for.
    pub sweep_every_ms: u64,
    /// The most that one payment may be, in minor units.
    pub amount_minor_max: u64,
    /// The largest body of a request.
    pub body_bytes_max: usize,
    /// The time a request may take; a check of the whole ledger gets `check_ms_max`.
    pub request_ms_max: u64,
    pub check_ms_max: u64,
    /// After so long without a sign of life an instance is no longer registered.
    pub registration_ms: u64,
}

impl Default for PaymentConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            demo: true,
            open_per_s_max: 20_000,
            merchant: "demo".to_owned(),
            currency: "EUR".to_owned(),
            hold_s: 7 * 86_400,
            token_s: 1800,
            answer_s: 86_400,
            sweep_every_ms: 5000,
            amount_minor_max: 1_000_000_000_000,
            body_bytes_max: 64 * 1024,
            request_ms_max: 5000,
            check_ms_max: 120_000,
            registration_ms: 3000,
        }
    }
}

impl PaymentConfig {
    /// Name and address of every instance.
    pub fn instances(&self) -> impl Iterator<Item = (String, &str)> {
        super::named("pay", &self.addresses)
    }

    /// The address of the instance of this name.
    pub fn address(&self, name: &str) -> Option<&str> {
        super::named_address("pay", &self.addresses, name)
    }
}
