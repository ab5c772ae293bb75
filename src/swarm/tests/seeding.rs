//! What a seed gives first.

use super::lab::Lab;
use super::puppet::{Puppet, Stream};
use super::simulated_disk::SimulatedDisk;
use super::{Content, config, content, seconds};
use crate::metainfo::BLOCK_LENGTH;
use crate::swarm::{Config, Seeding};
use crate::wire::Message;

/// No pieces.
const NOTHING: [u32; 0] = [];

/// A seed that serves some peers, which want everything and know nothing of rejects.
fn serving<const N: usize>(content: &Content, config: Config) -> (Puppet, [Stream; N]) {
    serving_those(content, config, Puppet::connect_plain)
}

/// A seed that serves some peers, which want everything and connect like this.
fn serving_those<const N: usize>(
    content: &Content,
    config: Config,
    connect: impl Fn(&mut Puppet, u8) -> Option<Stream>,
) -> (Puppet, [Stream; N]) {
    let mut puppet = Puppet::with_disk(config, content, SimulatedDisk::holding(content));
    let mut number = 0;
    let mut streams = [(); N].map(|()| {
        number += 1;
        connect(&mut puppet, number).unwrap()
    });
    for stream in &mut streams {
        puppet.say(stream, &[Message::Interested]);
    }
    puppet.pass(seconds(11));
    for stream in &mut streams {
        let heard = puppet.hear(stream);
        assert!(heard.contains(&Message::Unchoke), "{heard:?}");
    }
    (puppet, streams)
}

/// A seed that serves two peers, while its line is busy with a third one, which asked for the last whole piece.
fn serving_two(content: &Content, config: Config) -> (Puppet, Stream, Stream) {
    let (mut puppet, [a, b, busy]) = serving(content, config);
    let last = content.info.geometry().piece_count() - 2;
    puppet.say(&busy, &[request(last)]);
    (puppet, a, b)
}

/// A request for the first block of a piece.
fn request(index: u32) -> Message {
    Message::Request {
        index,
        offset: 0,
        length: BLOCK_LENGTH,
    }
}

/// The pieces of which blocks are sent to a peer.
fn sent(puppet: &mut Puppet, stream: &mut Stream) -> Vec<u32> {
    let heard = puppet.hear(stream).into_iter();
    let pieces = heard.filter_map(|message| match message {
        Message::Piece { index, .. } => Some(index),
        _ => None,
    });
    pieces.collect()
}

/// The pieces that a peer is told of.
fn told(puppet: &mut Puppet, stream: &mut Stream) -> Vec<u32> {
    let heard = puppet.hear(stream).into_iter();
    let pieces = heard.filter_map(|message| match message {
        Message::Have { index } => Some(index),
        Message::Bitfield(_) => panic!("a super-seed has no bitfield to show"),
        _ => None,
    });
    pieces.collect()
}

#[test]
fn a_piece_that_is_on_its_way_to_a_peer_waits_for_the_next() {
    let content = content(1, 200_000);
    let (mut puppet, mut a, mut b) = serving_two(&content, config(200));
    puppet.say(&a, &[request(0)]);
    puppet.say(&b, &[request(0), request(1)]);
    assert_eq!(sent(&mut puppet, &mut a), [0]);
    assert_eq!(sent(&mut puppet, &mut b), [1]);
    // The one that was to get it goes: the next one gets it.
    let now = puppet.now;
    let closed = crate::swarm::Reason::Closed;
    puppet.torrent.handle_disconnected(now, a.id, closed);
    puppet.say(&b, &[request(2)]);
    assert_eq!(sent(&mut puppet, &mut b), [0, 2]);
}

