//! The queries, and what their answers are good for later: tokens.

use trackless::dht::{Item, SecretKey};
use trackless::id::{InfoHash, NodeId};
use trackless::krpc::{Body, Message, Method, Put, Query, SignedPut, Want, write_query};

use crate::sources::SOURCES;

/// Info hashes that there are.
pub(crate) const HASHES: u32 = 100_000;

/// Versions of the mutable item that each source puts.
pub(crate) const VERSIONS: u32 = 40;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ping,
    FindNode,
    GetPeers,
    Announce,
    /// The token for a `put`.
    Get,
    Put,
}

/// Numbers that look random and are the same in every run.
pub(crate) fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Twenty bytes for a number.
fn spread(number: u64) -> [u8; 20] {
    let mut bytes = [0; 20];
    for (part, chunk) in (0..).zip(bytes.chunks_mut(8)) {
        let word = scramble(number * 3 + part).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    bytes
}

/// The id of a source.
pub(crate) fn id(source: u32) -> NodeId {
    NodeId::new(spread(u64::from(source) + (1 << 40)))
}

/// An info hash by its number.
pub(crate) fn info_hash(number: u32) -> InfoHash {
    InfoHash::new(spread(number.into()))
}

/// A token of at most 32 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    bytes: [u8; 32],
    length: usize,
}

impl Token {
    fn new(token: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        bytes.get_mut(..token.len())?.copy_from_slice(token);
        let length = token.len();
        Some(Self { bytes, length })
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Signed items, made beforehand: signing takes as long as verifying.
pub(crate) struct Items {
    /// By source and version.
    versions: Vec<Vec<Item>>,
}

impl Items {
    pub(crate) fn sign() -> Self {
        let sign = |source: u32| {
            let mut seed = [7; 32];
            seed[..20].copy_from_slice(&spread((1 << 41) + u64::from(source)));
            let key = SecretKey::from_seed(&seed);
            let version = |seq| Item::mutable(&key, b"", i64::from(seq), b"12:Hello World!");
            (1..=VERSIONS).map(|seq| version(seq).unwrap()).collect()
        };
        Self {
            versions: (0..SOURCES).map(sign).collect(),
        }
    }

    fn at(&self, source: u32, version: u32) -> &Item {
        &self.versions[index(source)][index(version % VERSIONS)]
    }
}

/// An index from a number that fits.
pub(crate) fn index(number: u32) -> usize {
    usize::try_from(number).unwrap()
}

/// What is known of one server.
#[derive(Default)]
pub(crate) struct Book {
    /// For each source, the tokens of its torrents.
    tokens: Vec<Vec<(u32, Token)>>,
    /// For each source, the token of its item, and the version that was put last.
    items: Vec<Option<(Token, u32)>>,
}

/// Tokens that a source keeps; a further one takes the place of an older.
const TOKENS_MAX: usize = 100;

impl Book {
    pub(crate) fn new() -> Self {
        Self {
            tokens: (0..SOURCES).map(|_| Vec::new()).collect(),
            items: (0..SOURCES).map(|_| None).collect(),
        }
    }

    /// A token came for a torrent.
    pub(crate) fn keep(&mut self, source: u32, hash: u32, token: Token) {
        let tokens = &mut self.tokens[index(source)];
        if tokens.len() < TOKENS_MAX {
            tokens.push((hash, token));
        } else {
            let place = usize::try_from(scramble(hash.into())).unwrap() % TOKENS_MAX;
            tokens[place] = (hash, token);
        }
    }

    /// A token came for the item of a source.
    pub(crate) fn keep_item(&mut self, source: u32, token: Token) {
        let version = self.items[index(source)].map_or(0, |(_, version)| version);
        self.items[index(source)] = Some((token, version));
    }

    /// Some torrent of a source, with its token.
    pub(crate) fn some_token(&self, source: u32, number: u64) -> Option<(u32, Token)> {
        let tokens = &self.tokens[index(source)];
        let place = usize::try_from(number).unwrap() % tokens.len().max(1);
        tokens.get(place).copied()
    }
}

/// The token of an answer.
pub(crate) fn token(answer: &[u8]) -> Option<Token> {
    match Message::decode(answer).ok()?.body {
        Body::Response(response) => Token::new(response.token?),
        Body::Query(_) | Body::Error { .. } => None,
    }
}

/// Writes a query into an empty buffer. `subject` is a torrent, or a place among all ids.
pub(crate) fn write(
    out: &mut Vec<u8>,
    transaction: [u8; 4],
    source: u32,
    kind: Kind,
    subject: u32,
    token: Option<Token>,
) {
    let target = NodeId::new(spread(u64::from(subject) + (1 << 42)));
    let method = match (kind, &token) {
        (Kind::FindNode, _) => Method::FindNode { target },
        (Kind::GetPeers, _) => Method::GetPeers {
            info_hash: info_hash(subject),
        },
        (Kind::Announce, Some(token)) => Method::AnnouncePeer {
            info_hash: info_hash(subject),
            port: 6_881,
            implied_port: false,
            seed: false,
            token: token.bytes(),
        },
        (Kind::Ping | Kind::Announce | Kind::Get | Kind::Put, _) => Method::Ping,
    };
    ask(out, transaction, source, method);
}

fn ask(out: &mut Vec<u8>, transaction: [u8; 4], source: u32, method: Method<'_>) {
    let query = Query {
        id: id(source),
        want: Want::default(),
        method,
    };
    write_query(out, &transaction, false, &query);
}

/// Writes the query that asks for the token of a source's item.
pub(crate) fn write_get(out: &mut Vec<u8>, transaction: [u8; 4], source: u32, items: &Items) {
    let target = items.at(source, 0).target();
    ask(out, transaction, source, Method::Get { target, seq: None });
}

/// Writes the `put` of the next version of a source's item; `false` when there is no token or no
/// further version.
pub(crate) fn write_put(
    out: &mut Vec<u8>,
    transaction: [u8; 4],
    source: u32,
    items: &Items,
    book: &mut Book,
) -> bool {
    let Some((token, version)) = &mut book.items[index(source)] else {
        return false;
    };
    if *version >= VERSIONS {
        return false;
    }
    let item = items.at(source, *version);
    *version += 1;
    let Some(signed) = item.version() else {
        return false;
    };
    let put = Put {
        target: None,
        token: token.bytes(),
        value: item.value(),
        signed: Some(SignedPut {
            key: &signed.key,
            salt: &signed.salt,
            seq: signed.seq,
            signature: &signed.signature,
            cas: None,
        }),
    };
    ask(out, transaction, source, Method::Put(put));
    true
}
