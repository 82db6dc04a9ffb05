//! How a card token looks, for whoever takes one from a caller and writes it down before it is used.
//! Invariant: whatever the payment service gives out looks like a token, and no card number does that was put in its
//! place by mistake. Whether a token can be used is for that service alone to say.

use service::card_like::{could_be_card, has_card_number};

/// Begins every token.
pub const TOKEN_START: &str = "tok_";
/// What the payment service makes is shorter.
const TOKEN_BYTES_MAX: usize = 128;

pub fn looks_like_token(text: &str) -> bool {
    let is_body = |body: &str| {
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !body.is_empty() && body.bytes().all(sound)
    };
    text.len() <= TOKEN_BYTES_MAX
        && text.strip_prefix(TOKEN_START).is_some_and(is_body)
        && !has_card_number(text, could_be_card)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_bytes(count: usize) -> String {
        TOKEN_START.to_owned() + &"x".repeat(count - TOKEN_START.len())
    }

    #[test]
    fn a_card_number_is_no_token() {
        for token in [
            "tok_x",
            "tok_AZaz-_09",
            "tok_1764410847123",
            &of_bytes(TOKEN_BYTES_MAX),
        ] {
            assert!(looks_like_token(token), "{token}");
        }
        for other in [
            "",
            "tok_",
            "tok x",
            "tok_x.y",
            "tok_ü",
            "xtok_x",
            "TOK_x",
            &of_bytes(TOKEN_BYTES_MAX + 1),
            "4242424242424242",
            "4242 4242 4242 4242",
            "tok_4242424242424242",
            "tok_4242-4242-4242-4242",
            "tok_x_4242_4242_4242_4242",
        ] {
            assert!(!looks_like_token(other), "{other}");
        }
    }
}
