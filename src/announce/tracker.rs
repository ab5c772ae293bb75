//! Announces to trackers as values: what is asked, how it is written for HTTP, and what is answered
//! (BEP 3, 7, 23, 24).
//!
//! Invariant: what a tracker says is bounded here: peers in number and scope, intervals in length, texts
//! in length and characters.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::tracker_url::{TrackerUrl, UrlError};
use crate::address::{Scope, is_usable};
use crate::bencode::{self, Dictionary, Limits, Value};
use crate::id::{InfoHash, PeerId};
use crate::metainfo::plain_text;

/// Bytes of an answer, decompressed. Ours: ten times what a tracker sends for the most peers it gives.
pub const ANSWER_LENGTH_MAX: usize = 1 << 20;

/// Peers taken from one answer; what follows is ignored. Ours: ten times what is asked for.
pub const ANSWER_PEERS_MAX: usize = 1_000;

/// Peers asked for. Ours: twice the connections of one torrent.
pub const PEERS_WANTED: u32 = 100;

/// Shortest time between two announces that a tracker is obeyed in.
pub const INTERVAL_MIN: Duration = Duration::from_secs(60);

/// Longest time between two announces that a tracker is obeyed in: who asks for more forgets us before.
pub const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);

/// Time between two announces when the tracker gives none that makes sense.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(30 * 60);

/// Bytes of what a tracker says in words that are kept.
const TEXT_LENGTH_MAX: usize = 512;

/// Bytes of a `tracker id` that are kept and sent back; a longer one is ignored.
const TRACKER_ID_LENGTH_MAX: usize = 256;

/// What is scanned as an answer: a million bytes are at most 100,000 values.
const LIMITS: Limits = Limits {
    length_max: ANSWER_LENGTH_MAX,
    depth_max: 16,
    tokens_max: 100_000,
    lenient: true,
};

/// What is escaped in a query: all but the unreserved characters of RFC 3986.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Why a tracker is told of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackerEvent {
    /// The interval is over.
    Regular,
    /// We begin.
    Started,
    /// We have everything now.
    Completed,
    /// We leave.
    Stopped,
}

impl TrackerEvent {
    /// The value of `event` (BEP 3).
    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Regular => None,
            Self::Started => Some("started"),
            Self::Completed => Some("completed"),
            Self::Stopped => Some("stopped"),
        }
    }
}

/// How far a torrent is, as trackers are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Payload bytes sent.
    pub uploaded: u64,
    /// Payload bytes received.
    pub downloaded: u64,
    /// Bytes that are missing; before the metadata is known any number but 0.
    pub left: u64,
}

/// One announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Who we are in it.
    pub peer_id: PeerId,
    /// Where others reach us.
    pub port: u16,
    /// Identifies us when our address changes (BEP 7).
    pub key: u32,
    /// How far we are.
    pub transferred: Transferred,
    /// Why it is made.
    pub event: TrackerEvent,
    /// Peers asked for.
    pub peers_wanted: u32,
    /// What the tracker gave us to send back.
    pub tracker_id: Option<Vec<u8>>,
}

impl Request {
    /// The request for an HTTP tracker.
    #[must_use]
    pub fn url(&self, tracker: &TrackerUrl) -> String {
        let mut url = tracker.to_string();
        if let Some(fragment) = url.find('#') {
            url.truncate(fragment);
        }
        url.push(if url.contains('?') { '&' } else { '?' });
        let Transferred {
            uploaded,
            downloaded,
            left,
        } = self.transferred;
        let info_hash = percent_encode(self.info_hash.as_bytes(), QUERY);
        let peer_id = percent_encode(self.peer_id.as_bytes(), QUERY);
        let (port, key, wanted) = (self.port, self.key, self.peers_wanted);
        write!(
            url,
            "info_hash={info_hash}&peer_id={peer_id}&port={port}&uploaded={uploaded}\
             &downloaded={downloaded}&left={left}&compact=1&no_peer_id=1&numwant={wanted}&key={key}"
        )
        .expect("a String takes all that is written");
        if let Some(event) = self.event.name() {
            url.push_str("&event=");
            url.push_str(event);
        }
        if let Some(id) = &self.tracker_id {
            url.push_str("&trackerid=");
            url.extend(percent_encode(id, QUERY));
        }
        url
    }
}

