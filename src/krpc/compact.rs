//! Compact addresses: the packed form of nodes and peers (BEP 5, BEP 32).
//!
//! A peer is its IP address and port in network byte order, 6 bytes or 18; a node has its id in
//! front, 26 bytes or 38. Readers are views that decode an entry when it is asked for.
//!
//! Invariant: an address that leaves this module is never an IPv4-mapped IPv6 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::bencode::List;
use crate::id::{ID_LENGTH, NodeId};

/// Bytes of a compact IPv4 peer (BEP 5).
pub const PEER_V4_LENGTH: usize = 6;
/// Bytes of a compact IPv6 peer (BEP 32).
pub const PEER_V6_LENGTH: usize = 18;
/// Bytes of a compact IPv4 node (BEP 5).
pub const NODE_V4_LENGTH: usize = ID_LENGTH + PEER_V4_LENGTH;
/// Bytes of a compact IPv6 node (BEP 32).
pub const NODE_V6_LENGTH: usize = ID_LENGTH + PEER_V6_LENGTH;

/// IPv4 or IPv6: two DHTs that know nothing of each other (BEP 32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address; an IPv4-mapped IPv6 address is [`Family::V4`].
    #[must_use]
    pub fn of(address: &SocketAddr) -> Self {
        match address.ip().to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bytes of a compact peer of this family.
    #[must_use]
    pub const fn peer_length(self) -> usize {
        match self {
            Self::V4 => PEER_V4_LENGTH,
            Self::V6 => PEER_V6_LENGTH,
        }
    }

    /// Bytes of a compact node of this family.
    #[must_use]
    pub const fn node_length(self) -> usize {
        match self {
            Self::V4 => NODE_V4_LENGTH,
            Self::V6 => NODE_V6_LENGTH,
        }
    }
}

/// Id and address of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContactInfo {
    /// Its id.
    pub id: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// The string under `nodes` or `nodes6`, read entry by entry.
///
/// A string whose length is not a whole number of entries holds none: its sender and we do not mean
/// the same format, and a guess would only feed a lookup with addresses nobody named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactNodes<'a> {
    /// Whole entries.
    pub(crate) bytes: &'a [u8],
    /// Decides the length of an entry.
    pub(crate) family: Family,
}

impl<'a> CompactNodes<'a> {
    /// The entries of a string; none unless its length fits.
    #[must_use]
    pub fn new(bytes: &'a [u8], family: Family) -> Self {
        let whole = bytes.len().is_multiple_of(family.node_length());
        Self {
            bytes: if whole { bytes } else { &[] },
            family,
        }
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() / self.family.node_length()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Entries in order. Addresses are as the sender gave them, port 0 and private ranges included.
    pub fn iter(&self) -> impl Iterator<Item = ContactInfo> + use<'a> {
        self.bytes
            .chunks_exact(self.family.node_length())
            .filter_map(|entry| {
                let (id, address) = entry.split_at_checked(ID_LENGTH)?;
                Some(ContactInfo {
                    id: NodeId::from_slice(id)?,
                    address: read_peer(address)?,
                })
            })
    }
}

/// The list under `values`, read entry by entry; strings of other lengths than 6 and 18 are
/// skipped, and so is what is not a string. BEP 32 wants lists that mix both families to be
/// understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactPeers<'a> {
    /// `None` when the response has no such list.
    pub(crate) list: Option<List<'a>>,
}

impl<'a> CompactPeers<'a> {
    /// Addresses in order, as the sender gave them, port 0 and private ranges included.
    pub fn iter(&self) -> impl Iterator<Item = SocketAddr> + use<'a> {
        self.list
            .into_iter()
            .flat_map(|list| list.iter())
            .filter_map(|value| read_peer(value.as_bytes()?))
    }
}

/// An address from 6 or 18 bytes; `None` for any other length.
#[must_use]
pub fn read_peer(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip = if let Ok(octets) = <[u8; 4]>::try_from(ip) {
        IpAddr::V4(Ipv4Addr::from(octets))
    } else {
        IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)).to_canonical()
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

