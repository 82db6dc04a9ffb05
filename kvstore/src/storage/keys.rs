//! How keys of the state machine's tables are laid out, so that their byte order is the order needed.

use bytes::Bytes;

use crate::machine::state::KeptId;

/// Ends a key inside a compound key; sorts before every continuation of it.
const END: [u8; 2] = [0, 0];
/// A zero byte inside a key, so that it cannot be taken for its end.
const ZERO: [u8; 2] = [0, 0xff];

/// The part of a version's key that all versions of one key share.
pub(crate) fn version_group(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 10);
    for &byte in key {
        if byte == 0 {
            out.extend_from_slice(&ZERO);
        } else {
            out.push(byte);
        }
    }
    out.extend_from_slice(&END);
    out
}

/// Versions of one key stand together, newest first.
pub(crate) fn version(key: &[u8], revision: u64) -> Vec<u8> {
    let mut out = version_group(key);
    out.extend_from_slice(&(!revision).to_be_bytes());
    out
}

/// The least compound key of all keys that are not less than `key`.
pub(crate) fn version_floor(key: &[u8]) -> Vec<u8> {
    let mut out = version_group(key);
    out.truncate(out.len() - END.len());
    out
}

/// The key and revision of a version; `None` if the bytes are no such thing.
pub(crate) fn parse_version(bytes: &[u8]) -> Option<(Bytes, u64)> {
    let mut key = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        match rest {
            [0, 0xff, tail @ ..] => {
                key.push(0);
                rest = tail;
            }
            [0, 0, tail @ ..] => {
                let revision = u64::from_be_bytes(tail.try_into().ok()?);
                return Some((key.into(), !revision));
            }
            [byte, tail @ ..] if *byte != 0 => {
                key.push(*byte);
                rest = tail;
            }
            _ => return None,
        }
    }
}

/// The events of one batch, under the first revision in it.
pub(crate) fn events(first_revision: u64) -> [u8; 8] {
    first_revision.to_be_bytes()
}

pub(crate) fn lease(id: u64) -> Vec<u8> {
    [b"l".as_slice(), &id.to_be_bytes()].concat()
}

pub(crate) fn lease_key(id: u64, key: &[u8]) -> Vec<u8> {
    [b"k".as_slice(), &id.to_be_bytes(), key].concat()
}

/// Token names hold no zero byte, so it parts the owner from the key.
pub(crate) fn kept(owner: &str, key: &str) -> Vec<u8> {
    [b"a", owner.as_bytes(), &[0], key.as_bytes()].concat()
}

pub(crate) fn parse_kept(row: &[u8]) -> Option<KeptId> {
    parse_kept_id(row.strip_prefix(b"a")?)
}

fn parse_kept_id(bytes: &[u8]) -> Option<KeptId> {
    let (owner, key) = std::str::from_utf8(bytes).ok()?.split_once('\0')?;
    Some(KeptId {
        owner: owner.to_owned(),
        key: key.to_owned(),
    })
}

pub(crate) fn kept_expiry(expires_ms: u64, owner: &str, key: &str) -> Vec<u8> {
    [
        b"x".as_slice(),
        &expires_ms.to_be_bytes(),
        owner.as_bytes(),
        &[0],
        key.as_bytes(),
    ]
    .concat()
}

pub(crate) fn parse_kept_expiry(row: &[u8]) -> Option<(u64, KeptId)> {
    let expires_ms = u64::from_be_bytes(row.get(1..9)?.try_into().ok()?);
    Some((expires_ms, parse_kept_id(row.get(9..)?)?))
}

/// Which kept answer tells of this revision.
pub(crate) fn kept_of(revision: u64) -> Vec<u8> {
    [b"r".as_slice(), &revision.to_be_bytes()].concat()
}

pub(crate) fn kept_of_value(owner: &str, key: &str) -> Vec<u8> {
    [owner.as_bytes(), &[0], key.as_bytes()].concat()
}

pub(crate) fn parse_kept_of(row: &[u8], value: &[u8]) -> Option<(u64, KeptId)> {
    let revision = u64::from_be_bytes(row.strip_prefix(b"r")?.try_into().ok()?);
    Some((revision, parse_kept_id(value)?))
}

pub(crate) fn minute(number: u64) -> Vec<u8> {
    [b"minute/".as_slice(), &number.to_be_bytes()].concat()
}

/// In the order in which they came about.
pub(crate) fn gap(last: u64) -> Vec<u8> {
    [b"gap/".as_slice(), &last.to_be_bytes()].concat()
}

pub(crate) fn token(name: &str) -> Vec<u8> {
    [b"token/", name.as_bytes()].concat()
}

pub(crate) fn mirror(name: &str) -> Vec<u8> {
    [b"mirror/", name.as_bytes()].concat()
}

pub(crate) fn member(id: u64) -> Vec<u8> {
    [b"member/".as_slice(), &id.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn versions_sort_by_key_then_newest_first(
            a in prop::collection::vec(any::<u8>(), 0..6), ra in any::<u64>(),
            b in prop::collection::vec(any::<u8>(), 0..6), rb in any::<u64>(),
        ) {
            let expected = a.cmp(&b).then(rb.cmp(&ra));
            prop_assert_eq!(version(&a, ra).cmp(&version(&b, rb)), expected);
            prop_assert_eq!(parse_version(&version(&a, ra)), Some((Bytes::from(a.clone()), ra)));
            prop_assert_eq!(version_floor(&b) <= version(&a, ra), b <= a);
        }
    }

    #[test]
    fn a_kept_answer_is_found_again_from_its_expiry() {
        let id = KeptId {
            owner: "petstore".to_owned(),
            key: "a/b c".to_owned(),
        };
        let parsed = parse_kept_expiry(&kept_expiry(7, &id.owner, &id.key));
        assert_eq!(parsed, Some((7, id)));
    }
}