/// What a tracker answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Time to the next announce, from [`INTERVAL_MIN`] to [`INTERVAL_MAX`].
    pub interval: Duration,
    /// Time before which none may be made, in the same bounds.
    pub interval_min: Option<Duration>,
    /// Peers, those left out that its address must not name. At most [`ANSWER_PEERS_MAX`].
    pub peers: Vec<SocketAddr>,
    /// Peers that have everything, as far as the tracker knows.
    pub seeds: Option<u32>,
    /// Peers that have not.
    pub leechers: Option<u32>,
    /// How often everything was fetched, as far as the tracker says so (`downloaded`, as in BEP 48).
    pub completed: Option<u32>,
    /// Our address as the tracker sees it (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// What it wants people to know, made fit for display.
    pub warning: Option<String>,
    /// What it wants sent back.
    pub tracker_id: Option<Vec<u8>>,
}

/// Why an announce failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrackerError {
    /// The tracker refuses it, in its own words, made fit for display.
    #[error("it says: {0}")]
    Refused(String),
    /// The answer is none.
    #[error("its answer makes no sense: {0}")]
    Malformed(String),
    /// The answer is longer than [`ANSWER_LENGTH_MAX`].
    #[error("its answer is longer than 1 MiB")]
    TooLong,
    /// HTTP says no.
    #[error("it answers with HTTP status {0}")]
    Status(u16),
    /// It sends us somewhere else, again and again.
    #[error("it redirects too often")]
    Redirects,
    /// It must not be asked, or sends us where we must not go.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// It has no address of the family that was tried.
    #[error("its name has no address that can be reached from here")]
    NoAddress,
    /// There was no answer in time.
    #[error("it did not answer in time")]
    TimedOut,
    /// Its name gives no address, in words. Without a network none does.
    #[error("its name cannot be looked up: {0}")]
    Lookup(String),
    /// It cannot be reached, in words.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// Nothing can be reached from here now, in words: no network, no local address.
    #[error("it cannot be asked from here: {0}")]
    Local(String),
}

impl TrackerError {
    /// Whether somebody answered, if not as was wanted.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        match self {
            Self::Refused(_)
            | Self::Malformed(_)
            | Self::TooLong
            | Self::Status(_)
            | Self::Redirects => true,
            Self::Url(_)
            | Self::NoAddress
            | Self::TimedOut
            | Self::Lookup(_)
            | Self::Unreachable(_)
            | Self::Local(_) => false,
        }
    }

    /// How much it says, when the tracker was asked from several addresses: that it has no address of one
    /// family, or that this machine has none, is so everywhere.
    #[must_use]
    pub const fn weight(&self) -> u8 {
        match self {
            Self::NoAddress => 0,
            Self::Local(_) => 1,
            Self::Lookup(_) => 2,
            Self::Url(_) | Self::TimedOut | Self::Unreachable(_) => 3,
            Self::Refused(_)
            | Self::Malformed(_)
            | Self::TooLong
            | Self::Status(_)
            | Self::Redirects => 4,
        }
    }
}

impl Answer {
    /// Reads the answer of the HTTP tracker at `from`.
    ///
    /// # Errors
    ///
    /// It is no answer, or a refusal.
    pub fn decode(bytes: &[u8], from: IpAddr) -> Result<Self, TrackerError> {
        let malformed = |error: &dyn std::fmt::Display| TrackerError::Malformed(error.to_string());
        let root = bencode::read(bytes, &LIMITS).map_err(|error| malformed(&error))?;
        let root = root
            .as_dictionary()
            .ok_or_else(|| malformed(&"it is no dictionary"))?;
        if let Some(reason) = root.get(b"failure reason") {
            let words = reason.as_bytes().and_then(text);
            return Err(TrackerError::Refused(
                words.unwrap_or_else(|| "nothing".to_owned()),
            ));
        }
        let seconds = |key: &[u8]| root.get(key).and_then(|value| value.as_integer());
        let count = |key: &[u8]| seconds(key).and_then(|number| u32::try_from(number).ok());
        Ok(Self {
            interval: seconds(b"interval").map_or(INTERVAL_DEFAULT, bounded),
            interval_min: seconds(b"min interval").map(bounded),
            peers: peers(root, from),
            seeds: count(b"complete"),
            leechers: count(b"incomplete"),
            completed: count(b"downloaded"),
            external_ip: root.get(b"external ip").and_then(external_ip),
            warning: root
                .get(b"warning message")
                .and_then(|value| value.as_bytes())
                .and_then(text),
            tracker_id: root
                .get(b"tracker id")
                .and_then(|value| value.as_bytes())
                .filter(|id| !id.is_empty() && id.len() <= TRACKER_ID_LENGTH_MAX)
                .map(<[u8]>::to_vec),
        })
    }
}

