//! Peer exchange (BEP 11), as far as it concerns a torrent.

use std::net::SocketAddr;
use std::sync::Arc;

use sha1::{Digest, Sha1};

use super::lab::Lab;
use super::puppet::{Puppet, Stream};
use super::simulated_disk::SimulatedDisk;
use super::{Content, config, content, seconds};
use crate::metainfo::Info;
use crate::metainfo::build::InfoDraft;
use crate::peer::Role;
use crate::swarm::{Config, PeerSource, Reason, Transport};
use crate::wire::pex::{PEX_REACHABLE, PEX_SEED, PexContact};
use crate::wire::{
    ExtensionHandshake, Message, MetadataMessage, PexMessage, UT_METADATA_ID, UT_PEX_ID,
};

/// The id under which scripted peers take `ut_pex` messages.
const THEIR_ID: u8 = 9;

/// A peer takes `ut_pex` messages and listens at this port.
fn say_takes_pex(puppet: &mut Puppet, stream: &Stream, port: Option<u16>) {
    let handshake = ExtensionHandshake {
        ut_pex: Some(THEIR_ID),
        listen_port: port,
        ..ExtensionHandshake::default()
    };
    let payload = handshake.encode().into();
    puppet.say(stream, &[Message::Extended { id: 0, payload }]);
}

/// The messages that a peer was sent.
fn told(puppet: &mut Puppet, stream: &mut Stream) -> Vec<PexMessage> {
    let heard = puppet.hear(stream);
    let messages = heard.iter().filter_map(|message| match message {
        Message::Extended {
            id: THEIR_ID,
            payload,
        } => Some(PexMessage::decode(payload).unwrap()),
        _ => None,
    });
    messages.collect()
}

fn added(message: &PexMessage) -> Vec<(SocketAddr, u8)> {
    let added = message.added.iter();
    added
        .map(|contact| (contact.address, contact.flags))
        .collect()
}

fn say_peers(puppet: &mut Puppet, stream: &Stream, addresses: &[SocketAddr]) {
    let added = addresses.iter();
    let message = PexMessage {
        added: added
            .map(|&address| PexContact { address, flags: 0 })
            .collect(),
        dropped: Vec::new(),
    };
    let payload = message.encode().into();
    puppet.say(
        stream,
        &[Message::Extended {
            id: UT_PEX_ID,
            payload,
        }],
    );
}

fn known(puppet: &Puppet, source: PeerSource) -> u32 {
    let stats = puppet.torrent.stats(puppet.now);
    stats.sources.get(source.as_str()).copied().unwrap_or(0)
}

#[test]
fn a_peer_is_told_of_those_that_are_connected_and_of_changes_once_a_minute() {
    let content = content(1, 1_000_000);
    let mut puppet = Puppet::leech(&content);
    let mut peer = puppet.connect(1).unwrap();
    say_takes_pex(&mut puppet, &peer, None);
    let seed = puppet.connect(2).unwrap();
    puppet.say(&seed, &[Message::HaveAll]);
    let mut far = Puppet::address(3);
    far.set_port(50_000);
    let accepted = puppet.accept(far, 3).unwrap();
    say_takes_pex(&mut puppet, &accepted, Some(7_000));
    // Where it listens is not known.
    far.set_ip([10, 1, 0, 4].into());
    puppet.accept(far, 4).unwrap();
    puppet.pass(seconds(6));
    let listens = SocketAddr::new(Puppet::address(3).ip(), 7_000);
    let messages = told(&mut puppet, &mut peer);
    assert_eq!(messages.len(), 1);
    let expected = [(Puppet::address(2), PEX_SEED | PEX_REACHABLE), (listens, 0)];
    assert_eq!(added(&messages[0]), expected);

    puppet
        .torrent
        .handle_disconnected(puppet.now, seed.id, Reason::Closed);
    puppet.connect(5).unwrap();
    puppet.pass(seconds(50));
    assert_eq!(told(&mut puppet, &mut peer), []);
    puppet.pass(seconds(20));
    let messages = told(&mut puppet, &mut peer);
    assert_eq!(messages.len(), 1);
    assert_eq!(added(&messages[0]), [(Puppet::address(5), PEX_REACHABLE)]);
    assert_eq!(messages[0].dropped, [Puppet::address(2)]);
}

#[test]
fn one_message_names_fifty_peers_and_the_next_the_rest() {
    let content = content(2, 1_000_000);
    let many = Config {
        peers_max: 100,
        ..config(200)
    };
    let disk = SimulatedDisk::empty();
    let mut puppet = Puppet::with_disk(many, &content, disk);
    let mut peer = puppet.connect(1).unwrap();
    say_takes_pex(&mut puppet, &peer, None);
    let others: Vec<_> = (2..72).map(|number| puppet.connect(number)).collect();
    assert!(others.iter().all(Option::is_some));
    puppet.pass(seconds(70));
    let sizes: Vec<usize> = told(&mut puppet, &mut peer)
        .iter()
        .map(|message| message.added.len())
        .collect();
    assert_eq!(sizes, [50, 20]);
}

