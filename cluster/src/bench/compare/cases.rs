//! What is measured, in which order: each case with its name, its work, and who is asked.
//! Invariant: the order of stages is that of a store that fills, so that no case sees more keys than its stage says;
//! where keys are many, they are read before they are written again, which would leave them in memory; and what leaves
//! values of another size is the last of its stage, since how many of them are left is not the same for every side.

use super::super::drive::Work;

pub(super) const VALUE_BYTES: usize = 256;
const LARGE_BYTES: usize = 4096;

/// How many keys the store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Small,
    HundredThousand,
    Million,
}

impl Stage {
    pub(super) fn keys(self) -> u32 {
        match self {
            Self::Small => 1000,
            Self::HundredThousand => 100_000,
            Self::Million => 1_000_000,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) work: Work,
    pub(super) clients: u32,
    /// Of an open loop.
    pub(super) rate: Option<u32>,
    pub(super) stage: Stage,
    /// How many times as long as those of most cases its rounds are.
    pub(super) times_as_long: u32,
    /// Whether the server that does nothing is asked as well. It answers each put and each get alike, however many keys
    /// there are, so that one case of each shape of requests is enough.
    pub(super) ceiling: bool,
    /// Whether `--quick` has it too.
    pub(super) quick: bool,
}

impl Case {
    /// What keys are drawn by: another in each case and round, so that none finds what the one before has warmed.
    pub(super) fn seed(&self, round: u32) -> u64 {
        let letters = self.name.bytes().map(u64::from);
        letters.fold(u64::from(round), |seed, letter| {
            seed.wrapping_mul(257).wrapping_add(letter)
        })
    }

