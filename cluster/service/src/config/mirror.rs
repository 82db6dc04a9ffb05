//! The settings of the mirrors, one process each.
//! Invariant: the defaults here are the ones the documentation states.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::Config;
use super::check::{Faults, holder};
use super::place::Step;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MirrorEngine {
    #[default]
    Sqlite,
    Json,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MirrorMode {
    /// The store acknowledges a write once it is on the mirror's disk.
    Sync,
    #[default]
    Async,
}

/// What becomes of writes while a synchronous mirror is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLoss {
    #[default]
    Degrade,
    Block,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorConfig {
    /// Of the process, of its folder, and of the mirror in the store.
    pub name: String,
    pub address: String,
    #[serde(default)]
    pub engine: MirrorEngine,
    #[serde(default)]
    pub mode: MirrorMode,
    #[serde(default)]
    pub on_loss: OnLoss,
    /// How often an asynchronous mirror writes what has come.
    #[serde(default = "interval_ms")]
    pub interval_ms: u64,
}

fn interval_ms() -> u64 {
    100
}

impl MirrorEngine {
    pub fn word(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Json => "json",
        }
    }
}

impl MirrorMode {
    pub fn word(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Async => "async",
        }
    }
}

impl OnLoss {
    pub fn word(self) -> &'static str {
        match self {
            Self::Degrade => "degrade",
            Self::Block => "block",
        }
    }
}

impl Config {
    pub fn mirror(&self, name: &str) -> Option<&MirrorConfig> {
        self.mirrors.iter().find(|mirror| mirror.name == name)
    }
}

const NAME_BYTES_MAX: usize = 63;
const INTERVAL_MS_MAX: u64 = 86_400_000;

pub(super) fn check(config: &Config, faults: &mut Faults<'_>) {
    let mut seen = HashMap::new();
    for (index, mirror) in config.mirrors.iter().enumerate() {
        let place = |key| [Step::Key("mirror"), Step::Index(index), Step::Key(key)];
        let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let name = &mirror.name;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(sound) {
            let fault = format!("name = \"{name}\" must be 1 to 63 small letters, digits or hyphens");
            faults.add(&place("name"), fault);
        }
        let model = || config.models.iter().any(|model| model.name == *name);
        if seen.insert(name.as_str(), index).is_some() {
            faults.add(&place("name"), format!("name = \"{name}\" is taken already"));
        } else if let Some(holder) = holder(config, name).or_else(|| model().then_some("a model")) {
            // Earlier versions took some of these names, so somebody may have one.
            let fault = format!(
                "name = \"{name}\" is taken already, by {holder}: call the mirror something else, such as \
                 \"mirror-{name}\". It makes its copy anew; `menagerie kv mirror delete {name}` takes the old one out"
            );
            faults.add(&place("name"), fault);
        }
        if !(1..=INTERVAL_MS_MAX).contains(&mirror.interval_ms) {
            let fault = format!(
                "interval_ms = {} must be between 1 and {INTERVAL_MS_MAX}",
                mirror.interval_ms
            );
            faults.add(&place("interval_ms"), fault);
        }
    }
}
