//! Rows "peer" of the hardening page, as far as they concern a torrent.

use super::puppet::{Puppet, answer, full_bitfield};
use super::{content, content_with_pieces, seconds};
use crate::swarm::{Reason, Stats};
use crate::wire::{Message, ProtocolError};

fn is_too_many(reason: Option<Reason>) -> bool {
    matches!(
        reason,
        Some(Reason::Protocol(ProtocolError::TooMany { .. }))
    )
}

#[test]
fn a_million_requests_that_are_never_read_end_the_connection() {
    let content = content_with_pieces(1, 32 << 20, 1 << 20);
    let mut puppet = Puppet::seed(&content);
    let peer = puppet.connect(1).unwrap();
    let mut other = puppet.connect(2).unwrap();
    puppet.say(&peer, &[Message::Interested]);
    puppet.say(&other, &[Message::Interested]);
    puppet.pass(seconds(11));
    let geometry = content.info.geometry();
    let requests: Vec<_> = geometry
        .pieces()
        .flat_map(|piece| geometry.blocks(piece))
        .map(|block| Message::Request {
            index: block.piece.get(),
            offset: block.offset,
            length: block.length,
        })
        .collect();
    let mut sent = 0;
    while puppet.closed(&peer).is_none() && sent < 1_000_000 {
        for some in requests.chunks(64) {
            puppet.say(&peer, some);
            sent += some.len();
        }
    }
    assert!(
        is_too_many(puppet.closed(&peer)),
        "{:?}",
        puppet.closed(&peer)
    );
    // Others are not disturbed.
    puppet.say(&other, &requests[..1]);
    let heard = puppet.hear(&mut other);
    assert!(
        heard.iter().any(|m| matches!(m, Message::Piece { .. })),
        "{heard:?}"
    );
}

#[test]
fn blocks_that_nobody_asked_for_are_thrown_away_and_end_the_connection() {
    let content = content(2, 8_000_000);
    let mut puppet = Puppet::leech(&content);
    let peer = puppet.connect(1).unwrap();
    puppet.say(&peer, &[full_bitfield(&content)]);
    let geometry = content.info.geometry();
    let blocks = geometry.pieces().flat_map(|piece| geometry.blocks(piece));
    for block in blocks.take(200) {
        let request = Message::Request {
            index: block.piece.get(),
            offset: block.offset,
            length: block.length,
        };
        puppet.say(&peer, &[answer(&content, &request).unwrap()]);
    }
    assert!(is_too_many(puppet.closed(&peer)));
    assert_eq!(puppet.disk.writes, 0);
    let wasted = puppet.torrent.stats(puppet.now).wasted;
    assert!((100 << 14..=101 << 14).contains(&wasted), "{wasted}");
}

#[test]
fn a_block_that_comes_twice_is_written_once() {
    let content = content(3, 300_000);
    let mut puppet = Puppet::leech(&content);
    let mut peer = puppet.connect(1).unwrap();
    puppet.say(&peer, &[full_bitfield(&content), Message::Unchoke]);
    let requests = puppet.hear(&mut peer);
    let block = requests.iter().find_map(|r| answer(&content, r)).unwrap();
    puppet.say(&peer, &[block.clone(), block.clone(), block]);
    assert_eq!(puppet.disk.writes, 1);
    assert_eq!(puppet.torrent.stats(puppet.now).wasted, 2 << 14);
}

#[test]
fn a_peer_that_flaps_between_choke_and_unchoke_is_closed() {
    let content = content(4, 1_000_000);
    let mut puppet = Puppet::leech(&content);
    let mut peer = puppet.connect(1).unwrap();
    puppet.say(&peer, &[full_bitfield(&content)]);
    let mut flaps = 0;
    let mut asked = 0;
    while puppet.closed(&peer).is_none() && flaps < 1_000 {
        puppet.say(&peer, &[Message::Unchoke, Message::Choke]);
        asked += puppet.hear(&mut peer).len();
        puppet.now += std::time::Duration::from_millis(1);
        flaps += 1;
    }
    assert!(is_too_many(puppet.closed(&peer)));
    assert!(flaps <= 100 && asked < 1_000, "{flaps} {asked}");
}

#[test]
fn numbers_out_of_range_end_the_connection() {
    let content = content(5, 100_000);
    for message in [
        Message::Have { index: 4 },
        Message::Request {
            index: 0,
            offset: 32_768,
            length: 1,
        },
        Message::Cancel {
            index: 9,
            offset: 0,
            length: 1,
        },
    ] {
        let mut puppet = Puppet::seed(&content);
        let peer = puppet.connect(1).unwrap();
        puppet.say(&peer, &[message]);
        let expected = Some(Reason::Protocol(ProtocolError::OutOfRange));
        assert_eq!(puppet.closed(&peer), expected);
    }
}

