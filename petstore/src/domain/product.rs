//! What is sold, as far as it can be judged without the store.
//! Invariant: texts are bounded, and free of control characters and of card numbers.

use serde::{Deserialize, Serialize};
use service::card_like::{could_be_card, has_card_number};

/// A product as it is stored; its stock stands in a key of its own, so that price edits do not fight with sales.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Product {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) species: String,
    #[serde(default)]
    pub(crate) category: String,
    #[serde(default)]
    pub(crate) description: String,
    pub(crate) price_minor: i64,
    pub(crate) created_ms: u64,
}

/// The texts of a product and how long each may be, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Texts {
    Name,
    Species,
    Category,
    Description,
}

impl Texts {
    pub(crate) fn bounds(self) -> (usize, usize) {
        match self {
            Self::Name => (1, 120),
            Self::Species | Self::Category => (0, 40),
            Self::Description => (0, 2000),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TextFault {
    #[error("must be {min} to {max} characters long")]
    Length { min: usize, max: usize },
    #[error("must have no control characters")]
    Control,
    #[error("has digits in it that make a card number, which is kept nowhere here; leave some of them out")]
    CardNumber,
}

/// The text without spaces at its ends.
pub(crate) fn check_text(text: &str, kind: Texts) -> Result<String, TextFault> {
    let text = text.trim();
    let (min, max) = kind.bounds();
    if !(min..=max).contains(&text.chars().count()) {
        return Err(TextFault::Length { min, max });
    }
    let broken = |character: char| {
        character.is_control() && !(kind == Texts::Description && matches!(character, '\n' | '\t'))
    };
    if text.chars().any(broken) {
        return Err(TextFault::Control);
    }
    if has_card_number(text, could_be_card) {
        return Err(TextFault::CardNumber);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded() {
        assert_eq!(check_text(" Rex ", Texts::Name).unwrap(), "Rex");
        assert_eq!(check_text("a\nb", Texts::Description).unwrap(), "a\nb");
        assert_eq!(check_text("a\nb", Texts::Name), Err(TextFault::Control));
        assert_eq!(
            check_text("  ", Texts::Name),
            Err(TextFault::Length { min: 1, max: 120 })
        );
        assert!(check_text(&"x".repeat(41), Texts::Category).is_err());
        // Markup is text like any other: whoever shows it escapes it.
        assert!(check_text("<script>alert(1)</script>", Texts::Name).is_ok());
    }

    #[test]
    fn no_text_has_a_card_number_in_it() {
        for text in ["4242424242424242", "Paid with 3782 822463 10005."] {
            assert_eq!(
                check_text(text, Texts::Description),
                Err(TextFault::CardNumber),
                "{text}"
            );
        }
        assert!(
            check_text(
                "Born 2024-05-17, 30.5 cm long, chip 276098106123457",
                Texts::Description
            )
            .is_ok()
        );
    }
}
