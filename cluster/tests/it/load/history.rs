//! Whether what clients saw of one key could have happened one operation after the other.
//! Every write has a value of its own, so each read names the write it saw; with that, linearizability is
//! decided exactly by the zones of Gibbons and Korach ("Testing shared memories", 1997).
//! Invariant: an open write may take effect at any time after its begin, or never.
//! It must not know how the operations were made.

use std::collections::BTreeMap;

/// What one operation did, as far as its client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// With its revision once it is acknowledged.
    Write { value: String, revision: Option<u64> },
    /// `None` is the key before any write.
    Read { seen: Option<(String, u64)> },
}

/// Times are of one clock, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) start: u64,
    /// `None`: nobody was told.
    pub(crate) end: Option<u64>,
    pub(crate) what: What,
}

/// The operations on one key. Reads that failed saw nothing and are left out by whoever records.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) operations: Vec<Operation>,
    /// Values whose writes surely did not happen.
    pub(crate) denied: Vec<String>,
}

/// A write and all reads that saw it.
struct Zone {
    value: Option<String>,
    /// The first end and the last start of them.
    end_min: u64,
    start_max: u64,
}

impl Zone {
    /// Its value must have been the current one during all of `end_min..start_max`.
    fn holds(&self) -> bool {
        self.end_min < self.start_max
    }
}

impl History {
    pub(crate) fn reads(&self) -> usize {
        let reads = self
            .operations
            .iter()
            .filter(|operation| matches!(operation.what, What::Read { .. }));
        reads.count()
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        self.linearizable()?;
        self.revisions_agree_with_time()
    }

    pub(crate) fn linearizable(&self) -> Result<(), String> {
        let zones = self.zones()?;
        let (mut holding, touching): (Vec<&Zone>, Vec<&Zone>) = zones.iter().partition(|zone| zone.holds());
        holding.sort_by_key(|zone| zone.end_min);
        for pair in holding.windows(2) {
            if pair[1].end_min < pair[0].start_max {
                return Err(format!(
                    "{:?} and {:?} were both current at the same time: {:#?}",
                    pair[0].value,
                    pair[1].value,
                    self.concerning([&pair[0].value, &pair[1].value])
                ));
            }
        }
        for zone in touching {
            // It needs one moment within start_max..end_min that belongs to no other value.
            let inside = |other: &&&Zone| other.end_min < zone.start_max && zone.end_min < other.start_max;
            if let Some(other) = holding.iter().find(inside) {
                return Err(format!(
                    "{:?} was written or seen while {:?} was current: {:#?}",
                    zone.value,
                    other.value,
                    self.concerning([&zone.value, &other.value])
                ));
            }
        }
        Ok(())
    }

    /// What was done with these values, in order of beginning.
    fn concerning(&self, values: [&Option<String>; 2]) -> Vec<&Operation> {
        let mut found: Vec<&Operation> = self.operations.iter().collect();
        found.retain(|operation| {
            let value = match &operation.what {
                What::Write { value, .. } => Some(value),
                What::Read { seen } => seen.as_ref().map(|(value, _)| value),
            };
            values.iter().any(|wanted| wanted.as_ref() == value)
        });
        found.sort_by_key(|operation| operation.start);
        found
    }

    fn zones(&self) -> Result<Vec<Zone>, String> {
        let mut zones: BTreeMap<Option<String>, Zone> = BTreeMap::new();
        let mut starts = BTreeMap::new();
        // The absence before all writes is a write that ended before all time.
        zones.insert(
            None,
            Zone {
                value: None,
                end_min: 0,
                start_max: 0,
            },
        );
        let mut open = Vec::new();
        for operation in &self.operations {
            let What::Write { value, .. } = &operation.what else {
                continue;
            };
            let (key, end) = (Some(value.clone()), operation.end.unwrap_or(u64::MAX));
            let zone = Zone {
                value: key.clone(),
                end_min: end,
                start_max: operation.start,
            };
            if zones.insert(key, zone).is_some() {
                return Err(format!("{value:?} was written twice: the test is wrong"));
            }
            starts.insert(value.as_str(), operation.start);
            if operation.end.is_none() {
                open.push(value.clone());
            }
        }
        let mut seen_open = Vec::new();
        for operation in &self.operations {
            let What::Read { seen } = &operation.what else {
                continue;
            };
            let end = operation
                .end
                .ok_or("a read without an end saw nothing: the test is wrong")?;
            let value = seen.as_ref().map(|(value, _)| value.clone());
            if let Some(value) = value.as_ref() {
                let start = starts
                    .get(value.as_str())
                    .ok_or_else(|| self.nobody_wrote(value))?;
                if end < *start {
                    return Err(format!("{value:?} was seen before its write began"));
                }
                seen_open.push(value.clone());
            }
            let zone = zones.get_mut(&value).expect("its write was found above");
            zone.end_min = zone.end_min.min(end);
            zone.start_max = zone.start_max.max(operation.start);
        }
        // An open write that nobody saw is as good as one that never happened.
        seen_open.sort();
        for value in open {
            if seen_open.binary_search(&value).is_err() {
                zones.remove(&Some(value));
            }
        }
        Ok(zones.into_values().collect())
    }

    fn nobody_wrote(&self, value: &String) -> String {
        if self.denied.contains(value) {
            return format!("{value:?} was seen, but its write surely did not happen");
        }
        format!("{value:?} was seen, and nobody wrote it")
    }

    /// What begins after another has ended has the higher revision, or for a read at least the same.
    fn revisions_agree_with_time(&self) -> Result<(), String> {
        let revisions = self.revisions()?;
        let of = |operation: &Operation| match &operation.what {
            What::Write { value, revision } => revision.or_else(|| revisions.get(value.as_str()).copied()),
            What::Read { seen } => Some(seen.as_ref().map_or(0, |(_, revision)| *revision)),
        };
        let mut ends: Vec<(u64, u64)> = self
            .operations
            .iter()
            .filter_map(|operation| Some((operation.end?, of(operation)?)))
            .collect();
        ends.sort_unstable();
        let mut begins: Vec<&Operation> = self.operations.iter().collect();
        begins.sort_by_key(|operation| operation.start);
        let mut ended = ends.into_iter().peekable();
        let mut newest = 0;
        for operation in begins {
            while let Some((_, revision)) = ended.next_if(|(end, _)| *end < operation.start) {
                newest = newest.max(revision);
            }
            let Some(revision) = of(operation) else { continue };
            let write = matches!(operation.what, What::Write { .. });
            if revision < newest || (write && revision == newest) {
                return Err(format!(
                    "revision {newest} was acknowledged or seen before this began: {operation:?}"
                ));
            }
        }
        Ok(())
    }

    /// The revision of each value; acknowledgement and reads must agree on it.
    fn revisions(&self) -> Result<BTreeMap<&str, u64>, String> {
        let mut revisions = BTreeMap::new();
        for operation in &self.operations {
            let (What::Write {
                value,
                revision: Some(revision),
            }
            | What::Read {
                seen: Some((value, revision)),
            }) = &operation.what
            else {
                continue;
            };
            let revision = *revision;
            let known = *revisions.entry(value.as_str()).or_insert(revision);
            if known != revision {
                return Err(format!("{value:?} has revision {known}, and {revision}"));
            }
        }
        Ok(revisions)
    }
}