/// Appends an address: 6 bytes for IPv4 (mapped into IPv6 or not), 18 for IPv6.
pub fn write_peer(out: &mut Vec<u8>, address: &SocketAddr) {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

/// Appends a contact: 26 bytes for IPv4, 38 for IPv6.
pub fn write_node(out: &mut Vec<u8>, contact: &ContactInfo) {
    out.extend_from_slice(contact.id.as_bytes());
    write_peer(out, &contact.address);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contact(byte: u8, address: &str) -> ContactInfo {
        ContactInfo {
            id: NodeId::new([byte; 20]),
            address: address.parse().unwrap(),
        }
    }

    #[test]
    fn addresses_are_packed_in_network_byte_order() {
        let mut out = Vec::new();
        write_peer(&mut out, &"1.2.3.4:258".parse().unwrap());
        assert_eq!(out, [1, 2, 3, 4, 1, 2]);
        out.clear();
        write_peer(&mut out, &"[::1]:258".parse().unwrap());
        assert_eq!(out.len(), PEER_V6_LENGTH);
        assert_eq!(out[15..], [1, 1, 2]);
    }

    #[test]
    fn the_peers_of_bep_5_are_read() {
        assert_eq!(
            read_peer(b"axje.u"),
            Some("97.120.106.101:11893".parse().unwrap())
        );
    }

    #[test]
    fn mapped_addresses_are_ipv4_both_ways() {
        let mapped: SocketAddr = "[::ffff:1.2.3.4]:80".parse().unwrap();
        assert_eq!(Family::of(&mapped), Family::V4);
        let mut out = Vec::new();
        write_peer(&mut out, &mapped);
        assert_eq!(read_peer(&out), Some("1.2.3.4:80".parse().unwrap()));
        let mut packed = vec![0; 10];
        packed.extend_from_slice(&[0xff, 0xff, 1, 2, 3, 4, 0, 80]);
        assert_eq!(read_peer(&packed), Some("1.2.3.4:80".parse().unwrap()));
    }

    #[test]
    fn strings_that_are_no_whole_number_of_entries_hold_none() {
        let mut out = Vec::new();
        write_node(&mut out, &contact(1, "1.2.3.4:5"));
        write_node(&mut out, &contact(2, "1.2.3.4:6"));
        assert_eq!(CompactNodes::new(&out, Family::V4).len(), 2);
        for length in [1, 25, 27, 51] {
            let nodes = CompactNodes::new(&out[..length], Family::V4);
            assert!(nodes.is_empty() && nodes.iter().next().is_none());
        }
        assert!(CompactNodes::new(&out, Family::V6).is_empty());
        assert!(CompactNodes::new(&[], Family::V6).is_empty());
    }

    fn any_address() -> impl Strategy<Value = SocketAddr> {
        prop_oneof![
            any::<([u8; 4], u16)>().prop_map(|(ip, port)| (ip, port).into()),
            any::<([u8; 16], u16)>()
                .prop_map(|(ip, port)| SocketAddr::from((ip, port)))
                .prop_filter("mapped", |address| Family::of(address) == Family::V6),
        ]
    }

    proptest! {
        #[test]
        fn peers_come_back_as_they_went(address in any_address()) {
            let mut out = Vec::new();
            write_peer(&mut out, &address);
            prop_assert_eq!(out.len(), Family::of(&address).peer_length());
            prop_assert_eq!(read_peer(&out), Some(address));
        }

        #[test]
        fn nodes_come_back_as_they_went(
            entries in prop::collection::vec(any::<([u8; 20], [u8; 4], u16)>(), 0..20),
        ) {
            let contacts: Vec<_> = entries
                .into_iter()
                .map(|(id, ip, port)| ContactInfo {
                    id: NodeId::new(id),
                    address: (ip, port).into(),
                })
                .collect();
            let mut out = Vec::new();
            for contact in &contacts {
                write_node(&mut out, contact);
            }
            let nodes = CompactNodes::new(&out, Family::V4);
            prop_assert_eq!(nodes.len(), contacts.len());
            prop_assert_eq!(nodes.iter().collect::<Vec<_>>(), contacts);
        }

        #[test]
        fn any_bytes_are_read_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let expected = matches!(bytes.len(), PEER_V4_LENGTH | PEER_V6_LENGTH);
            prop_assert_eq!(read_peer(&bytes).is_some(), expected);
            for family in [Family::V4, Family::V6] {
                let nodes = CompactNodes::new(&bytes, family);
                prop_assert_eq!(nodes.iter().count(), nodes.len());
            }
        }
    }
}