#[test]
fn what_goes_to_another_is_rejected_so_that_something_else_is_asked_for() {
    let content = content(15, 200_000);
    let fast = Puppet::connect;
    let (mut puppet, [a, mut b, busy]) = serving_those(&content, config(200), fast);
    puppet.say(&busy, &[request(5)]);
    puppet.say(&a, &[request(0)]);
    puppet.say(&b, &[request(0), request(1)]);
    let reject = Message::Reject {
        index: 0,
        offset: 0,
        length: BLOCK_LENGTH,
    };
    let heard = puppet.hear(&mut b);
    assert!(heard.contains(&reject), "{heard:?}");
    assert!(
        heard
            .iter()
            .any(|message| matches!(message, Message::Piece { index: 1, .. }))
    );
    // Who asks for it ever again waits: the piece has two blocks.
    puppet.say(&b, &[request(0)]);
    assert_eq!(puppet.hear(&mut b), std::slice::from_ref(&reject));
    puppet.say(&b, &[request(0)]);
    assert_eq!(puppet.hear(&mut b), []);
    puppet.pass(seconds(21));
    assert_eq!(sent(&mut puppet, &mut b), [0]);
}

#[test]
fn who_asks_for_one_old_piece_after_the_other_waits_in_the_end_and_is_served() {
    let content = content(16, 4_000_000);
    let fast = Puppet::connect;
    let (mut puppet, [a, mut b, busy]) = serving_those(&content, config(200), fast);
    let old: Vec<Message> = (0..100).map(|index| Message::Have { index }).collect();
    puppet.say(&a, &old);
    puppet.say(&busy, &[request(110)]);
    let mut rejected = 0;
    for index in (0..100).cycle() {
        puppet.say(&b, &[request(index)]);
        let heard = puppet.hear(&mut b);
        if heard.is_empty() {
            break;
        }
        assert!(
            matches!(heard[..], [.., Message::Reject { .. }]),
            "{heard:?}"
        );
        rejected += 1;
    }
    assert_eq!(rejected, 125);
    puppet.pass(seconds(21));
    assert_eq!(sent(&mut puppet, &mut b).len(), 1);
}

#[test]
fn nobody_waits_longer_than_until_the_second_ranking() {
    let content = content(2, 200_000);
    let (mut puppet, mut a, mut b) = serving_two(&content, config(200));
    puppet.say(&a, &[request(0)]);
    puppet.say(&b, &[request(0)]);
    puppet.pass(seconds(5));
    assert_eq!(sent(&mut puppet, &mut b), NOTHING);
    puppet.pass(seconds(16));
    assert_eq!(sent(&mut puppet, &mut b), [0]);
    assert_eq!(sent(&mut puppet, &mut a), [0]);
}

#[test]
fn whoever_asks_only_for_what_others_have_loses_a_minute_and_then_waits_no_more() {
    let content = content(3, 2_000_000);
    let (mut puppet, a, mut b) = serving_two(&content, config(200));
    let mut waited = 0;
    let mut piece = 0;
    for _ in 0..90 {
        puppet.say(&a, &[Message::Have { index: piece }]);
        puppet.say(&b, &[request(piece)]);
        puppet.pass(seconds(1));
        match sent(&mut puppet, &mut b)[..] {
            [given] if given == piece => piece += 1,
            ref given => {
                assert_eq!(*given, NOTHING);
                waited += 1;
            }
        }
    }
    assert!((45..=75).contains(&waited), "{waited} s");
    assert!(piece > 15, "{piece} pieces of what others have");
}

#[test]
fn a_wait_that_ends_with_a_new_piece_does_not_count() {
    let content = content(12, 2_000_000);
    let (mut puppet, a, mut b) = serving_two(&content, config(200));
    for piece in (0..20).step_by(2) {
        puppet.say(&a, &[Message::Have { index: piece }]);
        puppet.say(&b, &[request(piece)]);
        puppet.pass(seconds(8));
        assert_eq!(sent(&mut puppet, &mut b), NOTHING, "piece {piece}");
        puppet.say(&b, &[request(piece + 1)]);
        assert_eq!(sent(&mut puppet, &mut b), [piece + 1]);
    }
}

