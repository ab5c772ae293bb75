//! Messages: queries, responses and errors, and how they are decoded.
//!
//! Invariant: a [`Query`] that exists has a valid id and every argument its method needs.

use std::net::SocketAddr;

use super::arguments::{Arguments, Refusal};
use super::compact::read_peer;
use super::stored::SAMPLE_INTERVAL_MAX_SECS;
use super::{
    BloomFilter, CompactNodes, CompactPeers, ERROR_TEXT_MAX, Family, ItemView, MAX_DATAGRAM, Put,
    TOKEN_MAX, TRANSACTION_MAX,
};
use crate::bencode::{Dictionary, Limits, List, Value, read};
use crate::id::{ID_LENGTH, InfoHash, NodeId};

/// A message, as a view into its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `t`, 1 to 32 bytes.
    pub transaction: &'a [u8],
    /// `v`: the sender's client and version, if it tells.
    pub version: Option<&'a [u8]>,
    /// `ro` (BEP 43): the sender answers no queries and belongs in no routing table.
    pub read_only: bool,
    /// `ip` (BEP 42): our address as the sender sees it.
    pub external: Option<SocketAddr>,
    /// Query, response or error.
    pub body: Body<'a>,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// `y` is `q`.
    Query(Query<'a>),
    /// `y` is `r`.
    Response(Response<'a>),
    /// `y` is `e`.
    Error {
        /// 201 to 204 in BEP 5, 205 to 207, 301 and 302 in BEP 44; anything from a stranger.
        code: i64,
        /// The sender's words, at most [`ERROR_TEXT_MAX`] bytes, not necessarily UTF-8.
        text: &'a [u8],
    },
}

/// A query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    /// The sender's id.
    pub id: NodeId,
    /// What is wanted in the answer (BEP 32, BEP 33).
    pub want: Want,
    /// The method with its arguments.
    pub method: Method<'a>,
}

/// What the asker wants in the answer: families of nodes (BEP 32), where both `false` means the
/// family it asks over, and how it wants peers (BEP 33).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    /// `n4`: `nodes` is wanted.
    pub v4: bool,
    /// `n6`: `nodes6` is wanted.
    pub v6: bool,
    /// `scrape`: the peers are wanted counted, too.
    pub scrape: bool,
    /// `noseed`: peers that have everything are of no use.
    pub no_seeds: bool,
}