    /// Whether it is puts of what a synced batch is made of, each as soon as the last is answered.
    pub(super) fn is_plain_puts(&self) -> bool {
        self.work == BASE.work && self.rate.is_none()
    }
}

const BASE: Case = Case {
    name: "",
    what: "",
    work: Work::Put { bytes: VALUE_BYTES },
    clients: 64,
    rate: None,
    stage: Stage::Small,
    times_as_long: 1,
    ceiling: false,
    quick: false,
};

const fn put(name: &'static str, clients: u32, quick: bool) -> Case {
    let what = "puts of 256 B";
    Case {
        name,
        what,
        clients,
        ceiling: true,
        quick,
        ..BASE
    }
}

const fn get(name: &'static str, clients: u32, quick: bool) -> Case {
    let what = "linearizable gets of 256 B";
    Case {
        name,
        what,
        work: Work::Get,
        clients,
        ceiling: true,
        quick,
        ..BASE
    }
}

const fn full(name: &'static str, what: &'static str, work: Work, stage: Stage) -> Case {
    Case {
        name,
        what,
        work,
        stage,
        ..BASE
    }
}

pub(super) const CASES: [Case; 24] = [
    put("put-1", 1, true),
    put("put-16", 16, false),
    put("put-64", 64, true),
    put("put-256", 256, true),
    get("get-1", 1, true),
    get("get-16", 16, false),
    get("get-64", 64, true),
    get("get-256", 256, false),
    Case {
        name: "mix-64",
        what: "nine linearizable gets to one put",
        work: Work::Mix { bytes: VALUE_BYTES },
        ceiling: true,
        ..BASE
    },
    Case {
        name: "counter-64",
        what: "all add to one number",
        work: Work::Counter,
        quick: true,
        ..BASE
    },
    Case {
        name: "txn-10-64",
        what: "ten keys put at once",
        work: Work::Txn {
            keys: 10,
            bytes: VALUE_BYTES,
        },
        ..BASE
    },
    Case {
        name: "range-1000",
        what: "pages of 1000 rows, 4 clients",
        work: Work::Range { rows: 1000 },
        clients: 4,
        ..BASE
    },
    Case {
        name: "watch-500",
        what: "one key seen by 500 watchers; an operation is a delivery",
        work: Work::Watch { watchers: 500 },
        clients: 1,
        ..BASE
    },
    Case {
        name: "open-put-1000",
        what: "puts at 1000 a second",
        rate: Some(1000),
        quick: true,
        ..BASE
    },
    Case {
        name: "open-put-3000",
        what: "puts at 3000 a second",
        rate: Some(3000),
        ..BASE
    },
    Case {
        name: "open-get-5000",
        what: "linearizable gets at 5000 a second",
        work: Work::Get,
        rate: Some(5000),
        ..BASE
    },
    // So long that the merging of tables and versions falls into it, which short rounds leave to the time after them.
    Case {
        name: "put-64-long",
        what: "puts of 256 B, five times as long a round",
        times_as_long: 5,
        ..BASE
    },
    Case {
        what: "puts of 4 KiB",
        work: Work::Put { bytes: LARGE_BYTES },
        name: "put-4k-64",
        ceiling: true,
        ..BASE
    },
    full(
        "get-64-100k",
        "gets among 100 000 keys",
        Work::Get,
        Stage::HundredThousand,
    ),
    full(
        "put-64-100k",
        "puts among 100 000 keys",
        BASE.work,
        Stage::HundredThousand,
    ),
    full(
        "get-64-1m",
        "gets among 1 000 000 keys",
        Work::Get,
        Stage::Million,
    ),
    full(
        "put-64-1m",
        "puts among 1 000 000 keys",
        BASE.work,
        Stage::Million,
    ),
    full(
        "mix-64-1m",
        "nine gets to one put among 1 000 000 keys",
        Work::Mix { bytes: VALUE_BYTES },
        Stage::Million,
    ),
    Case {
        name: "range-1000-1m",
        what: "pages of 1000 rows among 1 000 000 keys, 4 clients",
        work: Work::Range { rows: 1000 },
        clients: 4,
        stage: Stage::Million,
        ..BASE
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn many_keys_are_read_before_they_are_written_again() {
        for stage in [Stage::HundredThousand, Stage::Million] {
            let works: Vec<Work> = CASES
                .iter()
                .filter(|case| case.stage == stage)
                .map(|case| case.work)
                .collect();
            let place = |of: fn(&Work) -> bool| works.iter().position(of).unwrap();
            let (get, put) = (
                place(|work| *work == Work::Get),
                place(|work| matches!(work, Work::Put { .. })),
            );
            assert!(get < put, "{stage:?}: {works:?}");
        }
    }

    #[test]
    fn no_case_finds_values_of_another_size_than_those_filled_in() {
        for cases in CASES.windows(2) {
            let bytes = match cases[0].work {
                Work::Put { bytes } | Work::Mix { bytes } | Work::Txn { bytes, .. } => bytes,
                _ => VALUE_BYTES,
            };
            assert!(
                bytes == VALUE_BYTES || cases[1].stage != cases[0].stage,
                "{} comes after {}",
                cases[1].name,
                cases[0].name
            );
        }
    }

    #[test]
    fn each_shape_that_a_server_which_does_nothing_can_serve_has_a_ceiling() {
        let shapes = CASES.into_iter().filter(|case| case.rate.is_none());
        let served =
            shapes.filter(|case| matches!(case.work, Work::Put { .. } | Work::Get | Work::Mix { .. }));
        for case in served {
            let same = |other: &Case| other.work == case.work && other.clients == case.clients;
            let has_one = CASES.iter().any(|other| same(other) && other.ceiling);
            assert!(has_one, "{}", case.name);
        }
    }

    #[test]
    fn a_long_case_does_what_a_short_one_does() {
        let long = CASES.into_iter().filter(|case| case.times_as_long > 1);
        let names: Vec<&str> = long
            .inspect(|case| {
                let short = case.name.strip_suffix("-long").unwrap();
                let short = CASES.into_iter().find(|other| other.name == short).unwrap();
                let of = |case: &Case| (case.work, case.clients, case.rate, case.stage);
                assert_eq!(of(case), of(&short), "{}", case.name);
                assert!(!case.quick, "{}", case.name);
            })
            .map(|case| case.name)
            .collect();
        assert_eq!(names, ["put-64-long"]);
    }

    #[test]
    fn no_two_measurements_draw_alike() {
        let seeds = CASES
            .into_iter()
            .flat_map(|case| (0..100).map(move |round| case.seed(round)));
        let different: BTreeSet<u64> = seeds.collect();
        assert_eq!(different.len(), 100 * CASES.len());
    }
}
