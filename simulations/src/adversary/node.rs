//! DHT nodes that mislead those who ask them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use trackless::dht::secure_id::bind;
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

/// First octet of the networks of sybils whose ids follow from their addresses. Ours: no host has an address there by
/// its number, and what liars invent is elsewhere.
const BOUND_FIRST_OCTET: u8 = 40;

/// Sybils that two addresses of a /24 run: a table and a lookup take no more of them.
const PER_24: usize = 2;

/// Addresses of a network.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The network's, of which the second octet counts, and in a /24 the third.
    pub network: Ipv4Addr,
    /// 16 or 24.
    pub bits: u32,
    /// How many there are to use: so many of so many.
    pub share: (u32, u32),
}

/// Ids of sybils around a target that follow from their addresses (BEP 42), and these: the closest that the addresses
/// allow. An attacker who knows that others count neighbours takes two addresses of each /24 if there are many.
#[must_use]
pub fn bound_ids(
    target: NodeId,
    addresses: Addresses,
    count: usize,
    random: &mut Random,
) -> Vec<(NodeId, Ipv4Addr)> {
    let [_, second, third, _] = addresses.network.octets();
    let (thirds, per_24) = if addresses.bits == 24 {
        (third..=third, count)
    } else {
        (0..=u8::MAX, PER_24)
    };
    let (part, of) = addresses.share;
    let mut found: Vec<(NodeId, Ipv4Addr)> = Vec::new();
    for third in thirds {
        let mut here = Vec::new();
        for last in 1..u8::MAX {
            let ip = Ipv4Addr::new(BOUND_FIRST_OCTET, second, third, last);
            if random.below(of) < part {
                here.push((closest_bound(target, ip, random), ip));
            }
        }
        here.sort_unstable_by_key(|(id, _)| id.distance(&target));
        here.truncate(per_24);
        found.append(&mut here);
    }
    found.sort_unstable_by_key(|(id, _)| id.distance(&target));
    found.truncate(count);
    found
}

/// Of the ids that an address allows one that is as close to the target as can be.
fn closest_bound(target: NodeId, ip: Ipv4Addr, random: &mut Random) -> NodeId {
    let [low]: [u8; 1] = random.bytes();
    let ids = (0..8).map(|choice| {
        let mut id = *target.as_bytes();
        id[ID_LENGTH - 1] = (low & 0xf8) | choice;
        bind(NodeId::new(id), ip.into())
    });
    let closest = ids.min_by_key(|id| id.distance(&target));
    closest.expect("there are eight")
}

#[cfg(test)]
mod tests {
    use super::*;
    use trackless::dht::secure_id::is_bound;
    use trackless::id::InfoHash;
    use trackless::krpc::{Want, write_query};

    const TARGET: [u8; ID_LENGTH] = [0x5a; ID_LENGTH];

    #[test]
    fn bound_sybils_follow_from_addresses_of_their_network_and_are_the_closest_there() {
        let mut random = Random::from_seed(1);
        let target = NodeId::new(TARGET);
        for (bits, per_24) in [(24, 64), (16, PER_24)] {
            let mut addresses = Addresses {
                network: Ipv4Addr::new(0, 7, 9, 0),
                bits,
                share: (1, 1),
            };
            let sybils = bound_ids(target, addresses, 64, &mut random);
            assert_eq!(sybils.len(), 64);
            addresses.share = (1, 1000);
            assert!(bound_ids(target, addresses, 1000, &mut random).len() < 100);
            for (id, ip) in &sybils {
                assert!(is_bound(id, (*ip).into()), "{ip} {id}");
                let [_, second, third, _] = ip.octets();
                assert!(second == 7 && (bits == 16 || third == 9), "{ip}");
                let is_near = |(_, other): &&(NodeId, Ipv4Addr)| other.octets()[2] == third;
                assert!(sybils.iter().filter(is_near).count() <= per_24);
            }
            let shared = sybils[0].0.distance(&target).leading_zeros();
            assert!(shared >= if bits == 24 { 8 } else { 13 }, "{shared}");
        }
    }

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
