//! Peers that break the rules: the "peer" rows of hostile input that concern one connection.

use super::*;

/// What ends the connection when these messages come, if anything does.
#[track_caller]
fn check(connection: &mut Connection, messages: &[Message], expected: Option<ProtocolError>) {
    assert_eq!(give(connection, messages).err(), expected, "{messages:?}");
}

fn is_too_many(result: Result<(), ProtocolError>) -> bool {
    matches!(result, Err(ProtocolError::TooMany { .. }))
}

#[test]
fn a_slow_handshake_is_given_up_after_ten_seconds() {
    let mut connection = dialled();
    let wake = connection.poll_timeout().unwrap();
    assert_eq!((wake.at, wake.reason), (at(10), WakeReason::Handshake));
    let part = Bytes::copy_from_slice(&handshake(SEED).encode()[..67]);
    connection.handle_bytes(at(9), part).unwrap();
    assert_eq!(connection.handle_timeout(at(9)), Ok(()));
    let error = connection.handle_timeout(at(10)).unwrap_err();
    assert_eq!(error, HANDSHAKE_TIMED_OUT);
}

#[test]
fn a_wrong_protocol_name_is_refused_at_once() {
    let input = Bytes::from_static(b"HTTP/1.1 400 Bad Request");
    let refused = dialled().handle_bytes(at(0), input);
    assert_eq!(refused, Err(ProtocolError::NotBitTorrent));
}

#[track_caller]
fn check_handshake(handshake: Handshake, expected: ProtocolError) {
    let bytes = Bytes::copy_from_slice(&handshake.encode());
    assert_eq!(dialled().handle_bytes(at(0), bytes), Err(expected));
    let role = Role::Accepted(Accepted {
        handshake,
        rest: Bytes::new(),
    });
    let refused = Connection::new(&Config::default(), role, local(LEECHER), None, at(0));
    assert_eq!(refused.unwrap_err(), expected);
}

#[test]
fn another_torrent_is_refused() {
    let other = Handshake {
        info_hash: InfoHash::new([8; 20]),
        ..handshake(SEED)
    };
    check_handshake(other, ProtocolError::WrongInfoHash);
}

#[test]
fn ourselves_are_refused() {
    check_handshake(handshake(LEECHER), ProtocolError::Ourselves);
}

#[test]
fn a_length_prefix_of_4_gib_is_refused() {
    let mut connection = leecher();
    let error = connection.handle_bytes(at(0), Bytes::from_static(&[0xff; 4]));
    assert!(matches!(error, Err(ProtocolError::MessageLength { .. })));
}

#[test]
fn bad_bitfields_end_the_connection() {
    let bad = Some(ProtocolError::Bitfield);
    for bits in [&[][..], &[0xff], &[0xf8, 0], &[0x04]] {
        let message = Message::Bitfield(Bytes::copy_from_slice(bits));
        check(&mut leecher(), std::slice::from_ref(&message), bad);
        let mut before = accepted(None);
        check(&mut before, &[message], None);
        let refused = before.set_geometry(&geometry(), 1);
        assert_eq!(refused.err(), bad);
    }
}

#[test]
fn a_later_bitfield_that_takes_pieces_back_ends_the_connection() {
    let all = Message::Bitfield(Bytes::from_static(&[0xf8]));
    let fewer = Message::Bitfield(Bytes::from_static(&[0x70]));
    for first in [all.clone(), Message::Have { index: 0 }] {
        for mut connection in [leecher(), accepted(None)] {
            let messages = [first.clone(), fewer.clone()];
            check(&mut connection, &messages, Some(ProtocolError::Bitfield));
        }
    }
    let extension = Message::Extended {
        id: 0,
        payload: Bytes::from_static(b"de"),
    };
    let in_time = [extension, Message::Port(1), Message::Unchoke, all];
    check(&mut leecher(), &in_time, None);
}

