//! The checker of histories is checked: it finds planted faults, and it agrees with trying out all orders.
//! Invariant: it accepts a history if and only if some order of the operations explains it.

use crate::load::{History, Operation, Random, What};

fn write(start: u64, end: Option<u64>, value: &str) -> Operation {
    let what = What::Write {
        value: value.to_owned(),
        revision: None,
    };
    Operation { start, end, what }
}

fn read(start: u64, end: u64, value: Option<&str>) -> Operation {
    let seen = value.map(|value| (value.to_owned(), value.parse().unwrap()));
    Operation {
        start,
        end: Some(end),
        what: What::Read { seen },
    }
}

fn judge(operations: Vec<Operation>) -> Result<(), String> {
    History {
        operations,
        denied: vec!["99".to_owned()],
    }
    .linearizable()
}

#[test]
fn a_stale_read_is_found() {
    let fine = vec![
        write(1, Some(2), "1"),
        write(3, Some(6), "2"),
        read(4, 5, Some("1")),
        read(7, 8, Some("2")),
    ];
    judge(fine.clone()).unwrap();
    let mut stale = fine;
    stale.push(read(9, 10, Some("1")));
    judge(stale).unwrap_err();
    // Two readers that disagree about the order while the write is still under way.
    judge(vec![
        write(1, Some(9), "1"),
        read(2, 3, Some("1")),
        read(4, 5, None),
    ])
    .unwrap_err();
}

#[test]
fn an_open_write_may_happen_late_or_never_but_not_come_undone() {
    judge(vec![
        write(1, None, "1"),
        read(20, 21, None),
        read(30, 31, Some("1")),
    ])
    .unwrap();
    judge(vec![write(1, None, "1"), read(20, 21, None)]).unwrap();
    judge(vec![
        write(1, None, "1"),
        read(20, 21, Some("1")),
        read(30, 31, None),
    ])
    .unwrap_err();
}

#[test]
fn values_from_nowhere_are_found() {
    judge(vec![read(1, 2, Some("7"))]).unwrap_err();
    assert!(
        judge(vec![read(1, 2, Some("99"))])
            .unwrap_err()
            .contains("surely did not happen")
    );
    judge(vec![read(1, 2, Some("1")), write(3, Some(4), "1")]).unwrap_err();
}

#[test]
fn revisions_that_contradict_time_are_found() {
    let at = |start, value: &str, revision| Operation {
        start,
        end: Some(start + 1),
        what: What::Write {
            value: value.to_owned(),
            revision: Some(revision),
        },
    };
    let check = |operations| {
        History {
            operations,
            denied: Vec::new(),
        }
        .check()
    };
    check(vec![at(1, "1", 1), at(5, "2", 2), read(7, 8, Some("2"))]).unwrap();
    check(vec![at(1, "1", 2), at(5, "2", 1)]).unwrap_err();
    check(vec![at(1, "1", 5), read(7, 8, Some("1"))]).unwrap_err();
}

/// Whether some order explains the operations: tried one by one.
fn some_order(rest: &[Operation], current: Option<&str>) -> bool {
    let finished = rest.iter().all(|operation| operation.end.is_none());
    if finished {
        return true;
    }
    let first_end = rest.iter().filter_map(|operation| operation.end).min().unwrap();
    (0..rest.len()).any(|index| {
        let operation = &rest[index];
        // It cannot come next if another had ended before it began.
        if operation.start > first_end {
            return false;
        }
        let mut others = rest.to_vec();
        others.remove(index);
        match &operation.what {
            What::Write { value, .. } => some_order(&others, Some(value)),
            What::Read { seen } => {
                seen.as_ref().map(|(value, _)| value.as_str()) == current && some_order(&others, current)
            }
        }
    })
}

#[test]
fn it_agrees_with_trying_out_all_orders() {
    let mut random = Random::from(1);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..20_000 {
        // Times are all different, as those of a clock with nanoseconds are.
        let mut times: Vec<u64> = (1..=12).collect();
        let mut time = || {
            let index = usize::try_from(random.below(times.len() as u64)).unwrap();
            times.swap_remove(index)
        };
        let spans: Vec<(u64, u64)> = (0..6)
            .map(|_| (time(), time()))
            .map(|(a, b)| (a.min(b), a.max(b)))
            .collect();
        let writes = 1 + random.below(3);
        let mut operations = Vec::new();
        for (n, (start, end)) in (0..).zip(spans) {
            operations.push(if n < writes {
                let end = (random.below(4) > 0).then_some(end);
                write(start, end, &n.to_string())
            } else {
                let seen = random.below(writes + 1).to_string();
                read(start, end, (seen != writes.to_string()).then_some(seen.as_str()))
            });
        }
        let expected = some_order(&operations, None);
        let verdict = judge(operations.clone());
        assert_eq!(verdict.is_ok(), expected, "{verdict:?}: {operations:#?}");
        *(if expected { &mut good } else { &mut bad }) += 1;
    }
    assert!(
        good > 500 && bad > 500,
        "{good} good and {bad} bad histories are too few of one kind"
    );
}
