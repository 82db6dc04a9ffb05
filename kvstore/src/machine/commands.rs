//! The commands of one log entry: decoded once, by whoever first has to look at them, and whether they are little work.
//!
//! Invariant: what is called little work looks at no more keys than it names, and at few values, so that the bytes of an
//! entry bound what applying it takes. It must not know where an entry is applied.

use crate::command::{Action, Command, Condition, MalformedProposal, Op, Proposal, Test};

/// Values that little work looks at. A few bytes ask for one, and it may be a MiB.
const VALUES_MAX: usize = 8;

/// Not decoded before somebody asks: what is large is left to the thread that applies it.
pub struct Commands {
    proposal: Proposal,
    decoded: Option<(u64, Vec<Command>)>,
}

impl From<Proposal> for Commands {
    fn from(proposal: Proposal) -> Self {
        Self {
            proposal,
            decoded: None,
        }
    }
}

impl Commands {
    /// Of the proposal that they come in.
    pub fn bytes(&self) -> u64 {
        self.proposal.0.len() as u64
    }

    /// What the leader's clock said, and the commands.
    pub fn decoded(&mut self) -> Result<(u64, &[Command]), MalformedProposal> {
        if self.decoded.is_none() {
            self.decoded = Some(self.proposal.decode()?);
        }
        let decoded = self.decoded.as_ref();
        let (at_ms, commands) = decoded.expect("it was decoded just now, or before");
        Ok((*at_ms, commands.as_slice()))
    }

    pub fn are_little_work(&mut self) -> Result<bool, MalformedProposal> {
        let (_at_ms, commands) = self.decoded()?;
        // One without commands is there to have answers swept, which it does not name.
        let names_all = !commands.is_empty();
        let values: usize = commands.iter().map(|command| values(&command.action)).sum();
        Ok(names_all
            && values <= VALUES_MAX
            && commands.iter().all(|command| is_little_work(&command.action)))
    }
}

fn is_little_work(action: &Action) -> bool {
    match action {
        Action::Put { .. }
        | Action::Delete { .. }
        | Action::Create { .. }
        | Action::LeaseGrant { .. }
        | Action::LeaseRenew { .. }
        | Action::Compact { .. }
        | Action::AutoCompact { .. }
        | Action::BindMember { .. }
        | Action::Agree { .. }
        | Action::MirrorPut { .. }
        | Action::MirrorDelete { .. }
        | Action::MirrorIs { .. } => true,
        Action::Txn(txn) => !txn.ops().any(walks),
        // All keys under a prefix or of a lease; and who changes one token makes the table of all of them anew.
        Action::DeletePrefix { .. }
        | Action::LeaseRevoke { .. }
        | Action::LeaseExpire { .. }
        | Action::TokenPut { .. }
        | Action::TokenDelete { .. }
        | Action::Seed { .. } => false,
    }
}

fn values(action: &Action) -> usize {
    let Action::Txn(txn) = action else { return 0 };
    let looks = |condition: &&Condition| matches!(condition.test, Test::Int(_) | Test::Value(_));
    let gets = |op: &&Op| matches!(op, Op::Get { .. } | Op::Add { .. });
    txn.conditions.iter().filter(looks).count() + txn.ops().filter(gets).count()
}

/// Also for a single row: the answer tells how many there are.
fn walks(op: &Op) -> bool {
    match op {
        Op::DeletePrefix { .. } | Op::GetPrefix { .. } => true,
        Op::Put { .. } | Op::Delete { .. } | Op::Get { .. } | Op::Add { .. } => false,
    }
}
