//! Mirrors as replicated state: who is announced, and for whom a write waits. Pure, as all of applying is.
//! Invariant: a synchronous mirror is waited for from when it had everything until it is said to be lost, and both are
//! entries of the log, so that every leader agrees. One that blocks is never said to be lost.

use super::base::Base;
use super::draft::Draft;
use super::state::Mirror;
use crate::command::{Action, Answer, MirrorMode, MirrorState, OnLoss, Refusal};

/// Each write waits for the slowest of them.
const MIRRORS_MAX: usize = 16;

pub(super) fn act<B: Base>(draft: &mut Draft<'_, B>, action: &Action) -> Answer {
    match action {
        Action::MirrorPut {
            name,
            mode,
            on_loss,
            incarnation,
        } => announce(draft, name, (*mode, *on_loss), incarnation),
        Action::MirrorDelete { name } => {
            if !draft.mirrors.by_name.contains_key(name) {
                return Answer::Refused(Refusal::MirrorNotFound);
            }
            draft.set_mirror(name, None);
            Answer::Done
        }
        Action::MirrorIs {
            name,
            incarnation,
            state,
        } => found(draft, name, incarnation, *state),
        other => unreachable!("not about a mirror: {other:?}"),
    }
}

fn announce<B: Base>(
    draft: &mut Draft<'_, B>,
    name: &str,
    (mode, on_loss): (MirrorMode, OnLoss),
    incarnation: &str,
) -> Answer {
    let known = draft.mirrors.by_name.get(name).cloned();
    if known.is_none() && draft.mirrors.by_name.len() >= MIRRORS_MAX {
        return Answer::Refused(Refusal::TooManyMirrors);
    }
    let state = match &known {
        _ if mode == MirrorMode::Async => MirrorState::Ok,
        Some(known) if known.mode == MirrorMode::Sync && known.incarnation == incarnation => known.state,
        // Its database is a new one. Who chose to block rather than lose waits until that has everything.
        Some(known) if known.is_required() && on_loss == OnLoss::Block => MirrorState::Ok,
        _ => MirrorState::CatchingUp,
    };
    let since = match &known {
        Some(known) if known.state == state => known.since,
        _ => draft.state.revision,
    };
    let mirror = Mirror {
        name: name.to_owned(),
        mode,
        on_loss,
        incarnation: incarnation.to_owned(),
        state,
        since,
    };
    if known.as_deref() != Some(&mirror) {
        draft.set_mirror(name, Some(mirror));
    }
    Answer::Done
}

fn found<B: Base>(draft: &mut Draft<'_, B>, name: &str, incarnation: &str, state: MirrorState) -> Answer {
    let Some(known) = draft.mirrors.by_name.get(name).cloned() else {
        return Answer::Refused(Refusal::MirrorNotFound);
    };
    let lost = state != MirrorState::Ok;
    let meant = known.incarnation == incarnation && known.mode == MirrorMode::Sync;
    if meant && known.state != state && !(lost && known.on_loss == OnLoss::Block) {
        let since = draft.state.revision;
        draft.set_mirror(
            name,
            Some(Mirror {
                state,
                since,
                ..Mirror::clone(&known)
            }),
        );
    }
    Answer::Done
}
