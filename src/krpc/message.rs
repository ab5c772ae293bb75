//! Messages: queries, responses and errors, and how they are decoded.
//!
//! Invariant: a [`Query`] that exists has a valid id and every argument its method needs.

use std::net::SocketAddr;

use super::compact::read_peer;
use super::{
    CompactNodes, CompactPeers, ERROR_TEXT_MAX, Family, MAX_DATAGRAM, TOKEN_MAX, TRANSACTION_MAX,
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
        /// 201 to 204 in BEP 5; anything from a stranger.
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
    /// Families of nodes wanted in the answer (BEP 32).
    pub want: Want,
    /// The method with its arguments.
    pub method: Method<'a>,
}

/// Which families of nodes the asker wants (BEP 32); both `false` means the family it asks over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    /// `n4`: `nodes` is wanted.
    pub v4: bool,
    /// `n6`: `nodes6` is wanted.
    pub v6: bool,
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
        /// From the answer to an earlier `get_peers`.
        token: &'a [u8],
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
}

/// Error codes of BEP 5.
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

/// Why a query is refused: the error that answers it.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    code: ErrorCode,
    text: &'static str,
}

impl Refusal {
    /// Error 203: an argument breaks BEP 5.
    const fn protocol(text: &'static str) -> Self {
        Self {
            code: ErrorCode::Protocol,
            text,
        }
    }
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
            b"ping" | b"find_node" | b"get_peers" | b"announce_peer"
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
        };
        for (key, value) in values.iter() {
            match key {
                b"id" => keep_first(&mut id, as_id(value)),
                b"token" => response.token = value.as_bytes().filter(|t| t.len() <= TOKEN_MAX),
                b"nodes" => response.nodes = nodes(value, Family::V4),
                b"nodes6" => response.nodes6 = nodes(value, Family::V6),
                b"values" => response.values.list = value.as_list(),
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

/// The arguments of a query, found in one pass and not yet checked.
#[derive(Default)]
struct Arguments<'a> {
    id: Option<Value<'a>>,
    target: Option<Value<'a>>,
    info_hash: Option<Value<'a>>,
    port: Option<Value<'a>>,
    implied_port: Option<Value<'a>>,
    token: Option<Value<'a>>,
    want: Want,
}

impl<'a> Arguments<'a> {
    fn collect(arguments: Dictionary<'a>) -> Self {
        let mut found = Self::default();
        for (key, value) in arguments.iter() {
            match key {
                b"id" => keep_first(&mut found.id, Some(value)),
                b"target" => keep_first(&mut found.target, Some(value)),
                b"info_hash" => keep_first(&mut found.info_hash, Some(value)),
                b"port" => keep_first(&mut found.port, Some(value)),
                b"implied_port" => keep_first(&mut found.implied_port, Some(value)),
                b"token" => keep_first(&mut found.token, Some(value)),
                b"want" => found.want = want(value),
                _ => {}
            }
        }
        found
    }

    fn method(&self, name: &'a [u8]) -> Result<Method<'a>, Refusal> {
        match name {
            b"ping" => Ok(Method::Ping),
            b"find_node" => Ok(Method::FindNode {
                target: self
                    .target
                    .and_then(as_id)
                    .ok_or(Refusal::protocol("invalid or missing target"))?,
            }),
            b"get_peers" => Ok(Method::GetPeers {
                info_hash: self.info_hash()?,
            }),
            b"announce_peer" => self.announce(),
            _ => Ok(Method::Unknown {
                name,
                target: self.target.or(self.info_hash).and_then(as_id),
            }),
        }
    }

    fn info_hash(&self) -> Result<InfoHash, Refusal> {
        self.info_hash
            .and_then(|value| InfoHash::from_slice(value.as_bytes()?))
            .ok_or(Refusal::protocol("invalid or missing info_hash"))
    }

    fn announce(&self) -> Result<Method<'a>, Refusal> {
        // BEP 5 names 0 and 1; every other number than 0 is meant as "yes" by those who send it.
        let implied_port = match self.implied_port {
            Some(value) if value.as_integer().is_none() => {
                return Err(Refusal::protocol("invalid implied_port"));
            }
            Some(value) => is_true(value),
            None => false,
        };
        let port = self
            .port
            .and_then(|value| u16::try_from(value.as_integer()?).ok());
        let port = match port {
            Some(port) if port != 0 || implied_port => port,
            None if implied_port => 0,
            Some(_) | None => return Err(Refusal::protocol("invalid or missing port")),
        };
        Ok(Method::AnnouncePeer {
            info_hash: self.info_hash()?,
            port,
            implied_port,
            token: self
                .token
                .and_then(|value| value.as_bytes())
                .ok_or(Refusal::protocol("invalid or missing token"))?,
        })
    }
}

/// Keeps the value that came first under a key.
fn keep_first<T>(field: &mut Option<T>, value: Option<T>) {
    if field.is_none() {
        *field = value;
    }
}

/// A flag: any integer but 0.
fn is_true(value: Value<'_>) -> bool {
    value.as_integer().is_some_and(|flag| flag != 0)
}

/// An id: a string of exactly 20 bytes.
fn as_id(value: Value<'_>) -> Option<NodeId> {
    NodeId::from_slice(value.as_bytes()?)
}

/// The entries of a string of nodes; none of anything else.
fn nodes(value: Value<'_>, family: Family) -> CompactNodes<'_> {
    CompactNodes::new(value.as_bytes().unwrap_or_default(), family)
}

/// BEP 32: other strings in the list "must be silently ignored"; so is what is not a list.
fn want(value: Value<'_>) -> Want {
    let mut want = Want::default();
    for value in value.as_list().into_iter().flat_map(|list| list.iter()) {
        match value.as_bytes() {
            Some(b"n4") => want.v4 = true,
            Some(b"n6") => want.v6 = true,
            Some(_) | None => {}
        }
    }
    want
}
