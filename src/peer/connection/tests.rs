//! Connections joined in memory, with virtual time; `hostile` has peers that break the rules.

use proptest::prelude::*;

use super::*;

mod fast;
mod hostile;
mod interest;

const SEED: PeerId = PeerId::new([b's'; 20]);
const LEECHER: PeerId = PeerId::new([b'l'; 20]);
const HASH: InfoHash = InfoHash::new([7; 20]);

/// Five pieces of three blocks each; the last block has 100 bytes.
fn geometry() -> Geometry {
    Geometry::new(3 * 16384, [5 * 3 * 16384 - 16284]).unwrap()
}

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn all_blocks(geometry: &Geometry) -> Vec<BlockRef> {
    geometry
        .pieces()
        .flat_map(|piece| geometry.blocks(piece))
        .collect()
}

/// The bytes of a block, different for each.
fn content(block: BlockRef) -> Vec<u8> {
    (0..block.length)
        .map(|byte| (block.piece.get() + block.offset / 16384 * 7 + byte).to_le_bytes()[0])
        .collect()
}

fn local(peer_id: PeerId) -> LocalPeer {
    LocalPeer {
        info_hash: HASH,
        peer_id,
        listen_port: Some(6881),
        dht_port: Some(6882),
        metadata_size: None,
        pex: true,
        upload_only: peer_id == SEED,
        remote_ip: IpAddr::from([127, 0, 0, 1]),
    }
}

fn handshake(peer_id: PeerId) -> Handshake {
    Handshake {
        reserved: Reserved::ours(true),
        info_hash: HASH,
        peer_id,
    }
}

/// A dialled leecher without pieces that has not heard from its peer yet.
fn dialled() -> Connection {
    let geometry = geometry();
    let have = Bitfield::new(geometry.piece_count());
    Connection::new(
        &Config::default(),
        Role::Dialled,
        local(LEECHER),
        Some((&geometry, &have)),
        at(0),
    )
    .unwrap()
}

/// A connection with `have` (`None` = no geometry yet), its handshake done, nothing left to send.
fn accepted(have: Option<&Bitfield>) -> Connection {
    accepted_from(handshake(LEECHER), have)
}

/// The same to a peer that has nothing but BEP 3.
fn plain(have: Option<&Bitfield>) -> Connection {
    let handshake = Handshake {
        reserved: Reserved::default(),
        ..handshake(LEECHER)
    };
    accepted_from(handshake, have)
}

fn accepted_from(handshake: Handshake, have: Option<&Bitfield>) -> Connection {
    let geometry = geometry();
    let accepted = Accepted {
        handshake,
        rest: Bytes::new(),
    };
    let mut connection = Connection::new(
        &Config::default(),
        Role::Accepted(accepted),
        local(SEED),
        have.map(|have| (&geometry, have)),
        at(0),
    )
    .unwrap();
    sent(&mut connection);
    events(&mut connection);
    connection
}

fn seed() -> Connection {
    accepted(Some(&Bitfield::full(5)))
}

fn leecher() -> Connection {
    accepted(Some(&Bitfield::new(5)))
}

fn events(connection: &mut Connection) -> Vec<Event> {
    std::iter::from_fn(|| connection.poll_event()).collect()
}

/// Everything the connection sends, as one stream; blocks are read from [`content`].
fn stream(connection: &mut Connection) -> Bytes {
    let now = connection.now;
    let mut stream = Vec::new();
    while let Some(transmit) = connection.poll_transmit(now) {
        match transmit {
            Transmit::Bytes(bytes) => stream.extend_from_slice(&bytes),
            Transmit::Block { header, block } => {
                stream.extend(header);
                stream.extend(content(block));
            }
        }
    }
    assert!(!connection.has_transmit());
    Bytes::from(stream)
}

fn messages(stream: Bytes) -> Vec<Message> {
    let mut decoder = Decoder::new();
    decoder.push(stream);
    std::iter::from_fn(|| decoder.next().unwrap()).collect()
}

