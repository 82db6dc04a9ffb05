//! The loop of the probe: a call at each beat, many under way, every answer judged by the ring.
//! Invariant: a beat that finds too many calls under way is skipped, never queued.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use kvstore_client::wire::Revision;
use kvstore_client::wire::kv::{KeyValue, Page, Put};
use kvstore_client::{Error, KvClient, LeaseHandle, PutOptions, RangeRequest};
use tokio::time::MissedTickBehavior;

use super::ring::{Known, Ring, Turn};
use super::{Call, Event, PACE, Probe, Tally};

const SLOTS: usize = 256;
const CALLS_MAX: usize = 64;
/// Only a crash of this process makes use of it; otherwise the keys go when the probe stops.
const LEASE_TTL: Duration = Duration::from_mins(10);
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// After such a pause one checks at once.
const OUTAGE: Duration = Duration::from_millis(100);
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const FAREWELL: Duration = Duration::from_secs(2);

type Answer = Pin<Box<dyn Future<Output = Answered> + Send>>;

enum Answered {
    Wrote {
        slot: usize,
        value: u64,
        began: Instant,
        result: Result<Put, Error>,
    },
    Looked {
        slot: usize,
        result: Result<Option<KeyValue>, Error>,
    },
    Read {
        slot: usize,
        known: Known,
        began: Instant,
        result: Result<Option<KeyValue>, Error>,
    },
    Checked {
        through: String,
        known: Known,
        result: Result<Page, Error>,
    },
}

enum Next {
    Beat,
    Answer(Answered),
    Check,
    LeaseLost,
}

