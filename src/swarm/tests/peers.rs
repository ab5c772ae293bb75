//! Addresses, dials, and who may be connected.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::lab::Lab;
use super::puppet::{Puppet, Stream};
use super::simulated_disk::SimulatedDisk;
use super::{config, content, seconds};
use crate::swarm::{Config, DialError, PeerSource, Reason, Refusal, Seeding, State};
use crate::wire::{ExtensionHandshake, Message, ProtocolError};

#[test]
fn ten_thousand_addresses_are_cut_to_three_thousand() {
    let content = content(1, 100_000);
    let mut puppet = Puppet::leech(&content);
    let addresses: Vec<_> = (1..=10_000).map(Puppet::address).collect();
    puppet.add_peers(PeerSource::Dht, &addresses);
    let known = puppet.torrent.stats(puppet.now).peers_known;
    assert_eq!(known, 2_250);
    puppet.add_peers(PeerSource::Magnet, &addresses[5_000..]);
    assert_eq!(puppet.torrent.stats(puppet.now).peers_known, 3_000);
    // What the user names always finds room.
    puppet.add_peers(PeerSource::User, &[Puppet::address(20_000)]);
    assert_eq!(puppet.torrent.stats(puppet.now).peers_known, 3_000);
    let first = puppet.dials()[0];
    let now = puppet.now;
    puppet
        .torrent
        .handle_dial_failed(now, first, DialError::Refused);
    puppet.drain();
    assert_eq!(puppet.dials().last(), Some(&Puppet::address(20_000)));
}

#[test]
fn dials_stay_within_their_limit_and_nothing_wakes_meanwhile() {
    let content = content(2, 100_000);
    let mut puppet = Puppet::magnet(config(9), &content);
    let addresses: Vec<_> = (1..=100).map(Puppet::address).collect();
    puppet.add_peers(PeerSource::Dht, &addresses);
    assert_eq!(puppet.dials().len(), 16);
    assert!(puppet.torrent.poll_timeout().is_none());
    for (count, address) in addresses.iter().enumerate() {
        let next = puppet.dials()[count.min(puppet.dials().len() - 1)];
        assert!(addresses.contains(&next), "{address}");
        let now = puppet.now;
        puppet
            .torrent
            .handle_dial_failed(now, next, DialError::TimedOut);
        puppet.drain();
    }
    assert_eq!(puppet.dials().len(), 100);
    assert_eq!(puppet.torrent.stats(puppet.now).peers_dialling, 0);
    puppet.pass(seconds(61));
    assert_eq!(puppet.dials().len(), 116);
}

#[test]
fn connections_stay_within_their_limit() {
    let content = content(3, 100_000);
    let limited = Config {
        peers_max: 5,
        ..config(9)
    };
    let mut puppet = Puppet::with_disk(limited, &content, SimulatedDisk::empty());
    let addresses: Vec<_> = (1_000..1_100).map(Puppet::address).collect();
    puppet.add_peers(PeerSource::Dht, &addresses);
    assert_eq!(puppet.dials().len(), 5);
    let streams: Vec<_> = (1..=9).map(|number| puppet.connect(number)).collect();
    let taken = streams.iter().filter(|stream| stream.is_some()).count();
    assert_eq!(taken, 5);
    assert_eq!(puppet.torrent.stats(puppet.now).peers_connected, 5);
    // Those that have been idle for long make room.
    puppet.pass(seconds(70));
    assert!(puppet.connect(20).is_some());
    assert_eq!(puppet.torrent.stats(puppet.now).peers_connected, 5);
    let oldest = streams[0].as_ref().unwrap();
    assert_eq!(puppet.closed(oldest), Some(Reason::Replaced));
}

#[test]
fn dead_addresses_do_not_count_as_peers_to_come() {
    let content = content(4, 100_000);
    let mut puppet = Puppet::magnet(config(9), &content);
    let addresses: Vec<_> = (1..=60).map(Puppet::address).collect();
    puppet.add_peers(PeerSource::Dht, &addresses);
    let wants = |puppet: &Puppet| {
        let wants = puppet.actions.iter().filter_map(|action| match action {
            crate::swarm::Action::WantPeers(wants) => Some(*wants),
            _ => None,
        });
        wants.last()
    };
    assert_eq!(wants(&puppet), Some(false));
    let now = puppet.now;
    for number in 0..60 {
        let address = puppet.dials()[number];
        puppet
            .torrent
            .handle_dial_failed(now, address, DialError::Refused);
        puppet.drain();
    }
    assert_eq!(wants(&puppet), Some(true));
}

