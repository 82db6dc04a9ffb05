//! What a record may change: its state along the ways that there are, and of its content nothing but what is named.
//! Invariant: only names of fields and states are told, never what stands in a field.

use std::fmt::Debug;

use serde_json::{Map, Value};

pub(super) const GONE: &str = "is gone, and nothing may delete it";
pub(super) const UNREADABLE: &str = "cannot be read";

/// What is wrong with a step to `now`, where these may be `next`.
pub(super) fn way<State: Copy + Debug + PartialEq>(
    was: Option<State>,
    next: &[State],
    now: State,
) -> Option<String> {
    if next.contains(&now) {
        return None;
    }
    Some(match was {
        None => format!("began as {now:?}"),
        Some(was) if next.is_empty() => format!("was written again, as {now:?}, though {was:?} is its end"),
        Some(was) if was == now => format!("was written again as {now:?}"),
        Some(was) => format!("went from {was:?} to {now:?}"),
    })
}

/// The fields that differ, other than those that may.
pub(super) fn changed(before: &str, after: &str, may: &[&str]) -> Vec<String> {
    let object = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    let (before, after) = (object(before), object(after));
    let gone = before.keys().filter(|field| !after.contains_key(*field));
    let other = after
        .iter()
        .filter(|(field, value)| before.get(*field) != Some(value));
    let fields = gone.chain(other.map(|(field, _)| field));
    fields
        .filter(|field| !may.contains(&field.as_str()))
        .cloned()
        .collect()
}

/// As `changed`, in words.
pub(super) fn told(changed: &[String]) -> Option<String> {
    (!changed.is_empty()).then(|| format!("has changed what never changes: {}", changed.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_come_go_or_change_are_named() {
        let before = r#"{"a":1,"b":[{"c":1}],"d":1,"state":1}"#;
        let after = r#"{"a":1,"b":[{"c":2}],"e":1,"state":2}"#;
        assert_eq!(changed(before, after, &["state"]), ["d", "b", "e"]);
        assert!(changed(before, before, &[]).is_empty());
    }
}
