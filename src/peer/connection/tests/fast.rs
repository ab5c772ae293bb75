//! The fast extension (BEP 6) between two that have it, and with peers that do not or misuse it.

use super::*;
use crate::peer::connection::fast::ALLOWED_MAX;

/// A leecher that asked for the first blocks.
fn asking(count: usize) -> (Connection, Vec<BlockRef>) {
    let mut connection = leecher();
    give(&mut connection, &[Message::HaveAll, Message::Unchoke]).unwrap();
    let blocks = all_blocks(&geometry());
    for &block in &blocks[..count] {
        connection.request(at(0), block);
    }
    events(&mut connection);
    sent(&mut connection);
    (connection, blocks)
}

#[track_caller]
fn check_pieces(have: &Bitfield, expected: &Message) {
    let accepted = Accepted {
        handshake: handshake(LEECHER),
        rest: Bytes::new(),
    };
    let role = Role::Accepted(accepted);
    let torrent = Some((&geometry(), have));
    let mut connection =
        Connection::new(&Config::default(), role, local(SEED), torrent, at(0)).unwrap();
    assert!(connection.is_fast());
    assert_eq!(&sent(&mut connection)[1], expected);
}

#[test]
fn all_and_nothing_are_said_in_one_byte_and_the_rest_as_bits() {
    check_pieces(&Bitfield::full(5), &Message::HaveAll);
    check_pieces(&Bitfield::new(5), &Message::HaveNone);
    let mut some = Bitfield::new(5);
    some.insert(1);
    check_pieces(&some, &Message::Bitfield(Bytes::from_static(&[0x40])));
}

#[test]
fn have_all_and_have_none_are_read_before_and_after_the_geometry_is_known() {
    for (message, count) in [(Message::HaveAll, 5), (Message::HaveNone, 0)] {
        let mut known = leecher();
        give(&mut known, std::slice::from_ref(&message)).unwrap();
        assert_eq!(events(&mut known), [Event::Bitfield]);
        assert_eq!(known.pieces().unwrap().count(), count);
        let mut later = accepted(None);
        give(&mut later, &[message]).unwrap();
        later.set_geometry(&geometry(), 1).unwrap();
        assert_eq!(events(&mut later), [Event::Bitfield]);
        assert_eq!(later.pieces().unwrap().count(), count);
    }
}

#[test]
fn what_takes_pieces_back_ends_the_connection() {
    let bits = |bits: &'static [u8]| Message::Bitfield(Bytes::from_static(bits));
    for messages in [
        [Message::HaveAll, Message::HaveNone],
        [Message::HaveAll, bits(&[0x70])],
        [Message::Have { index: 1 }, Message::HaveNone],
        [bits(&[0x70]), Message::HaveNone],
    ] {
        for mut connection in [leecher(), accepted(None)] {
            let refused = give(&mut connection, &messages);
            assert_eq!(refused, Err(ProtocolError::Bitfield), "{messages:?}");
        }
    }
}

#[test]
fn a_late_have_all_stands_for_haves() {
    let mut connection = leecher();
    let late = [Message::Have { index: 1 }, Message::HaveAll];
    give(&mut connection, &late).unwrap();
    let have = |index| Event::Have(geometry().piece(index).unwrap());
    assert_eq!(events(&mut connection), [1, 0, 2, 3, 4].map(have));
}

#[test]
fn the_messages_end_a_connection_that_did_not_agree_on_them() {
    let block = all_blocks(&geometry())[0];
    for message in [
        Message::HaveAll,
        Message::HaveNone,
        Message::Suggest { index: 0 },
        Message::AllowedFast { index: 0 },
        reject_of(block),
    ] {
        let mut connection = plain(Some(&Bitfield::new(5)));
        let refused = give(&mut connection, &[message]);
        assert_eq!(refused, Err(ProtocolError::NotAgreed));
    }
}

