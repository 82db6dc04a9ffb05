//! How fresh a read must be: `?consistency=`, and `X-Kv-Consistency` in the answer.

use super::Revision;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write acknowledged before the read began, on any node.
    #[default]
    Linearizable,
    /// Whatever the node has, also without a leader.
    Local,
    /// At most this many milliseconds since the leader's last confirmed majority.
    Bounded { age_ms_max: u64 },
    /// Waits until the node has that revision.
    AtLeast(Revision),
}

impl fmt::Display for Consistency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => formatter.write_str("linearizable"),
            Self::Local => formatter.write_str("local"),
            Self::Bounded { age_ms_max } => write!(formatter, "bounded:{age_ms_max}"),
            Self::AtLeast(revision) => write!(formatter, "at_least:{revision}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a read level is `linearizable`, `local`, `bounded:MS` or `at_least:REV`")]
pub struct UnknownConsistency;

impl FromStr for Consistency {
    type Err = UnknownConsistency;

    fn from_str(text: &str) -> Result<Self, UnknownConsistency> {
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if plain {
                digits.parse::<u64>().or(Err(UnknownConsistency))
            } else {
                Err(UnknownConsistency)
            }
        };
        match text.split_once(':') {
            None if text == "linearizable" => Ok(Self::Linearizable),
            None if text == "local" => Ok(Self::Local),
            Some(("bounded", digits)) => Ok(Self::Bounded {
                age_ms_max: number(digits)?,
            }),
            Some(("at_least", digits)) => Ok(Self::AtLeast(number(digits)?)),
            _ => Err(UnknownConsistency),
        }
    }
}
