//! Gets the model: from the store if anybody has fitted it before, else by fitting it and storing it there.
//! Invariant: of processes that fit at the same time one wins, and all serve its model; a stored model is used only
//! if it is whole, which its hash tells.

use anyhow::{Context as _, anyhow, ensure};
use kvstore_client::wire::Revision;
use kvstore_client::wire::txn::{Branch, Condition, Op};
use kvstore_client::{KvClient, Txn};
use service::config::PredictorConfig;
use service::time::now_ms;
use sha2::{Digest as _, Sha256};

use super::card::{Card, version};
use crate::data::{CsvOptions, Impute, Table, hex, iris, read_csv};
use crate::models::{Fitted, Kind, fit};

/// Of a stored model: well below what a value may be.
const PART_BYTES: usize = 512 * 1024;

/// What makes a model the same as one that was fitted before.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) seed: u64,
    pub(crate) table: Table,
}

/// What the store has of a model.
pub(crate) enum Stored {
    Whole(Box<(Card, Fitted)>),
    Absent,
    /// There is a card, written at this revision, but not the whole model of which it speaks.
    Damaged {
        revision: Revision,
        fault: anyhow::Error,
    },
}

pub(super) fn read_card(bytes: &[u8]) -> anyhow::Result<Card> {
    let card: Card = serde_json::from_slice(bytes).context("read the model card")?;
    ensure!(
        !card.features.is_empty() && !card.classes.is_empty(),
        "the model card names no features or no classes"
    );
    Ok(card)
}

/// The hash tells what was damaged, but not who made it: whatever is in it must fit the card.
pub(super) fn read_model(card: &Card, bytes: &[u8]) -> anyhow::Result<Fitted> {
    ensure!(version(bytes) == card.version, "the stored model is damaged");
    let fitted = Fitted::from_bytes(bytes)?;
    ensure!(
        fitted.fits(card.features.len(), card.classes.len()),
        "the stored model does not fit its card"
    );
    Ok(fitted)
}

impl Recipe {
    /// Reads the table, which may take a while.
    pub(crate) fn read(config: &PredictorConfig) -> anyhow::Result<Self> {
        let table = if config.table.is_empty() {
            iris()
        } else {
            let options = CsvOptions {
                label: Some(config.label.clone()).filter(|label| !label.is_empty()),
                ignore: config.ignore.clone(),
                impute: (config.impute == "mean").then_some(Impute::Mean),
            };
            let file =
                std::fs::File::open(&config.table).with_context(|| format!("open {}", config.table))?;
            read_csv(std::io::BufReader::new(file), &config.table, &options)?
        };
        Ok(Self {
            name: config.name.clone(),
            kind: config.model.parse().context("read predictor.model")?,
            seed: config.seed,
            table,
        })
    }

    fn folder(&self) -> String {
        let spec = format!("2/{}/{}/{}", self.kind, self.seed, self.table.sha256());
        let hash = hex(&Sha256::digest(spec.as_bytes()));
        format!("predict/fitted/{}/{}/", self.name, &hash[..16])
    }

    fn card_key(&self) -> String {
        format!("{}card", self.folder())
    }

    fn part_key(&self, version: &str, part: usize) -> String {
        format!("{}part/{version}/{part:05}", self.folder())
    }

    pub(crate) async fn load(&self, client: &KvClient) -> anyhow::Result<Stored> {
        let Some(kv) = client.get(&self.card_key()).await.context("look for the model")? else {
            return Ok(Stored::Absent);
        };
        let damaged = |fault| Stored::Damaged {
            revision: kv.mod_revision,
            fault,
        };
        let card = match read_card(&kv.bytes()) {
            Ok(card) => card,
            Err(fault) => return Ok(damaged(fault)),
        };
        let Some(bytes) = self.parts(client, &card).await? else {
            return Ok(damaged(anyhow!("a part of the stored model is missing")));
        };
        Ok(match read_model(&card, &bytes) {
            Ok(fitted) => Stored::Whole(Box::new((card, fitted))),
            Err(fault) => damaged(fault),
        })
    }

    /// All of them together; `None` if one is missing. As large as what is there, whatever the card says.
    async fn parts(&self, client: &KvClient, card: &Card) -> anyhow::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        for part in 0..card.bytes.div_ceil(PART_BYTES) {
            let key = self.part_key(&card.version, part);
            let kv = client.get(&key).await.context("read the stored model")?;
            let Some(kv) = kv else { return Ok(None) };
            bytes.extend_from_slice(&kv.bytes());
        }
        Ok(Some(bytes))
    }

    /// Fits the model. For a thread of its own.
    pub(crate) fn learn(&self) -> anyhow::Result<(Card, Fitted)> {
        let fitted = fit(self.kind, &self.table, self.seed)?;
        let card = Card::make(&self.name, self.kind, &self.table, &fitted, (self.seed, now_ms()))?;
        Ok((card, fitted))
    }

    /// Stores the parts and then, in one step, the card that makes them count, in place of a damaged one if there is
    /// one of that revision. Whether nobody else was faster.
    pub(crate) async fn store(
        &self,
        client: &KvClient,
        (card, fitted): &(Card, Fitted),
        damaged: Option<Revision>,
    ) -> anyhow::Result<bool> {
        let bytes = fitted.to_bytes();
        for (part, chunk) in bytes.chunks(PART_BYTES).enumerate() {
            let key = self.part_key(&card.version, part);
            client
                .put(&key, chunk.to_vec())
                .await
                .context("store the model")?;
        }
        let key = self.card_key();
        let written = serde_json::to_vec(card).context("write the model card")?;
        let txn = Txn::new()
            // Nobody has written at revision 0: then there must be none.
            .when(Condition::unchanged(&key, damaged.unwrap_or(0)))
            .then(Op::put(&key, written))
            .otherwise(Op::get(&key));
        let answer = client.txn(txn).await.context("store the model card")?;
        Ok(answer.branch == Branch::Then)
    }
}