#[test]
fn a_peer_without_it_is_told_of_no_reject() {
    let blocks = all_blocks(&geometry());
    let mut seed = plain(Some(&Bitfield::full(5)));
    seed.allow(vec![blocks[0].piece]);
    give(&mut seed, &[request_of(blocks[0])]).unwrap();
    seed.set_choking(false);
    give(&mut seed, &[request_of(blocks[0])]).unwrap();
    seed.set_choking(true);
    assert_eq!(sent(&mut seed), [Message::Unchoke, Message::Choke]);
}

#[test]
fn pieces_that_do_not_exist_end_the_connection() {
    for message in [
        Message::Suggest { index: 5 },
        Message::AllowedFast { index: 5 },
        Message::Reject {
            index: 0,
            offset: 1 << 20,
            length: 1,
        },
    ] {
        let refused = give(&mut leecher(), &[message]);
        assert_eq!(refused, Err(ProtocolError::OutOfRange));
    }
    let mut before = accepted(None);
    give(&mut before, &[Message::AllowedFast { index: 5 }]).unwrap();
    let refused = before.set_geometry(&geometry(), 1);
    assert_eq!(refused, Err(ProtocolError::OutOfRange));
}

#[test]
fn every_request_has_one_answer() {
    let blocks = all_blocks(&geometry());
    let mut seed = seed();
    give(&mut seed, &[request_of(blocks[0])]).unwrap();
    assert_eq!(
        sent(&mut seed),
        [reject_of(blocks[0])],
        "while it is choked"
    );
    seed.set_choking(false);
    sent(&mut seed);
    let requests: Vec<Message> = blocks[..4].iter().copied().map(request_of).collect();
    give(&mut seed, &requests).unwrap();
    give(&mut seed, &[cancel_of(blocks[1]), cancel_of(blocks[1])]).unwrap();
    assert!(matches!(
        seed.poll_transmit(at(0)),
        Some(Transmit::Bytes(_))
    ));
    assert!(matches!(
        seed.poll_transmit(at(0)),
        Some(Transmit::Block { block, .. }) if block == blocks[0]
    ));
    // Its block went out already.
    give(&mut seed, &[cancel_of(blocks[0])]).unwrap();
    seed.withdraw(blocks[3].piece);
    seed.set_choking(true);
    let answers = sent(&mut seed);
    assert_eq!(
        answers,
        [reject_of(blocks[3]), Message::Choke, reject_of(blocks[2])],
        "choke first"
    );
}

#[test]
fn requests_for_pieces_we_lack_are_rejected_and_end_the_connection_in_the_end() {
    let block = all_blocks(&geometry())[0];
    for mut connection in [leecher(), accepted(None)] {
        connection.set_choking(false);
        sent(&mut connection);
        give(&mut connection, &vec![request_of(block); 50]).unwrap();
        assert_eq!(sent(&mut connection), vec![reject_of(block); 50]);
        let refused = give(&mut connection, &[request_of(block)]);
        assert!(matches!(refused, Err(ProtocolError::TooMany { .. })));
    }
}

#[test]
fn a_choke_voids_nothing_until_the_rejects_come() {
    let (mut connection, blocks) = asking(3);
    give(&mut connection, &[Message::Choke, piece_of(blocks[1])]).unwrap();
    let expected = [Event::Choked { lost: vec![] }, data_of(blocks[1])];
    assert_eq!(events(&mut connection), expected);
    assert_eq!(connection.outstanding().count(), 2);
    assert_eq!(connection.request_room(at(0)), 0);
    let rejects = [reject_of(blocks[0]), reject_of(blocks[2])];
    give(&mut connection, &rejects).unwrap();
    let lost = vec![blocks[0], blocks[2]];
    assert_eq!(events(&mut connection), [Event::Rejected { lost }]);
    assert_eq!(connection.outstanding().count(), 0);
}

/// A peer rejects as many requests as it may before it is left alone, but for one.
fn reject_nearly_too_many(connection: &mut Connection, block: BlockRef) {
    for _ in 1..250 {
        assert!(connection.request_room(at(0)) > 0);
        connection.request(at(0), block);
        give(connection, &[reject_of(block)]).unwrap();
    }
    assert!(connection.request_room(at(0)) > 0);
    events(connection);
    sent(connection);
}

