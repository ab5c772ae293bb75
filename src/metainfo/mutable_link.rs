//! Magnet links that follow a torrent through its versions (BEP 46).
//!
//! Such a link names a public key and a salt; what is stored under them in the DHT names the
//! torrent. Invariant: a salt is never longer than an item's may be.

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use super::magnet::{Magnet, MagnetError};
use crate::bencode::{Limits, Writer, read};
use crate::id::InfoHash;

/// Bytes of a salt at most (BEP 44).
const SALT_MAX: usize = 64;

/// The key under which an item names a torrent (BEP 46).
const INFO_HASH: &[u8] = b"ih";

/// A magnet link to what an item names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MutableLink {
    /// The public key that signs the item (`xs=urn:btpk:`).
    pub key: [u8; 32],
    /// What tells several items of one key apart (`s`); empty when there is nothing.
    pub salt: Vec<u8>,
    /// The other parameters; its info hash means nothing.
    rest: Magnet,
}

impl MutableLink {
    /// A link with nothing but key and salt.
    #[must_use]
    pub const fn new(key: [u8; 32], salt: Vec<u8>) -> Self {
        Self {
            key,
            salt,
            rest: Magnet::new(InfoHash::new([0; 20])),
        }
    }

    /// Reads a magnet link that has a public key and no info hash; `None` for all other texts.
    ///
    /// # Errors
    ///
    /// The link is too long, or key or salt are not what they should be.
    pub fn parse(text: &str) -> Result<Option<Self>, MagnetError> {
        let Some((parameters, rest)) = Magnet::parse_around(text)? else {
            return Ok(None);
        };
        let mut key = None;
        let mut salt = Vec::new();
        for (name, value) in parameters {
            if name.eq_ignore_ascii_case("xt") && is_torrent(&value) {
                return Ok(None);
            }
            if name.eq_ignore_ascii_case("xs") {
                key = parse_key(&value)?.or(key);
            } else if name.eq_ignore_ascii_case("s") {
                salt = HEXLOWER_PERMISSIVE
                    .decode(&value)
                    .ok()
                    .filter(|salt| salt.len() <= SALT_MAX)
                    .ok_or(MagnetError::Salt)?;
            }
        }
        Ok(key.map(|key| Self { key, salt, rest }))
    }

    /// The link to the torrent that the item names now.
    #[must_use]
    pub fn magnet(&self, info_hash: InfoHash) -> Magnet {
        Magnet {
            info_hash,
            ..self.rest.clone()
        }
    }

    /// The name to show until there is metadata, if the link has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.rest.name.as_deref()
    }
}

impl fmt::Display for MutableLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "magnet:?xs=urn:btpk:{}", HEXLOWER.encode(&self.key))?;
        if !self.salt.is_empty() {
            write!(f, "&s={}", HEXLOWER.encode(&self.salt))?;
        }
        Ok(())
    }
}

/// Whether an exact topic is a torrent.
fn is_torrent(topic: &[u8]) -> bool {
    topic
        .get(..8)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"urn:btih"))
}

/// The key in an exact source; `None` if that is something else.
fn parse_key(source: &[u8]) -> Result<Option<[u8; 32]>, MagnetError> {
    const PREFIX: &[u8] = b"urn:btpk:";
    let Some((front, digits)) = source.split_at_checked(PREFIX.len()) else {
        return Ok(None);
    };
    if !front.eq_ignore_ascii_case(PREFIX) {
        return Ok(None);
    }
    let key = HEXLOWER_PERMISSIVE.decode(digits).ok();
    let key = key.and_then(|key| <[u8; 32]>::try_from(key).ok());
    key.map(Some).ok_or(MagnetError::PublicKey)
}

/// The torrent that the value of an item names (BEP 46); `None` if it names none.
#[must_use]
pub fn named_torrent(value: &[u8]) -> Option<InfoHash> {
    let value = read(value, &Limits::KRPC).ok()?;
    let info_hash = value.as_dictionary()?.get(INFO_HASH)?;
    InfoHash::from_slice(info_hash.as_bytes()?)
}

/// The value of an item that names a torrent (BEP 46).
#[must_use]
pub fn naming(info_hash: &InfoHash) -> Vec<u8> {
    let mut value = Vec::new();
    let mut writer = Writer::new(&mut value);
    writer.begin_dictionary();
    writer.key("ih").bytes(info_hash.as_bytes());
    writer.end();
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "8543d3e6115f0f98c944077a4493dcd543e49c739fd998550a1f614ab36ed63e";

    #[test]
    fn a_link_names_a_key_and_a_salt() {
        // The examples of BEP 46.
        let link = MutableLink::parse(&format!("magnet:?xs=urn:btpk:{KEY}"));
        let link = link.unwrap().unwrap();
        assert_eq!(HEXLOWER.encode(&link.key), KEY);
        assert!(link.salt.is_empty());
        let text = format!("magnet:?xs=urn:btpk:{KEY}&s=6e");
        let link = MutableLink::parse(&text).unwrap().unwrap();
        assert_eq!(link.salt, b"n");
        assert_eq!(link.to_string(), text);
        let loud = format!(
            "MAGNET:?XS=urn%3aBTPK:{}&dn=a+b&x.pe=10.0.0.1:7",
            KEY.to_uppercase()
        );
        let link = MutableLink::parse(&loud).unwrap().unwrap();
        assert_eq!(link.name(), Some("a b"));
        let magnet = link.magnet(InfoHash::new([7; 20]));
        assert_eq!(magnet.info_hash, InfoHash::new([7; 20]));
        assert_eq!(magnet.peers, ["10.0.0.1:7".parse().unwrap()]);
    }

    #[test]
    fn a_link_with_an_info_hash_is_no_mutable_one() {
        let hash = "0123456789abcdef0123456789abcdef01234567";
        for text in [
            hash.to_owned(),
            "magnet:?dn=x".to_owned(),
            "magnet:?xs=http://a/b".to_owned(),
            format!("magnet:?xs=urn:btpk:{KEY}&xt=urn:btih:{hash}"),
        ] {
            assert_eq!(MutableLink::parse(&text), Ok(None), "{text}");
        }
    }

    #[test]
    fn bad_keys_and_salts_are_refused() {
        let parse = |rest: &str| MutableLink::parse(&format!("magnet:?xs=urn:btpk:{rest}"));
        assert_eq!(parse("abcd"), Err(MagnetError::PublicKey));
        assert_eq!(parse(&"zz".repeat(32)), Err(MagnetError::PublicKey));
        assert_eq!(parse(&format!("{KEY}&s=x")), Err(MagnetError::Salt));
        let long = "00".repeat(65);
        assert_eq!(parse(&format!("{KEY}&s={long}")), Err(MagnetError::Salt));
    }

    #[test]
    fn a_value_names_a_torrent() {
        let info_hash = InfoHash::new([0xab; 20]);
        assert_eq!(named_torrent(&naming(&info_hash)), Some(info_hash));
        for value in [&b"i1e"[..], b"de", b"d2:ih2:xxe", b"d2:ihi1ee", b""] {
            assert_eq!(named_torrent(value), None, "{value:?}");
        }
    }
}
