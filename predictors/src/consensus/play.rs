//! Plays rounds whose outcome is known, for the page of a demo system: each row of the irises is a round.
//! Invariant: no round is opened before the one before is settled; with the same idempotency key the same rows are
//! played, each once, so that a repetition goes on where the one before has ended.

use serde::Serialize;
use service::problem::{self, Problem, Result};
use service::secrets::Secrets;
use service::tasks::Tasks;

use super::ask::Asker;
use super::network::Bank;
use super::once::{Once, Reply};
use super::room::Opener;
use super::rounds::{Opening, contended, round_of};
use super::settler::{Report, Settler};
use crate::data::{Table, iris};
use crate::wire::Shape;

/// Who plays, and with what.
pub(crate) struct Player<'a> {
    pub(crate) bank: &'a Bank,
    pub(crate) asker: &'a Asker,
    pub(crate) settler: &'a Settler,
    pub(crate) shape: &'a Shape,
    pub(crate) secrets: &'a Secrets,
    pub(crate) opener: &'a Opener,
    pub(crate) once: Option<&'a Once>,
}

#[derive(Serialize)]
struct Played {
    rounds: Vec<Round>,
}

#[derive(Serialize)]
struct Round {
    round_id: String,
    outcome: usize,
}

/// The table whose rows can be played, if the network speaks of it.
fn table(shape: &Shape) -> Result<Table> {
    let table = iris();
    if table.features == shape.features && table.classes == shape.classes {
        return Ok(table);
    }
    let detail = "Only the irises can be played, and this network speaks of something else.";
    Err(Problem::new(problem::CONFLICT, detail))
}

impl Player<'_> {
    pub(crate) async fn play(&self, rounds: u64, stop: &Tasks) -> Result<Reply> {
        let table = table(self.shape)?;
        Once::claim(self.once, self.bank).await?;
        let mut played = Vec::new();
        let mut replayed = true;
        for number in 0..rounds {
            if stop.is_stopping() {
                return Err(stopped());
            }
            let (round, again) = self.play_one(&table, number).await?;
            played.push(round);
            replayed &= again;
        }
        let body = serde_json::to_string(&Played { rounds: played });
        let body = body.expect("answers have only text keys and finite numbers");
        Ok(if replayed {
            Reply::again(200, body)
        } else {
            Reply::first(200, body)
        })
    }

    /// Whether it was played before.
    async fn play_one(&self, table: &Table, number: u64) -> Result<(Round, bool)> {
        let once = self.once.map(|once| once.step(self.secrets, number));
        let drawn = once.as_ref().map_or_else(
            || getrandom::u64().expect("the operating system has random bytes to give"),
            Once::drawn,
        );
        let row = usize::try_from(drawn).unwrap_or(0) % table.len();
        let opening = Opening {
            row: &table.rows[row],
            listed: false,
            opener: self.opener,
        };
        let opened = self.bank.open(self.asker, self.shape, &opening, once.as_ref());
        let opened = opened.await?;
        let round_id = round_of(&opened.body).ok_or_else(contended)?;
        let outcome = table.labels[row];
        let settled = self.settler.settle(Report {
            round: round_id.clone(),
            outcome,
        });
        let settled = settled.await?;
        let replayed = opened.replayed && settled.replayed;
        Ok((Round { round_id, outcome }, replayed))
    }
}

fn stopped() -> Problem {
    let detail = "This process is about to end and plays no more rounds. Those that were played stay; repeated with \
                  the same Idempotency-Key, elsewhere or later, the others are played.";
    Problem::new(problem::OUTCOME_UNKNOWN, detail)
}