#[test]
fn what_others_have_is_given_when_nobody_asks_for_anything_new() {
    let content = content(13, 2_000_000);
    let (mut puppet, [mut a, mut b]) = serving(&content, config(200));
    puppet.say(&a, &[request(0), request(1)]);
    puppet.say(&b, &[request(0), request(1)]);
    assert_eq!(sent(&mut puppet, &mut b), NOTHING, "the line is busy");
    assert_eq!(sent(&mut puppet, &mut a), [0, 1]);
    assert_eq!(sent(&mut puppet, &mut b), NOTHING, "a has just got it");
    puppet.pass(seconds(2));
    assert_eq!(sent(&mut puppet, &mut b), [0, 1]);
}

#[test]
fn a_peer_that_gets_something_new_is_served_what_others_have_while_it_cannot_ask_for_the_rest() {
    let content = content(14, 2_000_000);
    let (mut puppet, [mut a, mut b]) = serving(&content, config(200));
    puppet.say(&a, &[request(0)]);
    puppet.say(&b, &[request(1), request(0)]);
    assert_eq!(sent(&mut puppet, &mut a), [0]);
    assert_eq!(sent(&mut puppet, &mut b), [1, 0]);
}

#[test]
fn what_others_have_waits_until_everything_is_out() {
    let content = content(4, 6 * (32 << 10));
    let (mut puppet, a, mut b) = serving_two(&content, config(200));
    puppet.say(&a, &[Message::Have { index: 0 }]);
    puppet.say(&b, &[request(0)]);
    assert_eq!(sent(&mut puppet, &mut b), NOTHING);
    puppet.say(&b, &[1, 2, 3].map(|index| Message::Have { index }));
    puppet.say(&a, &[4, 5].map(|index| Message::Have { index }));
    assert_eq!(sent(&mut puppet, &mut b), [0]);
}

#[test]
fn a_request_that_waited_beside_one_that_was_served_is_served_when_everything_is_out() {
    let content = content(1, 200_000);
    let (mut puppet, a, mut b) = serving_two(&content, config(200));
    puppet.say(&a, &[Message::Have { index: 0 }]);
    puppet.say(&b, &[request(0), request(1)]);
    assert_eq!(sent(&mut puppet, &mut b), [1]);
    let rest = 2..content.info.geometry().piece_count();
    let rest: Vec<Message> = rest.map(|index| Message::Have { index }).collect();
    puppet.say(&a, &rest);
    puppet.say(&b, &[Message::Have { index: 1 }]);
    assert_eq!(sent(&mut puppet, &mut b), [0]);
}

#[test]
fn whoever_asks_for_what_it_said_it_has_gets_it() {
    let content = content(5, 200_000);
    let (mut puppet, mut a, _b) = serving_two(&content, config(200));
    puppet.say(&a, &[Message::Have { index: 0 }, request(0)]);
    assert_eq!(sent(&mut puppet, &mut a), [0]);
}

#[test]
fn a_seed_that_gives_as_asked_lets_nobody_wait() {
    let content = content(6, 200_000);
    let as_asked = Config {
        seeding: Seeding::AsAsked,
        ..config(200)
    };
    let (mut puppet, mut a, mut b) = serving_two(&content, as_asked);
    for stream in [&mut a, &mut b] {
        puppet.say(stream, &[request(0)]);
        assert_eq!(sent(&mut puppet, stream), [0]);
    }
}

/// A super-seed that shows no more than one piece to each peer.
fn super_seed(content: &Content) -> Puppet {
    let config = Config {
        seeding: Seeding::Super,
        unchoke_slots: 0,
        ..config(200)
    };
    Puppet::with_disk(config, content, SimulatedDisk::holding(content))
}