#[test]
fn a_peer_of_the_internet_hears_of_no_private_address() {
    let content = content(3, 1_000_000);
    let mut puppet = Puppet::leech(&content);
    let global = |last: u8| SocketAddr::from(([93, 184, 216, last], 6881));
    let mut far = puppet.connect_to(global(1), 1).unwrap();
    let mut near = puppet.connect(2).unwrap();
    puppet.connect_to(global(3), 3).unwrap();
    for peer in [&far, &near] {
        say_takes_pex(&mut puppet, peer, None);
    }
    puppet.pass(seconds(6));
    let to_far = told(&mut puppet, &mut far);
    assert_eq!(added(&to_far[0]), [(global(3), PEX_REACHABLE)]);
    assert_eq!(added(&told(&mut puppet, &mut near)[0]).len(), 2);
}

#[test]
fn named_peers_are_dialled_unless_they_are_narrower_than_who_named_them() {
    let content = content(4, 1_000_000);
    let mut puppet = Puppet::leech(&content);
    let global = |last: u8, port| SocketAddr::from(([93, 184, 216, last], port));
    let namer = puppet.connect_to(global(1, 1), 1).unwrap();
    let mut named = vec![
        SocketAddr::from(([127, 0, 0, 1], 80)),
        SocketAddr::from(([192, 168, 1, 1], 80)),
        SocketAddr::from(([10, 0, 0, 1], 80)),
        SocketAddr::from(([224, 0, 0, 1], 80)),
    ];
    // Of many ports of one host, one.
    named.extend((1..20).map(|port| global(9, port)));
    named.push(global(8, 5));
    say_peers(&mut puppet, &namer, &named);
    let mut dials = puppet.dials();
    dials.sort_unstable();
    assert_eq!(dials, [global(8, 5), global(9, 1)]);
    assert_eq!(known(&puppet, PeerSource::Pex), 2);
}

#[test]
fn one_peer_names_five_hundred_addresses_and_no_more() {
    let content = content(5, 1_000_000);
    let mut puppet = Puppet::leech(&content);
    let namer = puppet.connect(1).unwrap();
    for minute in 0..20u8 {
        let named: Vec<SocketAddr> = (0..50)
            .map(|last| SocketAddr::from(([10, 2, minute, last], 6881)))
            .collect();
        say_peers(&mut puppet, &namer, &named);
        puppet.pass(seconds(60));
        puppet.say(&namer, &[Message::KeepAlive]);
    }
    assert_eq!(puppet.closed(&namer), None);
    assert!(known(&puppet, PeerSource::Pex) <= 500);
}

/// Content of a private torrent.
fn private_content() -> Content {
    let mut content = content(6, 100_000);
    let hashes: Vec<u8> = content
        .bytes
        .chunks(32 << 10)
        .flat_map(Sha1::digest)
        .collect();
    let draft = InfoDraft {
        name: "content".to_owned(),
        piece_length: 32 << 10,
        files: vec![(Vec::new(), 100_000)],
        single: true,
        private: true,
        ..InfoDraft::default()
    };
    content.info = Arc::new(Info::parse(draft.encode(&hashes)).unwrap());
    content
}

/// The ids that the torrent named for `ut_pex`, 0 for "off".
fn offers(heard: &[Message]) -> Vec<bool> {
    let handshakes = heard.iter().filter_map(|message| match message {
        Message::Extended { id: 0, payload } => Some(payload),
        _ => None,
    });
    let offers = handshakes.map(|payload| {
        let handshake = ExtensionHandshake::decode(payload).unwrap();
        handshake.ut_pex.is_some()
    });
    offers.collect()
}

#[test]
fn for_a_private_torrent_nothing_is_offered_told_or_taken() {
    let content = private_content();
    assert!(content.info.is_private());
    let mut puppet = Puppet::leech(&content);
    let mut peer = puppet.connect(1).unwrap();
    let other = puppet.connect(2).unwrap();
    assert_eq!(offers(&puppet.hear(&mut peer)), [false]);
    say_takes_pex(&mut puppet, &peer, None);
    say_peers(&mut puppet, &other, &[Puppet::address(77)]);
    puppet.pass(seconds(70));
    assert_eq!(told(&mut puppet, &mut peer), []);
    assert_eq!(puppet.dials(), []);
}