impl Probe {
    /// Works until dropped or `stop` ends; tells everything to `report`.
    pub(crate) async fn run(
        &self,
        stop: impl Future<Output = ()>,
        tally: &mut Tally,
        mut report: impl FnMut(&Tally, Event),
    ) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let lease = tokio::select! {
                lease = self.lease() => lease,
                () = &mut stop => return,
            };
            let mut round = Round::new(self, lease.id());
            let lost = tokio::select! {
                () = round.work(&lease, tally, &mut report) => true,
                () = &mut stop => false,
            };
            // What hangs on the lease goes with it; should nobody answer, it runs out by itself.
            let _ = tokio::time::timeout(FAREWELL, lease.release()).await;
            if !lost {
                return;
            }
        }
    }

    async fn lease(&self) -> LeaseHandle {
        loop {
            match self.writer.lease_keep(LEASE_TTL).await {
                Ok(lease) => return lease,
                Err(error) => tracing::debug!(%error, "the probe waits for the store"),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// The work under one lease.
struct Round<'probe> {
    probe: &'probe Probe,
    lease: u64,
    /// Keys of an earlier lease may still be there, and go with it: these have names of their own.
    prefix: String,
    ring: Ring,
    under_way: FuturesUnordered<Answer>,
    beats: u64,
    checking: bool,
    next_node: usize,
    last_success: Instant,
}

impl<'probe> Round<'probe> {
    fn new(probe: &'probe Probe, lease: u64) -> Self {
        Self {
            prefix: format!("{}{lease:x}/", probe.prefix),
            probe,
            lease,
            ring: Ring::new(SLOTS),
            under_way: FuturesUnordered::new(),
            beats: 0,
            checking: false,
            next_node: 0,
            last_success: Instant::now(),
        }
    }

    /// Returns only when the lease is lost.
    async fn work(&mut self, lease: &LeaseHandle, tally: &mut Tally, report: &mut impl FnMut(&Tally, Event)) {
        let mut beat = tokio::time::interval(PACE);
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut check = tokio::time::interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                Some(answered) = self.under_way.next() => Next::Answer(answered),
                _ = beat.tick() => Next::Beat,
                _ = check.tick() => Next::Check,
                () = lease.lost() => Next::LeaseLost,
            };
            match next {
                Next::Beat => self.beat(),
                Next::Check => self.check(),
                Next::Answer(answered) => {
                    let before = self.last_success;
                    if let Some(event) = self.judge(answered, tally) {
                        report(tally, event);
                    }
                    if self.last_success.duration_since(before) > OUTAGE {
                        check.reset_immediately();
                    }
                }
                Next::LeaseLost => return,
            }
        }
    }

    fn key(&self, slot: usize) -> String {
        format!("{}{slot}", self.prefix)
    }

    fn beat(&mut self) {
        self.beats += 1;
        if self.under_way.len() >= CALLS_MAX {
            return;
        }
        if let Some(turn) = self.ring.turn() {
            self.take(turn);
        }
        // Reads at half the pace, of what was written half a second ago.
        if self.beats.is_multiple_of(2)
            && let Some(slot) = self.ring.readable(self.beats.saturating_sub(50))
        {
            let (client, key, known) = (self.probe.reader.clone(), self.key(slot), self.ring.known());
            let began = Instant::now();
            self.under_way.push(Box::pin(async move {
                let result = client.get(&key).await;
                Answered::Read {
                    slot,
                    known,
                    began,
                    result,
                }
            }));
        }
    }

    fn take(&mut self, turn: Turn) {
        let answer: Answer = match turn {
            Turn::Write {
                slot,
                value,
                revision,
            } => {
                let (client, key) = (self.probe.writer.clone(), self.key(slot));
                let options = PutOptions {
                    lease: Some(self.lease),
                    if_absent: revision == 0,
                    if_match: (revision != 0).then_some(revision),
                };
                let began = Instant::now();
                Box::pin(async move {
                    let result = client.put_with(&key, value.to_string(), options).await;
                    Answered::Wrote {
                        slot,
                        value,
                        began,
                        result,
                    }
                })
            }
            Turn::Look { slot } => {
                let (client, key) = (self.probe.reader.clone(), self.key(slot));
                Box::pin(async move {
                    let result = client.get(&key).await;
                    Answered::Looked { slot, result }
                })
            }
        };
        self.under_way.push(answer);
    }

    /// Reads the whole ring back through the next node.
    fn check(&mut self) {
        if self.checking {
            return;
        }
        self.checking = true;
        let nodes = &self.probe.nodes;
        let (through, client) = nodes[self.next_node % nodes.len()].clone();
        self.next_node += 1;
        let (prefix, known) = (self.prefix.clone(), self.ring.known());
        self.under_way.push(Box::pin(async move {
            let result = all_below(&client, prefix).await;
            Answered::Checked {
                through,
                known,
                result,
            }
        }));
    }

    fn judge(&mut self, answered: Answered, tally: &mut Tally) -> Option<Event> {
        match answered {
            Answered::Wrote {
                slot,
                value,
                began,
                result,
            } => {
                let succeeded = self.wrote(slot, value, result, tally);
                Some(Event::Write(self.call(began, succeeded)))
            }
            Answered::Looked { slot, result } => {
                match result {
                    Ok(found) => {
                        let sound = self.ring.looked(slot, found.as_ref().and_then(pair_of));
                        tally.lost += u64::from(!sound);
                    }
                    // One looks again when its turn comes.
                    Err(_) => self.ring.conflicted(slot),
                }
                None
            }
            Answered::Read {
                slot,
                known,
                began,
                result,
            } => {
                let succeeded = result.is_ok();
                if let Ok(found) = result {
                    tally.reads += 1;
                    let value = found.as_ref().and_then(pair_of).map(|(value, _)| value);
                    tally.lost += u64::from(!self.ring.may_hold(&known, slot, value));
                }
                let call = Call {
                    began,
                    ended: Instant::now(),
                    succeeded,
                };
                Some(Event::Read(call))
            }
            Answered::Checked {
                through,
                known,
                result,
            } => {
                self.checking = false;
                // A node that is down cannot be asked; the next one will be.
                let page = result.ok()?;
                let found = self.values(&page);
                let lost = self.ring.missing(&known, |slot| found.get(&slot).copied());
                tally.lost += lost;
                tally.checks += 1;
                tally.checked_through = Some(through.clone());
                Some(Event::Checked { through, lost })
            }
        }
    }

    fn wrote(&mut self, slot: usize, value: u64, result: Result<Put, Error>, tally: &mut Tally) -> bool {
        match result {
            Ok(put) => {
                self.ring.acknowledged(slot, value, put.revision);
                tally.acknowledged += 1;
                return true;
            }
            Err(Error::Unknown { .. }) => {
                self.ring.unknown(slot, value);
                tally.unknown += 1;
            }
            Err(Error::Conflict { .. }) => {
                self.ring.conflicted(slot);
                tally.refused += 1;
            }
            Err(_) => {
                self.ring.refused(slot);
                tally.refused += 1;
            }
        }
        false
    }

    fn call(&mut self, began: Instant, succeeded: bool) -> Call {
        let ended = Instant::now();
        if succeeded {
            self.last_success = ended;
        }
        Call {
            began,
            ended,
            succeeded,
        }
    }

    fn values(&self, page: &Page) -> HashMap<usize, u64> {
        let pairs = page.kvs.iter().filter_map(|kv| {
            let slot = kv.key.strip_prefix(&self.prefix)?.parse().ok()?;
            Some((slot, pair_of(kv)?.0))
        });
        pairs.filter(|(slot, _)| *slot < self.ring.len()).collect()
    }
}

async fn all_below(client: &KvClient, prefix: String) -> Result<Page, Error> {
    let range = RangeRequest {
        limit: Some(u32::try_from(SLOTS).unwrap_or(u32::MAX)),
        ..RangeRequest::prefix(prefix)
    };
    client.range(range).await
}

/// The number that the probe once wrote, and its revision.
fn pair_of(kv: &KeyValue) -> Option<(u64, Revision)> {
    let value = std::str::from_utf8(&kv.bytes()).ok()?.parse().ok()?;
    Some((value, kv.mod_revision))
}