#[test]
fn a_later_bitfield_that_adds_pieces_stands_for_haves() {
    let mut connection = leecher();
    let later = Message::Bitfield(Bytes::from_static(&[0x48]));
    check(&mut connection, &[Message::Have { index: 1 }, later], None);
    let geometry = geometry();
    let pieces: Vec<Event> = events(&mut connection)
        .into_iter()
        .filter(|event| matches!(event, Event::Have(_) | Event::Bitfield))
        .collect();
    let have = |index| Event::Have(geometry.piece(index).unwrap());
    assert_eq!(pieces, [have(1), have(4)]);
}

#[test]
fn numbers_out_of_range_end_the_connection() {
    let out_of_range = Some(ProtocolError::OutOfRange);
    for index in [5, u32::MAX] {
        check(&mut seed(), &[Message::Have { index }], out_of_range);
    }
    let numbers = [
        (5, 0, 16384),
        (u32::MAX, 0, 1),
        (0, 0, 0),
        (0, 0, 16385),
        (0, 3 * 16384, 1),
        (0, 3 * 16384 - 1, 2),
        (0, u32::MAX, 16384),
        (4, 2 * 16384, 101),
    ];
    for (index, offset, length) in numbers {
        let request = Message::Request {
            index,
            offset,
            length,
        };
        let cancel = Message::Cancel {
            index,
            offset,
            length,
        };
        check(&mut seed(), &[request], out_of_range);
        check(&mut seed(), &[cancel], out_of_range);
        if length <= 16384 {
            let data = Payload::from(Bytes::from(vec![0; usize::try_from(length).unwrap()]));
            let piece = Message::Piece {
                index,
                offset,
                data,
            };
            check(&mut seed(), &[piece], out_of_range);
        }
    }
}

#[test]
fn lengths_that_no_block_has_end_the_connection_before_the_metadata_is_known_too() {
    for (length, expected) in [
        (0, Some(ProtocolError::OutOfRange)),
        (16384, None),
        (16385, Some(ProtocolError::OutOfRange)),
        (u32::MAX, Some(ProtocolError::OutOfRange)),
    ] {
        let (index, offset) = (7, 0);
        let request = Message::Request {
            index,
            offset,
            length,
        };
        let cancel = Message::Cancel {
            index,
            offset,
            length,
        };
        check(&mut accepted(None), &[request], expected);
        check(&mut accepted(None), &[cancel], expected);
    }
}

#[test]
fn a_million_requests_never_read_are_bounded_and_end_the_connection() {
    let geometry = Geometry::new(16384, [16384 * 2000]).unwrap();
    let have = Bitfield::full(2000);
    let role = Role::Accepted(Accepted {
        handshake: handshake(LEECHER),
        rest: Bytes::new(),
    });
    let torrent = Some((&geometry, &have));
    let mut seed = Connection::new(&Config::default(), role, local(SEED), torrent, at(0)).unwrap();
    seed.set_choking(false);
    sent(&mut seed);
    let requests: Vec<Message> = all_blocks(&geometry).into_iter().map(request_of).collect();
    let mut taken = 0;
    let refused = (0..1_000_000).find_map(|number| {
        taken = number;
        give(&mut seed, &requests[number % 2000..][..1]).err()
    });
    assert!(is_too_many(refused.map_or(Ok(()), Err)));
    assert_eq!(taken, 512 + 50);
    let answers = sent(&mut seed);
    let (blocks, rejects): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|answer| matches!(answer, Message::Piece { .. }));
    assert_eq!((blocks.len(), rejects.len()), (512, 50));
}

#[test]
fn one_block_requested_a_million_times_is_sent_once() {
    let block = all_blocks(&geometry())[0];
    let mut seed = seed();
    seed.set_choking(false);
    sent(&mut seed);
    let requests = vec![request_of(block); 1000];
    for _ in 0..1000 {
        give(&mut seed, &requests).unwrap();
    }
    assert_eq!(sent(&mut seed), [piece_of(block)]);
}

#[test]
fn requests_while_choked_are_dropped_and_then_end_the_connection() {
    let block = all_blocks(&geometry())[0];
    let mut seed = plain(Some(&Bitfield::full(5)));
    give(&mut seed, &vec![request_of(block); 1024]).unwrap();
    assert!(!seed.has_transmit());
    assert!(is_too_many(give(&mut seed, &[request_of(block)])));
}

