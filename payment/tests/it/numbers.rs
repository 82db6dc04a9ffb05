//! Card numbers as people write them, and a look into everything that was written below a folder. For the tests of the
//! shop as well.
//! Invariant: a search that finds nothing has looked at something: what must be there is searched for as well.

use std::path::{Path, PathBuf};

/// The number with and without what may stand between its digits.
pub(crate) fn spellings(card: &str) -> [String; 4] {
    let digits: String = card.chars().filter(char::is_ascii_digit).collect();
    [
        digits,
        card.to_owned(),
        card.replace(' ', "-"),
        card.replace(' ', "."),
    ]
}

/// Every file below a folder, whole.
pub(crate) struct Written(Vec<(PathBuf, Vec<u8>)>);

impl Written {
    pub(crate) fn below(folder: &Path) -> Self {
        let mut written = Vec::new();
        read(folder, &mut written);
        let bytes: usize = written.iter().map(|(_, content)| content.len()).sum();
        assert!(bytes > 10_000, "only {bytes} bytes were written");
        Self(written)
    }

    /// The first file that holds this text.
    pub(crate) fn place_of(&self, text: &str) -> Option<&Path> {
        let holds = |content: &[u8]| {
            content
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        let found = self.0.iter().find(|(_, content)| holds(content));
        found.map(|(path, _)| path.as_path())
    }
}

fn read(folder: &Path, written: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, written);
        } else {
            let content = std::fs::read(&path).unwrap();
            written.push((path, content));
        }
    }
}
