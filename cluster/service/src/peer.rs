//! From which network a request comes.
//! Invariant: the connection tells it and no header does, since anybody may write one. Behind a gateway it is the
//! gateway's.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::request::Parts;

/// Of a request that came by no connection.
pub const UNKNOWN: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

pub fn network(parts: &Parts) -> IpAddr {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    peer.map_or(UNKNOWN, |ConnectInfo(peer)| network_of(peer.ip()))
}

/// Who has one address of the sixth version has as many as they like of the same network.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let high = u128::from(address) & !u128::from(u64::MAX);
            Ipv6Addr::from(high).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn network_of_peer(peer: Option<&str>) -> IpAddr {
        let (mut parts, ()) = Request::new(()).into_parts();
        if let Some(peer) = peer {
            let peer: SocketAddr = peer.parse().unwrap();
            parts.extensions.insert(ConnectInfo(peer));
        }
        network(&parts)
    }

    #[test]
    fn a_network_of_the_sixth_version_is_one_caller() {
        let of = |peer| network_of_peer(Some(peer));
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:2]:2"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("[::ffff:192.0.2.1]:1"), of("192.0.2.1:2"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.2:1"));
        assert_eq!(network_of_peer(None), UNKNOWN);
    }
}
