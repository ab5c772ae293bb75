//! Node ids tied to addresses (BEP 42).
//!
//! The first 21 bits of an id follow from the IP address and three bits of the id's last byte, so
//! whoever wants eight nodes next to a target needs addresses in many networks. Addresses that are
//! not global are exempt: there is nothing to grind for on a private network, and nobody outside
//! sees it.
//!
//! Invariant: [`is_bound`] accepts what [`bind`] makes.

use std::net::IpAddr;

use crate::address::Scope;
use crate::crc32c::crc32c;
use crate::id::{ID_LENGTH, NodeId};

/// What ids that do not follow from their address (BEP 42) mean for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdBinding {
    /// Nothing; our own id does not follow our address either.
    Off,
    /// Nodes whose ids follow from their addresses win places in the routing table and among the
    /// closest nodes of a lookup against others, which are used where there are not enough of them:
    /// the "transition period" of the BEP.
    #[default]
    Prefer,
    /// Besides, the others are no storage: a lookup does not end because of them, and nothing is
    /// announced to them.
    Enforce,
}

/// Bits of an id that follow from the address.
pub const BOUND_BITS: u32 = 21;

/// What counts of an IPv4 address: more of its end than of its beginning, so that a large network
/// gives few more ids than a small one.
const MASK_V4: [u8; 4] = [0x03, 0x0f, 0x3f, 0xff];

/// What counts of the first half of an IPv6 address.
const MASK_V6: [u8; 8] = [0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff];

/// The three bits of an id's last byte that choose one of eight prefixes.
const CHOICE_MASK: u8 = 0x07;

/// The 32 bits of which the first 21 begin the ids of this address whose last byte is `last`.
fn prefix(ip: IpAddr, last: u8) -> u32 {
    let choice = (last & CHOICE_MASK) << 5;
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let mut bytes = ip.octets();
            bytes
                .iter_mut()
                .zip(MASK_V4)
                .for_each(|(b, mask)| *b &= mask);
            bytes[0] |= choice;
            crc32c(&bytes)
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h, ..] = ip.octets();
            let mut bytes = [a, b, c, d, e, f, g, h];
            bytes
                .iter_mut()
                .zip(MASK_V6)
                .for_each(|(b, mask)| *b &= mask);
            bytes[0] |= choice;
            crc32c(&bytes)
        }
    }
}

/// Whether an id follows from an address, or the address is exempt because it is not global.
#[must_use]
pub fn is_bound(id: &NodeId, ip: IpAddr) -> bool {
    if Scope::of(ip) != Some(Scope::Global) {
        return true;
    }
    let bytes = id.as_bytes();
    let [first, second, third, _] = prefix(ip, bytes[ID_LENGTH - 1]).to_be_bytes();
    bytes[0] == first && bytes[1] == second && (bytes[2] ^ third) & 0xf8 == 0
}

/// The id that follows from an address and, for all bits that do not, is like `id`.
#[must_use]
pub fn bind(id: NodeId, ip: IpAddr) -> NodeId {
    let mut bytes = *id.as_bytes();
    let [first, second, third, _] = prefix(ip, bytes[ID_LENGTH - 1]).to_be_bytes();
    bytes[0] = first;
    bytes[1] = second;
    bytes[2] = third & 0xf8 | bytes[2] & 0x07;
    NodeId::new(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rows of the table in BEP 42: address, last byte, id.
    const VECTORS: [(&str, u8, &str); 5] = [
        (
            "124.31.75.21",
            1,
            "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401",
        ),
        (
            "21.75.31.124",
            86,
            "5a3ce9c14e7a08645677bbd1cfe7d8f956d53256",
        ),
        (
            "65.23.51.170",
            22,
            "a5d43220bc8f112a3d426c84764f8c2a1150e616",
        ),
        (
            "84.124.73.14",
            65,
            "1b0321dd1bb1fe518101ceef99462b947a01ff41",
        ),
        (
            "43.213.53.83",
            90,
            "e56f6cbf5b7c4be0237986d5243b87aa6d51305a",
        ),
    ];

    #[test]
    fn the_vectors_of_bep_42_come_out_byte_for_byte() {
        for (ip, last, id) in VECTORS {
            let (ip, id): (IpAddr, NodeId) = (ip.parse().unwrap(), id.parse().unwrap());
            assert_eq!(id.as_bytes()[19], last);
            assert!(is_bound(&id, ip));
            assert_eq!(bind(id, ip), id);
            // The rest of the id alone says which one it is.
            let mut rest = *id.as_bytes();
            rest[0] = 0;
            rest[1] = 0;
            rest[2] &= 0x07;
            assert_eq!(bind(NodeId::new(rest), ip), id);
        }
    }

    #[test]
    fn an_id_belongs_to_its_address_and_to_no_other() {
        for (index, (ip, _, _)) in VECTORS.iter().enumerate() {
            for (other, (_, _, id)) in VECTORS.iter().enumerate() {
                let (ip, id) = (ip.parse().unwrap(), id.parse().unwrap());
                assert_eq!(is_bound(&id, ip), index == other);
            }
        }
    }

    #[test]
    fn of_an_ipv6_address_the_first_half_counts() {
        // ip & 0x0103070f1f3f7fff | r << 61, by hand.
        let ip: IpAddr = "2001:4860:4860::8888".parse().unwrap();
        let id = bind(NodeId::new([0x05; 20]), ip);
        let expected = crc32c(&[0xa0, 0x01, 0x00, 0x00, 0x08, 0x20, 0, 0]);
        let bits = u32::from_be_bytes(*id.as_bytes().first_chunk().unwrap()) >> 11;
        assert_eq!(bits, expected >> 11);
        assert!(is_bound(&id, "2001:4860:4860:0:1:2:3:4".parse().unwrap()));
        assert!(!is_bound(&id, "2001:4860:4861::8888".parse().unwrap()));
    }

    #[test]
    fn addresses_of_local_networks_are_exempt() {
        for ip in [
            "10.0.0.1",
            "172.16.3.4",
            "192.168.1.1",
            "169.254.1.1",
            "127.0.0.1",
            "fe80::1",
            "fd00::1",
            "::1",
        ] {
            assert!(is_bound(&NodeId::new([7; 20]), ip.parse().unwrap()), "{ip}");
        }
    }

    proptest! {
        #[test]
        fn what_is_bound_is_accepted_and_keeps_its_other_bits(
            id in any::<[u8; 20]>(),
            v4 in any::<[u8; 4]>(),
            v6 in any::<[u8; 16]>(),
        ) {
            for ip in [IpAddr::from(v4), IpAddr::from(v6)] {
                let bound = bind(NodeId::new(id), ip);
                prop_assert!(is_bound(&bound, ip));
                prop_assert_eq!(&bound.as_bytes()[3..], &id[3..]);
                prop_assert_eq!(bound.as_bytes()[2] & 7, id[2] & 7);
                prop_assert_eq!(bind(bound, ip), bound);
            }
        }
    }
}