impl Want {
    /// Whether nodes of a family are wanted by somebody who asks over `own`.
    #[must_use]
    pub fn includes(&self, family: Family, own: Family) -> bool {
        match family {
            _ if !self.v4 && !self.v6 => family == own,
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// BEP 32: other strings in the list "must be silently ignored"; so is what is not a list.
    pub(super) fn read_families(&mut self, value: Value<'_>) {
        for value in value.as_list().into_iter().flat_map(|list| list.iter()) {
            match value.as_bytes() {
                Some(b"n4") => self.v4 = true,
                Some(b"n6") => self.v6 = true,
                Some(_) | None => {}
            }
        }
    }
}

/// A method and its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method<'a> {
    /// Are you there?
    Ping,
    /// Which nodes are closest to this id?
    FindNode {
        /// The id.
        target: NodeId,
    },
    /// Who has this torrent, and which nodes are closest to it?
    GetPeers {
        /// The torrent.
        info_hash: InfoHash,
    },
    /// The sender's peer has this torrent.
    AnnouncePeer {
        /// The torrent.
        info_hash: InfoHash,
        /// Where the peer listens; not 0 unless the port is implied.
        port: u16,
        /// The source port of the datagram counts instead of `port`.
        implied_port: bool,
        /// The peer has all of the torrent (BEP 33).
        seed: bool,
        /// From the answer to an earlier `get_peers`.
        token: &'a [u8],
    },
    /// Which item is stored under this target (BEP 44)?
    Get {
        /// Where it is stored.
        target: NodeId,
        /// The value is wanted only if its number is higher than this.
        seq: Option<i64>,
    },
    /// An item to store (BEP 44).
    Put(Put<'a>),
    /// Which torrents do you store peers of, and which nodes are closest to this id (BEP 51)?
    SampleInfohashes {
        /// The id.
        target: NodeId,
    },
    /// Any other method; with a target it may be answered like `find_node`, else with error 204.
    Unknown {
        /// Its name, as long as the sender liked.
        name: &'a [u8],
        /// The argument `target`, or else `info_hash`, if it is an id.
        target: Option<NodeId>,
    },
}

impl<'a> Method<'a> {
    /// The name under `q`.
    #[must_use]
    pub const fn name(&self) -> &'a [u8] {
        match self {
            Self::Ping => b"ping",
            Self::FindNode { .. } => b"find_node",
            Self::GetPeers { .. } => b"get_peers",
            Self::AnnouncePeer { .. } => b"announce_peer",
            Self::Get { .. } => b"get",
            Self::Put(_) => b"put",
            Self::SampleInfohashes { .. } => b"sample_infohashes",
            Self::Unknown { name, .. } => name,
        }
    }
}

/// A response. What is missing or of the wrong type is empty: which values an answer needs depends
/// on the query, and only the node that asked knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'a> {
    /// The answering node's id.
    pub id: NodeId,
    /// `token`, at most [`TOKEN_MAX`] bytes; a longer one counts as none.
    pub token: Option<&'a [u8]>,
    /// `nodes`: IPv4 contacts.
    pub nodes: CompactNodes<'a>,
    /// `nodes6`: IPv6 contacts (BEP 32).
    pub nodes6: CompactNodes<'a>,
    /// `values`: peers.
    pub values: CompactPeers<'a>,
    /// `v`, `k`, `seq` and `sig`: an item (BEP 44).
    pub item: ItemView<'a>,
    /// `BFsd` and `BFpe`: who has the torrent, counted (BEP 33).
    pub filters: Counted<'a>,
    /// `samples`: info hashes, one after the other (BEP 51).
    pub samples: Option<&'a [u8]>,
    /// `interval`: seconds until there are other samples, at most 21,600.
    pub interval_secs: u32,
    /// `num`: torrents that are stored in all.
    pub num: u64,
}

impl<'a> Response<'a> {
    /// Contacts of this family, and those of the other.
    #[must_use]
    pub const fn nodes_by_family(&self, family: Family) -> (CompactNodes<'a>, CompactNodes<'a>) {
        match family {
            Family::V4 => (self.nodes, self.nodes6),
            Family::V6 => (self.nodes6, self.nodes),
        }
    }
}

/// The Bloom filters of a response; a string of another length than 256 bytes is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted<'a> {
    seeds: Option<&'a [u8]>,
    peers: Option<&'a [u8]>,
}

impl Counted<'_> {
    /// Those who have all of the torrent, and the others; `None` unless there are both filters.
    #[must_use]
    pub fn read(&self) -> Option<(BloomFilter, BloomFilter)> {
        let seeds = BloomFilter::from_slice(self.seeds?)?;
        Some((seeds, BloomFilter::from_slice(self.peers?)?))
    }
}

/// Error codes of BEP 5 and BEP 44.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// Generic error.
    Generic = 201,
    /// Server error.
    Server = 202,
    /// Malformed packet, invalid arguments or bad token.
    Protocol = 203,
    /// Method unknown.
    MethodUnknown = 204,
    /// The value of an item is too big.
    ValueTooBig = 205,
    /// The signature of an item is wrong.
    InvalidSignature = 206,
    /// The salt of an item is too big.
    SaltTooBig = 207,
    /// The stored item is not the version that was to be replaced.
    CasMismatch = 301,
    /// The stored item is newer.
    SeqTooOld = 302,
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Generic => 201,
            Self::Server => 202,
            Self::Protocol => 203,
            Self::MethodUnknown => 204,
            Self::ValueTooBig => 205,
            Self::InvalidSignature => 206,
            Self::SaltTooBig => 207,
            Self::CasMismatch => 301,
            Self::SeqTooOld => 302,
        }
    }
}

/// Why a datagram is not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError<'a> {
    /// Dropped in silence, because an answer would reflect whatever a forged source sends.
    #[error("not a KRPC message: {0}")]
    Garbage(Garbage),
    /// A query with a usable `t` but bad or missing arguments: answered with error 203 or 204.
    #[error("query is answered with an error: {text}")]
    Refused {
        /// `t` to answer with.
        transaction: &'a [u8],
        /// Code to answer with.
        code: ErrorCode,
        /// Text to answer with.
        text: &'static str,
    },
    /// A response without a 20-byte id, or an error without a code.
    #[error("malformed response")]
    BadResponse,
}

