//! Who may touch which key: one table of rules, asked when a command is applied and when a read has
//! its index. It knows nothing of HTTP.

use bytes::Bytes;

use super::state::{Token, prefix_end};
use crate::command::{Access, Action, Op, Refusal, Txn};

/// Who may write this key, of which there need be none, speaks for the mirror of that name.
pub const MIRRORS: &str = "mirror/";

/// Whether `token` may do `access` to every key in `from..to` (`to` = `None`: to the end).
pub fn allows_range(token: &Token, from: &[u8], to: Option<&[u8]>, access: Access) -> bool {
    token.rules.iter().any(|rule| {
        let ends_within = match (to, prefix_end(&rule.prefix)) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(to), Some(end)) => to <= end.as_slice(),
        };
        rule.access >= access && from >= rule.prefix.as_ref() && ends_within
    })
}

pub fn allows_key(token: &Token, key: &[u8], access: Access) -> bool {
    token
        .rules
        .iter()
        .any(|rule| rule.access >= access && key.starts_with(&rule.prefix))
}

pub fn allows_prefix(token: &Token, prefix: &[u8], access: Access) -> bool {
    allows_key(token, prefix, access)
}

pub fn is_root(token: &Token) -> bool {
    token.rules.iter().any(|rule| rule.access == Access::Root)
}

/// The reason why `token` may not do `action`, if there is one.
pub fn refuse(token: &Token, action: &Action) -> Option<Refusal> {
    match action {
        Action::Put { key, .. } | Action::Delete { key, .. } => need(token, key, Access::Write),
        Action::DeletePrefix { prefix } | Action::Create { prefix, .. } => need(token, prefix, Access::Write),
        Action::Txn(txn) => refuse_txn(token, txn),
        // Ownership of a lease is checked where the lease is looked up.
        Action::LeaseGrant { .. } | Action::LeaseRenew { .. } | Action::LeaseRevoke { .. } => None,
        Action::Compact { .. } | Action::TokenPut { .. } | Action::TokenDelete { .. } => {
            (!is_root(token)).then_some(Refusal::RootOnly)
        }
        Action::MirrorPut { name, .. } | Action::MirrorDelete { name } => {
            need(token, &Bytes::from(format!("{MIRRORS}{name}")), Access::Write)
        }
        Action::MirrorIs { .. }
        | Action::LeaseExpire { .. }
        | Action::AutoCompact { .. }
        | Action::Seed { .. }
        | Action::BindMember { .. }
        | Action::Agree { .. } => Some(Refusal::RootOnly),
    }
}

/// Both branches count, whichever is taken: what a token may do must not depend on the data.
fn refuse_txn(token: &Token, txn: &Txn) -> Option<Refusal> {
    let conditions = txn
        .conditions
        .iter()
        .find_map(|condition| need(token, &condition.key, Access::Read));
    conditions.or_else(|| {
        txn.ops().find_map(|op| match op {
            Op::Put { key, .. } | Op::Delete { key } | Op::Add { key, .. } => need(token, key, Access::Write),
            Op::DeletePrefix { prefix } => need(token, prefix, Access::Write),
            Op::Get { key } | Op::GetPrefix { prefix: key, .. } => need(token, key, Access::Read),
        })
    })
}

fn need(token: &Token, key: &Bytes, access: Access) -> Option<Refusal> {
    (!allows_key(token, key, access)).then(|| Refusal::Forbidden { key: key.clone() })
}
