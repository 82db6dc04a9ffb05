//! `menagerie down`: stops everything that `up` started, and returns when it has ended.
//! Invariant: when it succeeds, no process of this data folder is left and its lock is free.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::act;
use super::control::{self, Answer, Request};
use super::place::Place;
use crate::context::{Context, block_on};

const DEADLINE: Duration = Duration::from_mins(1);
const POLL_EVERY: Duration = Duration::from_millis(20);

pub(crate) fn run(context: Context) -> anyhow::Result<()> {
    block_on(async {
        let place = Place::new(&context.data);
        match control::ask(&place, &Request::Down).await? {
            Some(Answer::Stopped) => {}
            Some(other) => bail!("the launcher gave an answer that does not fit: {other:?}"),
            None => bail!(act::nobody(&context)),
        }
        let deadline = Instant::now() + DEADLINE;
        while place.is_locked() {
            if Instant::now() > deadline {
                bail!(
                    "all processes have stopped, but their supervisor has not ended after {} s",
                    DEADLINE.as_secs()
                );
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        if context.output.json {
            return Ok(context.output.document(&serde_json::json!({ "stopped": true }))?);
        }
        Ok(context.output.line("stopped")?)
    })
}