#[test]
fn haves_in_the_segment_of_the_bitfield_are_counted_once() {
    let content = content(6, 160_000);
    let mut puppet = Puppet::leech(&content);
    let stats = |puppet: &Puppet| -> Stats { puppet.torrent.stats(puppet.now) };
    let peers: Vec<_> = (1..=2)
        .map(|number| puppet.connect(number).unwrap())
        .collect();
    let haves = |range: std::ops::Range<u32>| range.map(|index| Message::Have { index });
    // One has three of five pieces; the other has two and gains three at once.
    puppet.say(&peers[0], &[Message::Bitfield(vec![0b1110_0000].into())]);
    let mut all = vec![Message::Bitfield(vec![0b1100_0000].into())];
    all.extend(haves(2..5));
    puppet.say(&peers[1], &all);
    assert_eq!(stats(&puppet).availability_permille, 1_600);
    assert_eq!(stats(&puppet).peers_seeding, 1);
    puppet
        .torrent
        .handle_disconnected(puppet.now, peers[1].id, Reason::Closed);
    puppet.drain();
    assert_eq!(stats(&puppet).availability_permille, 600);
    puppet
        .torrent
        .handle_disconnected(puppet.now, peers[0].id, Reason::Closed);
    puppet.drain();
    assert_eq!(stats(&puppet).availability_permille, 0);
}

#[test]
fn a_seed_that_is_connected_twice_counts_once_when_one_ends() {
    let content = content(7, 160_000);
    let mut puppet = Puppet::leech(&content);
    let first = puppet.connect(1).unwrap();
    puppet.say(&first, &[full_bitfield(&content)]);
    // The second stream brings handshake and bitfield in one segment, and is closed at the handshake.
    let mut address = Puppet::address(1);
    address.set_port(77);
    let id = puppet.torrent.handle_connected(
        puppet.now,
        address,
        crate::peer::Role::Dialled,
        crate::swarm::Transport::Tcp,
    );
    let handshake = crate::wire::Handshake {
        reserved: crate::wire::Reserved::ours(false),
        info_hash: puppet.torrent.info_hash(),
        peer_id: crate::id::PeerId::new([1; 20]),
    };
    let mut bytes = handshake.encode().to_vec();
    full_bitfield(&content).encode(&mut bytes);
    puppet
        .torrent
        .handle_bytes(puppet.now, id.unwrap(), bytes.into());
    puppet.drain();
    let stats = puppet.torrent.stats(puppet.now);
    assert_eq!(
        (stats.peers_connected, stats.availability_permille),
        (1, 1_000)
    );
}

#[test]
fn a_silent_peer_is_closed_in_time() {
    let content = content(8, 100_000);
    let mut puppet = Puppet::seed(&content);
    let id = puppet.torrent.handle_connected(
        puppet.now,
        Puppet::address(1),
        crate::peer::Role::Dialled,
        crate::swarm::Transport::Tcp,
    );
    assert!(id.is_some());
    let peer = puppet.connect(2).unwrap();
    puppet.pass(seconds(11));
    assert_eq!(puppet.torrent.stats(puppet.now).failures.len(), 1);
    assert_eq!(puppet.closed(&peer), None);
    puppet.pass(seconds(121));
    assert!(puppet.closed(&peer).is_some());
    assert!(puppet.torrent.poll_timeout().is_none());
}

#[test]
fn many_ports_of_one_peer_do_not_fill_the_list_of_addresses() {
    let content = content(9, 100_000);
    let mut puppet = Puppet::leech(&content);
    let accepted = crate::peer::Accepted {
        handshake: crate::wire::Handshake {
            reserved: crate::wire::Reserved::ours(false),
            info_hash: puppet.torrent.info_hash(),
            peer_id: crate::id::PeerId::new([1; 20]),
        },
        rest: bytes::Bytes::new(),
    };
    let id = puppet.torrent.handle_connected(
        puppet.now,
        Puppet::address(50_000),
        crate::peer::Role::Accepted(accepted),
        crate::swarm::Transport::Tcp,
    );
    for port in 1..=3_000 {
        let handshake = crate::wire::ExtensionHandshake {
            listen_port: Some(port),
            ..crate::wire::ExtensionHandshake::default()
        };
        let payload = bytes::Bytes::from(handshake.encode());
        let mut bytes = Vec::new();
        Message::Extended { id: 0, payload }.encode(&mut bytes);
        puppet
            .torrent
            .handle_bytes(puppet.now, id.unwrap(), bytes.into());
        puppet.drain();
    }
    assert_eq!(puppet.torrent.stats(puppet.now).peers_known, 1);
}
