//! Obtains the model of a process: loads it, or learns and stores it first, and says what is in the way.
//! Invariant: a process learns once, since what has failed would fail again; what it serves is what the store has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use kvstore_client::{Error, KvClient};
use service::tasks::Tasks;

use super::card::Card;
use super::http::{App, Ready};
use super::load::{Recipe, Stored};
use crate::models::{Fitted, Predictor};

const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Of different texts in the log.
const TOLD_MAX: usize = 100;

pub(super) struct Obtaining {
    recipe: Arc<Recipe>,
    client: KvClient,
    app: Arc<App>,
    stop: Tasks,
    learned: Option<anyhow::Result<(Card, Fitted)>>,
    told: BTreeSet<String>,
}

impl Obtaining {
    pub(super) fn new(recipe: Recipe, client: KvClient, app: Arc<App>, stop: Tasks) -> Self {
        Self {
            recipe: Arc::new(recipe),
            client,
            app,
            stop,
            learned: None,
            told: BTreeSet::new(),
        }
    }

    /// Tries until the model serves or the process stops: the store may come up after this process.
    pub(super) async fn run(mut self) {
        loop {
            match self.step().await {
                Ok(ready) => return self.app.load(ready),
                Err(error) => self.tell(&error),
            }
            if tokio::time::timeout(RETRY_PAUSE, self.stop.stopping())
                .await
                .is_ok()
            {
                return;
            }
        }
    }

    async fn step(&mut self) -> anyhow::Result<Ready> {
        let damaged = match self.recipe.load(&self.client).await? {
            Stored::Whole(model) => {
                tracing::info!(model.version = model.0.version, "loaded the model from the store");
                return self.index(*model).await;
            }
            Stored::Absent => None,
            Stored::Damaged { revision, fault } => {
                self.log(
                    format!("{fault:#}"),
                    "the stored model is damaged and is learned anew",
                );
                Some(revision)
            }
        };
        self.learn().await;
        let learned = self.learned()?;
        let first = self.recipe.store(&self.client, learned, damaged).await?;
        tracing::info!(first, rows = learned.0.data.rows, "learned the model");
        // Whether this one is first or another was: the one that is stored counts.
        match self.recipe.load(&self.client).await? {
            Stored::Whole(model) => self.index(*model).await,
            Stored::Absent => Err(anyhow!("it was stored and is gone")),
            Stored::Damaged { fault, .. } => Err(fault.context("what was just stored cannot be read")),
        }
    }

    /// On a thread of its own, as also the index: each may take long.
    async fn learn(&mut self) {
        if self.learned.is_none() {
            let recipe = Arc::clone(&self.recipe);
            let work = self.stop.spawn_blocking("learn", move || recipe.learn());
            self.learned = Some(work.await.context("learn").flatten());
        }
    }

    /// Why it cannot be learned is kept for the next try, and told to the log alone.
    fn learned(&self) -> anyhow::Result<&(Card, Fitted)> {
        match &self.learned {
            Some(Ok(learned)) => Ok(learned),
            Some(Err(error)) => Err(anyhow!("{error:#}").context("it cannot be learned")),
            None => Err(anyhow!("it is not learned yet")),
        }
    }

    async fn index(&self, (card, fitted): (Card, Fitted)) -> anyhow::Result<Ready> {
        let work = self.stop.spawn_blocking("index", move || Predictor::new(fitted));
        let predictor = work.await.context("index").flatten();
        let predictor = predictor.context("make the model ready to serve")?;
        Ok(Ready::new(card, predictor))
    }

    /// That the store cannot be reached yet is nothing to tell; all else is told to whoever asks, as far as it is
    /// theirs to know, and once to the log.
    fn tell(&mut self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        if error.chain().any(is_passing) {
            tracing::debug!(error = text, "the model is not there yet");
            return;
        }
        self.app.hold(public(error));
        self.log(text, "the model cannot be served");
    }

    fn log(&mut self, text: String, what: &str) {
        if self.told.len() < TOLD_MAX && !self.told.contains(&text) {
            tracing::error!(error = text, "{what}");
            self.told.insert(text);
        }
    }
}

/// Anybody may ask: they get a sentence of ours, and nothing of what the store or a parser said, such as keys.
fn public(error: &anyhow::Error) -> String {
    if error.chain().any(|cause| cause.downcast_ref::<Error>().is_some()) {
        return "the store does not do what is needed for it, and the log of the model says why".to_owned();
    }
    error.to_string()
}

