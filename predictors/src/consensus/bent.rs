//! What a model says that is no forecast.
//! Invariant: it is taken in whole, or the model is absent.

use service::config::ConsensusConfig;
use service::secrets::Secrets;

use super::ask::Asker;
use super::records::OpenRecord;
use crate::bent::feed;

#[test]
fn answers_of_models() {
    let secrets = Secrets::generate().expect("the operating system has random bytes to give");
    let config = ConsensusConfig::default();
    let asker = Asker::new(&config, &secrets);
    let whole = [
        r#"{"prediction": 0, "probabilities": [0.7, 2e-1, 0.1], "classes": ["setosa", "versicolor", "virginica"]}"#,
        r#"{"probabilities": [1, 0, 0.0]}"#,
    ];
    for text in whole {
        assert!(asker.read(text.as_bytes()).is_ok(), "absent: {text}");
    }
    feed(&whole.map(|text| text.as_bytes().to_vec()), |bytes| {
        if let Ok(forecast) = asker.read(bytes) {
            let sum: u64 = forecast.ppm().iter().copied().map(u64::from).sum();
            assert_eq!((forecast.ppm().len(), sum), (config.classes.len(), 1_000_000));
        }
    });
}

#[test]
fn open_rounds() {
    feed(&[b"knn,tree;0123".to_vec()], |bytes| {
        drop(OpenRecord::read(bytes));
    });
}
