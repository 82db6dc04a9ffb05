//! Answers of a member that runs the program before this one, as there are while nodes are upgraded one by one.
//! Invariant: what such a member does not say yet stands at the end of its answers, and reads as absent; without that
//! nothing forwarded would be answered during an upgrade.

use super::message::{MalformedMessage, Told, decode};

pub(super) fn decode_told(bytes: &[u8]) -> Result<Told, MalformedMessage> {
    match postcard::from_bytes(bytes) {
        Err(postcard::Error::DeserializeUnexpectedEnd) => {
            let mut longer = bytes.to_vec();
            // "None", or the first of the words that there are.
            longer.push(0);
            decode(&longer)
        }
        read => Ok(read?),
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;
    use crate::command::{Answer, MirrorsWere, Reply};
    use crate::machine::agreement::Mark;
    use crate::raft::network::message::{MemberRefused, Moment, NotNow, Standing};
    use crate::raft::types::LogId;

    /// As the previous program wrote them.
    #[derive(Serialize)]
    #[expect(dead_code, reason = "only the order of the variants counts")]
    enum Old {
        Probe { empty: bool },
        ReadIndex(Result<u64, NotNow>),
        Proposed(Result<Vec<Reply>, NotNow>),
        LastLog { last: Option<LogId> },
        Member(Result<(), MemberRefused>),
        Standing(Standing),
        Health { sync_us: u64, marks: Vec<Mark> },
    }

    #[test]
    fn answers_of_the_previous_program_are_understood() {
        let told =
            |old: &Old| decode_told(&postcard::to_stdvec(old).expect("plain data")).expect("understood");
        let Told::ReadIndex(Ok(moment)) = told(&Old::ReadIndex(Ok(7))) else {
            panic!("not a read index");
        };
        let expected = Moment {
            index: 7,
            mirrored: None,
        };
        assert_eq!(moment, expected);
        let reply = Reply {
            revision: 3,
            replayed: false,
            answer: Answer::Done,
            mirrors: MirrorsWere::None,
        };
        let Told::Proposed(Ok(proposed)) = told(&Old::Proposed(Ok(vec![reply.clone()]))) else {
            panic!("not an answer to a proposal");
        };
        assert_eq!(
            (proposed.replies, proposed.mirrors),
            (vec![reply], MirrorsWere::None)
        );
        let refused = told(&Old::Proposed(Err(NotNow::Unknown)));
        assert!(matches!(refused, Told::Proposed(Err(NotNow::Unknown))));
        let health = told(&Old::Health {
            sync_us: 700,
            marks: vec![Mark { revision: 1, hash: 2 }],
        });
        let Told::Health(health) = health else {
            panic!("not the health of a member");
        };
        assert_eq!(
            (health.sync_us, health.marks.len(), health.disk_full),
            (700, 1, false)
        );
        assert!(decode_told(&[]).is_err() || decode_told(&[200]).is_err());
    }
}