#[test]
fn who_rejects_without_a_choke_is_left_alone_for_longer_each_time() {
    let (mut connection, blocks) = asking(1);
    reject_nearly_too_many(&mut connection, blocks[5]);
    let mut now = at(0);
    for rest in [1, 2, 4, 8, 16, 32, 60, 60] {
        give(&mut connection, &[reject_of(blocks[0])]).unwrap();
        let lost = vec![blocks[0]];
        assert_eq!(events(&mut connection), [Event::Rejected { lost }]);
        assert_eq!(connection.request_room(now), 0);
        let end = now + Duration::from_secs(rest);
        give(&mut connection, &[Message::KeepAlive]).unwrap();
        assert!(connection.poll_timeout().unwrap().at <= end);
        while now < end {
            assert_eq!(connection.request_room(now), 0);
            now = connection.poll_timeout().unwrap().at.min(end);
            connection.handle_timeout(now).unwrap();
            assert!(connection.poll_timeout().unwrap().at > now);
        }
        assert!(connection.request_room(now) > 0);
        connection.request(now, blocks[0]);
    }
    // A block makes up for all of them.
    give(&mut connection, &[piece_of(blocks[0])]).unwrap();
    connection.request(now, blocks[1]);
    give(&mut connection, &[reject_of(blocks[1])]).unwrap();
    assert!(connection.request_room(now) > 0);
}

#[test]
fn who_allows_what_it_then_rejects_is_left_alone_for_longer_each_time() {
    let mut connection = leecher();
    let block = all_blocks(&geometry())[0];
    let allowed = Message::AllowedFast { index: 0 };
    give(&mut connection, &[Message::HaveAll, allowed.clone()]).unwrap();
    for _ in 1..250 {
        connection.request(at(0), block);
        give(&mut connection, &[reject_of(block), allowed.clone()]).unwrap();
    }
    let mut now = at(0);
    for rest in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert!(connection.request_room(now) > 0);
        connection.request(now, block);
        give(&mut connection, &[reject_of(block), allowed.clone()]).unwrap();
        let end = now + Duration::from_secs(rest);
        while now < end {
            assert_eq!(connection.request_room(now), 0);
            now = connection.poll_timeout().unwrap().at.min(end);
            connection.handle_timeout(now).unwrap();
        }
    }
    // Requests that a choke makes void are no reason.
    let (mut connection, blocks) = asking(1);
    let allowed = Message::AllowedFast { index: 1 };
    give(&mut connection, &[allowed, Message::Choke]).unwrap();
    give(&mut connection, &[reject_of(blocks[0])]).unwrap();
    assert!(connection.request_room(at(0)) > 0);
}

#[test]
fn what_others_are_to_get_is_rejected_as_often_as_it_has_blocks_and_waits_then() {
    let blocks = all_blocks(&geometry());
    let mut seed = seed();
    seed.set_choking(false);
    sent(&mut seed);
    let [first, other] = [blocks[0], blocks[3]];
    give(&mut seed, &[request_of(first), request_of(other)]).unwrap();
    seed.defer(first.piece);
    seed.undefer(other.piece);
    assert_eq!(sent(&mut seed), [reject_of(first), piece_of(other)]);
    for _ in 0..2 {
        give(&mut seed, &[request_of(first)]).unwrap();
        seed.defer(first.piece);
        assert_eq!(sent(&mut seed), [reject_of(first)]);
    }
    give(&mut seed, &[request_of(first)]).unwrap();
    seed.defer(first.piece);
    assert_eq!(sent(&mut seed), []);
    seed.undefer(first.piece);
    assert_eq!(sent(&mut seed), [piece_of(first)]);
    // Without the fast extension it waits at once.
    let mut plain = plain(Some(&Bitfield::full(5)));
    plain.set_choking(false);
    give(&mut plain, &[request_of(first)]).unwrap();
    plain.defer(first.piece);
    assert_eq!(sent(&mut plain), [Message::Unchoke]);
    plain.undefer(first.piece);
    assert_eq!(sent(&mut plain), [piece_of(first)]);
}

