//! The five models: as good as others' of the same kind, and real probabilities wherever one asks.

use std::time::{Duration, Instant};

use predictors::data::{CsvOptions, Impute, Table, iris, read_csv};
use predictors::evaluate::{Plan, cross_validated, evaluate, html};
use predictors::models::{Fitted, Kind, Predictor, fit};
use proptest::prelude::*;

/// What scikit-learn reaches on the same flowers.
const REFERENCE: [(Kind, f64); 5] = [
    (Kind::NaiveBayes, 0.955),
    (Kind::Knn, 0.950),
    (Kind::Logistic, 0.955),
    (Kind::Tree, 0.945),
    (Kind::Forest, 0.951),
];

#[test]
fn each_model_is_within_a_point_of_the_reference() {
    for (kind, reference) in REFERENCE {
        let figures = cross_validated(kind, &iris(), 5, 20, 7).unwrap().unwrap();
        assert!(
            (figures.accuracy - reference).abs() <= 0.01,
            "{kind} reaches {}, the reference {reference}",
            figures.accuracy
        );
        assert_eq!(figures.judged, 3000);
        let counted: u64 = figures.confusion.iter().flatten().sum();
        assert_eq!(counted, 3000);
    }
}

/// A forest says nothing impossible, although its trees do, and tells how each of them came by its rows.
#[test]
fn votes_are_smoothed_and_large_tables_are_drawn_from() {
    let said = serving(Kind::Forest).predict(&[5.1, 3.5, 1.4, 0.2]);
    assert!(said[0] > 0.98 && said[1] > 0.0 && said[2] > 0.0, "{said:?}");
    assert_eq!(Kind::Forest.sampling(10_000), None);
    let drawn = Kind::Forest.sampling(1_000_000).unwrap();
    assert!(
        drawn.starts_with("Each tree grew on 10000 rows, drawn from all 1000000"),
        "{drawn}"
    );
    assert_eq!(Kind::Tree.sampling(1_000_000), None);
}

fn sound(probabilities: &[f64]) -> bool {
    let sum: f64 = probabilities.iter().sum();
    probabilities.iter().all(|p| p.is_finite() && *p >= 0.0) && (sum - 1.0).abs() < 1e-9
}

fn finite() -> impl Strategy<Value = f64> {
    prop_oneof![
        -10.0_f64..30.0,
        prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::SUBNORMAL,
        Just(f64::MAX),
        Just(f64::MIN),
    ]
}

fn serving(kind: Kind) -> Predictor {
    Predictor::new(fit(kind, &iris(), 1).unwrap()).unwrap()
}

#[test]
fn probabilities_are_finite_for_every_finite_row() {
    let models: Vec<Predictor> = Kind::ALL.into_iter().map(serving).collect();
    proptest!(ProptestConfig::with_cases(2000), |(row in prop::collection::vec(finite(), 4))| {
        for (model, kind) in models.iter().zip(Kind::ALL) {
            let said = model.predict(&row);
            prop_assert!(sound(&said), "{} says {:?} of {:?}", kind, said, row);
        }
    });
}

#[test]
fn what_is_stored_predicts_the_same() {
    let table = iris();
    for kind in Kind::ALL {
        let fitted = fit(kind, &table, 1).unwrap();
        let bytes = fitted.to_bytes();
        let read = Fitted::from_bytes(&bytes).unwrap();
        assert_eq!(read.to_bytes(), bytes);
        let said = read.predict_all(&table.rows).unwrap();
        assert_eq!(said, fitted.predict_all(&table.rows).unwrap());
        let one = Predictor::new(read).unwrap();
        assert_eq!(one.predict(&table.rows[0]), said[0], "{kind}");
        assert!(Fitted::from_bytes(&bytes[..bytes.len() / 2]).is_err());
        assert!(Fitted::from_bytes(&[]).is_err());
    }
}