/// Why a datagram deserves silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Garbage {
    /// It has more than [`MAX_DATAGRAM`] bytes.
    #[error("too long")]
    Length,
    /// It is no bencoded dictionary, or one beyond the limits of depth and values.
    #[error("not a bencoded dictionary")]
    Bencode,
    /// `t` is missing, empty, no string, or over [`TRANSACTION_MAX`] bytes.
    #[error("no usable transaction id")]
    Transaction,
    /// `y` is neither `q` nor `r` nor `e`.
    #[error("neither query, response nor error")]
    Kind,
}

impl<'a> Message<'a> {
    /// Reads a datagram without allocating.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Garbage`] for what deserves silence, [`DecodeError::Refused`] for a query
    /// that is to be answered with an error, [`DecodeError::BadResponse`] for a response or error
    /// that breaks the rules.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, DecodeError<'a>> {
        const { assert!(Limits::KRPC.length_max == MAX_DATAGRAM) };
        if datagram.len() > MAX_DATAGRAM {
            return Err(DecodeError::Garbage(Garbage::Length));
        }
        let root = read(datagram, &Limits::KRPC)
            .ok()
            .and_then(|value| value.as_dictionary())
            .ok_or(DecodeError::Garbage(Garbage::Bencode))?;
        let fields = Root::collect(root);
        let transaction = fields
            .transaction
            .filter(|t| (1..=TRANSACTION_MAX).contains(&t.len()))
            .ok_or(DecodeError::Garbage(Garbage::Transaction))?;
        let body = match fields.kind {
            Some(b"q") => fields
                .query()
                .map(Body::Query)
                .map_err(|Refusal { code, text }| DecodeError::Refused {
                    transaction,
                    code,
                    text,
                })?,
            Some(b"r") => fields.response().ok_or(DecodeError::BadResponse)?,
            Some(b"e") => fields.error().ok_or(DecodeError::BadResponse)?,
            Some(_) | None => return Err(DecodeError::Garbage(Garbage::Kind)),
        };
        Ok(Self {
            transaction,
            version: fields.version,
            read_only: fields.read_only,
            external: fields.external,
            body,
        })
    }
}

/// The root dictionary's values that mean something, found in one pass. A key that comes twice
/// counts once, the first time.
#[derive(Default)]
struct Root<'a> {
    transaction: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    read_only: bool,
    external: Option<SocketAddr>,
    /// `q`.
    method: Option<Value<'a>>,
    /// `a`.
    arguments: Option<Value<'a>>,
    /// `r`.
    response: Option<Value<'a>>,
    /// `e`.
    error: Option<Value<'a>>,
}

impl<'a> Root<'a> {
    fn collect(root: Dictionary<'a>) -> Self {
        let mut fields = Self::default();
        for (key, value) in root.iter() {
            match key {
                b"t" => keep_first(&mut fields.transaction, value.as_bytes()),
                b"y" => keep_first(&mut fields.kind, value.as_bytes()),
                b"v" => keep_first(&mut fields.version, value.as_bytes()),
                b"ro" => fields.read_only |= is_true(value),
                b"ip" => keep_first(&mut fields.external, value.as_bytes().and_then(read_peer)),
                b"q" => keep_first(&mut fields.method, Some(value)),
                b"a" => keep_first(&mut fields.arguments, Some(value)),
                b"r" => keep_first(&mut fields.response, Some(value)),
                b"e" => keep_first(&mut fields.error, Some(value)),
                // Extensions we do not know are no reason to stay silent.
                _ => {}
            }
        }
        fields
    }

