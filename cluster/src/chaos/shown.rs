//! What reads have shown of many keys at one revision, beside what the watchers have seen happen up to there.
//! Invariant: a read that names a revision shows all of that, and nothing that came later; so one that is torn is found,
//! and one of the past that history no longer has.
//! Pure: it knows neither clock nor store.

use std::collections::BTreeMap;

use kvstore_client::wire::kv::KeyValue;

/// All keys that begin like this, as they were at a revision.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    prefix: String,
    revision: u64,
    held: BTreeMap<String, String>,
}

impl Shown {
    pub(super) fn of<'read>(
        prefix: String,
        revision: u64,
        kvs: impl IntoIterator<Item = &'read KeyValue>,
    ) -> Self {
        let text = |kv: &KeyValue| String::from_utf8_lossy(&kv.bytes()).into_owned();
        let held = kvs.into_iter().map(|kv| (kv.key.clone(), text(kv)));
        Self {
            prefix,
            revision,
            held: held.collect(),
        }
    }

    fn is_like(&self, state: &BTreeMap<&str, &str>) -> bool {
        let there = below(state, &self.prefix);
        let held = self.held.iter();
        held.map(|(key, value)| (key.as_str(), value.as_str())).eq(there)
    }
}

/// The first of these that is not what was there. `changes` are all that ever happened, in their order.
pub(super) fn judge<'seen>(
    shown: &[Shown],
    changes: impl IntoIterator<Item = (u64, &'seen str, Option<&'seen str>)>,
) -> Option<String> {
    let mut shown: Vec<&Shown> = shown.iter().collect();
    shown.sort_by_key(|shown| shown.revision);
    let mut changes = changes.into_iter().peekable();
    let mut state: BTreeMap<&str, &str> = BTreeMap::new();
    for shown in shown {
        while let Some((_, key, value)) = changes.next_if(|(revision, ..)| *revision <= shown.revision) {
            match value {
                Some(value) => state.insert(key, value),
                None => state.remove(key),
            };
        }
        if !shown.is_like(&state) {
            let there: BTreeMap<&str, &str> = below(&state, &shown.prefix).collect();
            return Some(format!(
                "a read of {} at revision {} shows {:?}, and there was {there:?}",
                shown.prefix, shown.revision, shown.held
            ));
        }
    }
    None
}

fn below<'state>(
    state: &'state BTreeMap<&str, &str>,
    prefix: &'state str,
) -> impl Iterator<Item = (&'state str, &'state str)> {
    let from = state.range(prefix..).map(|(key, value)| (*key, *value));
    from.take_while(move |(key, _)| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside these there is a key that no read below `a/` shows.
    const CHANGES: [(u64, &str, Option<&str>); 6] = [
        (3, "a/1", Some("1")),
        (3, "a/2", Some("1")),
        (4, "b/1", Some("1")),
        (5, "a/1", Some("2")),
        (6, "a/2", Some("2")),
        (8, "a/2", None),
    ];

    fn shown(revision: u64, held: &[(&str, &str)]) -> Shown {
        let held = held.iter().map(|(key, value)| KeyValue {
            key: (*key).to_owned(),
            value: Some((*value).to_owned().into()),
            ..KeyValue::default()
        });
        let held: Vec<KeyValue> = held.collect();
        Shown::of("a/".to_owned(), revision, &held)
    }

    #[test]
    fn what_was_there_may_be_shown_in_whatever_order_it_was_read() {
        let all = [
            shown(9, &[("a/1", "2")]),
            shown(8, &[("a/1", "2")]),
            shown(7, &[("a/1", "2"), ("a/2", "2")]),
            shown(2, &[]),
            shown(5, &[("a/1", "2"), ("a/2", "1")]),
            shown(4, &[("a/1", "1"), ("a/2", "1")]),
        ];
        assert_eq!(judge(&all, CHANGES), None);
        assert_eq!(judge(&[], CHANGES), None);
    }

    #[test]
    fn a_read_that_is_torn_or_of_another_revision_is_found() {
        for wrong in [
            // The later of two writes without the earlier.
            shown(6, &[("a/1", "1"), ("a/2", "2")]),
            // Only half of what was written at once.
            shown(3, &[("a/1", "1")]),
            // More than there was by then, and less.
            shown(4, &[("a/1", "2"), ("a/2", "1")]),
            shown(5, &[("a/1", "1"), ("a/2", "1")]),
            // What was gone, and what was not yet there.
            shown(8, &[("a/1", "2"), ("a/2", "2")]),
            shown(2, &[("a/1", "1"), ("a/2", "1")]),
            // What history has lost.
            shown(7, &[("a/1", "2")]),
            shown(7, &[]),
        ] {
            let right = shown(4, &[("a/1", "1"), ("a/2", "1")]);
            let told = judge(&[right, wrong.clone()], CHANGES).unwrap();
            let words = format!("a read of a/ at revision {} shows", wrong.revision);
            assert!(told.starts_with(&words), "{told}");
        }
    }
}
