//! The state as it will be: a base, and over it the writes of the batch under way.
//!
//! All writes of a batch are gathered here and handed to storage as one atomic batch. Invariant: the
//! hash, the counters and the lease index always agree with the records of the draft.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use service::planted::{Bug, is_planted};

use super::agreement::Met;
use super::base::Base;
use super::overlay::{self, Changes, Visit};
use super::shares::Shares;
use super::state::{
    Event, Head, Kept, KeptId, Lease, MinuteMark, Mirror, Mirrors, State, Superseded, Token, Tokens,
};
use crate::command::Record;

/// What a version costs beside its key and value, for the accounts of history.
const VERSION_OVERHEAD_BYTES: u64 = 48;
/// Answers swept at most per proposal, so that no batch takes long. It stays as it is, or members of different versions
/// would differ; where it is too little, the leader proposes more (`upkeep/sweeper`).
const SWEEP_MAX: usize = 512;
const MINUTE_MS: u64 = 60_000;
/// What a changed key, or an answer that is kept or dropped, takes here and where the batch is written.
pub(super) const CHANGE_BYTES: usize = 1 << 10;
/// A batch that takes so much memory takes in no further entry.
pub(super) const WEIGHT_MAX: usize = 64 << 20;

/// Everything one batch changes. `None` removes.
#[derive(Debug, Default)]
pub struct Effects {
    pub heads: BTreeMap<Bytes, Option<Head>>,
    /// The changed keys with their values, for what comes later in the batch.
    pub records: Changes,
    /// One per changed key and revision, in order of revision.
    pub events: Vec<Event>,
    /// One for each event.
    pub superseded: Vec<Superseded>,
    pub leases: BTreeMap<u64, Option<Lease>>,
    pub lease_keys: BTreeMap<(u64, Bytes), bool>,
    pub kept: BTreeMap<KeptId, Option<Kept>>,
    /// What an answer that ends then counts, so that it need not be read to be dropped.
    pub kept_expiry: BTreeMap<(u64, KeptId), Option<u64>>,
    /// Which kept answer tells of a revision. Noted also while there is no mirror: one that comes later begins with
    /// some revision, and must not lack the answers of the next.
    pub kept_of: Vec<(u64, KeptId)>,
    pub tokens: BTreeMap<String, Option<Arc<Token>>>,
    pub minutes: BTreeMap<u64, MinuteMark>,
    pub member_disks: BTreeMap<u64, String>,
    pub mirrors: BTreeMap<String, Option<Arc<Mirror>>>,
    /// Places at which members compare; not part of the state.
    pub met: Vec<Met>,
    /// What becomes of the bytes of kept answers, by their owners; not part of the state either.
    pub shares: Shares,
}

pub struct Draft<'a, B> {
    base: &'a B,
    pub state: State,
    pub tokens: Arc<Tokens>,
    pub mirrors: Arc<Mirrors>,
    pub effects: Effects,
    /// Roughly the bytes that the batch and its answers take, beside what its entries brought.
    pub weight: usize,
}

impl<'a, B: Base> Draft<'a, B> {
    pub fn new(base: &'a B, state: State, tokens: Arc<Tokens>) -> Self {
        Self {
            base,
            state,
            tokens,
            mirrors: Arc::default(),
            effects: Effects::default(),
            weight: 0,
        }
    }

    /// Whether it is to be written before another entry is looked at.
    pub fn is_full(&self) -> bool {
        self.weight >= WEIGHT_MAX
    }

    #[must_use]
    pub fn with_mirrors(self, mirrors: Arc<Mirrors>) -> Self {
        Self { mirrors, ..self }
    }

    /// The clock never runs backwards, whatever the leader's does.
    pub fn advance_clock(&mut self, at_ms: u64) {
        self.state.now_ms = self.state.now_ms.max(at_ms);
        self.sweep_kept();
    }

    pub fn head(&self, key: &[u8]) -> Option<Head> {
        match self.effects.heads.get(key) {
            Some(changed) => *changed,
            None => self.base.head(key),
        }
    }

