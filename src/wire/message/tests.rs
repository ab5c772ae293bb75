//! Framing: lengths, splits, bounds.

use proptest::prelude::*;

use super::*;

/// Decodes a stream that arrives in these segments, until it ends or breaks a rule.
fn decode(segments: impl IntoIterator<Item = Bytes>) -> (Vec<Message>, Option<ProtocolError>) {
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    for segment in segments {
        decoder.push(segment);
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

#[track_caller]
fn check_bytes(message: Message, expected: &[u8]) {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    assert_eq!(bytes, expected);
    let (messages, error) = decode([Bytes::from(bytes)]);
    assert_eq!((messages, error), (vec![message], None));
}

/// A message of `length` bytes (id included) with this id.
fn raw(id: u8, length: u32) -> Bytes {
    let mut bytes = length.to_be_bytes().to_vec();
    if let Some(rest) = length.checked_sub(1) {
        bytes.push(id);
        bytes.resize(bytes.len() + usize::try_from(rest).unwrap(), 0);
    }
    Bytes::from(bytes)
}

#[track_caller]
fn check_lengths(id: u8, accepted: &[u32], refused: &[u32]) {
    for &length in accepted {
        let (messages, error) = decode([raw(id, length)]);
        assert_eq!((messages.len(), error), (1, None), "length {length}");
    }
    for &length in refused {
        // The prefix and the id are enough: the rest is never waited for.
        let (messages, error) = decode([raw(id, length).slice(..5)]);
        assert!(messages.is_empty());
        let expected = ProtocolError::MessageLength {
            id: Some(id),
            length,
        };
        assert_eq!(error, Some(expected), "length {length}");
    }
}

#[test]
fn messages_have_the_layout_of_their_beps() {
    check_bytes(Message::KeepAlive, &[0, 0, 0, 0]);
    check_bytes(Message::Choke, &[0, 0, 0, 1, 0]);
    check_bytes(Message::Unchoke, &[0, 0, 0, 1, 1]);
    check_bytes(Message::Interested, &[0, 0, 0, 1, 2]);
    check_bytes(Message::NotInterested, &[0, 0, 0, 1, 3]);
    check_bytes(Message::Have { index: 258 }, &[0, 0, 0, 5, 4, 0, 0, 1, 2]);
    check_bytes(
        Message::Bitfield(Bytes::from_static(&[0x80, 1])),
        &[0, 0, 0, 3, 5, 0x80, 1],
    );
    let (index, offset, length) = (1, 0x4000, 0x2000);
    check_bytes(
        Message::Request {
            index,
            offset,
            length,
        },
        &[0, 0, 0, 13, 6, 0, 0, 0, 1, 0, 0, 0x40, 0, 0, 0, 0x20, 0],
    );
    check_bytes(
        Message::Cancel {
            index,
            offset,
            length,
        },
        &[0, 0, 0, 13, 8, 0, 0, 0, 1, 0, 0, 0x40, 0, 0, 0, 0x20, 0],
    );
    let data = Payload::from(Bytes::from_static(b"xy"));
    check_bytes(
        Message::Piece {
            index,
            offset,
            data,
        },
        &[0, 0, 0, 11, 7, 0, 0, 0, 1, 0, 0, 0x40, 0, b'x', b'y'],
    );
    check_bytes(Message::Port(6881), &[0, 0, 0, 3, 9, 0x1a, 0xe1]);
    check_bytes(Message::Suggest { index: 3 }, &[0, 0, 0, 5, 13, 0, 0, 0, 3]);
    check_bytes(Message::HaveAll, &[0, 0, 0, 1, 14]);
    check_bytes(Message::HaveNone, &[0, 0, 0, 1, 15]);
    check_bytes(
        Message::Reject {
            index,
            offset,
            length,
        },
        &[0, 0, 0, 13, 16, 0, 0, 0, 1, 0, 0, 0x40, 0, 0, 0, 0x20, 0],
    );
    let index = 258;
    check_bytes(
        Message::AllowedFast { index },
        &[0, 0, 0, 5, 17, 0, 0, 1, 2],
    );
    check_bytes(
        Message::Extended {
            id: 3,
            payload: Bytes::from_static(b"de"),
        },
        &[0, 0, 0, 4, 20, 3, b'd', b'e'],
    );
}

#[test]
fn a_piece_header_is_the_front_of_a_piece_message() {
    let mut bytes = Vec::new();
    Message::Piece {
        index: 7,
        offset: 16384,
        data: Payload::from(Bytes::from(vec![1; 100])),
    }
    .encode(&mut bytes);
    assert_eq!(Message::piece_header(7, 16384, 100), bytes[..13]);
}

#[test]
fn fixed_messages_one_byte_short_or_long_are_refused() {
    let bare = [CHOKE, UNCHOKE, INTERESTED, NOT_INTERESTED, HAVE_ALL];
    for id in bare.into_iter().chain([HAVE_NONE]) {
        check_lengths(id, &[1], &[2]);
    }
    for id in [HAVE, SUGGEST, ALLOWED_FAST] {
        check_lengths(id, &[5], &[4, 6]);
    }
    for id in [REQUEST, CANCEL, REJECT] {
        check_lengths(id, &[13], &[12, 14]);
    }
    check_lengths(PORT, &[3], &[2, 4]);
}

#[test]
fn messages_of_variable_length_are_refused_beyond_their_bounds() {
    check_lengths(PIECE, &[9, 10, 9 + 16384], &[8, 9 + 16385]);
    check_lengths(
        BITFIELD,
        &[1, 2, 1 + BITFIELD_LENGTH_MAX],
        &[2 + BITFIELD_LENGTH_MAX],
    );
    check_lengths(
        EXTENDED,
        &[2, 3, 2 + EXTENDED_LENGTH_MAX],
        &[1, 3 + EXTENDED_LENGTH_MAX],
    );
}

#[test]
fn a_length_prefix_beyond_any_message_is_refused_at_its_fourth_byte() {
    for length in [u32::MAX, UNKNOWN_LENGTH_MAX + 1] {
        let mut decoder = Decoder::new();
        decoder.push(Bytes::from(length.to_be_bytes().to_vec()));
        let error = Err(ProtocolError::MessageLength { id: None, length });
        assert_eq!(decoder.next(), error);
        decoder.push(Bytes::from_static(&[0, 0, 0, 0]));
        assert_eq!(decoder.next(), error, "a broken stream stays broken");
    }
}

#[test]
fn unknown_messages_are_skipped_without_being_kept() {
    let mut decoder = Decoder::new();
    let bytes = raw(99, UNKNOWN_LENGTH_MAX);
    let (segments, last) = bytes.split_at(bytes.len() - 1);
    for segment in segments.chunks(1000) {
        decoder.push(Bytes::copy_from_slice(segment));
        assert_eq!(decoder.next(), Ok(None));
        assert!(decoder.buffered() <= PREFIX_AND_ID_LENGTH);
    }
    decoder.push(Bytes::copy_from_slice(last));
    assert_eq!(decoder.next(), Ok(Some(Message::Unknown { id: 99 })));
    assert_eq!(decoder.buffered(), 0);
}

#[test]
fn block_data_shares_the_memory_of_the_segments() {
    let mut bytes = Vec::new();
    let data = Payload::from(Bytes::from(vec![5; 16384]));
    Message::Piece {
        index: 0,
        offset: 0,
        data,
    }
    .encode(&mut bytes);
    let stream = Bytes::from(bytes);
    let segments = [stream.slice(..1000), stream.slice(1000..)];
    let (messages, _) = decode(segments);
    let [Message::Piece { data, .. }] = messages.as_slice() else {
        panic!("one block, not {messages:?}");
    };
    assert_eq!(data.slices()[0].as_ptr(), stream[13..].as_ptr());
    assert_eq!(data.slices()[1].as_ptr(), stream[1000..].as_ptr());
}

#[test]
fn the_largest_bitfield_a_byte_at_a_time_is_held_once() {
    let mut decoder = Decoder::new();
    let bytes = raw(BITFIELD, 1 + BITFIELD_LENGTH_MAX);
    let (front, last) = bytes.split_at(bytes.len() - 1);
    for &byte in front {
        decoder.push(Bytes::copy_from_slice(&[byte]));
        assert_eq!(decoder.next(), Ok(None));
    }
    assert_eq!(decoder.buffered(), front.len());
    decoder.push(Bytes::copy_from_slice(last));
    assert!(matches!(decoder.next(), Ok(Some(Message::Bitfield(_)))));
    assert_eq!(decoder.buffered(), 0);
}

fn any_bytes(max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn any_message() -> impl Strategy<Value = Message> {
    let numbers = any::<(u32, u32, u32)>();
    prop_oneof![
        Just(Message::KeepAlive),
        Just(Message::Choke),
        Just(Message::Unchoke),
        Just(Message::Interested),
        Just(Message::NotInterested),
        any::<u32>().prop_map(|index| Message::Have { index }),
        any_bytes(300).prop_map(Message::Bitfield),
        numbers.prop_map(|(index, offset, length)| Message::Request {
            index,
            offset,
            length
        }),
        (any::<u32>(), any::<u32>(), any_bytes(2000)).prop_map(|(index, offset, data)| {
            Message::Piece {
                index,
                offset,
                data: Payload::from(data),
            }
        }),
        numbers.prop_map(|(index, offset, length)| Message::Cancel {
            index,
            offset,
            length
        }),
        any::<u16>().prop_map(Message::Port),
        any::<u32>().prop_map(|index| Message::Suggest { index }),
        any::<u32>().prop_map(|index| Message::AllowedFast { index }),
        Just(Message::HaveAll),
        Just(Message::HaveNone),
        numbers.prop_map(|(index, offset, length)| Message::Reject {
            index,
            offset,
            length
        }),
        (any::<u8>(), any_bytes(300)).prop_map(|(id, payload)| Message::Extended { id, payload }),
        prop_oneof![10u8..13, 18u8..20].prop_map(|id| Message::Unknown { id }),
    ]
}

/// The stream cut at these places, each taken modulo its length.
fn split(stream: &Bytes, cuts: &[usize]) -> Vec<Bytes> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|pair| stream.slice(pair[0]..pair[1]))
        .collect()
}

proptest! {
    #[test]
    fn any_split_of_a_stream_gives_the_messages_that_were_encoded(
        messages in prop::collection::vec(any_message(), 0..20),
        cuts in prop::collection::vec(any::<usize>(), 0..100),
    ) {
        let mut stream = Vec::new();
        for message in &messages {
            message.encode(&mut stream);
        }
        let (decoded, error) = decode(split(&Bytes::from(stream), &cuts));
        prop_assert_eq!(error, None);
        prop_assert_eq!(decoded, messages);
    }

    #[test]
    fn arbitrary_bytes_decode_or_fail_alike_however_they_are_cut(
        bytes in prop::collection::vec(prop_oneof![3 => 0u8..22, 1 => any::<u8>()], 0..400),
        cuts in prop::collection::vec(any::<usize>(), 0..50),
    ) {
        let stream = Bytes::from(bytes);
        let pieces = split(&stream, &cuts);
        prop_assert_eq!(decode(pieces), decode([stream]));
    }
}
