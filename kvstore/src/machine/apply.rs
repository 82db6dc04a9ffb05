//! Applying a log entry: pure. State in, writes and answers out; no clock, no random numbers, no IO.
//!
//! Every member runs this on the same entries and must come to the same state, byte for byte.

use std::sync::Arc;

use bytes::Bytes;
use service::planted::{Bug, is_planted};

use super::access;
use super::agreement::{Mark, Met};
use super::base::Base;
use super::draft::Draft;
use super::mirrors;
use super::state::{Head, Kept, KeptId, Lease, Token};
use super::txn::{self, Writes};
use crate::command::{
    Access, Action, Actor, Answer, Command, Expect, MirrorsWere, Once, Record, Refusal, Reply, Rule,
};

/// Applies the commands of one proposal, made at `at_ms` by the leader's clock, in order. Each answer is given away before
/// the next command is looked at: together they may be large, and where nobody waits for them none need be held.
pub fn apply<B: Base>(
    draft: &mut Draft<'_, B>,
    at_ms: u64,
    commands: &[Command],
    mut answer: impl FnMut(Reply),
) {
    draft.advance_clock(at_ms);
    for command in commands {
        answer(apply_one(draft, command));
    }
}

fn apply_one<B: Base>(draft: &mut Draft<'_, B>, command: &Command) -> Reply {
    let token = match command.actor {
        Actor::System => None,
        Actor::Token(number) => match draft.tokens.by_number(number) {
            Some(token) => Some(Arc::clone(token)),
            None if is_planted(Bug::RulesAtTheEdge) => None,
            None => return reply(draft, Answer::Refused(Refusal::Unauthorized)),
        },
    };
    if let Some(refusal) = token
        .as_ref()
        .and_then(|token| access::refuse(token, &command.action))
        .filter(|_| !is_planted(Bug::RulesAtTheEdge))
    {
        return reply(draft, Answer::Refused(refusal));
    }
    if let Some(once) = &command.once {
        apply_once(draft, token.as_deref(), &command.action, once)
    } else {
        let answer = act(draft, token.as_deref(), &command.action);
        reply(draft, answer)
    }
}

fn reply<B: Base>(draft: &Draft<'_, B>, answer: Answer) -> Reply {
    Reply {
        revision: draft.state.revision,
        replayed: false,
        answer,
        mirrors: MirrorsWere::None,
    }
}

/// The value, unless this is the member that is to differ from the others.
fn drifting(value: &Bytes) -> Bytes {
    if is_planted(Bug::ValuesDrift) {
        return Bytes::from_static(b"drifted");
    }
    value.clone()
}

/// The first answer is kept in the state, so any node repeats it, also under another leader.
fn apply_once<B: Base>(
    draft: &mut Draft<'_, B>,
    token: Option<&Token>,
    action: &Action,
    once: &Once,
) -> Reply {
    let id = KeptId {
        owner: token.map_or_else(String::new, |token| token.name.clone()),
        key: once.key.clone(),
    };
    let found = draft.kept(&id);
    if let Some(kept) = found.as_ref().filter(|kept| kept.expires_ms > draft.state.now_ms) {
        if kept.fingerprint != once.fingerprint {
            return reply(draft, Answer::Refused(Refusal::KeyReused));
        }
        let first: Reply = postcard::from_bytes(&kept.reply).expect("a kept answer was encoded by this code");
        draft.weight += kept.reply.len();
        return Reply {
            replayed: true,
            ..first
        };
    }
    if draft.state.answers_bytes >= once.room_bytes {
        return reply(draft, Answer::Refused(Refusal::AnswersFull));
    }
    let before = draft.state.revision;
    let answer = act(draft, token, action);
    let reply = reply(draft, answer);
    if reply.revision > before {
        draft.effects.kept_of.push((reply.revision, id.clone()));
    }
    let encoded = postcard::to_stdvec(&reply).expect("a reply always encodes");
    let expires_ms = draft.state.now_ms.saturating_add(once.ttl_ms);
    draft.keep(
        id,
        Kept {
            fingerprint: once.fingerprint,
            expires_ms,
            reply: encoded.into(),
        },
        found.as_ref(),
    );
    reply
}