    pub fn record(&self, key: &[u8]) -> Option<Record> {
        match self.effects.records.get(key) {
            Some(changed) => changed.clone(),
            None => self.base.record(key),
        }
    }

    /// Live keys under `prefix` in order, as a transaction sees them that wrote `own`.
    pub fn visit_under(&self, prefix: &[u8], own: &Changes, visit: Visit<'_>) {
        overlay::visit_under(self.base, [&self.effects.records, own], prefix, visit);
    }

    /// Writes one transaction's final word on each key; a revision is used up only if one changes.
    pub fn commit(&mut self, changes: Changes) {
        let revision = self.state.revision + 1;
        let mut changed = false;
        for (key, new) in changes {
            let old = self.head(&key);
            if old.is_none() && new.is_none() {
                continue;
            }
            changed = true;
            self.change(key, old, new, revision);
        }
        if changed {
            self.reach(revision);
        }
    }

    /// Writes one key by itself, without a map around it, which is what most commands do. `old` is what [`Self::head`]
    /// says of it.
    pub fn write(&mut self, key: Bytes, old: Option<Head>, mut new: Option<Record>) {
        let revision = self.state.revision + 1;
        if is_planted(Bug::MembersCountApart)
            && let Some(record) = &mut new
        {
            record.version += u64::from(std::process::id());
        }
        self.change(key, old, new, revision);
        self.reach(revision);
    }

    fn change(&mut self, key: Bytes, old: Option<Head>, new: Option<Record>, revision: u64) {
        self.weight += CHANGE_BYTES;
        let head = new.as_ref().map(|record| Head::of(&key, record));
        self.account(
            &key,
            old.as_ref(),
            head.as_ref(),
            new.as_ref().map_or(0, |record| record.value.len()),
        );
        let version = new.clone().unwrap_or_else(|| Record::tombstone(revision));
        assert_eq!(
            version.modified, revision,
            "a change carries the revision that made it"
        );
        self.effects.superseded.push(Superseded {
            before: old.map_or(0, |old| old.modified),
            deleted: new.is_none(),
        });
        self.effects.events.push(Event {
            key: key.clone(),
            record: version,
        });
        self.effects.heads.insert(key.clone(), head);
        self.effects.records.insert(key, new);
    }

    fn reach(&mut self, revision: u64) {
        self.state.revision = revision;
        let mark = MinuteMark {
            revision,
            history_bytes: self.state.history_bytes,
        };
        self.effects.minutes.insert(self.state.now_ms / MINUTE_MS, mark);
    }

    fn account(&mut self, key: &Bytes, old: Option<&Head>, new: Option<&Head>, value_bytes: usize) {
        if let Some(old) = old {
            self.state.hash = self.state.hash.wrapping_sub(old.hash);
            self.state.keys -= 1;
        }
        if let Some(new) = new {
            self.state.hash = self.state.hash.wrapping_add(new.hash);
            self.state.keys += 1;
        }
        self.state.history_bytes += (key.len() + value_bytes) as u64 + VERSION_OVERHEAD_BYTES;
        let (before, after) = (old.map_or(0, |head| head.lease), new.map_or(0, |head| head.lease));
        if before != after {
            if before != 0 {
                self.effects.lease_keys.insert((before, key.clone()), false);
            }
            if after != 0 {
                self.effects.lease_keys.insert((after, key.clone()), true);
            }
        }
    }

    pub fn lease(&self, id: u64) -> Option<Lease> {
        match self.effects.leases.get(&id) {
            Some(changed) => changed.clone(),
            None => self.base.lease(id),
        }
    }

    pub fn set_lease(&mut self, id: u64, lease: Option<Lease>) {
        self.effects.leases.insert(id, lease);
    }

    pub fn lease_keys(&self, id: u64) -> Vec<Bytes> {
        let mut keys: BTreeSet<Bytes> = self.base.lease_keys(id).into_iter().collect();
        for ((_, key), attached) in self
            .effects
            .lease_keys
            .range((id, Bytes::new())..(id + 1, Bytes::new()))
        {
            if *attached {
                keys.insert(key.clone());
            } else {
                keys.remove(key);
            }
        }
        keys.into_iter().collect()
    }

