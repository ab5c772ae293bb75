//! A host, as far as addresses tell one from another.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::address::Scope;

/// One host: an address without port. In the Internet a /64 of IPv6 is one host, because whoever has one
/// address of it has them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Host(IpAddr);

impl Host {
    /// The host of an address.
    pub(super) fn of(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            IpAddr::V6(whole) if Scope::of(whole.into()) == Some(Scope::Global) => {
                let [a, b, c, d, ..] = whole.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            other => Self(other),
        }
    }

    /// Whether it is in the Internet, where an address belongs to one user or household. In private
    /// networks and on one machine many peers may share one.
    pub(super) fn is_global(self) -> bool {
        Scope::of(self.0) == Some(Scope::Global)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_64_bits_is_one_host_and_so_is_a_mapped_address() {
        let host = |text: &str| Host::of(text.parse().unwrap());
        assert_eq!(host("[2001:470:1:2::1]:1"), host("[2001:470:1:2:9::5]:7"));
        assert_ne!(host("[2001:470:1:2::1]:1"), host("[2001:470:1:3::1]:1"));
        assert_ne!(host("[fe80::1]:1"), host("[fe80::2]:1"));
        assert_eq!(host("[::ffff:8.8.8.8]:1"), host("8.8.8.8:2"));
        assert!(host("8.8.8.8:2").is_global() && !host("127.0.0.1:2").is_global());
        assert!(host("[2001:470:1:2::1]:1").is_global() && !host("[::1]:2").is_global());
    }
}