fn act<B: Base>(draft: &mut Draft<'_, B>, token: Option<&Token>, action: &Action) -> Answer {
    if let Some(refusal) = refuse_lease_use(draft, token, action) {
        return Answer::Refused(refusal);
    }
    match action {
        Action::Put {
            key,
            value,
            lease,
            expect,
        } => put(draft, key, &drifting(value), *lease, *expect),
        Action::Delete { key, expect } => delete(draft, key, *expect),
        Action::DeletePrefix { prefix } => {
            let mut writes = Writes::new(draft);
            let count = writes.delete_prefix(prefix);
            let changes = writes.changes;
            draft.commit(changes);
            Answer::Deleted { count }
        }
        Action::Create {
            prefix,
            seed,
            value,
            lease,
        } => create(draft, prefix, *seed, value, *lease),
        Action::Txn(txn) => txn::run(draft, txn),
        Action::LeaseGrant { id, ttl_ms, pin } => grant(draft, token, *id, *ttl_ms, *pin),
        Action::LeaseRenew { id } => renew(draft, *id),
        Action::LeaseRevoke { id } => revoke(draft, *id),
        Action::LeaseExpire { leases } => {
            for (id, renewals) in leases {
                // Renewed meanwhile: the leader saw an older renewal, so the lease lives on.
                if draft.lease(*id).is_some_and(|lease| lease.renewals == *renewals) {
                    revoke(draft, *id);
                }
            }
            Answer::Done
        }
        Action::Compact { revision } => compact(draft, *revision),
        Action::AutoCompact { revision } => {
            let revision = (*revision).min(draft.state.revision).max(draft.state.compacted);
            draft.state.compacted = revision;
            Answer::Compacted { revision }
        }
        Action::TokenPut { name, hash, rules } => put_token(draft, name, *hash, rules),
        Action::TokenDelete { name } => delete_token(draft, name),
        Action::Seed { cluster_id, tokens } => seed(draft, cluster_id, tokens),
        Action::Agree { said } => {
            let here = Mark {
                revision: draft.state.revision,
                hash: draft.state.hash,
            };
            draft.effects.met.push(Met { here, said: *said });
            Answer::Done
        }
        Action::MirrorPut { .. } | Action::MirrorDelete { .. } | Action::MirrorIs { .. } => {
            mirrors::act(draft, action)
        }
        Action::BindMember { id, disk } => match draft.member_disk(*id) {
            Some(bound) if bound != *disk => Answer::Refused(Refusal::DiskMismatch),
            Some(_) => Answer::Done,
            None => {
                draft.effects.member_disks.insert(*id, disk.clone());
                Answer::Done
            }
        },
    }
}

/// A lease belongs to the token that made it; root may use any.
fn refuse_lease_use<B: Base>(
    draft: &Draft<'_, B>,
    token: Option<&Token>,
    action: &Action,
) -> Option<Refusal> {
    let token = token.filter(|token| !access::is_root(token))?;
    let foreign = |id: u64| draft.lease(id).is_some_and(|lease| lease.owner != token.name);
    let refuse = |id: u64| (id != 0 && foreign(id)).then_some(Refusal::NotYourLease { id });
    match action {
        Action::Put { lease, .. } | Action::Create { lease, .. } => refuse(*lease),
        Action::LeaseRenew { id } | Action::LeaseRevoke { id } => refuse(*id),
        Action::Txn(txn) => txn.ops().find_map(|op| match op {
            crate::command::Op::Put { lease, .. } => refuse(*lease),
            _ => None,
        }),
        _ => None,
    }
}

fn unmet(old: Option<&Head>, expect: Expect) -> Option<Answer> {
    let expected = match expect {
        Expect::Any => return None,
        Expect::Absent => 0,
        Expect::Modified(revision) => revision,
    };
    let modified = old.map_or(0, |head| head.modified);
    // `If-Match: "0"` must not create: an expectation names a revision that the key has.
    let met = modified == expected && (expect == Expect::Absent || modified != 0);
    (!met).then_some(Answer::Refused(Refusal::Precondition { modified }))
}

fn missing_lease<B: Base>(draft: &Draft<'_, B>, lease: u64) -> Option<Answer> {
    let missing = lease != 0 && draft.lease(lease).is_none();
    missing.then_some(Answer::Refused(Refusal::LeaseNotFound { id: lease }))
}

fn put<B: Base>(draft: &mut Draft<'_, B>, key: &Bytes, value: &Bytes, lease: u64, expect: Expect) -> Answer {
    let old = draft.head(key);
    if let Some(refused) = unmet(old.as_ref(), expect).or_else(|| missing_lease(draft, lease)) {
        return refused;
    }
    let revision = draft.state.revision + 1;
    let (created, version) = old.map_or((revision, 1), |old| (old.created, old.version + 1));
    let record = Record {
        created,
        modified: revision,
        version,
        lease,
        value: value.clone(),
    };
    draft.write(key.clone(), old, Some(record));
    Answer::Put {
        key: key.clone(),
        version,
        created: version == 1,
    }
}

fn delete<B: Base>(draft: &mut Draft<'_, B>, key: &Bytes, expect: Expect) -> Answer {
    let old = draft.head(key);
    if let Some(refused) = unmet(old.as_ref(), expect) {
        return refused;
    }
    if old.is_some() {
        draft.write(key.clone(), old, None);
    }
    Answer::Deleted {
        count: u64::from(old.is_some()),
    }
}

