//! Messages that no etcd sends.
//! Invariant: each says something, if only that nothing is there; and a number that was read can be counted on.

use bytes::BytesMut;

use super::connection::{PREFIX_BYTES, framed, take_message};
use super::proto::{Message, Value, fields};
use super::watching::values;
use super::{MemberStatus, counted, counted_instead, one_more};
use crate::bent::feed;

/// The answer to a range, with one key.
fn range() -> Message {
    let kv = Message::default().piece(1, b"n").number(3, 9).piece(5, b"43");
    Message::default().message(2, kv)
}

/// The same in a put that was not done, beside what a later version might add.
fn refused() -> Message {
    let header = Message::default().number(1, 7).number(3, u64::MAX);
    let response = Message::default().message(1, range());
    Message::default()
        .message(1, header)
        .message(3, response)
        .piece(9, &[0xff; 40])
}

fn watched() -> Message {
    let event = |value: &[u8]| {
        let kv = Message::default().piece(1, b"n").piece(5, value);
        Message::default().number(1, 1).message(2, kv)
    };
    Message::default()
        .message(11, event(b"one"))
        .message(11, event(&[0xff]))
}

fn status() -> Message {
    let header = Message::default().number(2, 5);
    let status = Message::default().message(1, header).piece(2, b"3.5.1");
    status.number(4, 6)
}

/// All numbers in it, also of the messages within.
fn sum(bytes: &[u8], depth: u32) -> u64 {
    fields(bytes).fold(0, |sum, (_, value)| match value {
        Value::Number(number) => number.wrapping_add(sum),
        Value::Piece(piece) if depth > 0 => self::sum(piece, depth - 1).wrapping_add(sum),
        Value::Piece(_) => sum,
    })
}

#[test]
fn answers() {
    let whole = [range(), refused(), watched(), status()].map(|message| message.end().to_vec());
    assert_eq!(counted(&whole[0]), (9, 43));
    assert_eq!(counted_instead(&whole[1]), (9, 43));
    assert_eq!(values(&whole[2]), ["one", "\u{fffd}"]);
    let told = MemberStatus::of(&whole[3]).expect("it is whole");
    assert_eq!((told.version.as_str(), told.member, told.leader), ("3.5.1", 5, 6));
    feed(&whole, |bytes| {
        sum(bytes, 8);
        let (_, count) = counted(bytes);
        assert_ne!(one_more(count), "0");
        counted_instead(bytes);
        assert!(values(bytes).len() <= bytes.len());
        drop(MemberStatus::of(bytes));
    });
}

#[test]
fn behind_the_largest_number_there_is_none() {
    let kv = Message::default().piece(5, u64::MAX.to_string().as_bytes());
    let answer = Message::default().message(2, kv).end();
    let (_, count) = counted(&answer);
    assert_eq!(one_more(count), u64::MAX.to_string());
}

#[test]
fn frames() {
    let whole = [range(), watched()].map(|message| framed(&message.end()).to_vec());
    for frame in &whole {
        let mut rest = BytesMut::from(&frame[..]);
        let message = take_message(&mut rest).unwrap().expect("it is whole");
        assert_eq!((&message[..], rest.len()), (&frame[PREFIX_BYTES..], 0));
    }
    feed(&whole, |bytes| {
        let mut rest = BytesMut::from(bytes);
        let taken = take_message(&mut rest).ok().flatten();
        let taken = taken.map_or(0, |message| PREFIX_BYTES + message.len());
        assert_eq!(taken + rest.len(), bytes.len());
    });
}
