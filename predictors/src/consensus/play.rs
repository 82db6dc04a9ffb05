//! Plays rounds whose outcome is known, for the page of a demo system: each row of the irises is a round.

use serde::Serialize;
use service::problem::{self, Problem, Result};

use super::ask::Asker;
use super::network::Bank;
use super::room::Opener;
use super::rounds::{contended, round_of};
use super::settler::{Report, Settler};
use crate::data::{Table, iris};
use crate::wire::Shape;

#[derive(Serialize)]
pub(crate) struct Played {
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

pub(crate) async fn play(
    bank: &Bank,
    asker: &Asker,
    settler: &Settler,
    shape: &Shape,
    rounds: usize,
) -> Result<Played> {
    let table = table(shape)?;
    let mut played = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let drawn = getrandom::u64().expect("the operating system has random bytes to give");
        let row = usize::try_from(drawn).unwrap_or(0) % table.len();
        let asked = (table.rows[row].as_slice(), &Opener::Known);
        let reply = bank.open(asker, shape, asked, None).await?;
        let id = round_of(&reply.body).ok_or_else(contended)?;
        let outcome = table.labels[row];
        let report = Report {
            round: id.clone(),
            outcome,
        };
        settler.settle(report).await?;
        played.push(Round {
            round_id: id,
            outcome,
        });
    }
    Ok(Played { rounds: played })
}
