//! The bytes of a log entry's commands: a version, the leader's clock, and a list of commands.
//!
//! Lists are joined without being decoded, since the leader only passes on what others have encoded.

use std::fmt;

use bytes::Bytes;
use postcard::ser_flavors::Size;
use serde::{Deserialize, Serialize};

use super::{Action, Command};

/// Version byte of the encoded form.
const FORMAT: u8 = 1;
/// Bytes before the encoded commands: format and the leader's clock.
const HEADER: usize = 9;
/// A count of the largest size takes so many.
const COUNT_BYTES_MAX: usize = 10;
/// Room for a command beside its value. It need not be enough.
const COMMAND_BYTES: usize = 128;

/// Many commands of many clients under one log entry: one fsync and one round trip serve them all.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal(pub Bytes);

impl Proposal {
    /// `commands` is what [`encode_commands`] made; the leader adds its clock.
    pub fn new(at_ms: u64, commands: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(HEADER + commands.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&at_ms.to_le_bytes());
        bytes.extend_from_slice(commands);
        Self(bytes.into())
    }

    /// Several lists as one, which has room at once for all of it. A list is its count and then its items, so the items
    /// need not be decoded.
    pub fn merged<'a>(at_ms: u64, lists: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let split = |list: &'a [u8]| {
            postcard::take_from_bytes::<usize>(list).expect("every list was counted when it came in")
        };
        let (mut count, mut room) = (0, HEADER + COUNT_BYTES_MAX);
        for (more, items) in lists.clone().map(split) {
            count += more;
            room += items.len();
        }
        let mut bytes = Vec::with_capacity(room);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&at_ms.to_le_bytes());
        let mut bytes = postcard::to_extend(&count, bytes).expect("a number always encodes");
        for (_count, items) in lists.map(split) {
            bytes.extend_from_slice(items);
        }
        Self(bytes.into())
    }

    pub fn decode(&self) -> Result<(u64, Vec<Command>), MalformedProposal> {
        let (header, body) = self.0.split_at_checked(HEADER).ok_or(MalformedProposal::Short)?;
        if header[0] != FORMAT {
            return Err(MalformedProposal::Format(header[0]));
        }
        let at_ms = u64::from_le_bytes(header[1..].try_into().expect("the header has nine bytes"));
        Ok((at_ms, postcard::from_bytes(body)?))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum MalformedProposal {
    #[error("a proposal is shorter than its header")]
    Short,
    #[error("a proposal has format {0}, which this version cannot read")]
    Format(u8),
    #[error("there are {0} bytes behind the commands of a proposal")]
    Surplus(usize),
    #[error("a proposal does not decode")]
    Body(#[from] postcard::Error),
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({} bytes)", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

pub fn encode_commands(commands: &[Command]) -> Vec<u8> {
    let value_bytes = |command: &Command| match &command.action {
        Action::Put { value, .. } | Action::Create { value, .. } => value.len(),
        _ => 0,
    };
    let room: usize = commands
        .iter()
        .map(|command| COMMAND_BYTES + value_bytes(command))
        .sum();
    postcard::to_extend(commands, Vec::with_capacity(room))
        .expect("commands hold no map of unknown length, so they always encode")
}

/// How many bytes a command has among others of a list.
pub fn encoded_bytes(command: &Command) -> usize {
    postcard::serialize_with_flavor(command, Size::default()).expect("it encodes, as in a list")
}

/// The commands of a list that holds nothing else.
pub fn decode_commands(list: &[u8]) -> Result<Vec<Command>, MalformedProposal> {
    let (commands, rest) = postcard::take_from_bytes(list)?;
    if rest.is_empty() {
        Ok(commands)
    } else {
        Err(MalformedProposal::Surplus(rest.len()))
    }
}

/// How many commands an encoded list says it has; `None` if it does not even say that, or cannot have so many.
pub fn count_commands(list: &[u8]) -> Option<usize> {
    let (count, rest) = postcard::take_from_bytes::<usize>(list).ok()?;
    (count <= rest.len()).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Actor, Expect};

    fn renewals(ids: std::ops::Range<u64>) -> Vec<Command> {
        let command = |id| Command {
            actor: Actor::Token(id),
            action: Action::LeaseRenew { id },
            once: None,
        };
        ids.map(command).collect()
    }

    #[test]
    fn joined_lists_are_one_list_in_order() {
        // More than 127 commands: the count takes two bytes.
        let ends = [0, 1, 1, 130, 400];
        let lists: Vec<Vec<u8>> = ends
            .windows(2)
            .map(|ends| encode_commands(&renewals(ends[0]..ends[1])))
            .collect();
        let merged = Proposal::merged(7, lists.iter().map(Vec::as_slice));
        let counts: Vec<_> = lists.iter().map(|list| count_commands(list)).collect();
        assert_eq!(counts, [Some(1), Some(0), Some(129), Some(270)]);
        assert!(merged == Proposal::new(7, &encode_commands(&renewals(0..400))));
        assert_eq!(merged.decode().expect("it decodes"), (7, renewals(0..400)));
        assert!(Proposal::merged(7, std::iter::empty()) == Proposal::new(7, &encode_commands(&[])));
    }

    #[test]
    fn room_for_a_list_changes_nothing_of_its_bytes() {
        let put = |bytes: usize| Command {
            actor: Actor::System,
            action: Action::Put {
                key: Bytes::from(vec![b'k'; bytes]),
                value: Bytes::from(vec![7; bytes]),
                lease: u64::MAX,
                expect: Expect::Any,
            },
            once: None,
        };
        for list in [vec![], renewals(0..200), [0, 127, 128, 9000].map(put).to_vec()] {
            let plain = postcard::to_stdvec(&list).expect("it encodes");
            assert_eq!(encode_commands(&list), plain);
            let bytes: usize = list.iter().map(encoded_bytes).sum();
            let (_count, items) = postcard::take_from_bytes::<usize>(&plain).expect("it begins with a count");
            assert_eq!(bytes, items.len());
        }
    }

    /// Who keeps a key or a value of it keeps nothing else of the entry.
    #[test]
    fn what_is_decoded_shares_no_memory() {
        let put = || Command {
            actor: Actor::System,
            action: Action::Put {
                key: Bytes::from_static(b"key"),
                value: Bytes::from_static(b"value"),
                lease: 0,
                expect: Expect::Any,
            },
            once: None,
        };
        let proposal = Proposal::new(7, &encode_commands(&[put(), put()]));
        let (_at_ms, commands) = proposal.decode().expect("it decodes");
        for command in commands {
            let Action::Put { key, value, .. } = command.action else {
                panic!("a put is decoded as one")
            };
            assert!(key.is_unique() && value.is_unique());
        }
    }

    #[test]
    fn a_list_holds_nothing_but_its_commands() {
        let list = encode_commands(&renewals(0..3));
        assert_eq!(decode_commands(&list).expect("it decodes"), renewals(0..3));
        let surplus = [list.as_slice(), b"x"].concat();
        assert!(matches!(
            decode_commands(&surplus),
            Err(MalformedProposal::Surplus(1))
        ));
        // They say how many they are, as a list does, and are none.
        for bent in [[1, 0xff].as_slice(), &list[..list.len() - 1]] {
            assert!(
                count_commands(bent).is_some() && decode_commands(bent).is_err(),
                "{bent:?}"
            );
        }
    }

    #[test]
    fn a_list_without_its_count_is_noticed() {
        assert_eq!(count_commands(&[]), None);
    }
}