#[test]
fn a_small_evaluation_has_every_model_and_a_page() {
    let plan = Plan {
        repeats: 2,
        folds: 5,
        seed: 3,
    };
    let mut steps = 0;
    let evaluation = evaluate(&iris(), plan, &mut || steps += 1).unwrap();
    assert_eq!(steps, 10);
    assert!(evaluation.consensus.figures.accuracy > 0.93, "{evaluation:?}");
    assert!(evaluation.consensus.figures.log_loss < 0.2, "{evaluation:?}");
    let page = html(&evaluation).unwrap();
    for word in ["naive-bayes", "consensus", "virginica", "<svg"] {
        assert!(page.contains(word), "no {word}");
    }
    assert!(!page.contains("<script"));
}

fn read(text: &str, options: &CsvOptions) -> Result<Table, String> {
    read_csv(text.as_bytes(), "p.csv", options).map_err(|error| format!("{error:#}"))
}

/// Like the penguins of Palmer station: gaps, and columns of words.
fn penguins() -> String {
    let mut text = "species,island,bill,mass\n".to_owned();
    for n in 0..12 {
        let species = ["Adelie", "Gentoo"][n % 2];
        let row = format!("{species},Biscoe,{}.5,{}\n", 38 + n, 3700 + 100 * (n % 2));
        text.push_str(&row);
    }
    text
}

