//! Fisher's irises, embedded: 150 flowers of three species.
//! It is the variant of R and scikit-learn, which differs from the one of the UCI repository in two rows: those
//! have mistakes in copying from Fisher's paper.

use super::table::Table;

const ROWS: &str = include_str!("iris.csv");

pub fn iris() -> Table {
    let mut table = Table {
        source: "iris (Fisher 1936, as in R and scikit-learn)".to_owned(),
        notes: vec!["the two rows that the UCI copy has wrong are as Fisher printed them".to_owned()],
        features: ["sl", "sw", "pl", "pw"].map(str::to_owned).to_vec(),
        classes: ["setosa", "versicolor", "virginica"].map(str::to_owned).to_vec(),
        rows: Vec::with_capacity(150),
        labels: Vec::with_capacity(150),
    };
    for line in ROWS.lines() {
        let (numbers, class) = line.rsplit_once(',').expect("a row ends with its class");
        let cells = numbers.split(',').map(str::parse);
        let row: Result<Vec<f64>, _> = cells.collect();
        table.rows.push(row.expect("the embedded table holds numbers"));
        table.labels.push(class.parse().expect("classes are numbered"));
    }
    table
}
