//! Who counts as one host, and which hosts count as neighbours.
//!
//! On the Internet a host is an IP address, and its network the /24 (IPv4) or /64 (IPv6) around it:
//! what one customer has. Behind private and loopback addresses, address and port together make a
//! host and there are no neighbours, so that many nodes on one machine or in one test network work.
//!
//! Invariant: whatever is limited by host or network here, routing tables, lookups, verification
//! and throttle, means the same by these words.

use std::net::{IpAddr, SocketAddr};

use crate::address::Scope;

/// A host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Host {
    /// IPv4 in its mapped form, as two numbers: they are compared for every datagram.
    ip: [u64; 2],
    /// 0 where the address alone counts.
    port: u16,
}

impl Host {
    /// The host behind an address.
    pub(super) fn of(address: &SocketAddr) -> Self {
        let ip = match address.ip().to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let (high, low) = (ip.to_bits() >> 64, ip.to_bits() & u128::from(u64::MAX));
        let half = |bits| u64::try_from(bits).expect("half of 128 bits");
        Self {
            ip: [half(high), half(low)],
            port: if is_global(address) {
                0
            } else {
                address.port()
            },
        }
    }
}

/// A network of neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Network {
    /// A /24 of IPv4.
    V4([u8; 3]),
    /// A /64 of IPv6.
    V6([u8; 8]),
}

impl Network {
    /// The network of an address; `None` where hosts have no neighbours.
    pub(super) fn of(address: &SocketAddr) -> Option<Self> {
        if !is_global(address) {
            return None;
        }
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Some(Self::V4([a, b, c]))
            }
            IpAddr::V6(ip) => ip.octets().first_chunk().copied().map(Self::V6),
        }
    }

    /// Whether an address is in this network; one that is mapped into IPv6 is in none.
    pub(super) fn contains(&self, address: &SocketAddr) -> bool {
        match (self, address) {
            (Self::V4(prefix), SocketAddr::V4(address)) => {
                address.ip().octets().starts_with(prefix)
            }
            (Self::V6(prefix), SocketAddr::V6(address)) => {
                address.ip().octets().starts_with(prefix)
            }
            (Self::V4(_), SocketAddr::V6(_)) | (Self::V6(_), SocketAddr::V4(_)) => false,
        }
    }
}

fn is_global(address: &SocketAddr) -> bool {
    Scope::of(address.ip()) == Some(Scope::Global)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(a: &str, b: &str, is_same_host: bool, is_same_network: bool) {
        let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
        assert_eq!(Host::of(&a) == Host::of(&b), is_same_host);
        let network = Network::of(&a);
        assert_eq!(
            network.is_some() && network == Network::of(&b),
            is_same_network
        );
        let b = SocketAddr::new(b.ip().to_canonical(), b.port());
        assert_eq!(
            network.is_some_and(|network| network.contains(&b)),
            is_same_network
        );
    }

    #[test]
    fn a_global_host_is_its_address_and_has_neighbours() {
        check("8.8.8.8:1", "8.8.8.8:2", true, true);
        check("8.8.8.8:1", "[::ffff:8.8.8.8]:2", true, true);
        check("8.8.8.8:1", "8.8.8.9:1", false, true);
        check("8.8.8.8:1", "8.8.9.8:1", false, false);
        check("[2a00::1]:1", "[2a00::2]:1", false, true);
        check("[2a00::1]:1", "[2a00:0:0:1::1]:1", false, false);
    }

    #[test]
    fn hosts_of_a_private_network_or_one_machine_are_told_apart_by_port() {
        for ip in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "[fd00::1]", "[::1]"] {
            check(&format!("{ip}:1"), &format!("{ip}:2"), false, false);
            check(&format!("{ip}:1"), &format!("{ip}:1"), true, false);
        }
    }
}
