//! Revisions that this cluster never had, though somebody may know them.
//!
//! A cluster that begins from a backup does not go on where that ends: the cluster that was lost may have gone further,
//! and clients that outlive it (watchers, near caches, holders of an `ETag`) know its later revisions. Were these numbers
//! given again, they would take other writes for those. So the first write comes far behind any that may have been lost,
//! and what lies between counts as compacted.

use serde::{Deserialize, Serialize};

/// More than a cluster writes in a year. Numbers in JSON are exact for nine thousand restores.
const APART: u64 = 1_000_000_000_000;

/// Where a cluster that begins from a backup of this revision goes on.
pub fn continues_at(revision: u64) -> u64 {
    revision.saturating_add(APART)
}

/// From behind the end of a backup to the beginning of the cluster made from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The last revision of the backup.
    pub last: u64,
    /// The revision of the new cluster before its first write.
    pub first: u64,
}

impl Gap {
    pub fn after(last: u64) -> Self {
        Self {
            last,
            first: continues_at(last),
        }
    }
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
        let first = Gap::after(7);
        let second = Gap::after(first.first + 3);
        let gaps = Gaps(vec![first, second]);
        assert_eq!(Gaps::default().watch_floor(), 0);
        assert_eq!(gaps.watch_floor(), second.first);
        for there in [1, 7, first.first, first.first + 3, second.first, u64::MAX] {
            assert_eq!(gaps.behind(there), None, "{there}");
        }
        for (lost, behind) in [
            (8, first.first),
            (first.first - 1, first.first),
            (second.last + 1, second.first),
        ] {
            assert_eq!(gaps.behind(lost), Some(behind), "{lost}");
        }
    }
}
