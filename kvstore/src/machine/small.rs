//! For tests: a state machine that needs little memory, and entries for it.

use std::path::Path;
use std::sync::Arc;

use super::host::{Content, Item, Machine, MachineSettings};
use crate::command::{Action, Actor, Command, Proposal, encode_commands};
use crate::raft::entry::log_id;

/// What the folder holds, or an empty state.
pub(crate) fn opened(folder: &Path) -> Arc<Machine> {
    let settings = MachineSettings {
        memtable_bytes: 1 << 20,
        cache_bytes: 1 << 20,
        ring_bytes: 1 << 20,
        records_bytes: 1 << 20,
        heads_bytes: 1 << 20,
    };
    Machine::open(folder, settings, Arc::default()).expect("the database opens")
}

/// The entry at this place of the log: all these actions of the system's own, by one proposal.
pub(crate) fn entry(index: u64, at_ms: u64, actions: impl IntoIterator<Item = Action>) -> Item {
    let commands = actions.into_iter().map(|action| Command {
        actor: Actor::System,
        action,
        once: None,
    });
    let commands: Vec<Command> = commands.collect();
    Item {
        index,
        id: serde_json::to_vec(&log_id(1, 1, index)).expect("a log id is plain data"),
        content: Content::Proposal(Proposal::new(at_ms, &encode_commands(&commands)).into()),
        awaited: true,
    }
}