#[test]
fn a_connection_to_ourselves_is_closed_and_never_tried_again() {
    let content = content(5, 100_000);
    let mut lab = Lab::new(5);
    let host = lab.magnet(config(1), &content);
    lab.introduce(host, [host]);
    lab.run_for(seconds(10));
    let ourselves = Reason::Protocol(ProtocolError::Ourselves);
    assert!(
        lab.hosts[host].closed.contains(&ourselves),
        "{:?}",
        lab.hosts[host].closed
    );
    lab.introduce(host, [host]);
    lab.run_for(seconds(4_000));
    assert_eq!(lab.hosts[host].dials, 1);
}

#[test]
fn two_peers_that_dial_each_other_keep_one_connection() {
    for seed in 0..6 {
        let content = content(6, 3_000_000);
        let mut lab = Lab::new(seed);
        let first = lab.with_info(config(1), &content, SimulatedDisk::empty());
        let second = lab.with_info(config(2), &content, SimulatedDisk::empty());
        lab.run_for(seconds(1));
        lab.introduce(first, [second]);
        if seed % 2 == 1 {
            lab.run_for(std::time::Duration::from_millis(10 * seed));
        }
        lab.introduce(second, [first]);
        lab.run_for(seconds(5));
        for host in [first, second] {
            let stats = lab.hosts[host].torrent.stats(lab.now);
            assert_eq!(stats.peers_connected, 1, "{seed}: {stats:?}");
            assert_eq!(stats.peers_dialling, 0, "{seed}: {stats:?}");
        }
        // The connection that stays is not doubted every minute.
        let dials = lab.hosts[first].dials + lab.hosts[second].dials;
        lab.run_for(seconds(600));
        assert_eq!(
            lab.hosts[first].dials + lab.hosts[second].dials,
            dials,
            "{seed}"
        );
        assert_eq!(lab.hosts[first].torrent.stats(lab.now).peers_connected, 1);
    }
}

#[test]
fn a_dial_that_ends_while_the_disk_is_checked_is_kept() {
    let content = content(7, 300_000);
    let mut puppet = Puppet::leech(&content);
    puppet.disk.stopped = true;
    let mut puppet = {
        let disk = puppet.disk;
        Puppet::with_disk(config(9), &content, disk)
    };
    assert_eq!(puppet.torrent.state(), State::Checking);
    let mut peer = puppet.connect(1).expect("it will be of use in a moment");
    puppet.say(&peer, &[super::puppet::full_bitfield(&content)]);
    puppet.restart_disk();
    let heard = puppet.hear(&mut peer);
    assert!(heard.contains(&Message::Interested), "{heard:?}");
}

#[test]
fn a_lost_peer_is_dialled_again() {
    let content = content(8, 1_000_000);
    let mut lab = Lab::new(8);
    let seed = lab.seed(config(1), &content);
    lab.hosts[seed].uplink = Some(50_000);
    let leech = lab.magnet(config(2), &content);
    lab.introduce(leech, [seed]);
    lab.run_for(seconds(5));
    lab.cut(leech);
    lab.run_for(seconds(5));
    assert_eq!(lab.hosts[leech].torrent.stats(lab.now).peers_connected, 0);
    assert!(lab.run_until(seconds(120), |lab| lab.is_complete(leech)));
}

/// How many of ten streams from one host are taken.
fn taken_of_ten(puppet: &mut Puppet, host: [u8; 4]) -> usize {
    let streams = (1..=10).map(|number| {
        let address = (host, 1_000 + u16::from(number)).into();
        puppet.connect_to(address, number * 2 + host[3] % 2)
    });
    streams.filter(Option::is_some).count()
}

fn refused(puppet: &Puppet, refusal: Refusal) -> u32 {
    let refused = puppet.torrent.stats(puppet.now).refused;
    refused.get(&refusal.to_string()).copied().unwrap_or(0)
}

