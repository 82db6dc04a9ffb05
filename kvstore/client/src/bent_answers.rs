//! Answers that no node gives: bent status, headers and problems.
//! Invariant: each is a value or an error of the contract, and for who asks a service that keeps its state there never
//! the service's own fault. A leader that it names is an address, or nobody.

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::attempt::{self, Answer};
use crate::bent::feed;
use crate::call::Request;
use crate::endpoints::{Endpoints, Prefer, Tried};
use crate::error::Error;
use crate::keys::{Read, read_of};
use crate::refusal::problem_of;
use crate::verdict::{self, Verdict};
use crate::wire::Revision;
use crate::wire::headers::LEADER;

const WHOLE: [&str; 8] = [
    "200\netag: \"7\"\nx-kv-revision: 9\nx-kv-consistency: bounded:5\nx-kv-create-revision: 6\nx-kv-version: 2\n\
     x-kv-lease: 3\nx-kv-leader: n2.example:7001\n\nvalue",
    "404\nx-kv-revision: 8\nx-kv-consistency: linearizable\n\n{\"status\": 404, \"code\": \"key-not-found\"}",
    "412\netag: W/\"7\"\n\n{\"type\": \"/problems/precondition-failed\", \"title\": \"t\", \"status\": 412, \
     \"detail\": \"d\", \"code\": \"precondition-failed\", \"request_id\": \"r\", \"revision\": 7}",
    "400\n\n{\"code\": \"invalid-request\", \"errors\": [{\"pointer\": \"/then/0\", \"detail\": \"is none\"}]}",
    "410\n\n{\"code\": \"compacted\", \"compacted_revision\": 18446744073709551615}",
    "503\nx-kv-leader: [::1]:7001\n\n{\"code\": \"no-leader\", \"more\": {\"deep\": [1.5, null]}}",
    "507\n\n{\"code\": \"disk-full\"}",
    "502\n\n<html>",
];

/// The status, the headers line by line, an empty line, the body.
fn answer(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
    let mut lines = bytes[..end].split(|byte| *byte == b'\n');
    let status = StatusCode::from_bytes(lines.next()?).ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        headers.append(name, value);
    }
    Some(Answer {
        status,
        headers,
        body: Bytes::copy_from_slice(&bytes[end + 2..]),
    })
}

/// What a read of one key ends with: the revision that it saw, or a code.
fn judge(answer: Answer) -> Result<Revision, String> {
    let error = match verdict::of(answer, true) {
        Verdict::Done(answer) => match read_of("key", answer) {
            Ok(Read { revision, .. }) => return Ok(revision),
            Err(error) => error,
        },
        Verdict::Refused(error) => error,
        Verdict::TurnedAway(problem) | Verdict::NoRoom(problem) | Verdict::Broken(problem) => {
            Error::Problem(problem)
        }
        Verdict::NotTaken(source) | Verdict::Open(source) => Error::Unavailable { source },
    };
    drop(error.problem().map(ToString::to_string));
    let code = error.code().to_owned();
    assert_ne!(problem_of(error).status(), StatusCode::INTERNAL_SERVER_ERROR);
    Err(code)
}

/// Goes to whoever the answer calls the leader.
fn heed_leader(answer: &Answer) {
    let endpoints = Endpoints::new(vec!["http://127.0.0.1:7001".to_owned()], 0);
    if let Some(Ok(address)) = answer.headers.get(LEADER).map(HeaderValue::to_str) {
        endpoints.leader_is(address);
    }
    let leader = endpoints.choose(Prefer::Leader, &mut Tried::default());
    drop(attempt::outgoing(
        &leader.base,
        &Request::read("/v1/revision", Prefer::Leader),
    ));
}

#[test]
fn answers_to_a_read() {
    let told = WHOLE.map(|text| judge(answer(text.as_bytes()).expect("it is whole")));
    let codes = [
        "precondition-failed",
        "invalid-request",
        "compacted",
        "no-leader",
        "disk-full",
        "",
    ];
    let refused: Vec<_> = codes.iter().map(|code| Err((*code).to_owned())).collect();
    assert_eq!((&told[..2], &told[2..]), (&[Ok(9), Ok(8)][..], &refused[..]));
    feed(&WHOLE.map(|text| text.as_bytes().to_vec()), |bytes| {
        if let Some(answer) = answer(bytes) {
            heed_leader(&answer);
            drop(judge(answer));
        }
    });
}
