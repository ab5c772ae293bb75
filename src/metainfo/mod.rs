//! Torrents as values: .torrent files (BEP 3, 12, 19, 27, 47), magnet links (BEP 9, 46, 53), and the
//! arithmetic of pieces and files.
//!
//! [`Metainfo`] is a whole .torrent file, [`Info`] the part of it that peers can send as well. Both
//! are read in place from bytes that [`bencode`] scanned. [`FileList`] makes names from strangers
//! safe, [`Geometry`] turns lengths into pieces and blocks, [`FileSelection`] picks files, [`build`]
//! makes new torrents.
//! Invariant: an info hash is always the hash of bytes as they were received, never of bytes
//! encoded again.

pub mod build;
pub mod files;
pub mod geometry;
pub mod info;
pub mod magnet;
pub mod mutable_link;
pub mod selection;
mod text;

use std::sync::Arc;

use bytes::Bytes;

pub use files::{File, FileList};
pub use geometry::{BLOCK_LENGTH, BlockRef, FileSlice, Geometry, PieceIndex};
pub use info::{Info, MetainfoError};
pub use magnet::{Magnet, MagnetError};
pub use mutable_link::MutableLink;
pub use selection::{FileRule, FileSelection, SelectionError};
pub(crate) use text::plain as plain_text;

use crate::bencode::{self, Dictionary, Limits, List, Value, Writer};

/// Trackers that one torrent or magnet link may name; what follows is ignored. Ours: each costs an
/// announce every half hour, and real torrents name fewer than fifty.
pub const TRACKERS_MAX: usize = 100;

/// Web seeds that one torrent or magnet link may name; what follows is ignored.
pub const WEB_SEEDS_MAX: usize = 100;

/// DHT nodes that one torrent may name; what follows is ignored. BEP 5 suggests the eight closest.
pub const NODES_MAX: usize = 100;

/// Bytes in a host name at most (RFC 1035).
pub(crate) const HOST_LENGTH_MAX: usize = 253;

/// Bytes of a comment, or of the name of the making program, that are kept for display.
const COMMENT_LENGTH_MAX: usize = 4096;

/// A .torrent file.
#[derive(Debug, Clone)]
pub struct Metainfo {
    /// The info dictionary.
    pub info: Arc<Info>,
    /// Tiers of tracker URLs (BEP 12); `announce` alone is one tier of one. At most
    /// [`TRACKERS_MAX`] URLs, no tier empty.
    pub trackers: Vec<Vec<String>>,
    /// URLs of HTTP seeds (BEP 19), at most [`WEB_SEEDS_MAX`].
    pub web_seeds: Vec<String>,
    /// DHT nodes to start from (BEP 5): host (name or address without brackets) and port; at most
    /// [`NODES_MAX`].
    pub nodes: Vec<(String, u16)>,
    /// A remark for people, made fit for display.
    pub comment: Option<String>,
    /// The program that made the file, made fit for display.
    pub created_by: Option<String>,
    /// When the file was made, in seconds since 1970.
    pub creation_date: Option<i64>,
}

impl Metainfo {
    /// A .torrent file with nothing but its info dictionary.
    #[must_use]
    pub const fn new(info: Arc<Info>) -> Self {
        Self {
            info,
            trackers: Vec::new(),
            web_seeds: Vec::new(),
            nodes: Vec::new(),
            comment: None,
            created_by: None,
            creation_date: None,
        }
    }