#[test]
fn a_table_of_words_and_gaps_is_refused_with_its_place_or_mended() {
    let label = CsvOptions {
        label: Some("species".to_owned()),
        ..CsvOptions::default()
    };
    insta::assert_snapshot!(read(&penguins(), &label).unwrap_err(), @r#"p.csv:2: column "island": "Biscoe" is no number; leave the column out with --ignore island, or name it as the label with --label island"#);
    let without = CsvOptions {
        ignore: vec!["island".to_owned()],
        ..label
    };
    let table = read(&penguins(), &without).unwrap();
    assert_eq!(table.classes, ["Adelie", "Gentoo"]);
    assert_eq!(table.features, ["bill", "mass"]);
    assert_eq!(table.len(), 12);
    let gaps = penguins().replace("38.5", "NA");
    insta::assert_snapshot!(read(&gaps, &without).unwrap_err(), @r#"p.csv:2: column "bill": the number is missing; remove the row, or fill gaps with --impute mean"#);
    let mended = CsvOptions {
        impute: Some(Impute::Mean),
        ..without
    };
    let table = read(&gaps, &mended).unwrap();
    assert!((table.rows[0][0] - 44.5).abs() < 1e-9, "{:?}", table.rows[0]);
    assert_eq!(table.notes, ["1 missing numbers are the mean of their column"]);
}

#[test]
fn every_other_fault_of_a_table_names_its_place() {
    let told = |text: &str| read(text, &CsvOptions::default()).unwrap_err();
    insta::assert_snapshot!(told("1,2,3\n4,5,6\n"), @r#"p.csv:1: the first line must name the columns, but "1" is a number"#);
    insta::assert_snapshot!(told("a,a,y\n"), @r#"p.csv:1: two columns are called "a""#);
    insta::assert_snapshot!(told("a,b,y\n1,2\n"), @"p.csv:2: 2 columns, but the first line names 3");
    insta::assert_snapshot!(told("a,y\n1,x\n2,\n"), @r#"p.csv:3: column "y": the label is missing; remove this row"#);
    insta::assert_snapshot!(told("a,y\n1,x\n1e999,x\n"), @r#"p.csv:3: column "a": "1e999" is not a finite number"#);
    insta::assert_snapshot!(told("a,y\n1,x\n"), @"p.csv: 1 rows are too few to learn from; it takes at least 10");
    let one_class = "a,y\n".to_owned() + &"1,x\n".repeat(20);
    insta::assert_snapshot!(told(&one_class), @"p.csv: the label has 1 different values; there may be 2 to 32 (is it the right column?)");
}

#[test]
fn any_table_can_be_learned_by_all() {
    let options = CsvOptions {
        label: Some("species".to_owned()),
        ignore: vec!["island".to_owned()],
        impute: None,
    };
    let table = read(&penguins(), &options).unwrap();
    for kind in Kind::ALL {
        let fitted = fit(kind, &table, 1).unwrap();
        for said in fitted.predict_all(&table.rows).unwrap() {
            assert!(sound(&said) && said.len() == 2, "{kind} {said:?}");
        }
    }
}

/// Labels that have nothing to do with the features: every model is ejected again and again.
#[test]
fn data_that_nobody_masters_is_still_judged() {
    let mut text = "a,b,y\n".to_owned();
    for n in 0..400_u64 {
        let drawn = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let label = if drawn.is_multiple_of(2) { "x" } else { "y" };
        let row = format!("{},{},{label}\n", drawn % 97, drawn % 89);
        text.push_str(&row);
    }
    let plan = Plan {
        repeats: 1,
        folds: 5,
        seed: 1,
    };
    let table = read(&text, &CsvOptions::default()).unwrap();
    let evaluation = evaluate(&table, plan, &mut || {}).unwrap();
    assert_eq!(evaluation.consensus.figures.judged, 400);
}

fn labelled(rows: Vec<Vec<f64>>, labels: Vec<usize>) -> Table {
    Table {
        source: "a test".to_owned(),
        notes: Vec::new(),
        features: (0..rows[0].len()).map(|feature| format!("f{feature}")).collect(),
        classes: vec!["a".to_owned(), "b".to_owned()],
        rows,
        labels,
    }
}

/// By each of these, some index grows as deep as there are rows.
#[test]
fn neighbours_among_many_equal_numbers_are_found_at_once() {
    let flat = |count: usize| vec![vec![1.0, 2.0]; count];
    let number = |at: usize| f64::from(u32::try_from(at).unwrap());
    let zeros = |at: usize| if at.is_multiple_of(10) { number(at) } else { 0.0 };
    let tables = [
        ("equal rows", flat(200_000)),
        (
            "a column of zeros",
            (0..100_000).map(|at| vec![zeros(at)]).collect(),
        ),
        (
            "a column of zeros beside another",
            (0..100_000)
                .map(|at| vec![zeros(at), number(at * 7919 % 100_003)])
                .collect(),
        ),
        (
            "rows in their order",
            (0..100_000).map(|at| vec![number(at)]).collect(),
        ),
    ];
    for (what, rows) in tables {
        let labels = (0..rows.len()).map(|at| at % 2).collect();
        let (first, began) = (rows[0].clone(), Instant::now());
        let fitted = fit(Kind::Knn, &labelled(rows, labels), 1).unwrap();
        let said = Predictor::new(fitted).unwrap().predict(&first);
        assert!(sound(&said), "{what}: {said:?}");
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "{what}: {:?}",
            began.elapsed()
        );
    }
}

#[test]
fn equal_rows_share_the_votes_that_are_left() {
    let mut rows = vec![vec![0.0]; 3];
    rows.extend(vec![vec![1.0]; 10]);
    rows.push(vec![9.0]);
    // All of the first are `a`, four in ten of the second, and the last is `b`.
    let labels = vec![0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1];
    let model = Predictor::new(fit(Kind::Knn, &labelled(rows, labels), 1).unwrap()).unwrap();
    let near = |said: Vec<f64>, wanted: [f64; 2]| {
        let close = said
            .iter()
            .zip(wanted)
            .all(|(said, wanted)| (said - wanted).abs() < 1e-12);
        assert!(close, "{said:?}, not {wanted:?}");
    };
    near(model.predict(&[0.0]), [(3.0 + 2.0 * 0.4) / 5.0, 2.0 * 0.6 / 5.0]);
    near(model.predict(&[1.0]), [0.4, 0.6]);
    near(model.predict(&[8.0]), [4.0 * 0.4 / 5.0, (1.0 + 4.0 * 0.6) / 5.0]);
}