/// Everything the connection sends, as messages; a handshake in front is left out.
fn sent(connection: &mut Connection) -> Vec<Message> {
    let mut stream = stream(connection);
    if stream.starts_with(b"\x13BitTorrent") {
        let _ = stream.split_to(68);
    }
    messages(stream)
}

/// Gives the connection these messages in one segment.
fn give(connection: &mut Connection, messages: &[Message]) -> Result<(), ProtocolError> {
    let mut bytes = Vec::new();
    for message in messages {
        message.encode(&mut bytes);
    }
    connection.handle_bytes(connection.now, Bytes::from(bytes))
}

fn request_of(block: BlockRef) -> Message {
    Message::Request {
        index: block.piece.get(),
        offset: block.offset,
        length: block.length,
    }
}

fn reject_of(block: BlockRef) -> Message {
    Message::Reject {
        index: block.piece.get(),
        offset: block.offset,
        length: block.length,
    }
}

fn piece_of(block: BlockRef) -> Message {
    Message::Piece {
        index: block.piece.get(),
        offset: block.offset,
        data: Payload::from(Bytes::from(content(block))),
    }
}

fn data_of(block: BlockRef) -> Event {
    let data = Payload::from(Bytes::from(content(block)));
    Event::Block { block, data }
}

/// Carries what `from` sends to `to`, cut into segments of at most `segment` bytes.
fn carry(from: &mut Connection, to: &mut Connection, segment: usize) -> bool {
    let mut stream = stream(from);
    let moved = !stream.is_empty();
    while !stream.is_empty() {
        let next = stream.split_to(segment.min(stream.len()));
        to.handle_bytes(to.now, next).unwrap();
    }
    moved
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_leecher_fetches_everything_from_a_seed_however_the_streams_are_cut(
        up in 1usize..40_000, down in 1usize..200,
    ) {
        let mut leecher = dialled();
        let mut seed = incoming_seed(&mut leecher);
        let wanted = all_blocks(&geometry());
        let mut asked = 0;
        let mut received = Vec::new();
        leecher.set_interested(true);
        loop {
            let moved = carry(&mut seed, &mut leecher, up) | carry(&mut leecher, &mut seed, down);
            for event in events(&mut seed) {
                if event == Event::Interested {
                    seed.set_choking(false);
                }
            }
            for event in events(&mut leecher) {
                if let Event::Block { block, data } = event {
                    prop_assert_eq!(data.to_vec(), content(block));
                    received.push(block);
                }
            }
            let room = leecher.request_room(at(1));
            for &block in wanted.iter().skip(asked).take(room) {
                leecher.request(at(1), block);
                asked += 1;
            }
            if !moved && !leecher.has_transmit() && !seed.has_transmit() {
                break;
            }
        }
        prop_assert_eq!(received, wanted);
        prop_assert!(leecher.pieces().unwrap().is_full());
        prop_assert_eq!(leecher.outstanding().count(), 0);
        prop_assert_eq!(leecher.download().total(), geometry().total_length());
        prop_assert_eq!(seed.upload().total(), geometry().total_length());
    }
}

/// A seed that accepts what `dialler` has sent so far.
fn incoming_seed(dialler: &mut Connection) -> Connection {
    let geometry = geometry();
    let mut incoming = super::super::Incoming::new(&Config::default(), at(0));
    let accepted = incoming
        .handle_bytes(at(0), stream(dialler))
        .unwrap()
        .unwrap();
    let have = Bitfield::full(geometry.piece_count());
    Connection::new(
        &Config::default(),
        Role::Accepted(accepted),
        local(SEED),
        Some((&geometry, &have)),
        at(0),
    )
    .unwrap()
}

#[test]
fn the_dialler_speaks_first_and_both_are_established_after_two_handshakes() {
    let mut leecher = dialled();
    assert!(!leecher.is_established());
    let mut seed = incoming_seed(&mut leecher);
    assert!(seed.is_established());
    assert_eq!(events(&mut seed), [Event::Handshake(handshake(LEECHER))]);
    carry(&mut seed, &mut leecher, 10);
    assert!(leecher.is_established());
    assert_eq!(events(&mut leecher)[0], Event::Handshake(handshake(SEED)));
}

