//! DHT nodes that mislead those who ask them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use trackless::id::{ID_LENGTH, NodeId};
use trackless::krpc::{Body, ContactInfo, Message, Method, Query, ResponseWriter};
use trackless::random::Random;

/// Nodes in an answer: K of BEP 5.
const NODES: usize = 8;

/// What an adversary does with the queries of others. Its own go out as the core wants.
#[derive(Debug, Clone)]
pub enum NodeConduct {
    /// Answers nothing.
    Mute,
    /// Answers pings and `find_node`, so that it is kept in tables, but no `get_peers` and no
    /// announce.
    DropSearches,
    /// Names only accomplices, knows no peers, and acknowledges announces without storing them.
    Collude(Arc<[ContactInfo]>),
    /// Names nodes close to the target and peers that do not exist.
    Invent,
}

/// What becomes of a datagram that an adversary gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// The core gets it.
    Core,
    /// Nobody does.
    Dropped,
    /// This is answered instead.
    Answered(Vec<u8>),
}

/// A conduct and its own randomness.
#[derive(Debug)]
pub struct Misleader {
    conduct: NodeConduct,
    random: Random,
}

impl Misleader {
    /// An adversary of this conduct.
    #[must_use]
    pub const fn new(conduct: NodeConduct, random: Random) -> Self {
        Self { conduct, random }
    }

    /// What becomes of a datagram from `asker` to the adversary whose id is `own`.
    pub fn judge(&mut self, own: NodeId, asker: SocketAddr, payload: &[u8]) -> Fate {
        let Ok(message) = Message::decode(payload) else {
            return Fate::Core;
        };
        let Body::Query(query) = message.body else {
            return Fate::Core;
        };
        let target = target_of(&query);
        let is_search = matches!(
            query.method,
            Method::GetPeers { .. } | Method::AnnouncePeer { .. }
        );
        let (nodes, values) = match (&self.conduct, target) {
            (NodeConduct::Mute, _) => return Fate::Dropped,
            (NodeConduct::DropSearches, _) if is_search => return Fate::Dropped,
            (NodeConduct::DropSearches | NodeConduct::Invent | NodeConduct::Collude(_), None) => {
                return Fate::Core;
            }
            (NodeConduct::DropSearches, Some(_)) => return Fate::Core,
            (NodeConduct::Collude(all), Some(target)) => (nearest(all, target), Vec::new()),
            (NodeConduct::Invent, Some(target)) => self.invent(target),
        };
        let wants_peers = matches!(query.method, Method::GetPeers { .. });
        let mut answer = Vec::new();
        ResponseWriter {
            transaction: message.transaction,
            id: own,
            asker,
            nodes: Some(&nodes),
            nodes6: None,
            token: wants_peers.then_some(b"none"),
            values: if wants_peers { &values } else { &[] },
            extra: trackless::krpc::Extra::None,
        }
        .write(&mut answer);
        Fate::Answered(answer)
    }

    /// Nodes that share three bytes with the target, and peers, at addresses where no host is.
    fn invent(&mut self, target: NodeId) -> (Vec<ContactInfo>, Vec<SocketAddr>) {
        let mut address = || {
            let [b, c, d, low, high] = self.random.bytes();
            let port = u16::from_be_bytes([high | 0x80, low]);
            SocketAddr::from((Ipv4Addr::new(60, b, c, d), port))
        };
        let addresses: Vec<SocketAddr> = (0..2 * NODES).map(|_| address()).collect();
        let (of_nodes, of_peers) = addresses.split_at(NODES);
        let nodes = of_nodes.iter().map(|address| {
            let mut id: [u8; ID_LENGTH] = self.random.bytes();
            id[..3].copy_from_slice(&target.as_bytes()[..3]);
            ContactInfo {
                id: NodeId::new(id),
                address: *address,
            }
        });
        (nodes.collect(), of_peers.to_vec())
    }
}

/// What is searched or announced; `None` of queries that name nothing.
fn target_of(query: &Query<'_>) -> Option<NodeId> {
    match query.method {
        Method::FindNode { target }
        | Method::Get { target, .. }
        | Method::SampleInfohashes { target } => Some(target),
        Method::GetPeers { info_hash } | Method::AnnouncePeer { info_hash, .. } => {
            Some(NodeId::new(*info_hash.as_bytes()))
        }
        Method::Unknown { target, .. } => target,
        Method::Ping | Method::Put(_) => None,
    }
}

/// The accomplices closest to a target.
fn nearest(all: &[ContactInfo], target: NodeId) -> Vec<ContactInfo> {
    let mut nodes = all.to_vec();
    nodes.sort_unstable_by_key(|node| node.id.distance(&target));
    nodes.truncate(NODES);
    nodes
}