#[test]
fn a_super_seed_shows_the_next_piece_when_another_peer_has_the_first() {
    let content = content(7, 10 * (32 << 10));
    let mut puppet = super_seed(&content);
    let [mut a, mut b] = [1, 2].map(|number| puppet.connect(number).unwrap());
    let first = told(&mut puppet, &mut a);
    let other = told(&mut puppet, &mut b);
    assert_eq!((first.len(), other.len()), (1, 1));
    assert_ne!(first, other);
    puppet.say(&a, &[Message::Have { index: first[0] }]);
    assert_eq!(
        told(&mut puppet, &mut a),
        NOTHING,
        "who keeps it sees no more"
    );
    puppet.say(&b, &[Message::Have { index: first[0] }]);
    let second = told(&mut puppet, &mut a);
    assert_eq!(second.len(), 1);
    assert!(second != first && second != other);
}

#[test]
fn a_super_seed_is_not_idle_while_nobody_passes_anything_on() {
    let content = content(8, 10 * (32 << 10));
    let mut puppet = super_seed(&content);
    let mut only = puppet.connect(1).unwrap();
    let mut seen: Vec<u32> = Vec::new();
    for _ in 0..9 {
        let shown = told(&mut puppet, &mut only);
        assert_eq!(shown.len(), 1);
        seen.extend(&shown);
        puppet.say(&only, &[Message::Have { index: shown[0] }]);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 9);
}

#[test]
fn a_piece_of_a_peer_that_went_is_shown_to_the_next() {
    let content = content(9, 2 * (32 << 10));
    let mut puppet = super_seed(&content);
    let [mut a, mut b] = [1, 2].map(|number| puppet.connect(number).unwrap());
    let lost = told(&mut puppet, &mut a);
    let kept = told(&mut puppet, &mut b);
    let closed = crate::swarm::Reason::Closed;
    puppet.torrent.handle_disconnected(puppet.now, a.id, closed);
    let mut c = puppet.connect(3).unwrap();
    assert_eq!(told(&mut puppet, &mut c), lost);
    assert_ne!(lost, kept);
}

#[test]
fn a_super_seed_shows_everything_when_everything_is_out() {
    let content = content(10, 6 * (32 << 10));
    let mut puppet = super_seed(&content);
    let [mut a, mut b] = [1, 2].map(|number| puppet.connect(number).unwrap());
    let mut seen = told(&mut puppet, &mut a);
    told(&mut puppet, &mut b);
    puppet.say(&a, &[0, 1, 2].map(|index| Message::Have { index }));
    puppet.say(&b, &[3, 4, 5].map(|index| Message::Have { index }));
    seen.extend(told(&mut puppet, &mut a));
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    let mut late = puppet.connect(3).unwrap();
    let heard = puppet.hear(&mut late);
    assert!(heard.contains(&Message::HaveAll));
}

/// Blocks that a slow seed sent before eight peers had everything.
fn sent_to_eight(seeding: Seeding) -> usize {
    let content = content(11, 4_000_000);
    let mut lab = Lab::new(11);
    let own = Config {
        seeding,
        ..config(1)
    };
    let seed = lab.seed(own, &content);
    lab.hosts[seed].uplink = Some(100_000);
    let peers: Vec<_> = (2..=9)
        .map(|number| lab.magnet(config(number), &content))
        .collect();
    for &peer in &peers {
        lab.hosts[peer].uplink = Some(400_000);
        lab.introduce(peer, peers.iter().copied().filter(|other| *other != peer));
        lab.introduce(peer, [seed]);
    }
    let all = |lab: &Lab| peers.iter().all(|&peer| lab.is_complete(peer));
    assert!(lab.run_until(seconds(300), all), "{seeding:?}");
    for peer in peers {
        assert_eq!(lab.hosts[peer].disk.contents(), content.bytes);
    }
    lab.hosts[seed].blocks_sent
}

#[test]
fn a_slow_seed_that_gives_each_piece_once_sends_less_than_one_that_gives_as_asked() {
    let [once, asked, shown] =
        [Seeding::EachOnce, Seeding::AsAsked, Seeding::Super].map(sent_to_eight);
    assert!(once < asked, "{once} {asked}");
    assert!(shown < asked, "{shown} {asked}");
}