#[test]
fn a_reject_of_what_was_taken_back_is_no_news_and_of_what_was_never_asked_ends_it() {
    let (mut connection, blocks) = asking(1);
    connection.cancel(blocks[0]);
    give(&mut connection, &[reject_of(blocks[0])]).unwrap();
    assert_eq!(events(&mut connection), []);
    assert!(connection.request_room(at(0)) > 0);
    give(&mut connection, &vec![reject_of(blocks[9]); 50]).unwrap();
    let refused = give(&mut connection, &[reject_of(blocks[9])]);
    assert!(matches!(refused, Err(ProtocolError::TooMany { .. })));
    let mut before = accepted(None);
    give(&mut before, &vec![reject_of(blocks[9]); 50]).unwrap();
    assert!(give(&mut before, &[reject_of(blocks[9])]).is_err());
}

#[test]
fn allowed_pieces_are_asked_for_and_sent_in_spite_of_a_choke() {
    let blocks = all_blocks(&geometry());
    let piece = blocks[3].piece;
    let mut leecher = dialled();
    let mut seed = incoming_seed(&mut leecher);
    seed.allow(vec![piece]);
    seed.allow(vec![blocks[0].piece]);
    carry(&mut seed, &mut leecher, 1000);
    assert_eq!(leecher.allowed_pieces().collect::<Vec<_>>(), [piece]);
    assert_eq!(leecher.request_room(at(0)), 4);
    for &block in &blocks[..4] {
        leecher.request(at(0), block);
    }
    events(&mut seed);
    let refused = events(&mut leecher).into_iter().rev().take(3);
    assert!(
        refused
            .clone()
            .all(|event| matches!(event, Event::Choked { .. }))
    );
    assert_eq!(refused.count(), 3);
    carry(&mut leecher, &mut seed, 1000);
    assert_eq!(sent(&mut seed), [piece_of(blocks[3])]);
}

#[test]
fn a_peer_gets_allowed_pieces_once_and_only_while_it_has_few() {
    let blocks = all_blocks(&geometry());
    let piece = blocks[3].piece;
    let mut seed = seed();
    seed.allow(vec![piece]);
    assert_eq!(sent(&mut seed), [Message::AllowedFast { index: 1 }]);
    let requests: Vec<Message> = blocks[3..6].iter().copied().map(request_of).collect();
    give(&mut seed, &requests[..2]).unwrap();
    assert_eq!(sent(&mut seed).len(), 2);
    give(
        &mut seed,
        &[Message::Have { index: 0 }, requests[2].clone()],
    )
    .unwrap();
    assert_eq!(sent(&mut seed), [piece_of(blocks[5])]);
    give(&mut seed, &requests).unwrap();
    assert_eq!(
        sent(&mut seed),
        blocks[3..6]
            .iter()
            .copied()
            .map(reject_of)
            .collect::<Vec<_>>()
    );

    let mut other = super::seed();
    other.allow(vec![piece]);
    let two = [Message::Have { index: 0 }, Message::Have { index: 2 }];
    give(&mut other, &two).unwrap();
    sent(&mut other);
    give(&mut other, &requests[..1]).unwrap();
    assert_eq!(sent(&mut other), [reject_of(blocks[3])]);
}

#[test]
fn an_allowed_piece_that_is_rejected_is_allowed_no_more() {
    let mut connection = leecher();
    let block = all_blocks(&geometry())[0];
    let allowed = [Message::HaveAll, Message::AllowedFast { index: 0 }];
    give(&mut connection, &allowed).unwrap();
    connection.request(at(0), block);
    give(&mut connection, &[reject_of(block)]).unwrap();
    assert_eq!(connection.allowed_pieces().count(), 0);
    assert_eq!(connection.request_room(at(0)), 0);
}

#[test]
fn ten_thousand_allowed_pieces_are_thirty_two() {
    let mut connection = accepted(None);
    let all: Vec<Message> = (0..10_000)
        .map(|index| Message::AllowedFast { index })
        .collect();
    give(&mut connection, &all).unwrap();
    assert_eq!(connection.fast.allowed.len(), ALLOWED_MAX);
}