fn create<B: Base>(draft: &mut Draft<'_, B>, prefix: &Bytes, seed: u64, value: &Bytes, lease: u64) -> Answer {
    let mut number = seed;
    loop {
        let key = Bytes::from([prefix.as_ref(), format!("{number:016x}").as_bytes()].concat());
        if draft.head(&key).is_none() {
            return put(draft, &key, value, lease, Expect::Absent);
        }
        number = number.wrapping_add(1);
    }
}

fn grant<B: Base>(
    draft: &mut Draft<'_, B>,
    token: Option<&Token>,
    id: u64,
    ttl_ms: u64,
    pin: Option<u64>,
) -> Answer {
    if let Some(revision) = pin {
        if revision > draft.state.revision {
            return Answer::Refused(Refusal::FutureRevision {
                present: draft.state.revision,
            });
        }
        if revision < draft.state.compacted {
            return Answer::Refused(Refusal::AlreadyCompacted {
                revision: draft.state.compacted,
            });
        }
    }
    let mut id = id;
    while id == 0 || draft.lease(id).is_some() {
        id = id.wrapping_add(1);
    }
    let owner = token.map_or_else(String::new, |token| token.name.clone());
    draft.set_lease(
        id,
        Some(Lease {
            ttl_ms,
            owner,
            renewals: 0,
            pin,
        }),
    );
    Answer::Lease { id, ttl_ms }
}

fn renew<B: Base>(draft: &mut Draft<'_, B>, id: u64) -> Answer {
    let Some(mut lease) = draft.lease(id) else {
        return Answer::Refused(Refusal::LeaseNotFound { id });
    };
    lease.renewals += 1;
    let ttl_ms = lease.ttl_ms;
    draft.set_lease(id, Some(lease));
    Answer::Lease { id, ttl_ms }
}

/// Ends the lease and its keys, all in one revision.
fn revoke<B: Base>(draft: &mut Draft<'_, B>, id: u64) -> Answer {
    if draft.lease(id).is_none() {
        return Answer::Refused(Refusal::LeaseNotFound { id });
    }
    let keys = draft.lease_keys(id);
    let mut writes = Writes::new(draft);
    let count = keys.iter().filter(|key| writes.delete(key)).count() as u64;
    let changes = writes.changes;
    draft.commit(changes);
    draft.set_lease(id, None);
    Answer::Deleted { count }
}

fn compact<B: Base>(draft: &mut Draft<'_, B>, revision: u64) -> Answer {
    if revision > draft.state.revision {
        return Answer::Refused(Refusal::FutureRevision {
            present: draft.state.revision,
        });
    }
    // Asked again, or for less than is gone already: the wish is fulfilled.
    draft.state.compacted = draft.state.compacted.max(revision);
    Answer::Compacted {
        revision: draft.state.compacted,
    }
}

fn put_token<B: Base>(draft: &mut Draft<'_, B>, name: &str, hash: [u8; 32], rules: &[Rule]) -> Answer {
    if !rules_keep_a_root(draft, name, rules) {
        return Answer::Refused(Refusal::LastRoot);
    }
    make_token(draft, name, hash, rules);
    Answer::Token {
        name: name.to_owned(),
    }
}

/// Every token gets a number of its own, also when it replaces one of the same name.
fn make_token<B: Base>(draft: &mut Draft<'_, B>, name: &str, hash: [u8; 32], rules: &[Rule]) {
    draft.state.tokens_made += 1;
    let token = Token {
        number: draft.state.tokens_made,
        name: name.to_owned(),
        hash,
        rules: rules.to_vec(),
    };
    draft.set_token(name.to_owned(), Some(Arc::new(token)));
}

fn delete_token<B: Base>(draft: &mut Draft<'_, B>, name: &str) -> Answer {
    if !draft.tokens.by_name.contains_key(name) {
        return Answer::Refused(Refusal::TokenNotFound);
    }
    if !rules_keep_a_root(draft, name, &[]) {
        return Answer::Refused(Refusal::LastRoot);
    }
    draft.set_token(name.to_owned(), None);
    Answer::Done
}

/// Nobody could ever change a token again if the last root went.
fn rules_keep_a_root<B: Base>(draft: &Draft<'_, B>, name: &str, rules: &[Rule]) -> bool {
    let others = draft.tokens.by_name.values().filter(|token| token.name != name);
    rules.iter().any(|rule| rule.access == Access::Root)
        || others.into_iter().any(|token| access::is_root(token))
}

fn seed<B: Base>(
    draft: &mut Draft<'_, B>,
    cluster_id: &str,
    tokens: &[(String, [u8; 32], Vec<Rule>)],
) -> Answer {
    // A second leader may have proposed it too; the first one counts.
    if draft.state.cluster_id.is_empty() {
        cluster_id.clone_into(&mut draft.state.cluster_id);
        for (name, hash, rules) in tokens {
            make_token(draft, name, *hash, rules);
        }
    }
    Answer::Done
}