    /// Reads a .torrent file.
    ///
    /// Keys in any order and unknown keys are accepted. What is wrong outside the info dictionary
    /// is left out instead of refused: the content can be had without it.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetainfoError> {
        let root = bencode::read(bytes, &Limits::METAINFO)?;
        let root = root.as_dictionary().ok_or(MetainfoError::NotADictionary)?;
        let info = info_span(root)?;
        let mut metainfo = Self::new(Arc::new(Info::parse(Bytes::copy_from_slice(info))?));
        metainfo.trackers = trackers(root);
        metainfo.web_seeds = web_seeds(root);
        metainfo.nodes = nodes(root);
        let shown = |key: &[u8]| {
            root.get(key)?
                .as_bytes()
                .and_then(|bytes| text::plain(bytes, COMMENT_LENGTH_MAX))
        };
        metainfo.comment = shown(b"comment.utf-8").or_else(|| shown(b"comment"));
        metainfo.created_by = shown(b"created by");
        metainfo.creation_date = root
            .get(b"creation date")
            .and_then(|date| date.as_integer());
        Ok(metainfo)
    }

    /// The bytes of a .torrent file, with exactly the info dictionary that was received.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.info.raw().len() + 1024);
        let mut writer = Writer::new(&mut out);
        writer.begin_dictionary();
        if let Some(first) = self.trackers.iter().flatten().next() {
            writer.key("announce").bytes(first.as_bytes());
        }
        if self.trackers.iter().flatten().count() > 1 {
            writer.key("announce-list").begin_list();
            for tier in self.trackers.iter().filter(|tier| !tier.is_empty()) {
                write_texts(&mut writer, tier);
            }
            writer.end();
        }
        if let Some(comment) = &self.comment {
            writer.key("comment").bytes(comment.as_bytes());
        }
        if let Some(created_by) = &self.created_by {
            writer.key("created by").bytes(created_by.as_bytes());
        }
        if let Some(date) = self.creation_date {
            writer.key("creation date").integer(date);
        }
        writer.key("info").raw(self.info.raw());
        if !self.nodes.is_empty() {
            writer.key("nodes").begin_list();
            for (host, port) in &self.nodes {
                writer
                    .begin_list()
                    .bytes(host.as_bytes())
                    .integer(i64::from(*port))
                    .end();
            }
            writer.end();
        }
        if !self.web_seeds.is_empty() {
            writer.key("url-list");
            write_texts(&mut writer, &self.web_seeds);
        }
        writer.end();
        out
    }

    /// The magnet link to the same content, with the same trackers and web seeds.
    #[must_use]
    pub fn magnet(&self) -> Magnet {
        let mut magnet = Magnet::new(self.info.info_hash());
        magnet.name = Some(self.info.name().to_owned());
        for tracker in self.trackers.iter().flatten() {
            if !magnet.trackers.contains(tracker) {
                magnet.trackers.push(tracker.clone());
            }
        }
        magnet.web_seeds.clone_from(&self.web_seeds);
        magnet
    }
}

/// Writes a list of texts.
fn write_texts(writer: &mut Writer<'_>, texts: &[String]) {
    writer.begin_list();
    for text in texts {
        writer.bytes(text.as_bytes());
    }
    writer.end();
}

/// The span of the only `info` in a .torrent file.
fn info_span<'a>(root: Dictionary<'a>) -> Result<&'a [u8], MetainfoError> {
    let mut spans = root
        .iter_raw()
        .filter(|(key, _)| *key == b"info")
        .map(|(_, span)| span);
    let span = spans.next().ok_or(MetainfoError::Missing { key: "info" })?;
    if spans.next().is_some() {
        return Err(MetainfoError::Duplicate { key: "info" });
    }
    if !span.starts_with(b"d") {
        return Err(MetainfoError::Kind { key: "info" });
    }
    Ok(span)
}

/// The tiers of `announce-list`; where it names none, `announce` (BEP 12).
fn trackers(root: Dictionary<'_>) -> Vec<Vec<String>> {
    let mut left = TRACKERS_MAX;
    let mut tiers = Vec::new();
    let list = root.get(b"announce-list").and_then(|value| value.as_list());
    for tier in list.iter().flat_map(List::iter) {
        // Some makers write the URLs without tiers; each is a tier then.
        let urls: Vec<String> = urls(tier).take(left).collect();
        left -= urls.len();
        if !urls.is_empty() {
            tiers.push(urls);
        }
    }
    if tiers.is_empty() {
        let announce = root.get(b"announce").and_then(|value| value.as_bytes());
        tiers.extend(announce.and_then(text::url).map(|url| vec![url]));
    }
    tiers
}

/// The URLs of `url-list`, which is a list or a single text.
fn web_seeds(root: Dictionary<'_>) -> Vec<String> {
    root.get(b"url-list")
        .into_iter()
        .flat_map(urls)
        .take(WEB_SEEDS_MAX)
        .collect()
}

/// The URLs in a list, or the one that a text is.
fn urls(value: Value<'_>) -> impl Iterator<Item = String> + use<'_> {
    let list = value.as_list();
    let listed = list
        .into_iter()
        .flat_map(|list| list.iter())
        .filter_map(|url| url.as_bytes());
    listed.chain(value.as_bytes()).filter_map(text::url)
}

/// The DHT nodes of `nodes` (BEP 5): a list of lists of host and port.
fn nodes(root: Dictionary<'_>) -> Vec<(String, u16)> {
    let list = root.get(b"nodes").and_then(|value| value.as_list());
    list.iter()
        .flat_map(List::iter)
        .filter_map(node)
        .take(NODES_MAX)
        .collect()
}

/// A host and its port; `None` if it cannot be one.
fn node(value: Value<'_>) -> Option<(String, u16)> {
    let mut parts = value.as_list()?.iter();
    let host = std::str::from_utf8(parts.next()?.as_bytes()?).ok()?;
    let port = u16::try_from(parts.next()?.as_integer()?)
        .ok()
        .filter(|&port| port != 0)?;
    is_host(host).then(|| (host.to_owned(), port))
}

/// Whether a text can be a host name, or an IP address without brackets.
pub(crate) fn is_host(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
        || (!text.is_empty()
            && text.len() <= HOST_LENGTH_MAX
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')))
}

#[cfg(test)]
mod tests;
