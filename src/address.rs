//! How far an address reaches, and whether one that somebody named may be used.
//!
//! Invariant: an address learned from the network is used only if its scope is not narrower than the
//! scope of the address that named it, so nobody on the Internet makes a node dial 127.0.0.1 or
//! 192.168.1.1. What the node saw itself, or the user gave, needs no such check.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How far an address reaches, from the narrowest to the widest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// This machine: 127.0.0.0/8, `::1`.
    Loopback,
    /// This link: 169.254.0.0/16, fe80::/10.
    Link,
    /// This organisation: RFC 1918, RFC 6598 (100.64.0.0/10), RFC 4193 (fc00::/7).
    Private,
    /// The Internet.
    Global,
}

impl Scope {
    /// The scope of an address, or `None` for one that no host can be reached at: unspecified,
    /// multicast, broadcast, documentation and reserved ranges.
    #[must_use]
    pub fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Option<Self> {
        let [a, b, ..] = address.octets();
        if a == 0 || a >= 224 || address.is_documentation() {
            None
        } else if address.is_loopback() {
            Some(Self::Loopback)
        } else if address.is_link_local() {
            Some(Self::Link)
        } else if address.is_private() || (a == 100 && (64..128).contains(&b)) {
            Some(Self::Private)
        } else {
            Some(Self::Global)
        }
    }

    fn of_v6(address: Ipv6Addr) -> Option<Self> {
        let [first, second, ..] = address.segments();
        if address.is_unspecified() || address.is_multicast() || (first, second) == (0x2001, 0xdb8)
        {
            None
        } else if address.is_loopback() {
            Some(Self::Loopback)
        } else if address.is_unicast_link_local() {
            Some(Self::Link)
        } else if address.is_unique_local() {
            Some(Self::Private)
        } else {
            Some(Self::Global)
        }
    }
}

/// Whether `address`, named by the host at `named_by`, may be contacted: it has a port, a host can be
/// there, and it reaches at least as far as the address that named it.
#[must_use]
pub fn is_usable(address: SocketAddr, named_by: IpAddr) -> bool {
    address.port() != 0
        && match (Scope::of(address.ip()), Scope::of(named_by)) {
            (Some(scope), Some(namer)) => scope >= namer,
            (Some(_), None) | (None, _) => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_scope(address: &str, expected: Option<Scope>) {
        assert_eq!(Scope::of(address.parse().unwrap()), expected, "{address}");
    }

    #[test]
    fn addresses_have_the_scope_of_their_range() {
        check_scope("127.3.2.1", Some(Scope::Loopback));
        check_scope("::1", Some(Scope::Loopback));
        check_scope("::ffff:127.0.0.1", Some(Scope::Loopback));
        check_scope("169.254.1.1", Some(Scope::Link));
        check_scope("fe80::1", Some(Scope::Link));
        check_scope("10.77.0.1", Some(Scope::Private));
        check_scope("100.64.0.1", Some(Scope::Private));
        check_scope("fd00::1", Some(Scope::Private));
        check_scope("8.8.8.8", Some(Scope::Global));
        check_scope("2a00::1", Some(Scope::Global));
        for nobody in [
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "192.0.2.1",
        ] {
            check_scope(nobody, None);
        }
    }

    #[test]
    fn a_stranger_cannot_name_an_address_narrower_than_its_own() {
        let named =
            |address: &str, by: &str| is_usable(address.parse().unwrap(), by.parse().unwrap());
        assert!(!named("127.0.0.1:80", "8.8.8.8"));
        assert!(!named("192.168.1.1:80", "8.8.8.8"));
        assert!(!named("127.0.0.1:80", "192.168.1.2"));
        assert!(named("192.168.1.1:80", "192.168.1.2"));
        assert!(named("8.8.4.4:80", "192.168.1.2"));
        assert!(named("127.0.0.2:80", "127.0.0.1"));
        assert!(!named("8.8.4.4:0", "8.8.8.8"));
    }
}
