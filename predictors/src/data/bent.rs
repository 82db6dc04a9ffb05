//! Tables as no honest person writes them.
//! Invariant: each is read or refused, and whatever was read can be learned from and asked about.

use super::{CsvOptions, Impute, Table, read_csv};
use crate::bent::feed;
use crate::models::{Kind, fit};

/// Learning is slow: only from tables that were hardly bent, and by the models that are quick.
fn learn(table: &Table) {
    for kind in [Kind::NaiveBayes, Kind::Knn, Kind::Tree] {
        if let Ok(fitted) = fit(kind, table, 1) {
            assert!(fitted.fits(table.features.len(), table.classes.len()), "{kind}");
            drop(fitted.predict_all(&table.rows));
        }
    }
}

fn feed_tables(whole: &str, options: &CsvOptions) {
    let read = |bytes: &[u8]| read_csv(bytes, "bent.csv", options);
    assert!(read(whole.as_bytes()).is_ok(), "refused: {whole}");
    feed(&[whole.as_bytes().to_vec()], |bytes| {
        if let Ok(table) = read(bytes) {
            learn(&table);
        }
    });
}

const ROWS: &str = "\
    x,y,kind\n1,2.5,a\n-3e2,4,b\n5,6,a\n7,8,b\n9,10,a\n0,-0,b\n1.5,2,a\n2,\"3\",b\n4,1e308,a\n4,-1e308,b\n1,1,\"a\"\n";

#[test]
fn tables() {
    feed_tables(ROWS, &CsvOptions::default());
}

#[test]
fn tables_with_gaps() {
    let gaps = ROWS.replace("5,6,", "?,NA,").replace("x,y,kind", "kind,y,x");
    let gaps = gaps.replace("\"a\"", "a");
    let gaps = gaps.replace(",a\n", ",1\n").replace(",b\n", ",2\n");
    let options = CsvOptions {
        label: Some("x".to_owned()),
        ignore: vec!["kind".to_owned()],
        impute: Some(Impute::Mean),
    };
    feed_tables(&gaps, &options);
}
