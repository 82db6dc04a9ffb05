//! Stake, trust and consensus: the rules by which models are weighed, rewarded and slashed.
//! Reading order: `params`, `forecast` (what a model says), `trust`, `pool` (what all say together), `settle`
//! (what the truth does to the stakes), `temperature` (how sure the crowd may sound).
//! Invariant: after a forecast is taken in, stakes and weights are integers, so that every process computes the same
//! to the last micro-token, and no token appears or vanishes.
//! It must not know where anything is stored, who asks, or what time it is.

mod forecast;
mod params;
mod pool;
mod settle;
mod temperature;
mod trust;

pub use forecast::{Forecast, ForecastFault};
pub use params::{MICRO, PPM, Params};
pub use pool::{Pool, Voice, pool};
pub use settle::{Account, Settlement, Side, Stand, Verdict, settle};
pub use temperature::Temperature;
pub use trust::Trust;
