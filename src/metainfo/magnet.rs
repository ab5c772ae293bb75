//! Magnet links (BEP 9, 53).
//!
//! A link is untrusted text: what is not understood is ignored, and what is there too often is
//! capped. Invariant: a [`Magnet`] that [`Magnet::parse`] made is written by `Display` as a link
//! that parses to the same value.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use data_encoding::BASE32;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{TRACKERS_MAX, WEB_SEEDS_MAX, is_host, text};
use crate::id::{ID_LENGTH, InfoHash};

/// Bytes in a link at most. Ours: any clipboard holds less; it bounds the work for hostile text.
pub const LINK_LENGTH_MAX: usize = 2 << 20;

/// Peers that a link may name, and as many host names; what follows is ignored.
pub const PEERS_MAX: usize = 100;

/// Ranges of files that a link may select; what follows is ignored.
pub const SELECT_ONLY_MAX: usize = 10_000;

/// Bytes of `dn` that are kept.
const NAME_LENGTH_MAX: usize = 255;

/// Hexadecimal digits of an info hash.
const HEX_DIGITS: usize = 2 * ID_LENGTH;

/// Base-32 digits of an info hash.
const BASE32_DIGITS: usize = 32;

/// What is escaped in a value: all but the unreserved characters of RFC 3986.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What is escaped in an address: brackets and colons stay readable.
const ADDRESS: &AsciiSet = &VALUE.remove(b'[').remove(b']').remove(b':');

/// The parameters of a link: names, and values without their escapes.
pub(super) type Parameters<'a> = Box<dyn Iterator<Item = (&'a str, Cow<'a, [u8]>)> + 'a>;

/// A magnet link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Magnet {
    /// The v1 info hash (`xt=urn:btih:`).
    pub info_hash: InfoHash,
    /// The name to show until there is metadata (`dn`), made fit for display.
    pub name: Option<String>,
    /// Tracker URLs (`tr`), at most [`TRACKERS_MAX`].
    pub trackers: Vec<String>,
    /// Peers given by address (`x.pe`), at most [`PEERS_MAX`].
    pub peers: Vec<SocketAddr>,
    /// Peers given by host name and port (`x.pe`), at most [`PEERS_MAX`].
    pub peer_hosts: Vec<(String, u16)>,
    /// Ranges of file indexes to download, both ends included (`so`, BEP 53); empty means all
    /// files. At most [`SELECT_ONLY_MAX`].
    pub select_only: Vec<(u32, u32)>,
    /// URLs of HTTP seeds (`ws`), at most [`WEB_SEEDS_MAX`].
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

    /// Reads a magnet link, or a bare info hash of 40 hexadecimal or 32 base-32 digits in any case.
    ///
    /// Names of parameters and of the scheme count in any case, and with a number (`tr.1`). Unknown
    /// parameters and values that make no sense are ignored, except for the info hash.
    ///
    /// # Errors
    ///
    /// It is no link, is too long, or does not name exactly one v1 info hash.
    pub fn parse(text: &str) -> Result<Self, MagnetError> {
        let text = text.trim();
        if text.len() > LINK_LENGTH_MAX {
            return Err(MagnetError::TooLong { length: text.len() });
        }
        let Some(parameters) = strip_prefix_any_case(text, "magnet:?") else {
            return parse_info_hash(text)
                .map(Self::new)
                .map_err(|_| MagnetError::Scheme);
        };
        let mut magnet = Self::new(find_info_hash(parameters)?);
        for (name, value) in split_parameters(parameters) {
            magnet.add(name, value);
        }
        Ok(magnet)
    }

    /// The parameters of a link without their escapes, and a link that has all of them but the info
    /// hash; `None` if the text is no link.
    ///
    /// # Errors
    ///
    /// It is too long.
    pub(super) fn parse_around(text: &str) -> Result<Option<(Parameters<'_>, Self)>, MagnetError> {
        let text = text.trim();
        let Some(parameters) = strip_prefix_any_case(text, "magnet:?") else {
            return Ok(None);
        };
        if text.len() > LINK_LENGTH_MAX {
            return Err(MagnetError::TooLong { length: text.len() });
        }
        let mut magnet = Self::new(InfoHash::new([0; ID_LENGTH]));
        for (name, value) in split_parameters(parameters) {
            magnet.add(name, value);
        }
        let named = |(name, value)| (name, decode(value));
        let parameters = split_parameters(parameters).map(named);
        Ok(Some((Box::new(parameters), magnet)))
    }

    /// Takes in one parameter, its value still escaped.
    fn add(&mut self, name: &str, value: &str) {
        let is = |expected: &str| name.eq_ignore_ascii_case(expected);
        if is("dn") {
            self.add_name(value);
        } else if is("tr") {
            add_url(&mut self.trackers, value, TRACKERS_MAX);
        } else if is("ws") {
            add_url(&mut self.web_seeds, value, WEB_SEEDS_MAX);
        } else if is("x.pe") {
            self.add_peer(value);
        } else if is("so") {
            self.add_selection(value);
        }
    }

    /// Forms write a space as `+`, and so do makers of links in names, and only there.
    fn add_name(&mut self, value: &str) {
        if self.name.is_none() {
            let value = value.replace('+', " ");
            self.name = text::plain(&decode(&value), NAME_LENGTH_MAX);
        }
    }

    fn add_peer(&mut self, value: &str) {
        let decoded = decode(value);
        let Ok(peer) = std::str::from_utf8(&decoded) else {
            return;
        };
        if let Ok(address) = peer.parse::<SocketAddr>() {
            let wanted = address.port() != 0 && !self.peers.contains(&address);
            if wanted && self.peers.len() < PEERS_MAX {
                self.peers.push(address);
            }
        } else if let Some(host) = parse_host_port(peer)
            && self.peer_hosts.len() < PEERS_MAX
            && !self.peer_hosts.contains(&host)
        {
            self.peer_hosts.push(host);
        }
    }

    fn add_selection(&mut self, value: &str) {
        let decoded = decode(value);
        let Ok(list) = std::str::from_utf8(&decoded) else {
            return;
        };
        for range in list.split(',').filter_map(parse_range) {
            if self.select_only.len() >= SELECT_ONLY_MAX {
                return;
            }
            self.select_only.push(range);
        }
    }
}

impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "magnet:?xt=urn:btih:{}", self.info_hash)?;
        if let Some(name) = &self.name {
            write!(f, "&dn={}", utf8_percent_encode(name, VALUE))?;
        }
        for tracker in &self.trackers {
            write!(f, "&tr={}", utf8_percent_encode(tracker, VALUE))?;
        }
        for web_seed in &self.web_seeds {
            write!(f, "&ws={}", utf8_percent_encode(web_seed, VALUE))?;
        }
        for peer in &self.peers {
            write!(
                f,
                "&x.pe={}",
                utf8_percent_encode(&peer.to_string(), ADDRESS)
            )?;
        }
        for (host, port) in &self.peer_hosts {
            write!(f, "&x.pe={}:{port}", utf8_percent_encode(host, ADDRESS))?;
        }
        for (index, (first, last)) in self.select_only.iter().enumerate() {
            f.write_str(if index == 0 { "&so=" } else { "," })?;
            if first == last {
                write!(f, "{first}")?;
            } else {
                write!(f, "{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl std::str::FromStr for Magnet {
    type Err = MagnetError;

    fn from_str(text: &str) -> Result<Self, MagnetError> {
        Self::parse(text)
    }
}

/// Why a magnet link was not accepted.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MagnetError {
    /// The text does not begin with `magnet:?`, and is no info hash either.
    #[error("not a magnet link")]
    Scheme,
    /// The text is longer than [`LINK_LENGTH_MAX`].
    #[error("magnet link has {length} bytes, at most {LINK_LENGTH_MAX} are read")]
    TooLong {
        /// Bytes found.
        length: usize,
    },
    /// There is no `xt=urn:btih:` parameter (BEP 9).
    #[error("magnet link has no info hash")]
    NoInfoHash,
    /// The only hash is one of a v2 torrent (`xt=urn:btmh:`, BEP 52).
    #[error("it is for a v2-only torrent (BEP 52), which is not supported")]
    V2Only,
    /// There are several `xt=urn:btih:` that differ: it would be chance which torrent is fetched.
    #[error("magnet link names several torrents")]
    SeveralInfoHashes,
    /// The info hash is neither 40 hexadecimal nor 32 base-32 digits.
    #[error("info hash has {digits} digits, expected 40 or 32")]
    InfoHashLength {
        /// Digits found.
        digits: usize,
    },
    /// The info hash has the right length, but a character that is no digit.
    #[error("info hash has a character that is not a digit of its kind")]
    InfoHashDigit,
    /// What stands behind `xs=urn:btpk:` is not 64 hexadecimal digits (BEP 46).
    #[error("the public key in the magnet link is not 64 hexadecimal digits")]
    PublicKey,
    /// What stands behind `s=` is no hexadecimal text of at most 64 bytes (BEP 46).
    #[error("the salt in the magnet link is not hexadecimal, or has more than 64 bytes")]
    Salt,
}

/// The only v1 info hash among the parameters.
fn find_info_hash(parameters: &str) -> Result<InfoHash, MagnetError> {
    let mut found = None;
    let mut has_v2 = false;
    for (name, value) in split_parameters(parameters) {
        if !name.eq_ignore_ascii_case("xt") {
            continue;
        }
        let decoded = decode(value);
        let topic = String::from_utf8_lossy(&decoded);
        if let Some(digits) = strip_prefix_any_case(&topic, "urn:btih:") {
            let info_hash = parse_info_hash(digits)?;
            if found.is_some_and(|found| found != info_hash) {
                return Err(MagnetError::SeveralInfoHashes);
            }
            found = Some(info_hash);
        } else if strip_prefix_any_case(&topic, "urn:btmh:").is_some() {
            has_v2 = true;
        }
    }
    found.ok_or(if has_v2 {
        MagnetError::V2Only
    } else {
        MagnetError::NoInfoHash
    })
}

/// The parameters of a link with their values still escaped. Numbers behind names (`tr.1`) are
/// dropped, and so is what is left of `&amp;` where a link was copied out of a web page's source.
fn split_parameters(parameters: &str) -> impl Iterator<Item = (&str, &str)> {
    parameters.split('&').filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let name = strip_prefix_any_case(name, "amp;").unwrap_or(name);
        let name = match name.rsplit_once('.') {
            Some((front, number)) if !number.is_empty() && is_decimal(number) => front,
            _ => name,
        };
        Some((name, value))
    })
}

