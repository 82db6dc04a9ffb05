//! Chance that can be repeated, for tests: the seed is always said. The numbers are those of chaos.
//! Invariant: the same seed gives the same numbers.

use std::hash::{BuildHasher, RandomState};
use std::io::Write as _;

#[path = "../../../src/chaos/random.rs"]
mod numbers;

pub(crate) use numbers::Random;

impl Random {
    /// The seed of `MENAGERIE_SEED`, or a new one; a failed test shows it.
    pub(crate) fn seeded() -> Self {
        let given = std::env::var("MENAGERIE_SEED").ok();
        let seed = given.map_or_else(
            || RandomState::new().hash_one("seed"),
            |text| text.parse().expect("MENAGERIE_SEED is a number"),
        );
        say(&format!("seed {seed}: run again with MENAGERIE_SEED={seed}"));
        Self::from(seed)
    }
}

/// A line in the output of a test, which is shown when it fails.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
