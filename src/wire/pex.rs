//! The payload of `ut_pex` messages: peers that the sender is connected to, or no longer (BEP 11).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::ProtocolError;
use super::extended::LIMITS;
use crate::bencode::{self, Dictionary, Writer};

/// Contacts that one message adds at most, both families together, and that it drops at most. BEP 11: should
/// not exceed 50, but for the first message; further ones are not read.
pub const PEX_CONTACTS_MAX: usize = 50;

/// Flag of a contact: it has everything it wants.
pub const PEX_SEED: u8 = 0x02;

/// Flag of a contact: the sender dialled it, so it can be reached.
pub const PEX_REACHABLE: u8 = 0x10;

/// Bytes of a compact contact without its port, for each family.
const IP_LENGTHS: [usize; 2] = [4, 16];

/// A peer that somebody is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PexContact {
    /// Where it listens.
    pub address: SocketAddr,
    /// What is known of it: [`PEX_SEED`], [`PEX_REACHABLE`], and further bits of BEP 11.
    pub flags: u8,
}

/// A `ut_pex` message (BEP 11). Addresses are as sent: their scope is not checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PexMessage {
    /// Peers that the sender is connected to now; at most [`PEX_CONTACTS_MAX`].
    pub added: Vec<PexContact>,
    /// Peers that it is not connected to any more; at most [`PEX_CONTACTS_MAX`].
    pub dropped: Vec<SocketAddr>,
}

impl PexMessage {
    /// Whether nothing is told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.dropped.is_empty()
    }

    /// The payload, which follows the id.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Strings of the two families: contacts, and flags of those that are added.
        let mut added: [(Vec<u8>, Vec<u8>); 2] = Default::default();
        let mut dropped: [Vec<u8>; 2] = Default::default();
        for contact in &self.added {
            let (contacts, flags) = &mut added[usize::from(is_v6(contact.address))];
            put_contact(contacts, contact.address);
            flags.push(contact.flags);
        }
        for &address in &self.dropped {
            put_contact(&mut dropped[usize::from(is_v6(address))], address);
        }
        let mut out = Vec::with_capacity(64 + 24 * (self.added.len() + self.dropped.len()));
        let mut writer = Writer::new(&mut out);
        writer.begin_dictionary();
        let [(v4, v4_flags), (v6, v6_flags)] = &added;
        let strings = [
            ("added", v4),
            ("added.f", v4_flags),
            ("added6", v6),
            ("added6.f", v6_flags),
            ("dropped", &dropped[0]),
            ("dropped6", &dropped[1]),
        ];
        for (key, string) in strings {
            if !string.is_empty() {
                writer.key(key).bytes(string);
            }
        }
        writer.end();
        out
    }

    /// Reads a payload, as far as it may tell: what is over the bounds is left out, and so are strings that
    /// are no whole number of contacts, and contacts without a port.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Extension`] if it is not an acceptable bencoded dictionary.
    pub fn decode(payload: &[u8]) -> Result<Self, ProtocolError> {
        let root = bencode::read(payload, &LIMITS).map_err(|_| ProtocolError::Extension)?;
        let root = root.as_dictionary().ok_or(ProtocolError::Extension)?;
        let mut message = Self::default();
        for (key, flags_key, length) in [
            (b"added".as_slice(), b"added.f".as_slice(), IP_LENGTHS[0]),
            (b"added6", b"added6.f", IP_LENGTHS[1]),
        ] {
            let flags = string(&root, flags_key);
            for (number, address) in contacts(string(&root, key), length) {
                if message.added.len() < PEX_CONTACTS_MAX {
                    let flags = flags.get(number).copied().unwrap_or(0);
                    message.added.push(PexContact { address, flags });
                }
            }
        }
        for (key, length) in [
            (b"dropped".as_slice(), IP_LENGTHS[0]),
            (b"dropped6", IP_LENGTHS[1]),
        ] {
            for (_, address) in contacts(string(&root, key), length) {
                if message.dropped.len() < PEX_CONTACTS_MAX {
                    message.dropped.push(address);
                }
            }
        }
        Ok(message)
    }
}

fn is_v6(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_ipv6()
}

fn put_contact(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
    out.extend(address.port().to_be_bytes());
}

