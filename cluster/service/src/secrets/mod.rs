//! `secrets.toml` in the data folder: every credential of this cluster.
//! Invariant: it is made once, whole or not at all, also when several processes start together; only its
//! owner can read it; no secret is ever shown by a debug format or an error.
//! It must not know how a credential is checked on a route.

mod file;
mod seeds;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

pub use file::{FILE_NAME, load, load_or_create};
pub use seeds::{Access, StoreTokenSeed};

/// The bearer tokens a new cluster gets.
pub const TOKEN_NAMES: [&str; 9] = [
    "root",
    "petstore",
    "payment",
    "predictors",
    "gateway",
    "mirror",
    "merchant",
    "operator",
    "oracle",
];

/// Shorter ones could be guessed.
const LENGTH_MIN: usize = 16;

/// Text that no debug format shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// 32 random bytes in hex.
    pub fn random() -> anyhow::Result<Self> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).context("get random bytes from the operating system")?;
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            for digit in [byte >> 4, byte & 0xf] {
                let digit = char::from_digit(u32::from(digit), 16);
                text.push(digit.expect("four bits are a hex digit"));
            }
        }
        Ok(Self(text))
    }

    /// The text itself, for the few places that send or hash it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in a time that does not tell how much of it was right.
    pub fn matches(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    pub tokens: BTreeMap<String, Secret>,
    pub shop: ShopSecrets,
    pub keys: KeySecrets,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShopSecrets {
    /// Of the user `admin`.
    pub admin_password: Secret,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySecrets {
    /// Shared by the nodes of the cluster, to know each other by.
    pub cluster: Secret,
    /// Turns card numbers into what is stored.
    pub card_hmac_1: Secret,
}

impl Secrets {
    /// New random ones for everything.
    pub fn generate() -> anyhow::Result<Self> {
        let mut tokens = BTreeMap::new();
        for name in TOKEN_NAMES {
            tokens.insert(name.to_owned(), Secret::random()?);
        }
        Ok(Self {
            tokens,
            shop: ShopSecrets {
                admin_password: Secret::random()?,
            },
            keys: KeySecrets {
                cluster: Secret::random()?,
                card_hmac_1: Secret::random()?,
            },
        })
    }

    /// The token of this name, if there is one.
    pub fn token(&self, name: &str) -> Option<&Secret> {
        self.tokens.get(name)
    }

    fn check(&self) -> anyhow::Result<()> {
        for name in TOKEN_NAMES {
            anyhow::ensure!(
                self.tokens.contains_key(name),
                "tokens.{name} is missing; add it, or take the file of another host of this cluster"
            );
        }
        let tokens = self.tokens.iter();
        let tokens = tokens.map(|(name, secret)| (format!("tokens.{name}"), secret));
        let others = [
            ("shop.admin_password".to_owned(), &self.shop.admin_password),
            ("keys.cluster".to_owned(), &self.keys.cluster),
            ("keys.card_hmac_1".to_owned(), &self.keys.card_hmac_1),
        ];
        for (name, secret) in tokens.chain(others) {
            let visible = secret.expose().bytes().all(|byte| byte.is_ascii_graphic());
            anyhow::ensure!(
                secret.expose().len() >= LENGTH_MIN && visible,
                "{name} must be at least {LENGTH_MIN} visible ASCII characters without spaces"
            );
        }
        Ok(())
    }
}
