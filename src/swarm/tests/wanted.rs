//! Torrents of which only some pieces are wanted.

use super::lab::Lab;
use super::puppet::{Puppet, Stream, answer, full_bitfield};
use super::{Content, config, content, seconds};
use crate::bitfield::Bitfield;
use crate::swarm::{Event, State};
use crate::wire::Message;

fn some(content: &Content, pieces: impl IntoIterator<Item = u32>) -> Bitfield {
    let mut wanted = Bitfield::new(content.info.geometry().piece_count());
    for piece in pieces {
        wanted.insert(piece);
    }
    wanted
}

fn requests(puppet: &mut Puppet, peer: &mut Stream) -> Vec<Message> {
    let heard = puppet.hear(peer).into_iter();
    heard
        .filter(|heard| matches!(heard, Message::Request { .. }))
        .collect()
}

fn completions(events: &[Event]) -> usize {
    let completed = events.iter().filter(|e| matches!(e, Event::Completed));
    completed.count()
}

/// Answers what is asked until nothing is; returns the pieces asked for.
fn serve(puppet: &mut Puppet, peer: &mut Stream, content: &Content) -> Vec<u32> {
    let mut asked = Vec::new();
    loop {
        let heard = requests(puppet, peer);
        if heard.is_empty() {
            asked.sort_unstable();
            asked.dedup();
            return asked;
        }
        for request in heard {
            if let Message::Request { index, .. } = request {
                asked.push(index);
            }
            let block = answer(content, &request).unwrap();
            puppet.say(peer, &[block]);
        }
    }
}

#[test]
fn only_wanted_pieces_are_fetched_and_then_the_torrent_is_complete() {
    let content = content(1, 1_000_000);
    let mut lab = Lab::new(1);
    let seed = lab.seed(config(1), &content);
    let leech = lab.with_info(
        config(2),
        &content,
        super::simulated_disk::SimulatedDisk::empty(),
    );
    let wanted = some(&content, [3, 7, 30]);
    // The disk is still being checked.
    assert_eq!(lab.hosts[leech].torrent.state(), State::Checking);
    lab.hosts[leech].torrent.set_wanted(lab.now, wanted.clone());
    lab.introduce(leech, [seed]);
    assert!(lab.run_until(seconds(30), |lab| lab.is_complete(leech)));
    let host = &lab.hosts[leech];
    assert_eq!(host.torrent.have(), Some(&wanted));
    let stats = host.torrent.stats(lab.now);
    assert_eq!((stats.pieces, stats.pieces_done), (3, 3));
    // The last piece is shorter.
    let bytes = 2 * 32_768 + (1_000_000 - 30 * 32_768);
    assert_eq!((stats.bytes_wanted, stats.bytes_done), (bytes, bytes));
    assert_eq!((stats.downloaded, stats.wasted), (bytes, 0));
    assert_eq!(completions(&host.events), 1);
}

#[test]
fn shrinking_drops_what_is_under_way_and_growing_goes_on() {
    let content = content(2, 400_000);
    let mut puppet = Puppet::leech(&content);
    let mut peer = puppet.connect(1).unwrap();
    puppet.say(&peer, &[full_bitfield(&content), Message::Unchoke]);
    let asked = requests(&mut puppet, &mut peer);
    assert!(!asked.is_empty());
    let now = puppet.now;
    let mut wanted = Bitfield::full(content.info.geometry().piece_count());
    for request in &asked {
        if let Message::Request { index, .. } = request {
            wanted.remove(*index);
        }
    }
    puppet.torrent.set_wanted(now, wanted);
    puppet.drain();
    assert_eq!(puppet.torrent.state(), State::Downloading);
    let heard = puppet.hear(&mut peer);
    let cancels = heard.iter().filter(|m| matches!(m, Message::Cancel { .. }));
    assert_eq!(cancels.count(), asked.len());
    puppet.torrent.set_wanted(now, some(&content, []));
    puppet.drain();
    assert_eq!(puppet.torrent.state(), State::Seeding);
    // The peer has everything and we want nothing: both part.
    assert!(puppet.closed(&peer).is_some());
    puppet.torrent.set_wanted(now, some(&content, [1, 2]));
    puppet.drain();
    assert_eq!(puppet.torrent.state(), State::Downloading);
    let mut peer = puppet.connect(2).unwrap();
    puppet.say(&peer, &[full_bitfield(&content), Message::Unchoke]);
    assert_eq!(serve(&mut puppet, &mut peer, &content), [1, 2]);
    assert_eq!(puppet.torrent.state(), State::Seeding);
    assert_eq!(completions(&puppet.events), 2);
}

#[test]
fn a_whole_piece_that_waits_for_its_check_is_kept_when_it_is_not_wanted_any_more() {
    let content = content(3, 100_000);
    let mut puppet = Puppet::leech(&content);
    let mut peer = puppet.connect(1).unwrap();
    puppet.say(&peer, &[full_bitfield(&content), Message::Unchoke]);
    puppet.disk.stopped = true;
    let asked = requests(&mut puppet, &mut peer);
    let blocks: Vec<_> = asked.iter().map(|r| answer(&content, r).unwrap()).collect();
    puppet.say(&peer, &blocks[..2]);
    let now = puppet.now;
    puppet.torrent.set_wanted(now, some(&content, [0, 1, 2, 3]));
    let Message::Request { index, .. } = asked[0] else {
        panic!("{asked:?}");
    };
    let rest = (0..4).filter(|piece| *piece != index);
    puppet.torrent.set_wanted(now, some(&content, rest));
    puppet.restart_disk();
    assert!(puppet.torrent.have().unwrap().contains(index));
    let stats = puppet.torrent.stats(now);
    assert_eq!((stats.pieces, stats.pieces_done), (3, 0));
    // It is served, although it is not wanted.
    puppet.say(&peer, &[Message::Interested]);
    puppet.pass(seconds(11));
    let request = Message::Request {
        index,
        offset: 0,
        length: 16 << 10,
    };
    puppet.say(&peer, &[request]);
    let heard = puppet.hear(&mut peer);
    assert!(heard.iter().any(|m| matches!(m, Message::Piece { .. })));
}

#[test]
fn a_wish_for_another_number_of_pieces_changes_nothing() {
    let content = content(4, 100_000);
    let mut puppet = Puppet::leech(&content);
    let now = puppet.now;
    puppet.torrent.set_wanted(now, Bitfield::new(3));
    puppet.drain();
    assert_eq!(puppet.torrent.state(), State::Downloading);
    assert_eq!(puppet.torrent.stats(now).pieces, 4);
}