#[test]
fn the_extension_handshake_comes_first_then_the_pieces_then_the_port() {
    let mut leecher = dialled();
    leecher.set_interested(true);
    leecher.set_choking(false);
    let mut seed = incoming_seed(&mut leecher);
    let stream = stream(&mut seed);
    assert_eq!(stream[..68], handshake(SEED).encode());
    let messages = messages(stream.slice(68..));
    let [
        Message::Extended { id: 0, payload },
        Message::HaveAll,
        Message::Port(6882),
    ] = messages.as_slice()
    else {
        panic!("{messages:?}");
    };
    let extensions = ExtensionHandshake::decode(payload).unwrap();
    let expected = ExtensionHandshake {
        ut_metadata: Some(UT_METADATA_ID),
        ut_pex: Some(UT_PEX_ID),
        lt_donthave: Some(LT_DONTHAVE_ID),
        client: Some(CLIENT.to_owned()),
        listen_port: Some(6881),
        request_queue: Some(512),
        your_ip: Some(IpAddr::from([127, 0, 0, 1])),
        upload_only: true,
        ..Default::default()
    };
    assert_eq!(extensions, expected);

    leecher.handle_bytes(at(0), stream).unwrap();
    let answer = sent(&mut leecher);
    let expected_answer = [
        Message::HaveNone,
        Message::Port(6882),
        Message::Interested,
        Message::Unchoke,
    ];
    assert_eq!(answer[1..], expected_answer);
    let expected = [
        Event::Handshake(handshake(SEED)),
        Event::Extended(expected),
        Event::Bitfield,
        Event::DhtPort(6882),
    ];
    assert_eq!(events(&mut leecher), expected);
}

#[test]
fn a_peer_without_reserved_bits_gets_plain_bep_3() {
    let mut seed = Connection::new(
        &Config::default(),
        Role::Dialled,
        local(SEED),
        Some((&geometry(), &Bitfield::full(5))),
        at(0),
    )
    .unwrap();
    let plain = Handshake {
        reserved: Reserved::default(),
        ..handshake(LEECHER)
    };
    let bytes = Bytes::copy_from_slice(&plain.encode());
    seed.handle_bytes(at(0), bytes).unwrap();
    let messages = sent(&mut seed);
    assert!(
        matches!(messages[..], [Message::Bitfield(_)]),
        "{messages:?}"
    );
}

#[test]
fn pieces_named_before_the_geometry_are_told_when_it_comes() {
    let mut connection = accepted(None);
    let bits = Bytes::from_static(&[0b1010_0000]);
    give(
        &mut connection,
        &[Message::Bitfield(bits), Message::Have { index: 4 }],
    )
    .unwrap();
    assert_eq!(
        (events(&mut connection), connection.pieces()),
        (vec![], None)
    );
    connection.set_geometry(&geometry(), 1234).unwrap();
    assert_eq!(events(&mut connection), [Event::Bitfield]);
    let ones: Vec<u32> = connection.pieces().unwrap().ones().collect();
    assert_eq!(ones, [0, 2, 4]);
    let [Message::Extended { id: 0, payload }] = &sent(&mut connection)[..] else {
        panic!("an extension handshake with the size, and nothing else");
    };
    let extensions = ExtensionHandshake::decode(payload).unwrap();
    assert_eq!(extensions.metadata_size, Some(1234));

    give(&mut connection, &[Message::Have { index: 1 }]).unwrap();
    give(&mut connection, &[Message::Have { index: 1 }]).unwrap();
    let piece = geometry().piece(1).unwrap();
    assert_eq!(events(&mut connection), [Event::Have(piece)], "told once");
}

#[test]
fn haves_wait_for_the_stream_and_are_sent_once() {
    let mut connection = leecher();
    for piece in geometry().pieces().chain(geometry().pieces()) {
        connection.have(piece);
    }
    connection.set_interested(true);
    let Some(Transmit::Bytes(bytes)) = connection.poll_transmit(at(0)) else {
        panic!("all of it at once");
    };
    let haves = (0..5).map(|index| Message::Have { index });
    let expected: Vec<Message> = [Message::Interested].into_iter().chain(haves).collect();
    assert_eq!(messages(bytes), expected);
    assert_eq!(connection.poll_transmit(at(0)), None);
}

