//! What a command is given on stdin.
//! Invariant: it is taken whole or refused, and no more of it is read than the store may take in one request.

use std::io::{Read as _, stdin};

use anyhow::{Context as _, ensure};
use service::config::REQUEST_BYTES_MAX;

pub(super) fn from_stdin(what: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stdin()
        .lock()
        .take(REQUEST_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("read {what} from stdin"))?;
    ensure!(
        bytes.len() <= REQUEST_BYTES_MAX,
        "{what} on stdin is larger than any request may be ({REQUEST_BYTES_MAX} bytes)"
    );
    Ok(bytes)
}
