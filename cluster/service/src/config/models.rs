//! What must hold for the models and the consensus, beyond the bounds.
//! Invariant: what is accepted here can be started; a file to learn from is looked at only then.

use std::collections::{BTreeSet, HashMap};

use super::check::{Faults, holder};
use super::place::Step;
use super::predictors::Behaviour;
use super::{Config, PredictorConfig};

const KINDS: [&str; 5] = ["naive-bayes", "knn", "logistic", "tree", "forest"];
const NAME_BYTES_MAX: usize = 63;
const FEATURES_MAX: usize = 64;
const CLASSES_MAX: usize = 32;

pub(super) fn check(config: &Config, faults: &mut Faults<'_>) {
    let mut seen = HashMap::new();
    for (index, model) in config.models.iter().enumerate() {
        for (key, fault) in faults_of(model) {
            faults.add(
                &[Step::Key("predictor"), Step::Index(index), Step::Key(key)],
                fault,
            );
        }
        let name = &model.name;
        let path = [Step::Key("predictor"), Step::Index(index), Step::Key("name")];
        if seen.insert(name.as_str(), index).is_some() {
            faults.add(&path, format!("name = \"{name}\" is taken already"));
        } else if let Some(holder) = holder(config, name) {
            // Earlier versions took such a name, so somebody may have it.
            let fault = format!(
                "name = \"{name}\" is taken already, by {holder}: call the model something else, such as \
                 \"model-{name}\". It joins the consensus anew; DELETE /models/{name} there lets the old one leave"
            );
            faults.add(&path, fault);
        }
    }
    words(&config.consensus.features, "features", (1, FEATURES_MAX), faults);
    words(&config.consensus.classes, "classes", (2, CLASSES_MAX), faults);
    for (index, host) in config.consensus.model_hosts.iter().enumerate() {
        if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) {
            let path = [
                Step::Key("consensus"),
                Step::Key("model_hosts"),
                Step::Index(index),
            ];
            faults.add(
                &path,
                format!("model_hosts: \"{host}\" must be a host or host:port"),
            );
        }
    }
}

fn faults_of(model: &PredictorConfig) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let name = &model.name;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(sound) {
        let fault = format!("name = \"{name}\" must be 1 to 63 small letters, digits or hyphens");
        faults.push(("name", fault));
    }
    if !KINDS.contains(&model.model.as_str()) {
        let kinds = KINDS.join(", ");
        faults.push((
            "model",
            format!("model = \"{}\" must be one of {kinds}", model.model),
        ));
    }
    if !["", "mean"].contains(&model.impute.as_str()) {
        faults.push((
            "impute",
            format!("impute = \"{}\" must be \"mean\" or empty", model.impute),
        ));
    }
    if !model.behave.is_empty()
        && let Err(fault) = model.behave.parse::<Behaviour>()
    {
        faults.push(("behave", format!("behave = \"{}\" {fault}", model.behave)));
    }
    faults
}

fn words(words: &[String], key: &'static str, (min, max): (usize, usize), faults: &mut Faults<'_>) {
    let path = [Step::Key("consensus"), Step::Key(key)];
    if !(min..=max).contains(&words.len()) {
        faults.add(&path, format!("consensus.{key} must name {min} to {max}"));
    }
    let distinct: BTreeSet<&String> = words.iter().collect();
    if distinct.len() < words.len() || words.iter().any(String::is_empty) {
        faults.add(
            &path,
            format!("consensus.{key} must be names that are all different"),
        );
    }
}
