//! Peers that send wrong blocks are found, and nobody else is blamed.

use super::lab::{Lab, Manners};
use super::puppet::{Puppet, answer, full_bitfield};
use super::{config, content_with_pieces, seconds};
use crate::swarm::{Event, LostReason, Reason, State};
use crate::wire::Message;

#[test]
fn one_of_four_seeders_that_corrupts_every_block_is_banned_and_nobody_else() {
    for seed in 0..40 {
        corrupting_peer_is_banned(Manners::Corrupts, seed);
    }
}

#[test]
fn one_of_four_seeders_that_corrupts_the_last_block_of_each_piece_is_banned_and_nobody_else() {
    for seed in 0..40 {
        corrupting_peer_is_banned(Manners::CorruptsLastBlocks, seed);
    }
}

fn corrupting_peer_is_banned(manners: Manners, seed: u64) {
    // Few pieces of many blocks, so that seeders share pieces from the start; and many pieces.
    let piece_length = if seed.is_multiple_of(2) {
        256 << 10
    } else {
        64 << 10
    };
    let content = content_with_pieces(4, 2_500_000, piece_length);
    let mut lab = Lab::new(seed);
    let hosts: Vec<_> = (1..=4)
        .map(|number| lab.seed(config(number), &content))
        .collect();
    for &host in &hosts {
        lab.hosts[host].uplink = Some(100_000);
    }
    lab.hosts[hosts[2]].manners = manners;
    let leech = lab.magnet(config(9), &content);
    lab.introduce(leech, hosts);
    let done = lab.run_until(seconds(200), |lab| lab.is_complete(leech));
    let stats = lab.hosts[leech].torrent.stats(lab.now);
    assert!(done, "{manners:?} {seed}: {stats:?}");
    assert_eq!(lab.hosts[leech].disk.contents(), content.bytes);
    let banned: Vec<_> = lab.hosts[leech]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::PeerLost { address, reason } => {
                let is_ban = *reason == LostReason::Connection(Reason::Banned);
                is_ban.then_some(*address)
            }
            _ => None,
        })
        .collect();
    // By chance it may never have been asked for a last block.
    let failed = |event: &Event| matches!(event, Event::PieceFailed(_));
    let harmless = !lab.hosts[leech].events.iter().any(failed);
    if harmless && manners == Manners::CorruptsLastBlocks {
        return assert!(banned.is_empty(), "{seed}: {stats:?}");
    }
    assert_eq!(banned, [Lab::address(2)], "{manners:?} {seed}: {stats:?}");
    assert_eq!(stats.peers_banned, 1, "{manners:?} {seed}: {stats:?}");
    // What the culprit sent, and what others had sent for the same pieces.
    assert!(
        stats.wasted < 1_600_000,
        "{manners:?} {seed}: {}",
        stats.wasted
    );
}

#[test]
fn a_peer_that_left_is_banned_when_its_block_proves_to_have_been_wrong() {
    let content = content_with_pieces(6, 64 << 10, 64 << 10);
    let mut puppet = Puppet::leech(&content);
    let mut peers: Vec<_> = (1..=3)
        .map(|number| puppet.connect(number).unwrap())
        .collect();
    let mut wanted = Vec::new();
    for peer in &mut peers[..2] {
        puppet.say(peer, &[full_bitfield(&content), Message::Unchoke]);
        wanted.push(puppet.hear(peer));
        puppet.say(peer, &[Message::Choke]);
        puppet.hear(peer);
    }
    let answers: Vec<Message> = wanted[0]
        .iter()
        .filter_map(|r| answer(&content, r))
        .collect();
    assert_eq!(answers.len(), 4);
    let mut bad = answers[3].clone();
    if let Message::Piece { data, .. } = &mut bad {
        let mut bytes = data.to_vec();
        bytes[7] ^= 1;
        *data = bytes::Bytes::from(bytes).into();
    }
    // What was asked may still come after a choke.
    puppet.say(&peers[0], &answers[..3]);
    puppet.say(&peers[1], &[bad]);
    let failed = |e: &Event| matches!(e, Event::PieceFailed(_));
    assert!(puppet.events.iter().any(failed));
    let now = puppet.now;
    puppet
        .torrent
        .handle_disconnected(now, peers[1].id, Reason::Closed);
    puppet.say(&peers[2], &[full_bitfield(&content), Message::Unchoke]);
    let asked = puppet.hear(&mut peers[2]);
    let answers: Vec<_> = asked.iter().filter_map(|r| answer(&content, r)).collect();
    puppet.say(&peers[2], &answers);
    assert_eq!(puppet.torrent.state(), State::Seeding);
    assert_eq!(puppet.torrent.stats(now).peers_banned, 1);
    assert!(puppet.connect(2).is_none(), "it may not come back");
    assert!(puppet.connect(4).is_some());
}

#[test]
fn two_peers_that_shared_in_a_bad_piece_do_not_wait_for_each_other() {
    let content = content_with_pieces(5, 300_000, 64 << 10);
    for seed in 0..8 {
        let mut lab = Lab::new(seed);
        let good = lab.seed(config(1), &content);
        let bad = lab.seed(config(2), &content);
        for host in [good, bad] {
            lab.hosts[host].uplink = Some(100_000);
        }
        lab.hosts[bad].manners = Manners::CorruptsLastBlocks;
        let leech = lab.magnet(config(9), &content);
        lab.introduce(leech, [good, bad]);
        let done = lab.run_until(seconds(60), |lab| lab.is_complete(leech));
        let stats = lab.hosts[leech].torrent.stats(lab.now);
        assert!(done, "{seed}: {stats:?}");
        let banned_the_good = lab.hosts[good]
            .events
            .iter()
            .any(|event| matches!(event, Event::PeerLost { .. }));
        // Both ends are seeds in the end, and part then.
        let parted = lab.hosts[leech].closed.contains(&Reason::BothSeeds)
            || lab.hosts[good].closed.contains(&Reason::BothSeeds);
        assert!(!banned_the_good || parted);
    }
}
