//! Peers among themselves: binary frames over connections of their own, never the clients' port.
//!
//! `frame` and `handshake` make a trusted connection, `message` is what is said on it, `client` sends
//! for openraft, `link` asks (forwarded writes, read indexes), `server` answers (`appends` to streams of entries, which
//! take `turns`), `transfer` moves snapshots, `failover` shortens the wait when a leader's process is gone. `sent` says which answers prove that
//! this node leads, and `taken` keeps what it relies on at the other end.

mod appends;
#[cfg(test)]
mod bent;
pub mod client;
mod doorway;
pub mod failover;
pub mod frame;
pub mod handshake;
pub mod link;
pub mod message;
mod older;
mod room;
mod sent;
pub mod server;
mod stream;
pub mod taken;
pub mod transfer;
mod turns;
