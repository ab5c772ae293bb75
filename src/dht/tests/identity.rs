//! Ids that follow from addresses (BEP 42), seen from outside.

use std::net::{IpAddr, SocketAddr};

use super::network::*;
use crate::dht::secure_id::{bind, is_bound};
use crate::dht::{Config, Event, IdBinding, Local, Node, PeerPort, Snapshot};
use crate::id::NodeId;
use crate::krpc::{ContactInfo, Family, Message, ResponseWriter};
use crate::random::Random;
use crate::time::Instant;

/// A global address in a network of its own.
fn global(number: usize) -> SocketAddr {
    let number = u8::try_from(number).unwrap();
    ([20, 7, number, 1], 6881).into()
}

/// Nodes at global addresses that do not know them.
fn hidden(seed: u64, nodes: usize, config: &Config) -> Network {
    let mut network = Network::new(seed);
    network.is_bound_anywhere = true;
    for number in 0..nodes {
        network.add_at(config.clone(), vec![global(number)]);
        if number > 0 {
            network.bootstrap(number, &[global(0)]);
        }
        network.run_for(millis(50));
    }
    network.run_for(secs(30));
    network
}

#[test]
fn nodes_that_do_not_know_their_addresses_learn_them_and_take_ids_that_belong_there() {
    let mut network = hidden(1, 24, &Config::default());
    for number in 0..24 {
        let ip = global(number).ip();
        assert_eq!(network.node(number).external_address(HERE), Some(ip));
        assert!(is_bound(&network.id(number), ip), "{number}");
        let changes = network.members[number].events.iter();
        let mut changes = changes.filter_map(|event| match event {
            Event::AddressChanged { address, id, .. } => Some((*address, *id)),
            _ => None,
        });
        assert_eq!(
            changes.next(),
            Some((ip, network.members[number].node.id(HERE)))
        );
        assert_eq!(changes.next(), None);
        assert_eq!(network.node(number).stats().id_changes, 1);
    }
    network.run_for(secs(120));
    let target = TORRENT.as_target();
    let truth = network.truly_closest(&target, 8);
    let now = network.now;
    let lookup = network.node(3).announce(now, TORRENT, PeerPort::Implied);
    let report = network.report(3, lookup);
    let found: Vec<_> = report.closest.iter().map(|info| info.id).collect();
    let expected = truth.iter().filter(|id| **id != network.id(3)).count();
    assert!(found.iter().filter(|id| truth.contains(id)).count() >= expected - 1);
    assert!(report.stored >= 7);
    assert!(network.node(3).contact_count() >= 12, "contacts are kept");
}

#[test]
fn without_bep_42_and_with_a_configured_id_nothing_changes() {
    let config = Config {
        id_binding: IdBinding::Off,
        ..Config::default()
    };
    let mut network = hidden(2, 10, &config);
    let configured = Config {
        locals: vec![Local {
            id: Some(far_id(1)),
            ..Local::default()
        }],
        ..Config::default()
    };
    let fixed = network.add_at(configured, vec![global(50)]);
    network.bootstrap(fixed, &[global(0)]);
    network.run_for(secs(30));
    assert_eq!(network.id(fixed), far_id(1));
    let ip = global(50).ip();
    assert_eq!(network.node(fixed).external_address(HERE), Some(ip));
    for number in 0..=fixed {
        assert_eq!(network.node(number).stats().id_changes, 0);
    }
}

#[test]
fn a_configured_global_address_decides_about_the_id_at_once_and_after_a_restart() {
    let local = |port| Local {
        address: ([20, 7, 1, 1], port).into(),
        id: None,
    };
    let config = Config {
        locals: (1..=8).map(local).collect(),
        ..Config::default()
    };
    let mut node = Node::new(config, Random::from_seed(3), Instant::ZERO);
    let snapshot = Snapshot {
        ids: vec![(Family::V4, NodeId::new([9; 20])); 8],
        contacts: Vec::new(),
    };
    for _ in 0..2 {
        let ids = (0..8).map(|local| node.id(crate::dht::LocalId(local)));
        let ids: Vec<_> = ids.collect();
        for (index, id) in ids.iter().enumerate() {
            assert!(is_bound(id, IpAddr::from([20, 7, 1, 1])));
            let mut others = ids[..index].iter();
            assert!(others.all(|other| other.common_prefix(id) < 21), "BEP 45");
        }
        node.restore(Instant::ZERO, &snapshot);
    }
}

