//! Finds the line of a setting, so that every complaint about the file names it.
//! Invariant: an unknown place falls back to the nearest known one above it, never to a wrong line.
//! It must not know any setting.

use anyhow::anyhow;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::words;

pub(super) struct Places<'text> {
    text: &'text str,
    origin: &'text str,
    root: Spanned<DeTable<'text>>,
}

/// A step into the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Key(&'static str),
    Index(usize),
}

impl<'text> Places<'text> {
    pub(super) fn read(text: &'text str, origin: &'text str) -> anyhow::Result<Self> {
        match DeTable::parse(text) {
            Ok(root) => Ok(Self { text, origin, root }),
            Err(error) => {
                let line = line_at(text, error.span().map_or(0, |span| span.start));
                Err(anyhow!("{origin}:{line}: {}", error.message().trim()))
            }
        }
    }

    /// The complaint of the deserializer, with its place and in the words of this file.
    pub(super) fn explain(&self, error: &toml::de::Error) -> anyhow::Error {
        let line = line_at(self.text, error.span().map_or(0, |span| span.start));
        let message = error.message().trim();
        let Some((key, expected)) = message
            .strip_prefix("unknown field `")
            .and_then(|rest| rest.split_once('`'))
        else {
            return anyhow!("{}:{line}: {}", self.origin, words::plain(message));
        };
        let expected = expected.trim_start_matches(", ").replace('`', "");
        anyhow!("{}:{line}: unknown key \"{key}\" ({expected})", self.origin)
    }

    /// `cluster.toml:12`, for the deepest part of the path that the file has.
    pub(super) fn of(&self, path: &[Step]) -> String {
        let mut start = 0;
        let mut table: Option<&DeTable<'text>> = Some(self.root.get_ref());
        let mut array: Option<&[Spanned<DeValue<'text>>]> = None;
        for step in path {
            let found = match step {
                Step::Key(key) => table.and_then(|table| entry(table, key)),
                Step::Index(index) => array
                    .and_then(|array| array.get(*index))
                    .map(|value| (value.span().start, value.get_ref())),
            };
            let Some((at, value)) = found else { break };
            start = at;
            table = value.as_table();
            array = value.as_array().map(|values| &values[..]);
        }
        format!("{}:{}", self.origin, line_at(self.text, start))
    }
}

fn entry<'table, 'text>(table: &'table DeTable<'text>, key: &str) -> Option<(usize, &'table DeValue<'text>)> {
    let mut entries = table.iter();
    let (name, value) = entries.find(|(name, _)| name.get_ref() == key)?;
    Some((name.span().start, value.get_ref()))
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = text.bytes().take(offset);
    1 + before.filter(|byte| *byte == b'\n').count()
}
