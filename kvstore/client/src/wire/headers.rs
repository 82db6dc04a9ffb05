//! Names of the contract's own headers, in the lower case that HTTP libraries compare with.

pub const REVISION: &str = "x-kv-revision";
pub const CONSISTENCY: &str = "x-kv-consistency";
pub const CREATE_REVISION: &str = "x-kv-create-revision";
pub const VERSION: &str = "x-kv-version";
pub const LEASE: &str = "x-kv-lease";
/// The client address of the leader, on answers to writes.
pub const LEADER: &str = "x-kv-leader";
/// The id of the cluster, on watches: another may answer at the same addresses later.
pub const CLUSTER: &str = "x-kv-cluster";
pub const MIRROR: &str = "x-kv-mirror";
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
pub const IDEMPOTENCY_TTL: &str = "idempotency-ttl";
/// How long the store keeps the answer to a key that comes without a time.
pub const IDEMPOTENCY_TTL_S_DEFAULT: u64 = 3600;
pub const IDEMPOTENT_REPLAYED: &str = "idempotent-replayed";
pub const REQUEST_ID: &str = "x-request-id";
pub const SERVED_BY: &str = "x-served-by";
pub const LAST_EVENT_ID: &str = "last-event-id";

/// `"REV"`, as `ETag` and `If-Match` write a revision.
pub fn etag(revision: super::Revision) -> String {
    format!("\"{revision}\"")
}

/// The revision in an `ETag` or `If-Match`; weak tags name the same revision.
pub fn revision_of_etag(text: &str) -> Option<super::Revision> {
    let text = text.trim();
    let quoted = text.strip_prefix("W/").unwrap_or(text);
    let digits = quoted.strip_prefix('"')?.strip_suffix('"')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}
