//! The pins by which walks go on below the floor, and the end of those that nobody needs any more.
//! Invariant: a pin is counted on only while the store has no right to end it. Nobody else ends what the store pins by
//! itself, so one that was not there yet when pins were ended last lasts for its whole time from that moment on. What a
//! node says is left of it does not count: one that was down or behind has taken it in later.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kvstore_client::wire::lease::LeaseStatus;
use kvstore_client::wire::{LeaseId, Revision};
use kvstore_client::{KvClient, Result};

/// A lease by which the store must let a walk go on.
pub(super) struct Pin {
    pub(super) lease: LeaseId,
    /// What is kept readable, with all that came after it.
    pub(super) revision: Revision,
    until: Instant,
}

impl Pin {
    /// How long it must live yet; by a clock that the nodes share, and no fault touches.
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// What there was when pins were ended last.
struct Ended {
    /// From before the store was asked.
    since: Instant,
    pins: BTreeSet<LeaseId>,
}

#[derive(Default)]
pub(super) struct Pins {
    ended: Option<Ended>,
}

impl Pins {
    /// One by which a walk at this revision must go on. The list is a linearizable read, so that whoever answers the
    /// next one must know of the pin too.
    pub(super) async fn of(&self, client: &KvClient, revision: Revision) -> Result<Option<Pin>> {
        let leases = client.lease_list().await?;
        Ok(self.serving(revision, &leases))
    }

    fn serving(&self, revision: Revision, leases: &[LeaseStatus]) -> Option<Pin> {
        let ended = self.ended.as_ref()?;
        // Whoever else has made one ends it.
        let is_kept = |lease: &&LeaseStatus| lease.owner.is_empty() && !ended.pins.contains(&lease.id);
        leases.iter().filter(is_kept).find_map(|lease| {
            Some(Pin {
                lease: lease.id,
                revision: lease.pin.filter(|pin| *pin <= revision)?,
                until: ended.since + Duration::from_millis(lease.ttl_ms),
            })
        })
    }

    /// Pins are kept for a minute after their last use, for whoever shares them, and the collector waits for them. Here
    /// nobody does, and all that is read of the past is to meet it at work.
    pub(super) async fn end(&mut self, client: &KvClient) -> Result<()> {
        let since = Instant::now();
        let leases = client.lease_list().await?.into_iter();
        let pins = leases.filter(|lease| lease.pin.is_some());
        let pins = pins.map(|lease| lease.id).collect();
        // Before they are: what nobody was told of may happen yet.
        let ended = self.ended.insert(Ended { since, pins });
        for pin in &ended.pins {
            client.lease_revoke(*pin).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of a minute.
    fn lease(id: LeaseId, owner: &str, pin: Option<Revision>) -> LeaseStatus {
        LeaseStatus {
            id,
            ttl_ms: 60_000,
            remaining_ms: 60_000,
            owner: owner.to_owned(),
            keys: Vec::new(),
            pin,
        }
    }

    /// Of whoever has just ended pin 1.
    fn pins() -> Pins {
        let ended = Ended {
            since: Instant::now(),
            pins: BTreeSet::from([1]),
        };
        Pins { ended: Some(ended) }
    }

    #[test]
    fn a_pin_is_counted_on_that_serves_the_walk_and_that_nobody_ends() {
        let useless = [
            lease(1, "", Some(7)),
            lease(2, "", Some(8)),
            lease(3, "", None),
            lease(4, "root", Some(7)),
        ];
        assert!(pins().serving(7, &useless).is_none());
        for revision in [7, 6] {
            let leases = [&useless[..], &[lease(5, "", Some(revision))]].concat();
            let pin = pins().serving(7, &leases).unwrap();
            assert_eq!((pin.lease, pin.revision), (5, revision));
            // Nobody knows since when it was there.
            assert!(Pins::default().serving(7, &leases).is_none());
        }
    }

    #[test]
    fn a_pin_is_counted_on_for_as_long_as_it_lasts_since_it_was_not_there() {
        let pins = pins();
        let long = lease(5, "", Some(7));
        let short = LeaseStatus {
            ttl_ms: 0,
            ..long.clone()
        };
        let left = |lease: LeaseStatus| pins.serving(7, &[lease]).unwrap().left();
        assert!(!left(long.clone()).is_zero() && left(long) <= Duration::from_mins(1));
        // Whatever the node says that answered.
        assert!(left(short).is_zero());
    }
}
