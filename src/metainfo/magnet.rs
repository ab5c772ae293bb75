//! Magnet links (BEP 9, BEP 53).

use std::fmt;
use std::net::SocketAddr;

use data_encoding::{BASE32, HEXLOWER_PERMISSIVE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::id::InfoHash;

/// Bytes of a link that are looked at; a longer one is refused.
pub const LINK_LENGTH_MAX: usize = 2 << 20;

/// Trackers, peers, web seeds and ranges that are kept, each; further ones are left out.
const SOURCES_MAX: usize = 100;

/// Characters of a display name that are kept.
const NAME_LENGTH_MAX: usize = 255;

/// What a link may hold without escaping.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/')
    .remove(b':');

/// Why a magnet link was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MagnetError {
    /// The text neither begins with `magnet:?` nor is an info hash.
    #[error("neither a magnet link nor an info hash")]
    Scheme,
    /// The link is too long.
    #[error("magnet link has {length} bytes, more than {LINK_LENGTH_MAX}")]
    TooLong {
        /// Bytes found.
        length: usize,
    },
    /// There is no `xt=urn:btih:` parameter (BEP 9).
    #[error("magnet link has no info hash (xt=urn:btih:…)")]
    NoInfoHash,
    /// There is only a v2 info hash (BEP 52).
    #[error("magnet link names a version 2 torrent (BEP 52) only, which is not supported")]
    V2Only,
    /// There are several info hashes, and they differ.
    #[error("magnet link names several torrents")]
    Several,
    /// The info hash is neither 40 hexadecimal nor 32 base-32 digits.
    #[error("info hash has {digits} digits, expected 40 or 32")]
    InfoHashLength {
        /// Digits found.
        digits: usize,
    },
    /// The info hash has a character that is no digit.
    #[error("info hash contains a character that is no digit")]
    InfoHashDigit,
}

/// A magnet link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Magnet {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// `dn`: what to call it until the metadata is there. At most 255 characters, none of them a control
    /// character.
    pub name: Option<String>,
    /// `tr`: trackers. At most 100.
    pub trackers: Vec<String>,
    /// `x.pe`: peers, given by address. At most 100.
    pub peers: Vec<SocketAddr>,
    /// `x.pe`: peers, given by host name and port. At most 100.
    pub peer_hosts: Vec<(String, u16)>,
    /// `so`: ranges of file indexes, both ends included (BEP 53). At most 100; empty means all.
    pub select_only: Vec<(u32, u32)>,
    /// `ws`: web seeds (BEP 19). At most 100.
    pub web_seeds: Vec<String>,
}

impl Magnet {
    /// A link with nothing but the info hash.
    #[must_use]
    pub const fn new(info_hash: InfoHash) -> Self {
        Self {
            info_hash,
            name: None,
            trackers: Vec::new(),
            peers: Vec::new(),
            peer_hosts: Vec::new(),
            select_only: Vec::new(),
            web_seeds: Vec::new(),
        }
    }

    /// Reads a magnet link, or a bare info hash in hexadecimal (any case) or base 32.
    ///
    /// Unknown parameters are ignored, and so are known ones that make no sense.
    ///
    /// # Errors
    ///
    /// It is neither, or does not name exactly one v1 torrent.
    pub fn parse(text: &str) -> Result<Self, MagnetError> {
        let text = text.trim();
        if text.len() > LINK_LENGTH_MAX {
            return Err(MagnetError::TooLong { length: text.len() });
        }
        let Some(parameters) = strip_scheme(text) else {
            return match parse_hash(text) {
                Ok(info_hash) => Ok(Self::new(info_hash)),
                Err(_) => Err(MagnetError::Scheme),
            };
        };
        let pairs = || {
            parameters
                .split('&')
                .filter_map(|pair| pair.split_once('='))
        };
        let info_hash = info_hash(pairs())?;
        let mut magnet = Self::new(info_hash);
        for (key, value) in pairs() {
            magnet.read(key, value);
        }
        Ok(magnet)
    }

    fn read(&mut self, key: &str, value: &str) {
        match base_key(key) {
            "dn" if self.name.is_none() => self.name = display_name(value),
            "tr" => keep(&mut self.trackers, decode(value)),
            "ws" => keep(&mut self.web_seeds, decode(value)),
            "x.pe" => self.read_peer(&decode(value).unwrap_or_default()),
            "so" => {
                for range in decode(value).unwrap_or_default().split(',') {
                    keep(&mut self.select_only, parse_range(range));
                }
            }
            _ => {}
        }
    }

    fn read_peer(&mut self, text: &str) {
        if let Ok(address) = text.parse::<SocketAddr>() {
            keep(
                &mut self.peers,
                Some(address).filter(|address| address.port() != 0),
            );
        } else if let Some((host, port)) = text.rsplit_once(':') {
            let port = port.parse().ok().filter(|&port| port != 0);
            let named = !host.is_empty() && host.len() <= 253 && !host.contains(['[', ':', '/']);
            keep(
                &mut self.peer_hosts,
                port.filter(|_| named).map(|port| (host.to_owned(), port)),
            );
        }
    }
}

impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = |text| utf8_percent_encode(text, ESCAPED);
        write!(f, "magnet:?xt=urn:btih:{}", self.info_hash)?;
        if let Some(name) = &self.name {
            write!(f, "&dn={}", escape(name))?;
        }
        for tracker in &self.trackers {
            write!(f, "&tr={}", escape(tracker))?;
        }
        for web_seed in &self.web_seeds {
            write!(f, "&ws={}", escape(web_seed))?;
        }
        for peer in &self.peers {
            write!(f, "&x.pe={peer}")?;
        }
        for (host, port) in &self.peer_hosts {
            write!(f, "&x.pe={}:{port}", escape(host))?;
        }
        for (number, (first, last)) in self.select_only.iter().enumerate() {
            f.write_str(if number == 0 { "&so=" } else { "," })?;
            if first == last {
                write!(f, "{first}")?
            } else {
                write!(f, "{first}-{last}")?
            }
        }
        Ok(())
    }
}

/// What follows `magnet:?`, in any case.
fn strip_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_at_checked("magnet:".len())?;
    scheme
        .eq_ignore_ascii_case("magnet:")
        .then(|| rest.strip_prefix('?').unwrap_or(rest))
}

/// `tr.1` means `tr`, in any case; `x.pe` is one word.
fn base_key(key: &str) -> &str {
    let known = ["xt", "dn", "tr", "ws", "x.pe", "so"];
    let stem = match key.rsplit_once('.') {
        Some((stem, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => stem,
        _ => key,
    };
    known
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(stem))
        .unwrap_or_default()
}

/// The one v1 info hash that the `xt` parameters name.
fn info_hash<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<InfoHash, MagnetError> {
    let mut found = None;
    let mut v2 = false;
    for (_, value) in pairs.filter(|(key, _)| base_key(key) == "xt") {
        let topic = decode(value).unwrap_or_default();
        let Some((prefix, hash)) = topic.split_at_checked("urn:btih:".len()) else {
            continue;
        };
        if prefix.eq_ignore_ascii_case("urn:btih:") {
            let hash = parse_hash(hash)?;
            if found.is_some_and(|found| found != hash) {
                return Err(MagnetError::Several);
            }
            found = Some(hash);
        }
        v2 |= prefix.eq_ignore_ascii_case("urn:btmh:");
    }
    found.ok_or(if v2 {
        MagnetError::V2Only
    } else {
        MagnetError::NoInfoHash
    })
}

/// 40 hexadecimal or 32 base-32 digits, in any case.
fn parse_hash(text: &str) -> Result<InfoHash, MagnetError> {
    let bytes = match text.len() {
        40 => HEXLOWER_PERMISSIVE.decode(text.as_bytes()),
        32 => BASE32.decode(text.to_ascii_uppercase().as_bytes()),
        _ => {
            return Err(MagnetError::InfoHashLength {
                digits: text.chars().count(),
            });
        }
    };
    let bytes = bytes.map_err(|_| MagnetError::InfoHashDigit)?;
    InfoHash::from_slice(&bytes).ok_or(MagnetError::InfoHashDigit)
}

/// Percent-decoded text; `None` if it is not UTF-8, empty, or has a control character in it.
fn decode(value: &str) -> Option<String> {
    let text = percent_decode_str(value).decode_utf8().ok()?;
    (!text.is_empty() && !text.contains(char::is_control)).then(|| text.into_owned())
}

/// A display name: `+` is a space here, whatever cannot be shown is left out.
fn display_name(value: &str) -> Option<String> {
    // Each kept character takes at most four escaped bytes of three characters each.
    let end = (0..=value.len().min(NAME_LENGTH_MAX * 12)).rev();
    let end = end
        .into_iter()
        .find(|&end| value.is_char_boundary(end))
        .unwrap_or(0);
    let spaced = value.get(..end).unwrap_or_default().replace('+', " ");
    let text = percent_decode_str(&spaced).decode_utf8_lossy();
    let shown: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(NAME_LENGTH_MAX)
        .collect();
    (!shown.trim().is_empty()).then_some(shown)
}

/// `7` or `3-5`.
fn parse_range(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (first.parse().ok()?, last.parse().ok()?);
    (range.0 <= range.1).then_some(range)
}

/// Keeps a value unless there are enough, or it is there already.
fn keep<T: PartialEq>(list: &mut Vec<T>, value: Option<T>) {
    if let Some(value) = value.filter(|value| list.len() < SOURCES_MAX && !list.contains(value)) {
        list.push(value);
    }
}

#[cfg(test)]
#[path = "magnet_tests.rs"]
mod tests;
