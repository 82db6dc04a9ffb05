//! Points before and behind each call of the store, at which a test can make an instance die, stand still or wait.
//! Invariant: in the program there are none of them; they cost one look at an empty option.
//! It must not know what happens between the points.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

type Reached = dyn Fn(&'static str, Moment) -> BoxFuture<'static, ()> + Send + Sync;

/// Where within a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    BeforeRead,
    AfterRead,
    BeforeCommit,
    AfterCommit,
}

/// What is done at each point: nothing, unless a test says otherwise.
#[derive(Clone, Default)]
pub struct Points(Option<Arc<Reached>>);

impl Points {
    pub fn none() -> Self {
        Self::default()
    }

    /// Waits for what `reached` gives back at each point of each step: `pay`, `decline`, `capture`, `cancel`,
    /// `expire`, `refund`, `card`, `sweep`, `check` for each page of the proof, and `answer` for what an idempotency
    /// key was answered: a look at it, or keeping it where the work was done before.
    pub fn each(
        reached: impl Fn(&'static str, Moment) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(reached)))
    }

    pub(crate) async fn reach(&self, step: &'static str, moment: Moment) {
        if let Some(reached) = &self.0 {
            reached(step, moment).await;
        }
    }
}

impl fmt::Debug for Points {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() {
            "Points(set)"
        } else {
            "Points(none)"
        })
    }
}