/// Ids of sybils around a target: `count` ids that share `bits` leading bits with it and differ in
/// those behind.
#[must_use]
pub fn ids_at(target: NodeId, bits: u32, count: usize, random: &mut Random) -> Vec<NodeId> {
    let mut id_at = || {
        let mut id: [u8; ID_LENGTH] = random.bytes();
        for (index, byte) in (0..).step_by(8).zip(&mut id) {
            let shared = bits.saturating_sub(index).min(8);
            let mask = u8::try_from(0xff00_u32 >> shared & 0xff).expect("masked to a byte");
            let of_target = target.as_bytes()[usize::try_from(index / 8).expect("below 20")];
            *byte = (of_target & mask) | (*byte & !mask);
        }
        NodeId::new(id)
    };
    (0..count).map(|_| id_at()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trackless::id::InfoHash;
    use trackless::krpc::{Want, write_query};

    const TARGET: [u8; ID_LENGTH] = [0x5a; ID_LENGTH];

    fn own() -> NodeId {
        NodeId::new([1; ID_LENGTH])
    }

    fn asker() -> SocketAddr {
        "20.0.0.1:6881".parse().unwrap()
    }

    fn ask(method: Method<'_>) -> Vec<u8> {
        let query = Query {
            id: NodeId::new([2; ID_LENGTH]),
            want: Want::default(),
            method,
        };
        let mut out = Vec::new();
        write_query(&mut out, b"tt", false, &query);
        out
    }

    fn judge(conduct: NodeConduct, method: Method<'_>) -> Fate {
        let mut misleader = Misleader::new(conduct, Random::from_seed(1));
        misleader.judge(own(), asker(), &ask(method))
    }

    fn search() -> Method<'static> {
        let info_hash = InfoHash::new(TARGET);
        Method::GetPeers { info_hash }
    }

    fn find() -> Method<'static> {
        let target = NodeId::new(TARGET);
        Method::FindNode { target }
    }

    /// Nodes and peers of the answer to a query.
    #[track_caller]
    fn answer(conduct: NodeConduct, method: Method<'_>) -> (Vec<ContactInfo>, Vec<SocketAddr>) {
        let Fate::Answered(bytes) = judge(conduct, method) else {
            panic!("no answer");
        };
        let message = Message::decode(&bytes).unwrap();
        let Body::Response(response) = message.body else {
            panic!("not a response");
        };
        assert_eq!((message.transaction, response.id), (&b"tt"[..], own()));
        let nodes = response.nodes.iter().collect();
        (nodes, response.values.iter().collect())
    }

    #[test]
    fn a_mute_node_drops_queries_and_still_reads_answers() {
        assert_eq!(judge(NodeConduct::Mute, Method::Ping), Fate::Dropped);
        let mut misleader = Misleader::new(NodeConduct::Mute, Random::from_seed(1));
        let mut response = Vec::new();
        ResponseWriter {
            transaction: b"tt",
            id: own(),
            asker: asker(),
            nodes: None,
            nodes6: None,
            token: None,
            values: &[],
            extra: trackless::krpc::Extra::None,
        }
        .write(&mut response);
        assert_eq!(misleader.judge(own(), asker(), &response), Fate::Core);
    }

    #[test]
    fn one_that_drops_searches_answers_the_rest() {
        let conduct = || NodeConduct::DropSearches;
        assert_eq!(judge(conduct(), search()), Fate::Dropped);
        assert_eq!(judge(conduct(), find()), Fate::Core);
        assert_eq!(judge(conduct(), Method::Ping), Fate::Core);
    }

    #[test]
    fn accomplices_name_the_closest_of_each_other_and_no_peers() {
        let mut random = Random::from_seed(1);
        let all: Vec<ContactInfo> = ids_at(NodeId::new(TARGET), 8, 20, &mut random)
            .into_iter()
            .map(|id| ContactInfo {
                id,
                address: asker(),
            })
            .collect();
        let (nodes, values) = answer(NodeConduct::Collude(all.clone().into()), search());
        assert_eq!(nodes, nearest(&all, NodeId::new(TARGET)));
        assert!(values.is_empty());
        let conduct = NodeConduct::Collude(all.into());
        assert_eq!(judge(conduct, Method::Ping), Fate::Core);
    }

    #[test]
    fn one_that_invents_names_nodes_near_the_target_and_peers_nowhere() {
        let (nodes, values) = answer(NodeConduct::Invent, search());
        assert_eq!((nodes.len(), values.len()), (NODES, NODES));
        for node in &nodes {
            assert_eq!(node.id.as_bytes()[..3], TARGET[..3]);
            assert_eq!(crate::host::HostId::of(node.address), None);
        }
        let (_, values) = answer(NodeConduct::Invent, find());
        assert!(values.is_empty(), "find_node has no peers");
    }

    #[test]
    fn sybils_share_exactly_the_wanted_bits_or_more() {
        let target = NodeId::new(TARGET);
        let mut random = Random::from_seed(1);
        for bits in [0, 3, 8, 13, 21, 160] {
            for id in ids_at(target, bits, 20, &mut random) {
                assert!(
                    (0..bits).all(|bit| id.bit(bit) == target.bit(bit)),
                    "{bits}"
                );
            }
        }
        let ids = ids_at(target, 8, 50, &mut random);
        assert!(ids.iter().any(|id| id.bit(8) != target.bit(8)), "no more");
    }
}