#[test]
fn requests_for_pieces_we_never_announced_end_the_connection() {
    let block = all_blocks(&geometry())[0];
    for mut connection in [plain(Some(&Bitfield::new(5))), plain(None)] {
        connection.set_choking(false);
        sent(&mut connection);
        give(&mut connection, &vec![request_of(block); 50]).unwrap();
        assert!(!connection.has_transmit());
        assert!(is_too_many(give(&mut connection, &[request_of(block)])));
    }
}

#[test]
fn blocks_that_nobody_asked_for_end_the_connection() {
    let block = all_blocks(&geometry())[0];
    for mut connection in [leecher(), accepted(None)] {
        give(&mut connection, &vec![piece_of(block); 100]).unwrap();
        let unwanted = events(&mut connection);
        assert_eq!(unwanted, vec![Event::Unwanted { bytes: 16384 }; 100]);
        assert!(is_too_many(give(&mut connection, &[piece_of(block)])));
        assert_eq!(connection.download().total(), 0);
    }
}

#[test]
fn choke_flapping_ends_the_connection() {
    for pair in [
        [Message::Unchoke, Message::Choke],
        [Message::Interested, Message::NotInterested],
    ] {
        let mut connection = leecher();
        let closed_after = (0..1000).find(|_| is_too_many(give(&mut connection, &pair)));
        assert_eq!(closed_after, Some(50));
    }
}

#[test]
fn choking_twice_a_second_is_not_flapping() {
    let mut connection = leecher();
    for second in 0..3600 {
        connection.handle_timeout(at(second)).unwrap();
        give(&mut connection, &[Message::Unchoke, Message::Choke]).unwrap();
    }
}

#[test]
fn a_peer_that_reads_nothing_gets_bounded_answers() {
    let mut seed = seed();
    let extension = Message::Extended {
        id: 0,
        payload: Bytes::from_static(b"d1:md11:ut_metadatai9eee"),
    };
    give(&mut seed, &[extension]).unwrap();
    let answer = MetadataMessage::Data {
        part: 0,
        total_size: 16384,
        data: Bytes::from(vec![0; 16384]),
    };
    let request = Message::Extended {
        id: UT_METADATA_ID,
        payload: Bytes::from(MetadataMessage::Request { part: 0 }.encode()),
    };
    for _ in 0..10_000 {
        give(&mut seed, std::slice::from_ref(&request)).unwrap();
        while let Some(event) = seed.poll_event() {
            if matches!(event, Event::Metadata(_)) {
                seed.send_metadata(&answer);
            }
        }
    }
    assert!(stream(&mut seed).len() < 100 << 10);
}

#[test]
fn a_peer_that_reads_nothing_of_a_hundred_thousand_messages_is_closed() {
    let mut connection = leecher();
    for _ in 0..100_000 {
        connection.set_choking(false);
        connection.set_choking(true);
    }
    assert_eq!(connection.request_room(at(0)), 0);
    assert_eq!(connection.poll_timeout().unwrap().at, at(0));
    assert!(is_too_many(connection.handle_timeout(at(0))));
    assert!(is_too_many(give(&mut connection, &[Message::KeepAlive])));
    assert!(stream(&mut connection).len() <= (256 << 10) + 5);
}

#[test]
fn a_thousand_dht_ports_are_eight() {
    let mut connection = leecher();
    let ports: Vec<Message> = (0..1000).map(Message::Port).collect();
    give(&mut connection, &ports).unwrap();
    let expected: Vec<Event> = (1..9).map(Event::DhtPort).collect();
    assert_eq!(events(&mut connection), expected);
}