#[test]
fn choke_and_interest_are_sent_only_on_change() {
    let mut connection = leecher();
    for _ in 0..3 {
        connection.set_interested(true);
        connection.set_choking(false);
    }
    assert_eq!(
        sent(&mut connection),
        [Message::Interested, Message::Unchoke]
    );
    assert!(connection.am_interested() && !connection.am_choking());
}

#[test]
fn a_choke_voids_the_requests_but_what_was_under_way_is_still_welcome() {
    let mut connection = plain(Some(&Bitfield::new(5)));
    let blocks = all_blocks(&geometry());
    assert_eq!(connection.request_room(at(0)), 0);
    give(&mut connection, &[Message::Unchoke]).unwrap();
    assert_eq!(connection.request_room(at(0)), 4);
    for &block in &blocks[..3] {
        connection.request(at(0), block);
    }
    let requests: Vec<Message> = blocks[..3].iter().copied().map(request_of).collect();
    assert_eq!(sent(&mut connection), requests);
    assert_eq!(connection.outstanding().collect::<Vec<_>>(), blocks[..3]);
    let given = [
        piece_of(blocks[1]),
        Message::Choke,
        piece_of(blocks[0]),
        piece_of(blocks[0]),
    ];
    give(&mut connection, &given).unwrap();
    let expected = [
        Event::Unchoked,
        data_of(blocks[1]),
        Event::Choked {
            lost: vec![blocks[0], blocks[2]],
        },
        data_of(blocks[0]),
        Event::Unwanted { bytes: 16384 },
    ];
    assert_eq!(events(&mut connection), expected);
    assert_eq!(connection.outstanding().count(), 0);
    assert_eq!(connection.request_room(at(0)), 0);

    connection.request(at(0), blocks[5]);
    let lost = vec![blocks[5]];
    assert_eq!(events(&mut connection), [Event::Choked { lost }]);
    assert_eq!(sent(&mut connection), []);
}

#[test]
fn a_cancelled_request_is_taken_back_on_both_sides() {
    let blocks = all_blocks(&geometry());
    let mut connection = leecher();
    give(&mut connection, &[Message::Unchoke]).unwrap();
    connection.request(at(0), blocks[0]);
    connection.cancel(blocks[0]);
    connection.cancel(blocks[0]);
    let exchanged = sent(&mut connection);
    assert_eq!(exchanged, [request_of(blocks[0]), cancel_of(blocks[0])]);

    let mut seed = seed();
    seed.set_choking(false);
    sent(&mut seed);
    give(&mut seed, &[request_of(blocks[1])]).unwrap();
    give(&mut seed, &exchanged).unwrap();
    let answers = [reject_of(blocks[0]), piece_of(blocks[1])];
    assert_eq!(sent(&mut seed), answers);
}

#[test]
fn choking_drops_what_the_peer_asked_for() {
    let blocks = all_blocks(&geometry());
    let mut seed = seed();
    seed.set_choking(false);
    give(&mut seed, &[request_of(blocks[0]), request_of(blocks[1])]).unwrap();
    assert_eq!(sent(&mut seed).len(), 3);
    give(&mut seed, &[request_of(blocks[0])]).unwrap();
    seed.set_choking(true);
    assert_eq!(sent(&mut seed), [Message::Choke, reject_of(blocks[0])]);
}

#[test]
fn control_messages_go_before_blocks() {
    let blocks = all_blocks(&geometry());
    let mut seed = seed();
    seed.set_choking(false);
    give(&mut seed, &[request_of(blocks[0])]).unwrap();
    seed.set_interested(true);
    let Some(Transmit::Bytes(bytes)) = seed.poll_transmit(at(0)) else {
        panic!("control bytes first");
    };
    assert_eq!(messages(bytes), [Message::Unchoke, Message::Interested]);
    let expected = Transmit::Block {
        header: Message::piece_header(0, 0, 16384),
        block: blocks[0],
    };
    assert_eq!(seed.poll_transmit(at(0)), Some(expected));
    assert_eq!(seed.upload().total(), 16384);
    seed.upload_failed(blocks[0]);
    assert_eq!(seed.upload().total(), 0);
}

