//! Answers of many bytes are put into JSON on another thread: megabytes of it would hold up all else that a node does.

use service::tasks::Tasks;
use tokio::task::JoinError;

const INLINE_BYTES_MAX: usize = 32 << 10;

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
