//! The fast extension (BEP 6), as far as it concerns a torrent.

use super::puppet::{Puppet, Stream, answer};
use super::simulated_disk::SimulatedDisk;
use super::{config, content, seconds};
use crate::swarm::Reason;
use crate::wire::{ExtensionHandshake, LT_DONTHAVE_ID, Message};

/// The pieces of which blocks were asked.
fn asked(heard: &[Message]) -> Vec<u32> {
    let mut pieces: Vec<u32> = heard
        .iter()
        .filter_map(|message| match message {
            Message::Request { index, .. } => Some(*index),
            _ => None,
        })
        .collect();
    pieces.dedup();
    pieces
}

fn rejects(heard: &[Message]) -> Vec<Message> {
    let rejects = heard.iter().filter_map(|message| match *message {
        Message::Request {
            index,
            offset,
            length,
        } => Some(Message::Reject {
            index,
            offset,
            length,
        }),
        _ => None,
    });
    rejects.collect()
}

/// What a peer was told that it may fetch while it is choked.
fn allowed(heard: &[Message]) -> Vec<u32> {
    let allowed = heard.iter().filter_map(|message| match message {
        Message::AllowedFast { index } => Some(*index),
        _ => None,
    });
    allowed.collect()
}

#[test]
fn what_a_peer_rejects_is_asked_of_another_at_once() {
    let content = content(1, 64 << 10);
    let mut puppet = Puppet::leech(&content);
    let mut first = puppet.connect(1).unwrap();
    puppet.say(&first, &[Message::HaveAll, Message::Unchoke]);
    let heard = puppet.hear(&mut first);
    assert_eq!(rejects(&heard).len(), 4, "all of it");
    let mut other = puppet.connect(2).unwrap();
    puppet.say(&other, &[Message::HaveAll, Message::Unchoke]);
    puppet.say(&first, &[Message::Choke]);
    let mut taken_over = rejects(&puppet.hear(&mut other));
    assert!(taken_over.len() < 4, "the rest may still come");
    puppet.say(&first, &rejects(&heard));
    taken_over.extend(rejects(&puppet.hear(&mut other)));
    assert_eq!(taken_over.len(), 4);
}

#[test]
fn a_peer_that_lost_a_piece_is_asked_for_others() {
    let content = content(2, 10 * (32 << 10));
    let mut puppet = Puppet::leech(&content);
    let mut peer = puppet.connect(1).unwrap();
    puppet.say(&peer, &[Message::HaveAll, Message::Unchoke]);
    let heard = puppet.hear(&mut peer);
    let lost = asked(&heard)[0];
    let mut waiting = heard;
    let mut answered = 0;
    for _ in 0..30 {
        let answers: Vec<Message> = waiting
            .iter()
            .filter_map(
                |request| match rejects(std::slice::from_ref(request)).pop() {
                    Some(reject) if asked(std::slice::from_ref(request)) == [lost] => Some(reject),
                    _ => answer(&content, request),
                },
            )
            .collect();
        answered += answers
            .iter()
            .filter(|answer| matches!(answer, Message::Piece { .. }))
            .count();
        puppet.say(&peer, &answers);
        waiting = puppet.hear(&mut peer);
        puppet.pass(seconds(1));
        waiting.extend(puppet.hear(&mut peer));
    }
    assert_eq!(answered, 18, "everything but that piece");
}

#[test]
fn a_peer_that_rejects_everything_is_asked_ever_more_seldom() {
    let content = content(3, 4_000_000);
    let mut puppet = Puppet::leech(&content);
    let mut peer = puppet.connect(1).unwrap();
    puppet.say(&peer, &[Message::HaveAll, Message::Unchoke]);
    let mut requests = 0;
    for _ in 0..600 {
        let heard = puppet.hear(&mut peer);
        let refused = rejects(&heard);
        requests += refused.len();
        puppet.say(&peer, &refused);
        puppet.pass(seconds(1));
    }
    assert_eq!(puppet.closed(&peer), None);
    // 250 before the first rest, then those of a pipeline after each.
    assert!((290..=350).contains(&requests), "{requests}");
}

#[test]
fn only_allowed_pieces_are_asked_of_a_peer_that_chokes_us() {
    let content = content(4, 10 * (32 << 10));
    let mut puppet = Puppet::leech(&content);
    let mut peer = puppet.connect(1).unwrap();
    let allowed = [3, 7].map(|index| Message::AllowedFast { index });
    puppet.say(&peer, &allowed);
    assert!(asked(&puppet.hear(&mut peer)).is_empty(), "it has nothing");
    puppet.say(&peer, &[3, 4].map(|index| Message::Have { index }));
    let heard = puppet.hear(&mut peer);
    assert_eq!(asked(&heard), [3]);
    let answers: Vec<Message> = heard.iter().filter_map(|m| answer(&content, m)).collect();
    puppet.say(&peer, &answers);
    assert!(puppet.torrent.have().unwrap().contains(3));
}