    /// The answer under this key, which may have ended without being swept yet.
    pub fn kept(&self, id: &KeptId) -> Option<Kept> {
        match self.effects.kept.get(id) {
            Some(changed) => changed.clone(),
            None => self.base.kept(id),
        }
    }

    /// Keeps an answer in the place of the one that has ended.
    pub fn keep(&mut self, id: KeptId, kept: Kept, ended: Option<&Kept>) {
        if let Some(ended) = ended {
            self.count_out(&id.owner, ended.bytes(&id));
            self.effects
                .kept_expiry
                .insert((ended.expires_ms, id.clone()), None);
        }
        let bytes = kept.bytes(&id);
        self.weight += CHANGE_BYTES + kept.reply.len();
        self.state.answers_bytes += bytes;
        self.effects.shares.grow(&id.owner, bytes);
        self.effects
            .kept_expiry
            .insert((kept.expires_ms, id.clone()), Some(bytes));
        self.effects.kept.insert(id, Some(kept));
    }

    /// An answer that has ended takes no more room.
    fn count_out(&mut self, owner: &str, bytes: u64) {
        self.state.answers_bytes -= bytes;
        self.effects.shares.shrink(owner, bytes);
    }

    /// Drops answers whose time is over, starting where the last sweep ended.
    fn sweep_kept(&mut self) {
        let (from_ms, to_ms) = (self.state.answers_swept_ms, self.state.now_ms);
        if to_ms < from_ms + 1000 {
            return;
        }
        let ended = self.kept_between(from_ms, to_ms);
        let swept_ms = if ended.len() < SWEEP_MAX {
            to_ms
        } else {
            ended.last().map_or(to_ms, |((ms, _), _)| *ms)
        };
        self.weight += ended.len() * CHANGE_BYTES;
        for ((expires_ms, id), bytes) in ended {
            self.count_out(&id.owner, bytes);
            self.effects.kept.insert(id.clone(), None);
            self.effects.kept_expiry.insert((expires_ms, id), None);
        }
        self.state.answers_swept_ms = swept_ms;
    }

    /// The first answers that end in `from_ms..to_ms`, base and draft merged: what is swept must not depend
    /// on which entries happen to share a batch, since that differs between members.
    fn kept_between(&self, from_ms: u64, to_ms: u64) -> Vec<((u64, KeptId), u64)> {
        let nobody = KeptId {
            owner: String::new(),
            key: String::new(),
        };
        let drafted = self
            .effects
            .kept_expiry
            .range((from_ms, nobody.clone())..(to_ms, nobody));
        let drafted: Vec<_> = drafted.collect();
        let based = self.base.kept_between(from_ms, to_ms, SWEEP_MAX + drafted.len());
        let mut ended: BTreeMap<(u64, KeptId), u64> = based.into_iter().collect();
        for (id, counted) in drafted {
            match counted {
                Some(bytes) => ended.insert(id.clone(), *bytes),
                None => ended.remove(id),
            };
        }
        ended.into_iter().take(SWEEP_MAX).collect()
    }

    pub fn set_token(&mut self, name: String, token: Option<Arc<Token>>) {
        let mut tokens = Tokens::clone(&self.tokens);
        match &token {
            Some(token) => tokens.by_name.insert(name.clone(), Arc::clone(token)),
            None => tokens.by_name.remove(&name),
        };
        self.tokens = Arc::new(tokens);
        self.effects.tokens.insert(name, token);
    }

    pub fn set_mirror(&mut self, name: &str, mirror: Option<Mirror>) {
        let mirror = mirror.map(Arc::new);
        let mut mirrors = Mirrors::clone(&self.mirrors);
        match &mirror {
            Some(mirror) => mirrors.by_name.insert(name.to_owned(), Arc::clone(mirror)),
            None => mirrors.by_name.remove(name),
        };
        self.mirrors = Arc::new(mirrors);
        self.effects.mirrors.insert(name.to_owned(), mirror);
    }

    pub fn member_disk(&self, id: u64) -> Option<String> {
        self.effects
            .member_disks
            .get(&id)
            .cloned()
            .or_else(|| self.base.member_disk(id))
    }
}