#[test]
fn bad_extension_messages_end_the_connection_and_unknown_ones_do_not() {
    let extended = |id, payload: &'static [u8]| Message::Extended {
        id,
        payload: Bytes::from_static(payload),
    };
    let bad = Some(ProtocolError::Extension);
    check(&mut leecher(), &[extended(0, b"le")], bad);
    check(&mut leecher(), &[extended(UT_METADATA_ID, b"de")], bad);
    let unknown = [
        extended(99, b"\xff"),
        extended(UT_METADATA_ID, b"d8:msg_typei77ee"),
        Message::Unknown { id: 77 },
    ];
    let mut connection = leecher();
    check(&mut connection, &unknown, None);
    assert_eq!(events(&mut connection), []);
}

#[test]
fn a_later_extension_handshake_changes_what_it_names() {
    let extended = |payload: &'static [u8]| Message::Extended {
        id: 0,
        payload: Bytes::from_static(payload),
    };
    let mut connection = leecher();
    let first = extended(b"d1:md11:ut_metadatai3ee13:metadata_sizei9e4:reqqi100ee");
    give(
        &mut connection,
        &[first, extended(b"d1:md11:ut_metadatai0eee")],
    )
    .unwrap();
    let known = connection.extensions().unwrap();
    assert_eq!((known.ut_metadata, known.metadata_size), (None, Some(9)));
    connection.send_metadata(&MetadataMessage::Request { part: 0 });
    assert!(!connection.has_transmit());
}

#[test]
fn a_donthave_that_is_no_index_or_names_no_piece_ends_the_connection() {
    let donthave = |payload: &'static [u8]| Message::Extended {
        id: LT_DONTHAVE_ID,
        payload: Bytes::from_static(payload),
    };
    for (payload, expected) in [
        (&[0, 0, 0][..], ProtocolError::Extension),
        (&[0, 0, 0, 0, 1], ProtocolError::Extension),
        (&[0, 0, 0, 5], ProtocolError::OutOfRange),
    ] {
        check(&mut leecher(), &[donthave(payload)], Some(expected));
    }
    let mut early = accepted(None);
    give(&mut early, &[Message::HaveAll]).unwrap();
    give(&mut early, &vec![donthave(&[0xff; 4]); 10_000]).unwrap();
    give(&mut early, &[donthave(&[0, 0, 0, 1])]).unwrap();
    early.set_geometry(&geometry(), 1).unwrap();
    assert!(
        early.pieces().unwrap().is_full(),
        "so many are not remembered"
    );
}

fn pex(payload: &'static [u8]) -> Message {
    Message::Extended {
        id: UT_PEX_ID,
        payload: Bytes::from_static(payload),
    }
}

#[test]
fn peers_are_taken_from_a_peer_once_a_minute_and_a_flood_of_them_ends_the_connection() {
    let mut connection = leecher();
    let named = pex(b"d5:added6:\x01\x02\x03\x04\x01\x02e");
    give(&mut connection, &vec![named.clone(); 21]).unwrap();
    assert_eq!(events(&mut connection).len(), 1);
    connection.handle_timeout(at(60)).unwrap();
    give(&mut connection, std::slice::from_ref(&named)).unwrap();
    assert!(matches!(events(&mut connection)[..], [Event::Pex(_)]));
    assert!(is_too_many(give(&mut connection, &vec![named; 21])));
}

#[test]
fn bad_peer_exchange_ends_the_connection_unless_it_is_switched_off() {
    let bad = pex(b"le");
    check(
        &mut leecher(),
        std::slice::from_ref(&bad),
        Some(ProtocolError::Extension),
    );
    let mut private = leecher();
    private.forbid_pex();
    check(&mut private, &[bad], None);
    assert_eq!(events(&mut private), []);
}

#[test]
fn a_torrent_that_turns_out_to_be_private_takes_its_offer_back() {
    let mut connection = accepted(None);
    connection.forbid_pex();
    connection.set_geometry(&geometry(), 1).unwrap();
    let [Message::Extended { id: 0, payload }] = &sent(&mut connection)[..] else {
        panic!("an extension handshake, and nothing else");
    };
    let switched_off = b"6:ut_pexi0e";
    assert!(payload.windows(11).any(|part| part == switched_off));
    assert!(!connection.takes_pex());
}