/// A torrent that lacks one piece, and a peer that has everything.
fn nearly_done(pieces: usize) -> (Puppet, Stream) {
    let content = content(5, pieces * (32 << 10));
    let mut disk = SimulatedDisk::holding(&content);
    disk.damage(content.info.geometry().piece(0).unwrap());
    let mut puppet = Puppet::with_disk(config(200), &content, disk);
    assert_eq!(
        puppet.torrent.stats(puppet.now).pieces_done + 1,
        u32::try_from(pieces).unwrap()
    );
    let other = puppet.connect(200).unwrap();
    puppet.say(&other, &[Message::HaveAll]);
    (puppet, other)
}

#[test]
fn a_few_newcomers_may_fetch_some_pieces_while_they_are_choked() {
    let (mut puppet, _other) = nearly_done(160);
    let mut told = Vec::new();
    let mut newcomers = Vec::new();
    for number in 1..=6 {
        let mut newcomer = puppet.connect(number).unwrap();
        puppet.say(&newcomer, &[Message::HaveNone]);
        told.push(allowed(&puppet.hear(&mut newcomer)).len());
        newcomers.push(newcomer);
    }
    assert_eq!(told, [10, 10, 10, 10, 0, 0]);
    // Who goes makes no room: one that comes again and again would fetch everything.
    for newcomer in newcomers {
        let closed = Reason::Closed;
        let torrent = &mut puppet.torrent;
        torrent.handle_disconnected(puppet.now, newcomer.id, closed);
    }
    for number in 11..=16 {
        let mut again = puppet.connect(number).unwrap();
        puppet.say(&again, &[Message::HaveNone]);
        assert!(allowed(&puppet.hear(&mut again)).is_empty());
    }
    puppet.pass(seconds(61));
    let mut late = puppet.connect(17).unwrap();
    puppet.say(&late, &[Message::HaveNone]);
    assert_eq!(allowed(&puppet.hear(&mut late)).len(), 10);
}

#[test]
fn a_small_torrent_is_not_given_away() {
    let (mut puppet, _other) = nearly_done(15);
    let mut newcomer = puppet.connect(1).unwrap();
    puppet.say(&newcomer, &[Message::HaveNone]);
    assert!(allowed(&puppet.hear(&mut newcomer)).is_empty());
}

#[test]
fn nobody_fetches_while_choked_what_a_seed_alone_has() {
    let content = content(6, 160 * (32 << 10));
    let mut puppet = Puppet::seed(&content);
    let mut newcomer = puppet.connect(1).unwrap();
    puppet.say(&newcomer, &[Message::HaveNone]);
    assert!(allowed(&puppet.hear(&mut newcomer)).is_empty());
}

#[test]
fn a_piece_that_the_only_peer_lost_is_not_asked_for() {
    let content = content(7, 2 * (32 << 10));
    let mut puppet = Puppet::leech(&content);
    let mut peer = puppet.connect(1).unwrap();
    puppet.say(&peer, &[Message::HaveAll]);
    let lost = |index| Message::Extended {
        id: LT_DONTHAVE_ID,
        payload: vec![0, 0, 0, index].into(),
    };
    puppet.say(&peer, &[lost(0)]);
    assert_eq!(puppet.torrent.stats(puppet.now).peers_seeding, 0);
    puppet.say(&peer, &[Message::Unchoke]);
    assert_eq!(asked(&puppet.hear(&mut peer)), [1]);
    puppet.say(&peer, &[lost(1)]);
    let heard = puppet.hear(&mut peer);
    assert!(heard.contains(&Message::NotInterested), "{heard:?}");
}

#[test]
fn two_that_want_nothing_more_part() {
    let content = content(8, 2 * (32 << 10));
    let mut puppet = Puppet::seed(&content);
    let partial = puppet.connect(1).unwrap();
    let handshake = ExtensionHandshake {
        upload_only: true,
        ..ExtensionHandshake::default()
    };
    let payload = handshake.encode().into();
    puppet.say(&partial, &[Message::Extended { id: 0, payload }]);
    assert_eq!(puppet.closed(&partial), None, "it may lack the metadata");
    puppet.say(&partial, &[Message::Bitfield(vec![0x80].into())]);
    assert_eq!(puppet.closed(&partial), Some(Reason::BothSeeds));
}

#[test]
fn who_gets_complete_says_that_it_wants_nothing_more() {
    let content = content(9, 32 << 10);
    let mut puppet = Puppet::leech(&content);
    let mut peer = puppet.connect(1).unwrap();
    let mut other = puppet.connect(2).unwrap();
    puppet.hear(&mut other);
    puppet.say(&peer, &[Message::HaveAll, Message::Unchoke]);
    let requests = puppet.hear(&mut peer);
    let answers: Vec<Message> = requests
        .iter()
        .filter_map(|m| answer(&content, m))
        .collect();
    puppet.say(&peer, &answers);
    let told = puppet
        .hear(&mut other)
        .into_iter()
        .find_map(|message| match message {
            Message::Extended { id: 0, payload } => ExtensionHandshake::decode(&payload).ok(),
            _ => None,
        });
    assert!(told.unwrap().upload_only);
}
