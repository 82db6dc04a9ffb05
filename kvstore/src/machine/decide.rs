//! What log entries come to, before any of it is written.
//!
//! What a batch changes and answers is in memory until it is written, so it ends before its entries do where that is
//! much. Invariant: it ends between two entries, and the state does not depend on where. It must not know storage.

use std::vec::IntoIter;

use super::apply::apply;
use super::base::Base;
use super::draft::Draft;
use super::host::{Begun, Content, Item};
use crate::command::{MalformedProposal, Reply};

/// What is to be published beside the effects, which are in the draft.
#[derive(Default)]
pub(super) struct Decided {
    /// Of the last entry, with its encoded log id.
    pub(super) index: u64,
    pub(super) id: Vec<u8>,
    /// The encoded membership, if it has changed.
    pub(super) membership: Option<Vec<u8>>,
    pub(super) begun: Option<Begun>,
    /// Of proposals.
    pub(super) bytes: u64,
    /// One for each entry: what its commands were answered, if somebody waits for that.
    pub(super) replies: Vec<Vec<Reply>>,
}

/// Applies as many of the entries as make one batch.
pub(super) fn decide<B: Base>(
    draft: &mut Draft<'_, B>,
    items: &mut IntoIter<Item>,
) -> Result<Decided, MalformedProposal> {
    let mut decided = Decided {
        replies: Vec::with_capacity(items.len()),
        ..Decided::default()
    };
    for item in items {
        let mut replies = Vec::new();
        match item.content {
            Content::Nothing { lead } => {
                let revision = draft.state.revision;
                decided.begun = Some(Begun { lead, revision });
            }
            Content::Membership(encoded) => decided.membership = Some(encoded),
            Content::Proposal(mut commands) => {
                decided.bytes += commands.bytes();
                let (at_ms, commands) = commands.decoded()?;
                if item.awaited {
                    replies.reserve_exact(commands.len());
                }
                apply(draft, at_ms, commands, |reply| {
                    if item.awaited {
                        replies.push(reply);
                    }
                });
            }
        }
        decided.replies.push(replies);
        (decided.index, decided.id) = (item.index, item.id);
        if draft.is_full() {
            break;
        }
    }
    Ok(decided)
}
