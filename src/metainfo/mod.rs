//! What a torrent says: .torrent files, info dictionaries, magnet links, and the arithmetic of pieces.
//!
//! A [`Metainfo`] is a whole .torrent file; its [`Info`] is the part that the info hash is of, and the
//! only part that comes over the wire to those who have a [`Magnet`] link. Invariant: an info hash is
//! always that of bytes as they were received.

pub mod build;
pub mod files;
pub mod geometry;
pub mod info;
pub mod magnet;

use std::sync::Arc;

use bytes::Bytes;

pub use files::{File, FileList};
pub use geometry::{BLOCK_LENGTH, BlockRef, FileSlice, Geometry, PieceIndex};
pub use info::{Info, MetainfoError};
pub use magnet::{Magnet, MagnetError};

use crate::bencode::{self, Dictionary, Limits, Value, Writer};

/// Trackers, web seeds and DHT nodes of one torrent that are kept, each.
const SOURCES_MAX: usize = 100;

/// A .torrent file.
#[derive(Debug, Clone)]
pub struct Metainfo {
    /// The info dictionary.
    pub info: Arc<Info>,
    /// Tracker URLs in tiers (BEP 12). A lone `announce` is one tier of one. At most 100.
    pub trackers: Vec<Vec<String>>,
    /// Web seed URLs (BEP 19). At most 100.
    pub web_seeds: Vec<String>,
    /// DHT nodes to start from, host and port (BEP 5). At most 100.
    pub nodes: Vec<(String, u16)>,
    /// Free text.
    pub comment: Option<String>,
    /// Which program made it.
    pub created_by: Option<String>,
    /// When it was made, in seconds since 1970.
    pub creation_date: Option<i64>,
}

impl Metainfo {
    /// A .torrent file with nothing but the info dictionary.
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
    /// Keys may be unknown and in any order. What is wrong outside the info dictionary is left out; what
    /// is wrong inside makes the whole unusable.
    ///
    /// # Errors
    ///
    /// The bytes are not a torrent, or its info dictionary breaks a rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetainfoError> {
        let root = bencode::read(bytes, &Limits::METAINFO)?
            .as_dictionary()
            .ok_or(MetainfoError::NotADictionary { what: "the file" })?;
        let mut infos = root.iter_raw().filter(|(key, _)| *key == b"info");
        let (_, raw) = infos.next().ok_or(MetainfoError::Missing { key: "info" })?;
        if infos.next().is_some() {
            return Err(MetainfoError::Twice { key: "info" });
        }
        let text = |key: &[u8]| root.get(key).and_then(|value| text(&value));
        Ok(Self {
            info: Arc::new(Info::parse(Bytes::copy_from_slice(raw))?),
            trackers: trackers(root),
            web_seeds: web_seeds(root),
            nodes: nodes(root),
            comment: text(b"comment"),
            created_by: text(b"created by"),
            creation_date: root
                .get(b"creation date")
                .and_then(|value| value.as_integer()),
        })
    }

    /// The .torrent file, canonical, around the info dictionary as it was received.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.begin_dictionary();
        if let Some(first) = self.trackers.first().and_then(|tier| tier.first()) {
            writer.key("announce").bytes(first.as_bytes());
        }
        if self.trackers.iter().map(Vec::len).sum::<usize>() > 1 {
            writer.key("announce-list").begin_list();
            for tier in &self.trackers {
                write_list(&mut writer, tier);
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
            write_list(&mut writer, &self.web_seeds);
        }
        writer.end();
        out
    }

    /// The magnet link that says the same.
    #[must_use]
    pub fn magnet(&self) -> Magnet {
        let mut magnet = Magnet::new(self.info.info_hash());
        magnet.name = Some(self.info.name().to_owned());
        magnet.trackers = self.trackers.iter().flatten().cloned().collect();
        magnet.web_seeds.clone_from(&self.web_seeds);
        magnet
    }
}

fn write_list(writer: &mut Writer<'_>, texts: &[String]) {
    writer.begin_list();
    for text in texts {
        writer.bytes(text.as_bytes());
    }
    writer.end();
}

/// A text; bytes that are not UTF-8 are replaced. Empty ones are none.
fn text(value: &Value<'_>) -> Option<String> {
    let text = String::from_utf8_lossy(value.as_bytes()?);
    (!text.is_empty()).then(|| text.into_owned())
}

/// `announce-list` if it names anybody, `announce` otherwise (BEP 12).
fn trackers(root: Dictionary<'_>) -> Vec<Vec<String>> {
    let mut left = SOURCES_MAX;
    let mut tiers = Vec::new();
    for tier in root
        .get(b"announce-list")
        .and_then(|value| value.as_list())
        .iter()
        .flat_map(|l| l.iter())
    {
        let urls = tier.as_list().into_iter().flat_map(|urls| urls.iter());
        let tier: Vec<String> = urls.filter_map(|url| text(&url)).take(left).collect();
        left -= tier.len();
        if !tier.is_empty() {
            tiers.push(tier);
        }
    }
    if tiers.is_empty() {
        tiers.extend(
            root.get(b"announce")
                .and_then(|value| text(&value))
                .map(|url| vec![url]),
        );
    }
    tiers
}

/// `url-list`: one text or a list of them (BEP 19).
fn web_seeds(root: Dictionary<'_>) -> Vec<String> {
    match root.get(b"url-list") {
        Some(Value::List(list)) => list
            .iter()
            .filter_map(|url| text(&url))
            .take(SOURCES_MAX)
            .collect(),
        Some(value) => text(&value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// `nodes`: a list of pairs of host and port (BEP 5).
fn nodes(root: Dictionary<'_>) -> Vec<(String, u16)> {
    let pairs = root.get(b"nodes").and_then(|value| value.as_list());
    let pairs = pairs.iter().flat_map(|list| list.iter());
    let node = |pair: Value<'_>| {
        let mut pair = pair.as_list()?.iter();
        let host = text(&pair.next()?)?;
        let port = u16::try_from(pair.next()?.as_integer()?).ok()?;
        (port != 0).then_some((host, port))
    };
    pairs.filter_map(node).take(SOURCES_MAX).collect()
}

#[cfg(test)]
mod tests;
