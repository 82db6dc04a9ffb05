//! Everything that needs the secret key: names of cards, card tokens, fingerprints.
//! Invariant: what leaves here cannot be turned back into a card number without the key, which is never stored
//! with the data. Each use of the key has a label of its own, so that no value of one kind is one of another.
//! It must not know the store or HTTP.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use payment_client::{TOKEN_START, looks_like_token};
use service::secrets::Secret;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::domain::{Brand, CardNumber};

/// Which key made it: a name of a card says so, so that keys can be changed.
const KEY_VERSION: u8 = 1;
const CARD_BYTES: usize = 20;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const BODY_BYTES: usize = 1 + 8 + NONCE_BYTES + 1 + 2 + CARD_BYTES;

/// Cheap to clone; the key is inside.
#[derive(Clone)]
pub(crate) struct Vault {
    keyed: Hmac<Sha256>,
}

/// What a card is known by in the store: a keyed hash of its number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CardId(String);

/// A card as payments name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CardRef {
    pub(crate) id: CardId,
    pub(crate) brand: String,
    pub(crate) last4: String,
}

/// A token that this system made. Whether it can still be used is for the ledger to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenedToken {
    pub(crate) card: CardRef,
    pub(crate) expires_ms: u64,
    /// Tells it from all other tokens.
    pub(crate) nonce: String,
}

impl Vault {
    pub(crate) fn new(key: &Secret) -> Self {
        let keyed = Hmac::new_from_slice(key.expose().as_bytes()).expect("HMAC takes keys of any length");
        Self { keyed }
    }

    fn mac(&self, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.keyed.clone();
        mac.update(label.as_bytes());
        for part in parts {
            // With its length before it, no two lists of parts are the same bytes.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    pub(crate) fn card(&self, number: &CardNumber) -> CardRef {
        let mac = self.mac("card", &[number.digits()]);
        CardRef {
            id: CardId::of_bytes(&mac[..CARD_BYTES]),
            brand: number.brand().word().to_owned(),
            last4: number.last4(),
        }
    }

    /// 128 bits that stand for these parts; another use of the same parts has another label.
    pub(crate) fn fingerprint(&self, label: &str, parts: &[&[u8]]) -> String {
        hex(&self.mac(label, parts)[..16])
    }

    /// A token that names the card without showing it, not even as its hash.
    pub(crate) fn seal(&self, number: &CardNumber, expires_ms: u64) -> String {
        loop {
            let token = self.draw_token(number, expires_ms);
            // Whoever takes tokens refuses one in which chance has put the digits of a card together.
            if looks_like_token(&token) {
                return token;
            }
        }
    }

    fn draw_token(&self, number: &CardNumber, expires_ms: u64) -> String {
        let mut body = Vec::with_capacity(BODY_BYTES + TAG_BYTES);
        body.push(KEY_VERSION);
        body.extend(expires_ms.to_be_bytes());
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).expect("the operating system has random bytes to give");
        body.extend(nonce);
        body.push(number.brand().number());
        let last4: u16 = number.last4().parse().expect("four digits are a number");
        body.extend(last4.to_be_bytes());
        let card = self.mac("card", &[number.digits()]);
        let mask = self.mac("mask", &[&nonce]);
        body.extend(
            card.iter()
                .zip(mask)
                .take(CARD_BYTES)
                .map(|(card, mask)| card ^ mask),
        );
        let tag = self.mac("token", &[&body]);
        body.extend(&tag[..TAG_BYTES]);
        format!("{TOKEN_START}{}", URL_SAFE_NO_PAD.encode(body))
    }

    /// `None` for anything that `seal` did not make with this key.
    pub(crate) fn open(&self, token: &str) -> Option<OpenedToken> {
        let sealed = URL_SAFE_NO_PAD.decode(token.strip_prefix(TOKEN_START)?).ok()?;
        let (body, tag) = sealed.split_at_checked(BODY_BYTES)?;
        let right = self.mac("token", &[body]);
        if !bool::from(right[..TAG_BYTES].ct_eq(tag)) || body[0] != KEY_VERSION {
            return None;
        }
        let (expires_ms, rest) = body[1..].split_at(8);
        let (nonce, rest) = rest.split_at(NONCE_BYTES);
        let mask = self.mac("mask", &[nonce]);
        let card: Vec<u8> = rest[3..]
            .iter()
            .zip(mask)
            .map(|(card, mask)| card ^ mask)
            .collect();
        Some(OpenedToken {
            card: CardRef {
                id: CardId::of_bytes(&card),
                brand: Brand::of_number(rest[0])?.word().to_owned(),
                last4: format!("{:04}", u16::from_be_bytes([rest[1], rest[2]])),
            },
            expires_ms: u64::from_be_bytes(expires_ms.try_into().ok()?),
            nonce: hex(nonce),
        })
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Vault([redacted])")
    }
}

impl CardId {
    fn of_bytes(bytes: &[u8]) -> Self {
        Self(format!("c{KEY_VERSION}_{}", hex(bytes)))
    }

    /// A name that the ledger wrote.
    pub(crate) fn stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CardId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for CardId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a string takes any text");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(key: &str) -> Vault {
        Vault::new(&Secret::new(key))
    }

    fn number(text: &str) -> CardNumber {
        CardNumber::parse(text).unwrap()
    }

    #[test]
    fn the_same_number_is_the_same_card_under_the_same_key_only() {
        let (one, other) = (vault("one key of the two"), vault("the other key here"));
        let card = one.card(&number("4242 4242 4242 4242"));
        assert_eq!(card, one.card(&number("4242-4242-4242-4242")));
        assert_eq!((card.brand.as_str(), card.last4.as_str()), ("visa", "4242"));
        assert_eq!(card.id.as_str().len(), "c1_".len() + 40);
        assert_ne!(card.id, other.card(&number("4242424242424242")).id);
        assert_ne!(card.id, one.card(&number("5555555555554444")).id);
    }

    #[test]
    fn a_token_opens_to_its_card_and_a_changed_one_not_at_all() {
        let vault = vault("a key for these tests");
        let number = number("4000 0000 0000 0002");
        let token = vault.seal(&number, 1234);
        assert!(looks_like_token(&token), "{token}");
        assert!(!token.contains(&vault.card(&number).id.as_str()[3..]));
        let opened = vault.open(&token).unwrap();
        assert_eq!(opened.card, vault.card(&number));
        assert_eq!((opened.card.last4.as_str(), opened.expires_ms), ("0002", 1234));
        assert_ne!(token, vault.seal(&number, 1234), "each has a nonce of its own");
        for place in TOKEN_START.len()..token.len() - 1 {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(vault.open(&String::from_utf8(changed).unwrap()), None, "{place}");
        }
        for strange in ["", "tok_", "tok_AAAA", "4242424242424242", "tok_ü"] {
            assert_eq!(vault.open(strange), None);
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let vault = vault("a key for these tests");
        assert_ne!(
            vault.fingerprint("a", &[b"bc", b"d"]),
            vault.fingerprint("a", &[b"b", b"cd"])
        );
        assert_ne!(vault.fingerprint("a", &[b"b"]), vault.fingerprint("b", &[b"b"]));
    }
}
