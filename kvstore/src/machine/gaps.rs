//! Revisions that this cluster never had, though somebody may know them.
//!
//! A cluster that begins from a backup does not go on where that ends: the cluster that was lost may have gone further,
//! and clients that outlive it (watchers, near caches, holders of an `ETag`) know its later revisions. Were these numbers
//! given again, they would take other writes for those. So the first write comes far behind any that may have been lost,
//! and what lies between counts as compacted.

use serde::{Deserialize, Serialize};

/// For a clock that is years behind.
const APART: u64 = 1_000_000_000_000;

/// Where a cluster that begins from a backup of this revision goes on: at the microseconds since 1970. No cluster makes
/// as many writes as that, so whoever begins later, from whatever backup, begins behind all that were lost before.
/// Numbers in JSON are exact for as long as that is before the year 2255.
pub fn continues_at(revision: u64, now_us: u64) -> u64 {
    if now_us > revision {
        now_us
    } else {
        revision.saturating_add(APART)
    }
}

/// From behind the end of a backup to the beginning of the cluster made from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The last revision of the backup.
    pub last: u64,
    /// The revision of the new cluster before its first write.
    pub first: u64,
}

/// All of them, oldest first; one for each time that this store began from a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps(pub Vec<Gap>);

impl Gaps {
    /// Whoever has seen no more than this may have seen what is lost; 0 when nothing can be.
    pub fn watch_floor(&self) -> u64 {
        self.0.last().map_or(0, |gap| gap.first)
    }

    /// The first revision behind the gap that this one lies in.
    pub fn behind(&self, revision: u64) -> Option<u64> {
        let gap = self
            .0
            .iter()
            .find(|gap| gap.last < revision && revision < gap.first)?;
        Some(gap.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_a_backup_and_its_cluster_was_never_there() {
        let (first, second) = (
            Gap { last: 7, first: 100 },
            Gap {
                last: 103,
                first: 200,
            },
        );
        let gaps = Gaps(vec![first, second]);
        assert_eq!(Gaps::default().watch_floor(), 0);
        assert_eq!(gaps.watch_floor(), 200);
        for there in [1, 7, 100, 103, 200, u64::MAX] {
            assert_eq!(gaps.behind(there), None, "{there}");
        }
        for (lost, behind) in [(8, 100), (99, 100), (104, 200)] {
            assert_eq!(gaps.behind(lost), Some(behind), "{lost}");
        }
    }

    #[test]
    fn who_begins_later_begins_behind_whoever_began_before() {
        let now_us = 1_800_000_000_000_000;
        let lost = continues_at(100, now_us);
        let second = 1_000_000;
        // The same backup again, and one of the cluster that is lost now.
        let made = lost + 900_000;
        assert!(continues_at(100, now_us + second) > made);
        assert!(continues_at(made, now_us + second) > made);
        assert!(
            continues_at(made, 0) > made + 1_000_000,
            "a clock that stands at its begin"
        );
    }
}