#[test]
fn memory_for_events_is_given_back() {
    let mut connection = leecher();
    give(&mut connection, &vec![Message::Port(1); 10]).unwrap();
    let metadata = Message::Extended {
        id: UT_METADATA_ID,
        payload: Bytes::from(MetadataMessage::Request { part: 0 }.encode()),
    };
    give(&mut connection, &vec![metadata; 10_000]).unwrap();
    assert_eq!(events(&mut connection).len(), 10_001);
    assert!(connection.events.capacity() <= EVENTS_KEPT);
}

/// Messages with numbers near the borders of the torrent, so that most of them are acceptable.
fn any_message() -> impl Strategy<Value = Message> {
    let numbers = (0u32..6, 0u32..4, 0u32..3).prop_map(|(index, block, length)| {
        (
            index,
            block * 16384,
            [100, 16384, 16385][usize::try_from(length).unwrap()],
        )
    });
    prop_oneof![
        1 => Just(Message::KeepAlive),
        1 => Just(Message::Choke),
        4 => Just(Message::Unchoke),
        1 => Just(Message::Interested),
        1 => Just(Message::NotInterested),
        1 => (0u32..6).prop_map(|index| Message::Have { index }),
        1 => any::<u8>().prop_map(|bits| Message::Bitfield(Bytes::from(vec![bits & 0xf8]))),
        3 => numbers.clone().prop_map(|(index, offset, length)| Message::Request {
            index, offset, length,
        }),
        3 => numbers.clone().prop_map(|(index, offset, length)| Message::Piece {
            index,
            offset,
            data: Payload::from(Bytes::from(vec![0; usize::try_from(length.min(16384)).unwrap()])),
        }),
        1 => numbers.clone().prop_map(|(index, offset, length)| Message::Cancel {
            index, offset, length,
        }),
        3 => numbers.prop_map(|(index, offset, length)| Message::Reject { index, offset, length }),
        1 => (0u32..6).prop_map(|index| Message::AllowedFast { index }),
        1 => Just(Message::HaveAll),
        1 => any::<u16>().prop_map(Message::Port),
        1 => (0u8..3, "[dlei0-9:m]{0,20}").prop_map(|(id, text)| Message::Extended {
            id,
            payload: Bytes::from(text),
        }),
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_after_the_handshake_never_panic(
        segments in prop::collection::vec(prop::collection::vec(0u8..24, 0..100), 0..20),
    ) {
        let mut connection = leecher();
        for segment in segments {
            if connection.handle_bytes(at(1), Bytes::from(segment)).is_err() {
                break;
            }
        }
    }

    #[test]
    fn no_conversation_leaves_a_block_unaccounted_for(
        steps in prop::collection::vec((any_message(), 0usize..15, 0u64..15), 0..80),
    ) {
        let mut connection = seed();
        connection.set_choking(false);
        let blocks = all_blocks(&geometry());
        let mut waiting = std::collections::BTreeSet::new();
        let mut now = at(0);
        for (message, block, seconds) in steps {
            now += Duration::from_secs(seconds);
            let timeout = connection.handle_timeout(now);
            if timeout.and_then(|()| give(&mut connection, &[message])).is_err() {
                break;
            }
            while let Some(event) = connection.poll_event() {
                match event {
                    Event::Block { block, .. } => {
                        waiting.remove(&block);
                    }
                    Event::Choked { lost }
                    | Event::TimedOut { lost }
                    | Event::Rejected { lost } => {
                        for block in lost {
                            waiting.remove(&block);
                        }
                    }
                    _ => {}
                }
            }
            let may_ask = !connection.peer_choking()
                || connection.allowed_pieces().any(|piece| piece == blocks[block].piece);
            if may_ask && connection.request_room(now) > 0 {
                connection.request(now, blocks[block]);
                waiting.insert(blocks[block]);
            }
            let outstanding: std::collections::BTreeSet<_> = connection.outstanding().collect();
            prop_assert_eq!(&outstanding, &waiting);
            prop_assert!(connection.poll_timeout().is_some_and(|wake| wake.at > now));
            stream(&mut connection);
        }
    }
}
