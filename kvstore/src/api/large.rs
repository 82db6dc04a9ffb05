//! Answers of many bytes are put into JSON on another thread: megabytes of it would hold up all else that a node does.

use bytes::Bytes;
use service::tasks::Tasks;
use tokio::task::JoinError;

use crate::machine::turns::Turn;

const INLINE_BYTES_MAX: usize = 32 << 10;
/// As large as a page of keys.
const UNCOUNTED_BYTES_MAX: usize = 4 << 20;

/// What `write` makes of roughly so many bytes. It fails only if it panics, or where the process is about to end.
pub(super) async fn written<T: Send + 'static>(
    tasks: &Tasks,
    bytes: usize,
    write: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if bytes <= INLINE_BYTES_MAX {
        return Ok(write());
    }
    tasks.spawn_blocking("large-json", write).await
}

struct Kept {
    text: Vec<u8>,
    _turn: Option<Turn>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// What takes much memory keeps the turn in which it was made, until its caller has all of it or is gone.
pub(super) fn kept(text: Vec<u8>, turn: Option<Turn>) -> Bytes {
    if text.len() <= UNCOUNTED_BYTES_MAX {
        return text.into();
    }
    Bytes::from_owner(Kept { text, _turn: turn })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::machine::turns::Turns;

    #[tokio::test]
    async fn only_what_takes_much_memory_keeps_its_turn() {
        let turns = Turns::new();
        for (bytes, keeps) in [(UNCOUNTED_BYTES_MAX, false), (UNCOUNTED_BYTES_MAX + 1, true)] {
            let turn = turns.of("somebody").turn().await;
            let text = kept(vec![b'x'; bytes], Some(turn));
            assert_eq!(text.len(), bytes);
            let next = turns.of("somebody").turn().now_or_never();
            assert_eq!(next.is_none(), keeps, "{bytes} bytes");
            drop((text, next));
        }
        assert!(turns.of("somebody").turn().now_or_never().is_some());
    }
}