/// A node whose bucket is full of nodes with ids that do not belong to their addresses.
fn full_of_unbound(id_binding: IdBinding) -> Single {
    let mut single = Single::new(Config {
        id_binding,
        throttle: None,
        ..Config::default()
    });
    for number in 1..=8 {
        single.befriend(far_id(number), global(usize::from(number)));
    }
    single.live(secs(5));
    assert_eq!(single.node.contact_count(), 8);
    single
}

/// A node in the far half whose id belongs to its address.
fn bound(number: usize) -> ContactInfo {
    let address = global(number);
    let ids = (0..=255u8).map(|last| bind(NodeId::new([last; 20]), address.ip()));
    let mut far = ids.filter(|id| id.bit(0));
    ContactInfo {
        id: far.next().unwrap(),
        address,
    }
}

#[test]
fn a_node_whose_id_belongs_to_its_address_wins_the_place_of_one_whose_does_not() {
    for (id_binding, expected) in [
        (IdBinding::Off, 0),
        (IdBinding::Prefer, 5),
        (IdBinding::Enforce, 5),
    ] {
        let mut single = full_of_unbound(id_binding);
        for number in 100..105 {
            let info = bound(number);
            single.befriend(info.id, info.address);
        }
        let closest = single.node.closest(Family::V4, far_id(1));
        assert_eq!(closest.len(), 8);
        let is_ours = |info: &&ContactInfo| is_bound(&info.id, info.address.ip());
        let held = closest.iter().filter(is_ours).count();
        assert_eq!(held, expected, "{id_binding:?}");
    }
}

#[test]
fn what_answers_is_told_where_it_asked_from() {
    let mut single = full_of_unbound(IdBinding::Prefer);
    for from in ["9.9.9.9:1234", "127.0.0.1:7"] {
        let from = from.parse().unwrap();
        let ping = crate::krpc::Query {
            id: far_id(9),
            want: crate::krpc::Want::default(),
            method: crate::krpc::Method::Ping,
        };
        single.receive_query(from, &ping, true);
        let answer = single.sent_answer();
        let message = Message::decode(&answer.payload).unwrap();
        assert_eq!(message.external, Some(from));
    }
}

/// Announces among nodes of which those closest to the torrent have ids that do not belong to
/// their addresses. Gives the number of such nodes that were asked to store it, and of all.
fn stored_at(id_binding: IdBinding) -> (usize, usize) {
    let mut single = Single::new(Config {
        id_binding,
        throttle: None,
        ..Config::default()
    });
    let target = *TORRENT.as_target().as_bytes();
    for number in 1..=8u8 {
        let mut id = target;
        id[19] ^= number;
        single.befriend(NodeId::new(id), global(usize::from(number)));
    }
    for number in 100..120 {
        let address = global(number);
        let id = bind(
            NodeId::new([u8::try_from(number).unwrap(); 20]),
            address.ip(),
        );
        single.befriend(id, address);
    }
    single.live(secs(5));
    single
        .node
        .announce(single.now, TORRENT, PeerPort::Explicit(7));
    let (mut unbound, mut all) = (0, 0);
    loop {
        let sent = single.sent();
        if sent.is_empty() {
            return (unbound, all);
        }
        for transmit in sent {
            let Some(transaction) = query_transaction(&transmit.payload) else {
                continue;
            };
            let id = single.friends[&transmit.to];
            if transmit.payload.windows(13).any(|w| w == b"announce_peer") {
                all += 1;
                unbound += usize::from(!is_bound(&id, transmit.to.ip()));
            }
            let friends = single.friends.iter();
            let mut nodes: Vec<_> = friends
                .map(|(address, id)| ContactInfo {
                    id: *id,
                    address: *address,
                })
                .collect();
            nodes.sort_by_key(|info| info.id.distance(&TORRENT.as_target()));
            nodes.truncate(16);
            let mut out = Vec::new();
            ResponseWriter {
                nodes: Some(&nodes),
                token: Some(b"token"),
                ..bare_response(&transaction, id)
            }
            .write(&mut out);
            single.receive(transmit.to, &out);
        }
    }
}

#[test]
fn nodes_that_ground_their_ids_close_to_a_torrent_get_no_announce_of_it() {
    assert_eq!(stored_at(IdBinding::Off), (8, 8));
    assert_eq!(stored_at(IdBinding::Prefer), (0, 8));
    assert_eq!(stored_at(IdBinding::Enforce), (0, 8));
}