    fn query(&self) -> Result<Query<'a>, Refusal> {
        let name = self
            .method
            .and_then(|value| value.as_bytes())
            .ok_or(Refusal::protocol("missing method"))?;
        let known = matches!(
            name,
            b"ping"
                | b"find_node"
                | b"get_peers"
                | b"announce_peer"
                | b"get"
                | b"put"
                | b"sample_infohashes"
        );
        let arguments = self.arguments.and_then(|value| value.as_dictionary());
        let arguments = match (arguments, known) {
            (Some(arguments), _) => Arguments::collect(arguments),
            (None, true) => return Err(Refusal::protocol("missing arguments")),
            (None, false) => Arguments::default(),
        };
        let Some(id) = arguments.id.and_then(as_id) else {
            return Err(if known {
                Refusal::protocol("invalid or missing id")
            } else {
                Refusal {
                    code: ErrorCode::MethodUnknown,
                    text: "method unknown",
                }
            });
        };
        Ok(Query {
            id,
            want: arguments.want,
            method: arguments.method(name)?,
        })
    }

    fn response(&self) -> Option<Body<'a>> {
        let values = self.response?.as_dictionary()?;
        let mut id = None;
        let mut response = Response {
            id: NodeId::new([0; ID_LENGTH]),
            token: None,
            nodes: CompactNodes::new(&[], Family::V4),
            nodes6: CompactNodes::new(&[], Family::V6),
            values: CompactPeers { list: None },
            item: ItemView::default(),
            filters: Counted::default(),
            samples: None,
            interval_secs: 0,
            num: 0,
        };
        for (key, value) in values.iter() {
            match key {
                b"id" => keep_first(&mut id, as_id(value)),
                b"token" => response.token = value.as_bytes().filter(|t| t.len() <= TOKEN_MAX),
                b"nodes" => response.nodes = nodes(value, Family::V4),
                b"nodes6" => response.nodes6 = nodes(value, Family::V6),
                b"values" => response.values.list = value.as_list(),
                b"v" => response.item.value = values.get_raw(b"v"),
                b"k" => response.item.key = as_array(value),
                b"sig" => response.item.signature = as_array(value),
                b"seq" => response.item.seq = value.as_integer(),
                b"BFsd" => response.filters.seeds = value.as_bytes(),
                b"BFpe" => response.filters.peers = value.as_bytes(),
                b"samples" => response.samples = value.as_bytes().filter(|s| is_ids(s)),
                b"interval" => response.interval_secs = as_interval(value),
                b"num" => response.num = as_count(value),
                _ => {}
            }
        }
        response.id = id?;
        Some(Body::Response(response))
    }

    fn error(&self) -> Option<Body<'a>> {
        let list: List<'a> = self.error?.as_list()?;
        let mut values = list.iter();
        let code = values.next()?.as_integer()?;
        let text = values.next().and_then(|value| value.as_bytes());
        let text = text.unwrap_or_default();
        Some(Body::Error {
            code,
            text: text.get(..ERROR_TEXT_MAX).unwrap_or(text),
        })
    }
}

/// Keeps the value that came first under a key.
#[inline]
pub(super) fn keep_first<T>(field: &mut Option<T>, value: Option<T>) {
    if field.is_none() {
        *field = value;
    }
}

/// A flag: any integer but 0.
pub(super) fn is_true(value: Value<'_>) -> bool {
    value.as_integer().is_some_and(|flag| flag != 0)
}

/// An id: a string of exactly 20 bytes.
pub(super) fn as_id(value: Value<'_>) -> Option<NodeId> {
    NodeId::from_slice(value.as_bytes()?)
}

/// A string of exactly so many bytes.
fn as_array<'a, const N: usize>(value: Value<'a>) -> Option<&'a [u8; N]> {
    value.as_bytes()?.try_into().ok()
}

/// Whether a string is a whole number of ids.
const fn is_ids(bytes: &[u8]) -> bool {
    bytes.len().is_multiple_of(ID_LENGTH)
}

/// Seconds, cut to what BEP 51 permits.
fn as_interval(value: Value<'_>) -> u32 {
    let secs = value.as_integer().unwrap_or(0).max(0);
    u32::try_from(secs).map_or(SAMPLE_INTERVAL_MAX_SECS, |secs| {
        secs.min(SAMPLE_INTERVAL_MAX_SECS)
    })
}

/// A number of things; 0 for what is none.
fn as_count(value: Value<'_>) -> u64 {
    value
        .as_integer()
        .and_then(|count| u64::try_from(count).ok())
        .unwrap_or(0)
}

/// The entries of a string of nodes; none of anything else.
fn nodes(value: Value<'_>, family: Family) -> CompactNodes<'_> {
    CompactNodes::new(value.as_bytes().unwrap_or_default(), family)
}
