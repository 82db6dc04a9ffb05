//! Server-sent events, taken in as the network cuts them.
//! Invariant: the events do not depend on where the pieces were cut; an event larger than the limit is an error.
//! It must not know what the events mean.

use std::collections::VecDeque;

/// A value and its predecessor of 1 MiB each, at worst six bytes of JSON for one of value.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// The `event:` field; empty when the event has none.
    pub(crate) name: String,
    pub(crate) data: String,
    /// The `id:` of this very event, not one carried over from an earlier one.
    pub(crate) id: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    /// The last piece ended in a carriage return: a line feed right after it belongs to it.
    after_return: bool,
    past_first_line: bool,
    name: String,
    data: Vec<u8>,
    id: Option<String>,
    ready: VecDeque<Event>,
}

impl Parser {
    pub(crate) fn feed(&mut self, mut piece: &[u8]) -> Result<(), TooLarge> {
        while !piece.is_empty() {
            if std::mem::take(&mut self.after_return) && piece[0] == b'\n' {
                piece = &piece[1..];
                continue;
            }
            let end = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let text = &piece[..end.unwrap_or(piece.len())];
            if self.line.len() + self.data.len() + text.len() > EVENT_BYTES_MAX {
                return Err(TooLarge);
            }
            self.line.extend_from_slice(text);
            let Some(end) = end else {
                return Ok(());
            };
            self.after_return = piece[end] == b'\r';
            piece = &piece[end + 1..];
            self.end_of_line();
        }
        Ok(())
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    fn end_of_line(&mut self) {
        let taken = std::mem::take(&mut self.line);
        let mut line = taken.as_slice();
        if !std::mem::replace(&mut self.past_first_line, true) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            self.end_of_event();
        } else {
            let colon = line.iter().position(|byte| *byte == b':');
            let (field, value) = line.split_at(colon.unwrap_or(line.len()));
            let value = value.strip_prefix(b":").unwrap_or(value);
            self.field(field, value.strip_prefix(b" ").unwrap_or(value));
        }
        // Keeps the allocation for the next line.
        self.line = taken;
        self.line.clear();
    }

    fn field(&mut self, field: &[u8], value: &[u8]) {
        match field {
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"id" if !value.contains(&0) => {
                self.id = Some(String::from_utf8_lossy(value).into_owned());
            }
            // A comment (empty field name), `retry`, or a field of the future.
            _ => {}
        }
    }

    fn end_of_event(&mut self) {
        let name = std::mem::take(&mut self.name);
        let id = self.id.take();
        let mut data = std::mem::take(&mut self.data);
        // The standard: what has no data is no event.
        if data.pop().is_some() {
            let data = String::from_utf8_lossy(&data).into_owned();
            self.ready.push_back(Event { name, data, id });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{EVENT_BYTES_MAX, Event, Parser, TooLarge};
    use proptest::prelude::*;

    fn parse(pieces: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::default();
        for piece in pieces {
            parser.feed(piece).unwrap();
        }
        std::iter::from_fn(|| parser.next()).collect()
    }

    fn event(name: &str, data: &str, id: Option<&str>) -> Event {
        Event {
            name: name.to_owned(),
            data: data.to_owned(),
            id: id.map(str::to_owned),
        }
    }

    #[test]
    fn fields_comments_and_line_ends() {
        let text = "\u{FEFF}: hello\nevent: put\ndata: {\"a\":1}\nid: 7\n\ndata:one\r\ndata:  two\r\rid: 8\n\nevent: x\n\ndata\n\ndata: cut";
        assert_eq!(
            parse(&[text.as_bytes()]),
            [
                event("put", "{\"a\":1}", Some("7")),
                event("", "one\n two", None),
                event("", "", None),
            ]
        );
    }

    #[test]
    fn an_id_belongs_to_its_own_event_only() {
        let events = parse(&[b"data: a\n\ndata: b\nid: 3\n\ndata: c\n\n"]);
        let ids: Vec<_> = events.iter().map(|event| event.id.as_deref()).collect();
        assert_eq!(ids, [None, Some("3"), None]);
    }

    #[test]
    fn an_endless_event_is_an_error() {
        let piece = vec![b'x'; EVENT_BYTES_MAX / 2 + 1];
        let mut parser = Parser::default();
        parser.feed(b"data: ").unwrap();
        parser.feed(&piece).unwrap();
        assert_eq!(parser.feed(&piece), Err(TooLarge));
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let data = proptest::collection::vec("[^\r\n\u{FEFF}]{0,6}", 1..4);
        let id = proptest::option::of("[0-9]{1,4}");
        ("[a-z]{0,4}", data, id).prop_map(|(name, data, id)| Event {
            name,
            data: data.join("\n"),
            id,
        })
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(
            events in proptest::collection::vec(any_event(), 0..6),
            ends in proptest::collection::vec(prop_oneof![Just("\n"), Just("\r\n"), Just("\r")], 1..8),
            cuts in proptest::collection::vec(1_usize..9, 1..40),
        ) {
            let mut ends = ends.iter().cycle();
            let mut text = String::new();
            let mut line = |text: &mut String, line: &str| {
                text.push_str(line);
                text.push_str(ends.next().unwrap());
            };
            for event in &events {
                line(&mut text, ": a comment");
                line(&mut text, &format!("event: {}", event.name));
                for data in event.data.split('\n') {
                    line(&mut text, &format!("data: {data}"));
                }
                if let Some(id) = &event.id {
                    line(&mut text, &format!("id: {id}"));
                }
                // Always a line feed here: a carriage return before an empty line's line feed would be one end.
                text.push('\n');
                if !text.ends_with("\n\n") && !text.ends_with("\r\n\n") {
                    text.push('\n');
                }
            }
            let mut rest = text.as_bytes();
            let mut pieces = Vec::new();
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            prop_assert_eq!(parse(&pieces), events);
        }
    }
}