/// What a tracker says to people.
fn text(bytes: &[u8]) -> Option<String> {
    plain_text(bytes, TEXT_LENGTH_MAX)
}

/// An interval that is obeyed. A tracker that says 0 or less does not know: it gets the default.
pub(super) fn bounded(seconds: i64) -> Duration {
    match u64::try_from(seconds) {
        Ok(0) | Err(_) => INTERVAL_DEFAULT,
        Ok(seconds) => Duration::from_secs(seconds).clamp(INTERVAL_MIN, INTERVAL_MAX),
    }
}

/// Four or sixteen bytes (BEP 24).
fn external_ip(value: Value<'_>) -> Option<IpAddr> {
    let bytes = value.as_bytes()?;
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let ip = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    ip.ok().filter(|ip| Scope::of(*ip).is_some())
}

/// The peers of both keys, in either form.
fn peers(root: Dictionary<'_>, from: IpAddr) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    match root.get(b"peers") {
        Some(Value::Bytes(bytes)) => found.extend(compact_v4(bytes)),
        Some(Value::List(list)) => found.extend(list.iter().filter_map(listed)),
        Some(Value::Integer(_) | Value::Dictionary(_)) | None => {}
    }
    if let Some(bytes) = root.get(b"peers6").and_then(|value| value.as_bytes()) {
        found.extend(compact_v6(bytes));
    }
    usable(found, from)
}

/// The peers that the tracker at `from` may name, as many as are taken.
pub(super) fn usable(mut peers: Vec<SocketAddr>, from: IpAddr) -> Vec<SocketAddr> {
    peers.retain(|&peer| is_usable(peer, from));
    peers.truncate(ANSWER_PEERS_MAX);
    peers
}

/// Compact IPv4 peers (BEP 23). A length that does not fit holds none.
fn compact_v4(bytes: &[u8]) -> impl Iterator<Item = SocketAddr> + use<'_> {
    let (entries, rest) = bytes.as_chunks();
    entries_v4(if rest.is_empty() { entries } else { &[] })
}

/// Compact IPv6 peers (BEP 7). A length that does not fit holds none.
fn compact_v6(bytes: &[u8]) -> impl Iterator<Item = SocketAddr> + use<'_> {
    let (entries, rest) = bytes.as_chunks();
    entries_v6(if rest.is_empty() { entries } else { &[] })
}

/// Peers of an address and a port each.
pub(super) fn entries_v4(entries: &[[u8; 6]]) -> impl Iterator<Item = SocketAddr> + use<'_> {
    entries.iter().map(|&[a, b, c, d, high, low]| {
        let ip = Ipv4Addr::new(a, b, c, d);
        SocketAddr::from((ip, u16::from_be_bytes([high, low])))
    })
}

/// The same for IPv6.
pub(super) fn entries_v6(entries: &[[u8; 18]]) -> impl Iterator<Item = SocketAddr> + use<'_> {
    entries.iter().filter_map(|entry| {
        let (ip, port) = entry.split_first_chunk::<16>()?;
        let ip = Ipv6Addr::from(*ip).to_canonical();
        let port = u16::from_be_bytes(port.try_into().ok()?);
        Some(SocketAddr::new(ip, port))
    })
}

/// A peer as a dictionary (BEP 3). One that is given by name is left out: a tracker could have us look
/// up any name.
fn listed(value: Value<'_>) -> Option<SocketAddr> {
    let peer = value.as_dictionary()?;
    let ip = std::str::from_utf8(peer.get(b"ip")?.as_bytes()?).ok()?;
    let ip: IpAddr = ip.parse().ok()?;
    let port = u16::try_from(peer.get(b"port")?.as_integer()?).ok()?;
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests;