/// The string under a key; empty if there is none.
fn string<'a>(root: &Dictionary<'a>, key: &[u8]) -> &'a [u8] {
    let value = root.get(key).and_then(|value| value.as_bytes());
    value.unwrap_or_default()
}

/// The first contacts of a string, with their numbers in it; `ip_length` bytes of each are its address.
fn contacts(
    string: &[u8],
    ip_length: usize,
) -> impl Iterator<Item = (usize, SocketAddr)> + use<'_> {
    let length = ip_length + 2;
    let whole = string.len().is_multiple_of(length);
    let entries = string.chunks_exact(length).enumerate();
    let entries = entries.take(if whole { PEX_CONTACTS_MAX } else { 0 });
    entries.filter_map(move |(number, entry)| {
        let (ip, port) = entry.split_at_checked(ip_length)?;
        let port = u16::from_be_bytes(port.try_into().ok()?);
        let ip = match <[u8; 4]>::try_from(ip) {
            Ok(octets) => IpAddr::from(Ipv4Addr::from(octets)),
            Err(_) => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
        };
        (port != 0).then_some((number, SocketAddr::new(ip.to_canonical(), port)))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contact(address: &str, flags: u8) -> PexContact {
        let address = address.parse().unwrap();
        PexContact { address, flags }
    }

    #[test]
    fn both_families_have_the_layout_of_the_bep() {
        let message = PexMessage {
            added: vec![
                contact("1.2.3.4:258", PEX_SEED),
                contact("[2001::1]:1", PEX_REACHABLE),
            ],
            dropped: vec!["9.8.7.6:5".parse().unwrap()],
        };
        let mut expected = b"d5:added6:\x01\x02\x03\x04\x01\x027:added.f1:\x02".to_vec();
        expected.extend(b"6:added618:\x20\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x01");
        expected.extend(b"8:added6.f1:\x107:dropped6:\x09\x08\x07\x06\0\x05e");
        assert_eq!(message.encode(), expected);
        assert_eq!(PexMessage::decode(&expected), Ok(message));
        assert_eq!(PexMessage::default().encode(), b"de");
    }

    #[test]
    fn flags_are_optional_and_contacts_without_a_port_are_left_out() {
        let payload = b"d5:added12:\x01\x02\x03\x04\0\0\x05\x06\x07\x08\0\x097:added.f1:\x02e";
        let message = PexMessage::decode(payload).unwrap();
        assert_eq!(message.added, [contact("5.6.7.8:9", 0)]);
    }

    #[test]
    fn no_more_than_fifty_are_read_of_ten_thousand() {
        let mut payload = b"d5:added60000:".to_vec();
        payload.extend((0..60_000u32).map(|byte| byte.to_le_bytes()[0] | 1));
        payload.extend(b"6:added61800:");
        payload.extend([1; 1800]);
        payload.extend(b"7:dropped60000:");
        payload.extend([1; 60_000]);
        payload.push(b'e');
        let message = PexMessage::decode(&payload).unwrap();
        assert_eq!((message.added.len(), message.dropped.len()), (50, 50));
    }

    #[test]
    fn strings_of_odd_length_and_other_kinds_name_nobody() {
        for payload in [
            &b"d5:added7:\x01\x02\x03\x04\x01\x02\x03e"[..],
            b"d5:addedi6ee",
            b"d5:addedle6:added6dee",
            b"d6:added66:\x01\x02\x03\x04\x01\x02e",
        ] {
            let message = PexMessage::decode(payload).unwrap();
            assert!(message.is_empty(), "{message:?}");
        }
        for payload in [&b""[..], b"le", b"d", b"i1e"] {
            let refused = PexMessage::decode(payload);
            assert_eq!(refused, Err(ProtocolError::Extension));
        }
    }

    fn any_address() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), 1u16..).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            mut added in prop::collection::vec((any_address(), any::<u8>()), 0..=50),
            mut dropped in prop::collection::vec(any_address(), 0..=50),
        ) {
            added.sort_by_key(|(address, _)| is_v6(*address));
            dropped.sort_by_key(|address| is_v6(*address));
            let added = added.into_iter().map(|(address, flags)| PexContact { address, flags });
            let message = PexMessage { added: added.collect(), dropped };
            prop_assert_eq!(PexMessage::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = PexMessage::decode(&bytes);
        }
    }
}
