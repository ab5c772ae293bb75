//! Local service discovery (BEP 14): the datagrams in which peers of a local network name their torrents.
//!
//! The form is that of an HTTP request. Only what is used of it is kept, and at most [`INFO_HASHES_MAX`] info
//! hashes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::id::InfoHash;

/// The IPv4 group and port to which announces go.
pub const GROUP_V4: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 192, 152, 143), 6771);

/// The IPv6 group and port to which announces go.
pub const GROUP_V6: (Ipv6Addr, u16) = (Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f), 6771);

/// Info hashes in one datagram at most. BEP 14: no more than 1,400 bytes; twenty take 1,000.
pub const INFO_HASHES_MAX: usize = 20;

/// Bytes of a datagram that is looked at. BEP 14: 1,400 at most are sent.
pub const DATAGRAM_MAX: usize = 1_400;

/// The first line.
const REQUEST: &str = "BT-SEARCH * HTTP/1.1";

/// Bytes of a cookie that are compared; longer ones are not ours.
const COOKIE_MAX: usize = 64;

/// An announce (BEP 14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAnnounce {
    /// The port at which the sender listens.
    pub port: u16,
    /// Torrents that it has; at most [`INFO_HASHES_MAX`].
    pub info_hashes: Vec<InfoHash>,
    /// By which the sender knows its own announces.
    pub cookie: Option<String>,
}

impl LocalAnnounce {
    /// The datagram for this group.
    #[must_use]
    pub fn encode(&self, group: SocketAddr) -> String {
        let mut text = format!("{REQUEST}\r\nHost: {group}\r\nPort: {}\r\n", self.port);
        for info_hash in &self.info_hashes {
            text.push_str(&format!("Infohash: {info_hash}\r\n"));
        }
        if let Some(cookie) = &self.cookie {
            text.push_str(&format!("cookie: {cookie}\r\n"));
        }
        text.push_str("\r\n\r\n");
        text
    }

    /// Reads a datagram; `None` if it is no announce: another first line, no port, no info hash, too long.
    #[must_use]
    pub fn decode(datagram: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(datagram).ok()?;
        if datagram.len() > DATAGRAM_MAX {
            return None;
        }
        let mut lines = text.split("\r\n");
        if lines.next()? != REQUEST {
            return None;
        }
        let mut port = None;
        let mut announce = Self {
            port: 0,
            info_hashes: Vec::new(),
            cookie: None,
        };
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("port") {
                port = value.parse().ok().filter(|&port| port != 0);
            } else if name.eq_ignore_ascii_case("infohash") {
                announce.add(value);
            } else if name.eq_ignore_ascii_case("cookie") && value.len() <= COOKIE_MAX {
                announce.cookie = Some(value.to_owned());
            }
        }
        announce.port = port?;
        (!announce.info_hashes.is_empty()).then_some(announce)
    }

    /// Takes an info hash, if it is one and there is room.
    fn add(&mut self, digits: &str) {
        let is_hash = digits.len() == 40 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if let Ok(info_hash) = digits.parse::<InfoHash>()
            && is_hash
            && self.info_hashes.len() < INFO_HASHES_MAX
            && !self.info_hashes.contains(&info_hash)
        {
            self.info_hashes.push(info_hash);
        }
    }
}

/// The group of the family of an address.
#[must_use]
pub fn group_of(address: IpAddr) -> SocketAddr {
    match address {
        IpAddr::V4(_) => GROUP_V4.into(),
        IpAddr::V6(_) => GROUP_V6.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn announce() -> LocalAnnounce {
        LocalAnnounce {
            port: 6881,
            info_hashes: vec![InfoHash::new([0xab; 20])],
            cookie: Some("c00c1e".to_owned()),
        }
    }

    #[test]
    fn an_announce_has_the_form_of_the_bep() {
        let expected = format!(
            "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\n\
             Infohash: {}\r\ncookie: c00c1e\r\n\r\n\r\n",
            "ab".repeat(20)
        );
        let v4 = group_of(IpAddr::from([127, 0, 0, 1]));
        assert_eq!(announce().encode(v4), expected);
        let v6 = group_of(IpAddr::from(Ipv6Addr::LOCALHOST));
        let line = "\r\nHost: [ff15::efc0:988f]:6771\r\n";
        assert!(announce().encode(v6).contains(line));
        assert_eq!(LocalAnnounce::decode(expected.as_bytes()), Some(announce()));
    }

    #[test]
    fn names_are_read_in_any_case_and_unknown_ones_ignored() {
        let hash = "AB".repeat(20);
        let text = format!("BT-SEARCH * HTTP/1.1\r\nPORT: 6881\r\nX-a: b\r\ninfohash:{hash}\r\n");
        let expected = LocalAnnounce {
            cookie: None,
            ..announce()
        };
        assert_eq!(LocalAnnounce::decode(text.as_bytes()), Some(expected));
    }

    #[test]
    fn what_is_no_announce_is_refused() {
        let hash = "ab".repeat(20);
        for text in [
            String::new(),
            "M-SEARCH * HTTP/1.1\r\n\r\n".to_owned(),
            format!("BT-SEARCH * HTTP/1.1\r\nInfohash: {hash}\r\n\r\n"),
            format!("BT-SEARCH * HTTP/1.1\r\nPort: 0\r\nInfohash: {hash}\r\n\r\n"),
            format!("BT-SEARCH * HTTP/1.1\r\nPort: 65536\r\nInfohash: {hash}\r\n\r\n"),
            "BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: abc\r\n\r\n".to_owned(),
            "BT-SEARCH * HTTP/1.1\r\nPort: 1\r\n\r\n".to_owned(),
            format!("BT-SEARCH * HTTP/1.1\r\nnonsense\r\nPort: 1\r\nInfohash: {hash}\r\n"),
            format!(
                "BT-SEARCH * HTTP/1.1\r\nPort: 1\r\n{}",
                "x: y\r\n".repeat(1000)
            ),
        ] {
            assert_eq!(LocalAnnounce::decode(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn twenty_torrents_fit_a_datagram_and_more_are_not_read() {
        let mut many = announce();
        many.info_hashes = (0..25).map(|byte| InfoHash::new([byte; 20])).collect();
        let text = many.encode(GROUP_V6.into());
        assert!(text.len() <= DATAGRAM_MAX, "{}", text.len());
        let read = LocalAnnounce::decode(text.as_bytes()).unwrap();
        assert_eq!(read.info_hashes, many.info_hashes[..20]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, text in "[a-zA-Z0-9:\r\n ]{0,200}") {
            let _ = LocalAnnounce::decode(&bytes);
            let text = format!("{REQUEST}\r\n{text}");
            let _ = LocalAnnounce::decode(text.as_bytes());
        }
    }
}
