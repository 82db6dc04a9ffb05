//! What a run does to a process of the system that it has found running, and how that is put right.
//! Invariant: whom it has killed, stopped or paused runs again when it ends, also when it fails or is interrupted.

use std::cell::RefCell;
use std::time::Duration;

use super::place::Place;
use super::{Action, act};
use crate::context::Context;

/// A process that is told to stop gets ten seconds for that, and only then hears the next.
const PATIENCE: Duration = Duration::from_secs(15);

/// To one process at a time.
#[derive(Default)]
pub(crate) struct Harm {
    /// What puts it right, and with whom.
    undone_by: RefCell<Option<(Action, String)>>,
}

impl Harm {
    pub(crate) async fn cause(&self, context: &Context, action: Action, name: &str) -> anyhow::Result<()> {
        let undo = if action == Action::Pause {
            Action::Resume
        } else {
            Action::Start
        };
        // Before it is asked for: who is interrupted meanwhile does not hear whether it was done.
        *self.undone_by.borrow_mut() = Some((undo, name.to_owned()));
        act::act(context, action, name).await?;
        Ok(())
    }

    pub(crate) async fn heal(&self, context: &Context) -> anyhow::Result<()> {
        let undone_by = self.undone_by.borrow().clone();
        if let Some((undo, name)) = undone_by {
            act::act(context, undo, &name).await?;
            *self.undone_by.borrow_mut() = None;
        }
        Ok(())
    }

    /// At the end of the run, in whichever way it came. To be waited for where nobody can be interrupted any more.
    pub(crate) async fn put_right(self, context: &Context) {
        let Some((undo, name)) = self.undone_by.take() else {
            return;
        };
        // One that was started for the run has ended with it.
        if !Place::new(&context.data).is_locked() {
            return;
        }
        let acted = tokio::time::timeout(PATIENCE, act::act(context, undo, &name)).await;
        let said = match acted {
            Ok(Ok(view)) => format!("{name} is {} again", view.state.word()),
            Ok(Err(error)) => format!("{} {name} again: {error:#}", undo.word()),
            Err(_late) => format!("{name} may be left as it is: see `menagerie status`"),
        };
        context.output.note(said);
    }
}
