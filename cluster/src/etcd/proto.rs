//! As much of protocol buffers as the messages of etcd need: numbers and pieces of bytes, each under its number.
//! Invariant: reading never fails loudly and never goes beyond the bytes it was given; what is cut off ends the walk.

use bytes::{Bytes, BytesMut};

const NUMBER: u64 = 0;
const PIECE: u64 = 2;

/// A message that is being written.
#[derive(Default)]
pub(super) struct Message(BytesMut);

impl Message {
    /// A number that is zero is not written, as the format wants it.
    pub(super) fn number(mut self, field: u64, value: u64) -> Self {
        if value != 0 {
            self.varint(field << 3 | NUMBER);
            self.varint(value);
        }
        self
    }

    pub(super) fn piece(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | PIECE);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn message(self, field: u64, message: Self) -> Self {
        self.piece(field, &message.0)
    }

    pub(super) fn end(self) -> Bytes {
        self.0.freeze()
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.extend_from_slice(&[low_bits(value) | 0x80]);
            value >>= 7;
        }
        self.0.extend_from_slice(&[low_bits(value)]);
    }
}

fn low_bits(value: u64) -> u8 {
    u8::try_from(value & 0x7f).expect("seven bits fit into eight")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'bytes> {
    Number(u64),
    Piece(&'bytes [u8]),
}

/// The fields of a message, one after the other.
pub(super) struct Fields<'bytes>(&'bytes [u8]);

pub(super) fn fields(bytes: &[u8]) -> Fields<'_> {
    Fields(bytes)
}

/// The last number under this field; zero when there is none.
pub(super) fn number(bytes: &[u8], field: u64) -> u64 {
    let numbers = fields(bytes).filter_map(|(found, value)| match value {
        Value::Number(number) if found == field => Some(number),
        _ => None,
    });
    numbers.last().unwrap_or(0)
}

/// All pieces under this field.
pub(super) fn pieces(bytes: &[u8], field: u64) -> impl Iterator<Item = &[u8]> {
    fields(bytes).filter_map(move |(found, value)| match value {
        Value::Piece(piece) if found == field => Some(piece),
        _ => None,
    })
}

impl<'bytes> Fields<'bytes> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'bytes [u8]> {
        let (piece, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(piece)
    }
}

impl<'bytes> Iterator for Fields<'bytes> {
    type Item = (u64, Value<'bytes>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            NUMBER => Value::Number(self.varint()?),
            PIECE => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Piece(self.take(length)?)
            }
            1 => Value::Piece(self.take(8)?),
            5 => Value::Piece(self.take(4)?),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Message::default().number(3, 300).piece(1, b"key");
        let bytes = Message::default()
            .number(1, 0)
            .number(2, u64::MAX)
            .message(5, inner)
            .end();
        assert_eq!(number(&bytes, 1), 0);
        assert_eq!(number(&bytes, 2), u64::MAX);
        let inner = pieces(&bytes, 5).next().unwrap();
        assert_eq!(number(inner, 3), 300);
        assert_eq!(pieces(inner, 1).collect::<Vec<_>>(), [b"key"]);
        // The example of the format's own documentation.
        assert_eq!(&Message::default().number(1, 150).end()[..], [0x08, 0x96, 0x01]);
    }

    #[test]
    fn what_is_cut_off_ends_the_walk() {
        let bytes = Message::default().number(2, 7).piece(1, b"value").end();
        for length in 0..bytes.len() {
            assert!(fields(&bytes[..length]).count() < 2);
        }
        assert_eq!(fields(&[0xff; 20]).count(), 0);
    }
}
