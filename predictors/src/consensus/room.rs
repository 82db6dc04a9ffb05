//! Who opens rounds, and room for others when as many are open as may be.
//! Invariant: nobody is locked out by somebody who holds more: the oldest round of whoever holds the most expires
//! early. A round that was opened with a token never does, and makes room whenever it needs some.

use std::collections::BTreeMap;
use std::net::IpAddr;

use service::problem::Result;
use service::secrets::Secrets;

use super::keys;
use super::network::Bank;
use super::records::{Ended, OpenRecord};
use crate::pass::keyed;
use crate::process::trouble;

/// Enough to tell callers apart.
const WORD_LENGTH: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opener {
    /// Whoever has a token.
    Known,
    /// Anybody else, by a word that stands for where they call from.
    Anybody(String),
}

impl Opener {
    /// Where somebody calls from is not to be read from the store.
    pub(crate) fn at(secrets: &Secrets, address: IpAddr) -> Self {
        let place = match address.to_canonical() {
            IpAddr::V4(address) => address.octets().to_vec(),
            // Who has one of these addresses has all that begin alike.
            IpAddr::V6(address) => address.octets()[..8].to_vec(),
        };
        let mut word = keyed(secrets, "open rounds", &[&place]);
        word.truncate(WORD_LENGTH);
        Self::Anybody(word)
    }

    pub(crate) fn word(&self) -> &str {
        match self {
            Self::Known => "",
            Self::Anybody(word) => word,
        }
    }
}

/// The rounds that one caller has open.
struct Held {
    count: usize,
    oldest: String,
}

impl Bank {
    /// Whether a round had to end for the opener, who may then try again.
    pub(super) async fn make_room(&self, opener: &Opener) -> Result<bool> {
        let scan = self.client.scan(keys::OPEN).await.map_err(trouble)?;
        let open = scan.kvs.iter().map(|kv| (kv.key.clone(), kv.bytes()));
        let Some(oldest) = displaced(open, opener) else {
            return Ok(false);
        };
        self.expire(&oldest, Ended::MadeRoom).await?;
        tracing::info!("a round expired early to make room for another caller");
        Ok(true)
    }
}

/// The key of the round that has to go. `open` comes in the order of time.
fn displaced(open: impl Iterator<Item = (String, impl AsRef<[u8]>)>, opener: &Opener) -> Option<String> {
    let mut holders: BTreeMap<String, Held> = BTreeMap::new();
    for (key, value) in open {
        let held = holders.entry(OpenRecord::read(value.as_ref()).opener);
        held.or_insert(Held {
            count: 0,
            oldest: key,
        })
        .count += 1;
    }
    holders.remove(Opener::Known.word());
    let least = match opener {
        Opener::Known => 1,
        // Even with one round more, the opener still holds no more than whom it displaces.
        Opener::Anybody(word) => holders.get(word).map_or(0, |held| held.count) + 2,
    };
    let most = holders.into_values().max_by_key(|held| held.count)?;
    (most.count >= least).then_some(most.oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anybody(word: &str) -> Opener {
        Opener::Anybody(word.to_owned())
    }

    /// Rounds of these openers, the first letter the oldest; `-` for one with a token.
    fn displaced_of(openers: &str, opener: &Opener) -> Option<String> {
        let open = openers.chars().enumerate().map(|(at, word)| {
            let opener = if word == '-' {
                String::new()
            } else {
                word.to_string()
            };
            let asked = vec!["knn".to_owned(), "tree".to_owned()];
            (at.to_string(), OpenRecord { asked, opener }.write())
        });
        displaced(open, opener)
    }

    #[test]
    fn whoever_holds_most_makes_room_for_whoever_holds_fewer() {
        assert_eq!(displaced_of("baaa", &anybody("c")).as_deref(), Some("1"));
        assert_eq!(displaced_of("baaa", &anybody("b")).as_deref(), Some("1"));
        assert_eq!(displaced_of("bbaaa", &anybody("b")), None);
        assert_eq!(displaced_of("aaaa", &anybody("a")), None);
        assert_eq!(displaced_of("abcd", &anybody("e")), None);
    }

    #[test]
    fn rounds_with_a_token_stay_and_come_first() {
        assert_eq!(displaced_of("---a", &Opener::Known).as_deref(), Some("3"));
        assert_eq!(displaced_of("----", &Opener::Known), None);
        assert_eq!(displaced_of("----", &anybody("a")), None);
        assert_eq!(displaced_of("--ab", &anybody("c")), None);
    }

    #[test]
    fn a_round_of_before_is_one_with_a_token() {
        let before = OpenRecord::read(b"knn,tree");
        assert_eq!((before.asked.len(), before.opener.as_str()), (2, ""));
    }
}