#[test]
fn what_was_named_before_a_torrent_proved_to_be_private_is_forgotten() {
    let content = private_content();
    let few = Config {
        dials_max: 1,
        ..config(200)
    };
    let mut puppet = Puppet::magnet(few, &content);
    let mut peer = puppet.connect(1).unwrap();
    let raw = content.info.raw();
    let size = u32::try_from(raw.len()).unwrap();
    let handshake = ExtensionHandshake {
        ut_metadata: Some(UT_METADATA_ID),
        ut_pex: Some(THEIR_ID),
        metadata_size: Some(size),
        ..ExtensionHandshake::default()
    };
    let payload = handshake.encode().into();
    puppet.say(&peer, &[Message::Extended { id: 0, payload }]);
    assert_eq!(offers(&puppet.hear(&mut peer)), [true]);
    let named: Vec<SocketAddr> = (50..60).map(Puppet::address).collect();
    say_peers(&mut puppet, &peer, &named);
    assert_eq!(known(&puppet, PeerSource::Pex), 10);
    let data = MetadataMessage::Data {
        part: 0,
        total_size: size,
        data: raw.clone(),
    };
    let payload = data.encode().into();
    let id = UT_METADATA_ID;
    puppet.say(&peer, &[Message::Extended { id, payload }]);
    assert!(puppet.torrent.info().is_some());
    assert_eq!(
        known(&puppet, PeerSource::Pex),
        1,
        "the one that is dialled"
    );
    assert_eq!(offers(&puppet.hear(&mut peer)), [false]);
    let late: Vec<SocketAddr> = (70..80).map(Puppet::address).collect();
    puppet.add_peers(PeerSource::Dht, &late);
    puppet.add_peers(PeerSource::Lsd, &late);
    say_peers(&mut puppet, &peer, &late);
    for source in [PeerSource::Dht, PeerSource::Lsd] {
        assert_eq!(known(&puppet, source), 0, "{source:?}");
    }
    assert_eq!(known(&puppet, PeerSource::Pex), 1);
    puppet.connect(2).unwrap();
    puppet.pass(seconds(70));
    assert_eq!(told(&mut puppet, &mut peer), []);
}

#[test]
fn with_another_tracker_a_private_torrent_has_other_peers() {
    let content = private_content();
    let few = Config {
        dials_max: 2,
        ..config(200)
    };
    let mut puppet = Puppet::with_disk(few, &content, SimulatedDisk::empty());
    let former: Vec<SocketAddr> = (1..10).map(Puppet::address).collect();
    puppet.add_peers(PeerSource::Tracker, &former);
    let dialled = puppet.dials();
    assert_eq!(dialled.len(), 2);
    let connected = puppet.connect(50).unwrap();
    let now = puppet.now;
    puppet.torrent.part_with_all(now);
    puppet.drain();
    assert_eq!(puppet.closed(&connected), Some(Reason::TrackerChanged));
    assert_eq!(known(&puppet, PeerSource::Tracker), 0);
    assert_eq!(puppet.dials(), dialled, "nobody else");
    let others: Vec<SocketAddr> = [dialled[0], Puppet::address(77)].into();
    puppet.add_peers(PeerSource::Tracker, &others);
    assert_eq!(puppet.dials().len(), 4);
    // Dials that were under way are welcome only where the new tracker names their peers, too.
    for (address, is_welcome) in [(dialled[0], true), (dialled[1], false)] {
        let (role, transport) = (Role::Dialled, Transport::Tcp);
        let torrent = &mut puppet.torrent;
        let id = torrent.handle_connected(now, address, role, transport);
        assert_eq!(id.is_some(), is_welcome, "{address}");
    }
}

#[test]
fn switched_off_nothing_is_offered() {
    let content = content(7, 100_000);
    let off = Config {
        pex: false,
        ..config(200)
    };
    let disk = SimulatedDisk::empty();
    let mut puppet = Puppet::with_disk(off, &content, disk);
    let mut peer = puppet.connect(1).unwrap();
    assert_eq!(offers(&puppet.hear(&mut peer)), [false]);
}

#[test]
fn a_seed_dials_peers_of_the_local_network_and_no_others() {
    let content = content(9, 100_000);
    let mut puppet = Puppet::seed(&content);
    puppet.add_peers(PeerSource::Dht, &[Puppet::address(1)]);
    assert_eq!(puppet.dials(), []);
    for _ in 0..2 {
        puppet.add_peers(PeerSource::Lsd, &[Puppet::address(2)]);
        assert_eq!(puppet.dials(), [Puppet::address(2)]);
    }
    let many: Vec<SocketAddr> = (3..100).map(Puppet::address).collect();
    puppet.add_peers(PeerSource::Lsd, &many);
    assert_eq!(puppet.dials().len(), 16, "so many dials at once");
}

#[test]
fn one_known_peer_leads_to_all_others() {
    let content = content(8, 2_000_000);
    let mut lab = Lab::new(8);
    let hub = lab.magnet(config(1), &content);
    let seeds = [2, 3, 4].map(|number| lab.seed(config(number), &content));
    for seed in seeds {
        lab.hosts[seed].uplink = Some(20_000);
    }
    lab.introduce(hub, seeds);
    let leech = lab.magnet(config(9), &content);
    lab.introduce(leech, [hub]);
    let all = |lab: &Lab| lab.hosts[leech].torrent.stats(lab.now).peers_connected == 4;
    assert!(lab.run_until(seconds(30), all));
}