fn donthave(index: u8) -> Message {
    Message::Extended {
        id: LT_DONTHAVE_ID,
        payload: Bytes::from(vec![0, 0, 0, index]),
    }
}

#[test]
fn a_lost_piece_is_told_and_requests_for_it_are_given_up_or_rejected() {
    let piece = geometry().piece(0).unwrap();
    let (mut connection, blocks) = asking(4);
    give(&mut connection, &[donthave(0), donthave(0)]).unwrap();
    assert_eq!(events(&mut connection), [Event::Lost(piece)]);
    assert_eq!(connection.outstanding().count(), 4, "rejects follow");

    let mut without = plain(Some(&Bitfield::new(5)));
    let all = Message::Bitfield(Bytes::from_static(&[0xf8]));
    give(&mut without, &[all, Message::Unchoke]).unwrap();
    for &block in &blocks[..4] {
        without.request(at(0), block);
    }
    events(&mut without);
    give(&mut without, &[donthave(0)]).unwrap();
    let lost = blocks[..3].to_vec();
    let expected = [Event::Lost(piece), Event::Rejected { lost }];
    assert_eq!(events(&mut without), expected);
    assert_eq!(without.outstanding().collect::<Vec<_>>(), [blocks[3]]);
}

#[test]
fn pieces_lost_before_the_geometry_is_known_are_not_there_after() {
    for first in [
        Message::HaveAll,
        Message::Bitfield(Bytes::from_static(&[0xf8])),
    ] {
        let mut connection = accepted(None);
        give(&mut connection, &[first, donthave(2)]).unwrap();
        connection.set_geometry(&geometry(), 1).unwrap();
        let ones: Vec<u32> = connection.pieces().unwrap().ones().collect();
        assert_eq!(ones, [0, 1, 3, 4]);
    }
}

#[test]
fn a_withdrawn_piece_is_taken_back_where_that_is_understood() {
    let piece = geometry().piece(3).unwrap();
    let mut silent = seed();
    assert!(silent.withdraw(piece), "it goes on to believe it");
    let mut seed = seed();
    let takes = Message::Extended {
        id: 0,
        payload: Bytes::from_static(b"d1:md11:lt_donthavei7eee"),
    };
    give(&mut seed, &[takes]).unwrap();
    assert!(!seed.withdraw(piece));
    let expected = Message::Extended {
        id: 7,
        payload: Bytes::from_static(&[0, 0, 0, 3]),
    };
    assert_eq!(sent(&mut seed), [expected]);
    seed.have(piece);
    assert!(!seed.withdraw(piece));
    assert_eq!(sent(&mut seed), [], "it had not been told again");
}

#[test]
fn that_we_want_nothing_more_is_told_once() {
    let mut connection = leecher();
    for upload_only in [false, false, true] {
        connection.set_upload_only(upload_only);
    }
    let told: Vec<bool> = sent(&mut connection)
        .iter()
        .map(|message| match message {
            Message::Extended { id: 0, payload } => {
                ExtensionHandshake::decode(payload).unwrap().upload_only
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [false, true]);
}

#[test]
fn a_seed_that_loses_and_gains_a_piece_again_and_again_is_parted_with() {
    let mut connection = leecher();
    give(&mut connection, &[Message::HaveAll]).unwrap();
    let flap = [donthave(2), Message::Have { index: 2 }];
    for _ in 0..90 {
        give(&mut connection, &flap).unwrap();
    }
    let ended = (0..20).find_map(|_| give(&mut connection, &flap).err());
    assert!(matches!(ended, Some(ProtocolError::TooMany { .. })));
    let mut repeating = leecher();
    let all = vec![Message::HaveAll; 101];
    let ended = give(&mut repeating, &all);
    assert!(matches!(ended, Err(ProtocolError::TooMany { .. })));
}

#[test]
fn a_piece_that_came_back_before_the_metadata_is_asked_for() {
    let mut connection = accepted(None);
    let messages = [Message::HaveAll, donthave(2), Message::Have { index: 2 }];
    give(&mut connection, &messages).unwrap();
    connection.remote.set_piece_count(5).unwrap();
    assert!(connection.remote.checked().unwrap().is_full());
}