/// The bytes that a value stands for. `+` is a plus.
fn decode(value: &str) -> Cow<'_, [u8]> {
    percent_decode_str(value).into()
}

fn strip_prefix_any_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (front, rest) = text.split_at_checked(prefix.len())?;
    front.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn is_decimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// An info hash in hexadecimal or base 32.
fn parse_info_hash(text: &str) -> Result<InfoHash, MagnetError> {
    let digits = text.chars().count();
    match digits {
        HEX_DIGITS => text.parse().map_err(|_| MagnetError::InfoHashDigit),
        BASE32_DIGITS => BASE32
            .decode(text.to_ascii_uppercase().as_bytes())
            .ok()
            .and_then(|bytes| InfoHash::from_slice(&bytes))
            .ok_or(MagnetError::InfoHashDigit),
        _ => Err(MagnetError::InfoHashLength { digits }),
    }
}

/// Adds a URL that is new and makes sense, while there is room.
fn add_url(urls: &mut Vec<String>, value: &str, urls_max: usize) {
    if urls.len() >= urls_max {
        return;
    }
    if let Some(url) = text::url(&decode(value)).filter(|url| !urls.contains(url)) {
        urls.push(url);
    }
}

/// A host name and port, `host:port`.
fn parse_host_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port
        .parse()
        .ok()
        .filter(|&number| number != 0 && is_decimal(port))?;
    (is_host(host) && !host.contains(':')).then(|| (host.to_owned(), port))
}

/// One element of `so` (BEP 53): an index, or two with a hyphen between them.
fn parse_range(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| is_decimal(text).then(|| text.parse().ok()).flatten();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests;
