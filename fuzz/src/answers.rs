//! What nodes of the cast answer to the queries of the node, honestly or not.

use std::net::SocketAddr;

use trackless::id::{InfoHash, NodeId};
use trackless::krpc::{
    BloomFilter, ContactInfo, ErrorCode, Extra, Family, Filters, ItemView, Method, Query,
    ResponseWriter, Samples, write_error,
};

use crate::cast::{Role, Speaker};
use crate::script::Style;
use crate::seeds::{item, torrent};

/// What the node asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// That somebody is there, or stores something.
    Nothing,
    /// Nodes.
    Nodes,
    /// Peers, perhaps counted.
    Peers {
        /// Of this torrent.
        info_hash: InfoHash,
        /// With filters (BEP 33).
        scrape: bool,
    },
    /// An item.
    Item(NodeId),
    /// Torrents.
    Samples,
}

impl Asked {
    /// What a query asks for.
    #[must_use]
    pub const fn of(query: &Query<'_>) -> Self {
        match query.method {
            Method::Ping | Method::AnnouncePeer { .. } | Method::Put(_) => Self::Nothing,
            Method::FindNode { .. } | Method::Unknown { .. } => Self::Nodes,
            Method::GetPeers { info_hash } => Self::Peers {
                info_hash,
                scrape: query.want.scrape,
            },
            Method::Get { target, .. } => Self::Item(target),
            Method::SampleInfohashes { .. } => Self::Samples,
        }
    }
}

/// Nodes of the cast of one family, from the speaker on.
#[must_use]
pub fn contacts(
    cast: &[Speaker],
    speaker: &Speaker,
    family: Family,
    max: usize,
) -> Vec<ContactInfo> {
    let nodes = cast.iter().filter(|one| one.role == Role::Node);
    let mut nodes: Vec<_> = nodes
        .map(Speaker::info)
        .filter(|info| Family::of(&info.address) == family)
        .collect();
    let start = nodes.iter().position(|info| info.id == speaker.id);
    nodes.rotate_left(start.unwrap_or(0));
    nodes.truncate(max);
    nodes
}

/// Contacts that nobody should ask, of one family.
fn false_contacts(cast: &[Speaker], family: Family) -> Vec<ContactInfo> {
    let nowhere = cast.iter().filter(|one| one.role == Role::Nowhere);
    nowhere
        .map(Speaker::info)
        .filter(|info| Family::of(&info.address) == family)
        .collect()
}

/// Peers of a torrent; `lies` are addresses that nobody can have.
#[must_use]
pub fn peers(info_hash: InfoHash, family: Family, lies: bool) -> Vec<SocketAddr> {
    let number = info_hash.as_bytes()[0];
    (1..9u8)
        .map(|peer| match (family, lies) {
            (Family::V4, false) => ([9, number, 0, peer], 7000).into(),
            (Family::V6, false) => (
                [0x2a00, u16::from(number), 0, 0, 0, 0, 0, u16::from(peer)],
                7000,
            )
                .into(),
            (Family::V4, true) => ([127, 0, 0, peer], u16::from(peer % 2)).into(),
            (Family::V6, true) => ([0xff02, 0, 0, 0, 0, 0, 0, u16::from(peer)], 9).into(),
        })
        .collect()
}

/// The answer of a speaker to one query.
#[must_use]
pub fn answer(
    cast: &[Speaker],
    speaker: &Speaker,
    (transaction, asked): (&[u8], Asked),
    node: SocketAddr,
    style: Style,
) -> Vec<u8> {
    let mut out = Vec::new();
    let lies = style == Style::Lies;
    let mut id = *speaker.id.as_bytes();
    let mut asker = node;
    match style {
        Style::Full | Style::Bare | Style::Lies => {}
        Style::OtherId => id[19] ^= 1,
        Style::Error => {
            write_error(&mut out, transaction, ErrorCode::Server, "not\nnow");
            return out;
        }
        Style::Moved if node.is_ipv4() => asker = ([203, 0, 114, 7], 6881).into(),
        Style::Moved => asker = ([0x2a09, 0, 0, 0, 0, 0, 0, 7], 6881).into(),
    }
    let family = Family::of(&speaker.address);
    let named = |family, max| match lies {
        true => false_contacts(cast, family),
        false => contacts(cast, speaker, family, max),
    };
    let (nodes, nodes6) = (named(Family::V4, 10), named(Family::V6, 8));
    let bare = bare(transaction, NodeId::new(id), asker);
    if asked == Asked::Nothing || style == Style::Bare {
        bare.write(&mut out);
        return out;
    }
    let response = ResponseWriter {
        nodes: Some(&nodes),
        nodes6: Some(&nodes6),
        token: Some(b"token"),
        ..bare
    };
    match asked {
        Asked::Nothing | Asked::Nodes => response.write(&mut out),
        Asked::Peers { info_hash, scrape } => {
            write_peers(&mut out, response, peers(info_hash, family, lies), scrape);
        }
        Asked::Item(target) => write_item(&mut out, response, target, speaker, lies),
        Asked::Samples => {
            let hashes = [torrent(0), torrent(1)]
                .map(|hash| *hash.as_bytes())
                .concat();
            let samples = Samples {
                interval_secs: if lies { 0 } else { 60 },
                num: if lies { u64::MAX } else { 2 },
                hashes: &hashes,
            };
            let extra = Extra::Samples(samples);
            ResponseWriter { extra, ..response }.write(&mut out);
        }
    }
    out
}

fn write_peers(
    out: &mut Vec<u8>,
    response: ResponseWriter<'_>,
    peers: Vec<SocketAddr>,
    scrape: bool,
) {
    let mut filter = BloomFilter::new();
    peers.iter().for_each(|peer| filter.insert(peer.ip()));
    let filters = Filters {
        seeds: &filter,
        peers: &filter,
    };
    let response = ResponseWriter {
        values: &peers,
        extra: if scrape {
            Extra::Scrape(filters)
        } else {
            Extra::None
        },
        ..response
    };
    response.write(out);
}

/// The item with this target, if there is one: which version differs between speakers. A liar has
/// another value under it.
fn write_item(
    out: &mut Vec<u8>,
    response: ResponseWriter<'_>,
    target: NodeId,
    speaker: &Speaker,
    lies: bool,
) {
    let version = speaker.id.as_bytes()[0] % 3 + 1;
    let stored = [0, 4, 8, version].map(item);
    let found = stored.into_iter().find(|item| item.target() == target);
    let Some(item) = found.or(lies.then_some(stored[0])) else {
        response.write(out);
        return;
    };
    let put = item.put(b"", None);
    let view = ItemView {
        value: Some(if lies { b"4:lies" } else { put.value }),
        key: put.signed.map(|signed| signed.key),
        seq: put.signed.map(|signed| signed.seq),
        signature: put.signed.map(|signed| signed.signature),
    };
    let extra = Extra::Item(view);
    ResponseWriter { extra, ..response }.write(out);
}

/// An answer of this node with an id and nothing else.
pub(crate) const fn bare(transaction: &[u8], id: NodeId, asker: SocketAddr) -> ResponseWriter<'_> {
    ResponseWriter {
        transaction,
        id,
        asker,
        nodes: None,
        nodes6: None,
        token: None,
        values: &[],
        extra: Extra::None,
    }
}
