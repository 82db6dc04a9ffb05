//! The settings of the gateway.
//! Invariant: the defaults here are the ones the documentation states; bounds stand in `bounds`.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// `host:port` where it listens; empty for none.
    pub address: String,
    /// How many tries are made for one request.
    pub attempts_max: usize,
    /// What an instance has for a read before another one is asked.
    pub read_ms_max: u64,
    /// The same for a write that carries an idempotency key: more than a shop takes for an order.
    pub write_ms_max: u64,
    /// All that a request may take at the shops. A mirror that is asked after them has a second of its own.
    pub request_ms_max: u64,
    /// The largest body of a request, held to be sent again.
    pub body_bytes_max: usize,
    /// Answers up to this size are held until they are whole, as long as there is room, so that another instance can
    /// give them instead.
    pub answer_bytes_held: u64,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            address: String::new(),
            attempts_max: 6,
            read_ms_max: 2000,
            write_ms_max: 7000,
            request_ms_max: 15_000,
            body_bytes_max: 1 << 20,
            answer_bytes_held: 1 << 20,
        }
    }
}
