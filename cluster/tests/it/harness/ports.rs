//! Free ports for nodes that come and go.
//! Invariant: no port is one that the system gives to outgoing connections.

use std::net::TcpListener;

/// Ports that are free now and that the system gives to no outgoing connection, so that a node that is
/// down for a while finds its own again.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    const FIRST: u32 = 10_000;
    const ROOMS: u32 = 700;
    const ROOM_SIZE: u32 = 30;
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    // Tests run as processes side by side: each searches a room of its own first.
    let room = (std::process::id() + 97 * NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) % ROOMS;
    let start = FIRST + room * ROOM_SIZE;
    let ports = (0..ROOMS * ROOM_SIZE).map(|n| FIRST + (start - FIRST + n) % (ROOMS * ROOM_SIZE));
    let free = ports.filter_map(|port| {
        let port = u16::try_from(port).unwrap();
        TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
    });
    let free: Vec<u16> = free.take(count).collect();
    assert_eq!(free.len(), count, "not enough free ports");
    free
}