#[test]
fn requests_time_out_after_sixty_seconds_and_are_cancelled() {
    let blocks = all_blocks(&geometry());
    let mut connection = leecher();
    give(&mut connection, &[Message::Unchoke]).unwrap();
    connection.request(at(0), blocks[0]);
    events(&mut connection);
    sent(&mut connection);
    let snub = connection.poll_timeout().unwrap();
    assert_eq!((snub.at, snub.reason), (at(20), WakeReason::Request));
    connection.handle_timeout(snub.at).unwrap();
    assert_eq!(events(&mut connection), [Event::Snubbed(true)]);
    assert!(connection.is_snubbed());
    let lost = connection.poll_timeout().unwrap();
    assert_eq!((lost.at, lost.reason), (at(60), WakeReason::Request));
    connection.handle_timeout(lost.at).unwrap();
    let expected = Event::TimedOut {
        lost: vec![blocks[0]],
    };
    assert_eq!(events(&mut connection), [expected]);
    assert_eq!(sent(&mut connection), [cancel_of(blocks[0])]);
    give(&mut connection, &[piece_of(blocks[0])]).unwrap();
    let delivered = [Event::Snubbed(false), data_of(blocks[0])];
    assert_eq!(events(&mut connection), delivered);
}

#[test]
fn a_silent_stream_gets_keep_alives_and_is_closed_after_two_minutes() {
    let mut connection = leecher();
    let wake = connection.poll_timeout().unwrap();
    assert_eq!((wake.at, wake.reason), (at(60), WakeReason::KeepAlive));
    connection.handle_timeout(wake.at).unwrap();
    assert_eq!(sent(&mut connection), [Message::KeepAlive]);
    connection.handle_timeout(at(119)).unwrap();
    let closed = connection.handle_timeout(at(120));
    assert!(matches!(closed, Err(ProtocolError::TimedOut { .. })));
}

#[test]
fn a_peer_that_sends_keep_alives_stays_and_no_wake_up_is_in_the_past() {
    let mut connection = leecher();
    let mut now = at(0);
    let mut heard = now;
    while now < at(3600) {
        let wake = connection.poll_timeout().unwrap();
        assert!(wake.at > now, "a wake-up that is due at once never ends");
        now = wake.at;
        connection.handle_timeout(now).unwrap();
        connection.handle_timeout(now).unwrap();
        // The stream is blocked: nothing is taken from the connection.
        if now.saturating_since(heard) >= Duration::from_secs(59) {
            heard = now;
            give(&mut connection, &[Message::KeepAlive]).unwrap();
        }
    }
    assert_eq!(sent(&mut connection), [Message::KeepAlive]);
}

#[test]
fn metadata_parts_go_both_ways() {
    let mut leecher = dialled();
    let mut seed = incoming_seed(&mut leecher);
    let request = MetadataMessage::Request { part: 0 };
    leecher.send_metadata(&request);
    assert!(
        !leecher.has_transmit(),
        "not known yet whether the peer has it"
    );
    while carry(&mut seed, &mut leecher, 100) | carry(&mut leecher, &mut seed, 100) {}
    events(&mut seed);
    events(&mut leecher);
    leecher.send_metadata(&request);
    carry(&mut leecher, &mut seed, 100);
    assert_eq!(events(&mut seed), [Event::Metadata(request)]);
    let data = MetadataMessage::Data {
        part: 0,
        total_size: 20_000,
        data: Bytes::from(vec![9; 16384]),
    };
    seed.send_metadata(&data);
    seed.send_metadata(&MetadataMessage::Reject { part: 1 });
    carry(&mut seed, &mut leecher, 1000);
    let expected = [
        Event::Metadata(data),
        Event::Metadata(MetadataMessage::Reject { part: 1 }),
    ];
    assert_eq!(events(&mut leecher), expected);
}

#[test]
fn an_idle_connection_is_small() {
    let size = size_of::<Connection>();
    assert!(size <= 1536, "{size} bytes");
}
