//! Figures made up for tests: of all cases, with large numbers.
//! Invariant: nothing here was measured.

use super::super::closed_loop::Figures;
use super::super::drive::Seen;
use super::super::goal::Spread;
use super::cases::CASES;
use super::report::{Ceilings, Figure, Memory, Middle, Ratios, Report, Round, Row, ServiceRow};
use crate::arena::Usage;

pub(super) fn round(operations_per_s: f64) -> Round {
    Round {
        leader_at: Some(0),
        seen: Seen {
            figures: Figures {
                seconds: 4.0,
                operations: 1000,
                operations_per_s,
                p50_ms: 99.99,
                p99_ms: 10_000.0,
                p999_ms: 60_000.0,
                max_ms: 60_000.0,
                stall_ms: 60_000.0,
            },
            operations_in_all: 2000,
            errors: [("no answer".to_owned(), 4321)].into(),
            generator_cpu_s: 1.0,
            generator_s: 4.0,
        },
        usage: Usage {
            cpu_s: 30.0,
            written_bytes: 400_000_000,
            resident_bytes: 1 << 30,
            anonymous_bytes: 1 << 29,
        },
    }
}

pub(super) fn figure() -> Figure {
    let rounds = [100_001.0, 123_456.0, 150_002.0].map(round).to_vec();
    Figure::of(rounds).expect("there are rounds")
}

pub(super) fn report() -> Report {
    let spread = Spread {
        min: 0.5,
        max: 150.25,
    };
    let rows = CASES.into_iter().map(|case| Row {
        name: case.name.to_owned(),
        what: case.what.to_owned(),
        clients: case.clients,
        rate: case.rate,
        keys: case.stage.keys(),
        menagerie: figure(),
        etcd: case.quick.then(figure),
        ceiling: case.ceiling.then(figure),
        ratios: Ratios {
            to_etcd: (case.quick && case.rate.is_none()).then_some(136.0),
            to_etcd_spread: (case.quick && case.rate.is_none()).then_some(spread),
            p50_to_etcd: case.quick.then_some(0.25),
            p99_to_etcd: case.quick.then_some(0.377),
            cpu_to_etcd: case.quick.then_some(0.626),
            to_ceiling: case.ceiling.then_some(0.75),
            to_ceiling_spread: case.ceiling.then_some(spread),
            to_synced: case.is_plain_puts().then_some(0.127),
        },
    });
    let middle = Middle::of([10.0, 20.0, 31.0]).expect("there are values");
    Report {
        version: "1.0.0",
        etcd_version: Some("3.5.1".to_owned()),
        left_out: vec!["the moon".to_owned()],
        rounds: 3,
        seconds_each: 4.0,
        ceilings: Ceilings {
            cores: 2,
            fdatasyncs_per_s: middle,
            synced_batches_per_s: middle,
        },
        rows: rows.collect(),
        services: vec![ServiceRow {
            name: "predictions".to_owned(),
            what: "predictions".to_owned(),
            operations_per_s: middle,
            p50_ms: middle,
            p99_ms: middle,
            errors: 0,
        }],
        memory: vec![Memory {
            keys: 1000,
            menagerie_bytes: 50 << 20,
            etcd_bytes: Some(60 << 20),
            menagerie_anonymous_bytes: 40 << 20,
            etcd_anonymous_bytes: Some(30 << 20),
        }],
        goals: Vec::new(),
    }
}