fn is_passing(cause: &(dyn std::error::Error + 'static)) -> bool {
    let store = cause.downcast_ref::<Error>();
    store.is_some_and(|error| matches!(error, Error::Unavailable { .. } | Error::Unknown { .. }))
}

#[cfg(test)]
mod tests {
    use kvstore_client::Trouble;
    use kvstore_client::wire::problem::Problem;

    use super::*;
    use crate::data::{Table, iris};
    use crate::model::http::bent::unloaded;
    use crate::models::{Kind, fit};

    fn recipe(table: Table) -> Recipe {
        Recipe {
            name: "m".to_owned(),
            kind: Kind::NaiveBayes,
            seed: 1,
            table,
        }
    }

    fn obtaining(table: Table) -> Obtaining {
        let client = KvClient::builder(["127.0.0.1:1"]).build().unwrap();
        Obtaining::new(recipe(table), client, Arc::new(unloaded()), Tasks::new())
    }

    /// What whoever asks for the model is told.
    fn told(obtaining: &Obtaining) -> String {
        obtaining.app.ready().err().unwrap().detail
    }

    #[tokio::test]
    async fn what_cannot_be_learned_is_not_learned_again() {
        let mut obtaining = obtaining(iris().pick(&[]));
        obtaining.learn().await;
        let failed = obtaining.learned.as_ref().unwrap().as_ref().unwrap_err();
        assert!(failed.to_string().contains("no rows"), "{failed:#}");
        // By now it could be learned.
        obtaining.recipe = Arc::new(recipe(iris()));
        obtaining.learn().await;
        assert!(obtaining.learned.as_ref().unwrap().is_err());
    }

    #[tokio::test]
    async fn what_is_in_the_way_is_told() {
        let mut obtaining = obtaining(iris());
        let source = Trouble::Timeout;
        let passing = anyhow::Error::new(Error::Unavailable { source }).context("look for the model");
        obtaining.tell(&passing);
        assert!(
            told(&obtaining).contains("takes a moment"),
            "{}",
            told(&obtaining)
        );
        obtaining.tell(&anyhow!("there are no rows"));
        assert!(
            told(&obtaining).contains("there are no rows"),
            "{}",
            told(&obtaining)
        );
    }

    #[tokio::test]
    async fn what_the_store_and_parsers_say_is_for_the_log() {
        let key = "predict/fitted/m/card";
        let refusal = Box::new(Problem {
            detail: format!("the token may not read {key}"),
            ..Problem::default()
        });
        let forbidden = anyhow::Error::new(Error::Forbidden(refusal)).context("look for the model");
        let contended = anyhow::Error::new(Error::Contended {
            key: key.to_owned(),
            attempts: 3,
        });
        let bent = serde_json::from_str::<Card>("{}").unwrap_err();
        let bent = anyhow::Error::new(bent).context("it cannot be read");
        for (error, inner, sentence) in [
            (forbidden, key, "the store does not do"),
            (contended, key, "the store does not do"),
            (bent, "missing field", "it cannot be read"),
        ] {
            let mut obtaining = obtaining(iris());
            obtaining.tell(&error);
            let told = told(&obtaining);
            assert!(told.contains(sentence) && !told.contains(inner), "{told}");
            let logged = obtaining.told.first().unwrap();
            assert!(logged.contains(inner), "{logged}");
        }
    }

    #[tokio::test]
    async fn what_the_library_says_is_for_the_log() {
        let mut failing = obtaining(iris());
        failing.learned = Some(Err(anyhow!("the matrix is singular").context("grow the forest")));
        let unlearned = failing.learned().unwrap_err();
        let (card, _fitted) = recipe(iris()).learn().unwrap();
        // Nothing can be found by no features.
        let bare = Table {
            rows: vec![Vec::new(); iris().len()],
            ..iris()
        };
        let bare = fit(Kind::Knn, &bare, 1).unwrap();
        let unready = failing.index((card, bare)).await.err().unwrap();
        for (error, inner, sentence) in [
            (unlearned, "singular", "it cannot be learned"),
            (unready, "index of neighbours", "make the model ready to serve"),
        ] {
            let mut obtaining = obtaining(iris());
            obtaining.tell(&error);
            let told = told(&obtaining);
            assert!(told.contains(sentence) && !told.contains(inner), "{told}");
            let logged = obtaining.told.first().unwrap();
            assert!(logged.contains(inner), "{logged}");
        }
    }
}