#[test]
fn one_host_does_not_fill_a_torrent() {
    let content = content(9, 100_000);
    let limited = Config {
        peers_max: 12,
        ..config(200)
    };
    let mut puppet = Puppet::with_disk(limited, &content, SimulatedDisk::empty());
    assert_eq!(taken_of_ten(&mut puppet, [8, 8, 8, 8]), 4);
    // On one machine or in a test network many share an address.
    assert_eq!(taken_of_ten(&mut puppet, [127, 0, 0, 1]), 6);
    assert_eq!(refused(&puppet, Refusal::Host), 6 + 4);
    // Others find room still.
    assert!(puppet.connect(100).is_some());
}

#[test]
fn addresses_of_a_host_with_enough_connections_are_not_dialled() {
    let content = content(10, 100_000);
    let mut puppet = Puppet::leech(&content);
    let addresses: Vec<_> = (1..=8).map(|port| ([8, 8, 8, 8], port).into()).collect();
    puppet.add_peers(PeerSource::Dht, &addresses);
    assert_eq!(puppet.dials().len(), 4);
    puppet.add_peers(PeerSource::Dht, &[([8, 8, 4, 4], 1).into()]);
    assert_eq!(puppet.dials().len(), 5);
    let failed = puppet.dials()[0];
    let now = puppet.now;
    puppet
        .torrent
        .handle_dial_failed(now, failed, DialError::Refused);
    puppet.drain();
    puppet.pass(seconds(11));
    assert_eq!(puppet.dials().len(), 6);
}

#[test]
fn peers_that_want_to_be_served_and_take_nothing_make_room() {
    let content = content(11, 1_000_000);
    let limited = Config {
        peers_max: 3,
        ..config(200)
    };
    let mut puppet = Puppet::with_disk(limited, &content, SimulatedDisk::holding(&content));
    let peers: Vec<_> = (1..=3)
        .map(|number| puppet.connect(number).unwrap())
        .collect();
    for peer in &peers {
        puppet.say(peer, &[Message::Interested]);
    }
    puppet.pass(seconds(11));
    // The first takes what it asks for.
    let request = Message::Request {
        index: 0,
        offset: 0,
        length: 16 << 10,
    };
    let take_block = |puppet: &mut Puppet, peer: &Stream| {
        puppet.say(peer, std::slice::from_ref(&request));
        let mut sent = 0;
        while puppet.torrent.poll_transmit(puppet.now, peer.id).is_some() {
            sent += 1;
        }
        assert!(sent > 0);
    };
    take_block(&mut puppet, &peers[0]);
    take_block(&mut puppet, &peers[1]);
    assert!(puppet.connect(4).is_none(), "all are young");
    assert_eq!(refused(&puppet, Refusal::Full), 1);
    puppet.pass(seconds(65));
    // One block at the start buys no place for ever.
    take_block(&mut puppet, &peers[0]);
    for number in 5..=6 {
        assert!(puppet.connect(number).is_some());
    }
    assert!(puppet.connect(7).is_none());
    assert_eq!(puppet.closed(&peers[0]), None);
    assert_eq!(puppet.closed(&peers[1]), Some(Reason::Replaced));
    assert_eq!(puppet.closed(&peers[2]), Some(Reason::Replaced));
}

#[test]
fn who_comes_twice_or_was_banned_is_counted() {
    let content = content(12, 100_000);
    let mut puppet = Puppet::leech(&content);
    let mut peer = puppet.connect(1).unwrap();
    let mut other_port = Puppet::address(1);
    other_port.set_port(99);
    let again = puppet.connect_to(other_port, 1).unwrap();
    assert_eq!(puppet.closed(&again), Some(Reason::Duplicate));
    assert_eq!(refused(&puppet, Refusal::Duplicate), 1);
    puppet.say(
        &peer,
        &[super::puppet::full_bitfield(&content), Message::Unchoke],
    );
    for request in puppet.hear(&mut peer) {
        if let Some(Message::Piece {
            index,
            offset,
            data,
        }) = super::puppet::answer(&content, &request)
        {
            let data = bytes::Bytes::from(vec![0; data.len()]).into();
            puppet.say(
                &peer,
                &[Message::Piece {
                    index,
                    offset,
                    data,
                }],
            );
        }
    }
    assert_eq!(puppet.closed(&peer), Some(Reason::Banned));
    assert!(puppet.connect(1).is_none());
    assert_eq!(refused(&puppet, Refusal::Banned), 1);
}

