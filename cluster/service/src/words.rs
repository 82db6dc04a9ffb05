//! Puts the messages of serde into words for people who do not read Rust.
//! Invariant: what the caller sent stays as it is; only names of types of ours are replaced.

const WORDS: [(&str, &str); 9] = [
    ("u8", "a whole number from 0 to 255"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number, 0 or more"),
    ("u64", "a whole number, 0 or more"),
    ("usize", "a whole number, 0 or more"),
    ("i32", "a whole number"),
    ("i64", "a whole number"),
    ("f64", "a number"),
    ("path string", "a string"),
];

/// `expected struct Lease with 2 elements` becomes `expected an object`, and so on.
pub(crate) fn plain(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once("expected ") else {
        return message.to_owned();
    };
    if let Some((_, words)) = WORDS.iter().find(|(name, _)| *name == expected) {
        return format!("{found}expected {words}");
    }
    for kind in [
        "struct ",
        "tuple struct ",
        "enum ",
        "internally tagged enum ",
        "adjacently tagged enum ",
    ] {
        if expected.starts_with(kind) {
            return format!("{found}expected an object");
        }
    }
    message.to_owned()
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn type_names_do_not_show() {
        let told = [
            (
                "invalid type: string \"5\", expected u64",
                "invalid type: string \"5\", expected a whole number, 0 or more",
            ),
            (
                "invalid length 0, expected struct Lease with 2 elements",
                "invalid length 0, expected an object",
            ),
            (
                "invalid type: null, expected a string",
                "invalid type: null, expected a string",
            ),
            ("missing field `key`", "missing field `key`"),
        ];
        for (message, words) in told {
            assert_eq!(plain(message), words);
        }
    }
}