#[test]
fn nobody_keeps_a_peer_out_by_showing_its_id() {
    let content = content(14, 100_000);
    let mut puppet = Puppet::leech(&content);
    let impostor = puppet.connect_to(Puppet::address(98), 1).unwrap();
    let mut honest = puppet.connect(1).unwrap();
    let bitfield = super::puppet::full_bitfield(&content);
    puppet.say(&honest, &[bitfield, Message::Unchoke]);
    let requests = puppet.hear(&mut honest);
    let block = requests
        .iter()
        .find_map(|request| super::puppet::answer(&content, request));
    puppet.say(&honest, &[block.expect("it is asked")]);
    // Who gave something stays alone from then on.
    let late = puppet.connect_to(Puppet::address(97), 1).unwrap();
    assert_eq!(puppet.closed(&late), Some(Reason::Duplicate));
    assert_eq!(puppet.closed(&honest), None);
    assert_eq!(puppet.closed(&impostor), None);
}

#[test]
fn a_dial_that_could_not_be_tried_is_tried_again_soon() {
    let content = content(13, 100_000);
    let mut puppet = Puppet::leech(&content);
    let addresses: Vec<_> = (1..=40).map(Puppet::address).collect();
    puppet.add_peers(PeerSource::Dht, &addresses);
    for number in 0..16 {
        let (now, address) = (puppet.now, puppet.dials()[number]);
        puppet
            .torrent
            .handle_dial_failed(now, address, DialError::Local);
        puppet.drain();
    }
    // The list is not burnt through.
    assert_eq!(puppet.dials().len(), 16);
    puppet.pass(seconds(4));
    assert_eq!(puppet.dials().len(), 16);
    puppet.pass(seconds(2));
    assert_eq!(puppet.dials().len(), 32);
    let stats = puppet.torrent.stats(puppet.now);
    assert_eq!(stats.failures["could not be dialled from here"], 16);
    assert_eq!(stats.peers_known, 40);
}

/// Whether a newcomer at this address gets a place in a full torrent that has everything, and of whom.
fn displaces(newcomer: SocketAddr) -> Option<usize> {
    let content = content(40, 1_000_000);
    let full = Config {
        peers_max: 8,
        unchoke_slots: 1,
        seeding: Seeding::AsAsked,
        ..config(200)
    };
    let disk = SimulatedDisk::holding(&content);
    let mut puppet = Puppet::with_disk(full, &content, disk);
    let ours = "123.213.32.10".parse().unwrap();
    let hello = ExtensionHandshake {
        your_ip: Some(ours),
        ..ExtensionHandshake::default()
    };
    let payload: bytes::Bytes = hello.encode().into();
    let mut peers: Vec<_> = (1..=8u8)
        .map(|number| {
            let address = SocketAddr::from(([98, 76, number * 16, 1], 6881));
            let peer = puppet.connect_to(address, number).unwrap();
            let payload = payload.clone();
            let hello = Message::Extended { id: 0, payload };
            puppet.say(&peer, &[hello, Message::Interested]);
            peer
        })
        .collect();
    // Whoever is served takes something.
    for index in 0..25 {
        puppet.pass(seconds(5));
        for peer in &mut peers {
            let (offset, length) = (0, 1 << 14);
            let request = Message::Request {
                index,
                offset,
                length,
            };
            puppet.say(peer, &[request]);
            puppet.hear(peer);
        }
    }
    puppet.connect_to(newcomer, 9)?;
    peers
        .iter()
        .position(|peer| puppet.closed(peer) == Some(Reason::Replaced))
}

#[test]
fn in_a_full_torrent_the_lowest_priority_of_those_that_wait_makes_room() {
    let newcomers = (0..=255).map(|last| SocketAddr::from(([5, last, 9, 9], 6881)));
    let (mut refused, mut taken) = (0, BTreeSet::new());
    for newcomer in newcomers.step_by(16) {
        match displaces(newcomer) {
            None => refused += 1,
            Some(out) => drop(taken.insert(out)),
        }
    }
    assert!(refused > 0, "some have a lesser claim");
    assert_eq!(taken.len(), 1, "always the same one: {taken:?}");
}
