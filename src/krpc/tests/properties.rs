//! Properties of what is read, against a naive reader and against what was written.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::bencode::{Limits, Value, Writer, read, scan};

/// Where the value at the front ends, by the grammar of BEP 3 and nothing else.
fn naive_end(input: &[u8]) -> Option<usize> {
    let (first, rest) = input.split_first()?;
    match first {
        b'i' => {
            let length = rest.iter().position(|byte| *byte == b'e')?;
            let digits = std::str::from_utf8(&rest[..length]).ok()?;
            let value: i64 = digits.parse().ok()?;
            (value.to_string() == digits).then_some(length + 2)
        }
        b'l' | b'd' => {
            let mut at = 1;
            let mut values = 0;
            while *input.get(at)? != b'e' {
                if *first == b'd' && values % 2 == 0 && !input[at].is_ascii_digit() {
                    return None;
                }
                at += naive_end(&input[at..])?;
                values += 1;
            }
            (*first == b'l' || values % 2 == 0).then_some(at + 1)
        }
        _ => {
            let colon = input.iter().position(|byte| *byte == b':')?;
            let digits = std::str::from_utf8(&input[..colon]).ok()?;
            let length: usize = digits.parse().ok()?;
            let end = (colon + 1).checked_add(length)?;
            (length.to_string() == digits && end <= input.len()).then_some(end)
        }
    }
}

/// Writes a value that was read.
fn rewrite(writer: &mut Writer<'_>, value: Value<'_>) {
    match value {
        Value::Integer(number) => drop(writer.integer(number)),
        Value::Bytes(bytes) => drop(writer.bytes(bytes)),
        Value::List(list) => {
            writer.begin_list();
            list.iter().for_each(|value| rewrite(writer, value));
            writer.end();
        }
        Value::Dictionary(dictionary) => {
            writer.begin_dictionary();
            for (key, value) in dictionary.iter() {
                writer.bytes(key);
                rewrite(writer, value);
            }
            writer.end();
        }
    }
}

/// Pieces of bencode, right and wrong.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "d",
        "l",
        "e",
        "e",
        "e",
        "i0e",
        "i-0e",
        "i7e",
        "i07e",
        "i-7e",
        "ie",
        "i+1e",
        "0:",
        "1:a",
        "2:ab",
        "01:a",
        "3:ab",
        "1:",
        "1:d",
        "1:e",
        "-1:a",
        "i9223372036854775807e",
        "i9223372036854775808e",
        "i-9223372036854775808e",
        "18446744073709551617:a",
        "x",
        ":",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat().into_bytes())
}

/// A response with everything in it.
fn full_response() -> Vec<u8> {
    let contact = |number: u8| ContactInfo {
        id: NodeId::new([number; 20]),
        address: ([9, 9, number, 9], 6881).into(),
    };
    let nodes: Vec<_> = (1..=8).map(contact).collect();
    let values: Vec<SocketAddr> = (1..=5).map(|n| ([8, 8, n, 8], 6881).into()).collect();
    let mut out = Vec::new();
    ResponseWriter {
        transaction: b"abcd",
        id: BOB,
        asker: "1.2.3.4:5".parse().unwrap(),
        nodes: Some(&nodes),
        nodes6: Some(&[]),
        token: Some(b"aoeusnth"),
        values: &values,
        extra: Extra::None,
    }
    .write(&mut out);
    out
}

/// A change of a message.
#[derive(Debug, Clone)]
enum Change {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = any::<prop::sample::Index>;
    let change = prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (at(), prop::sample::select(b"deil0123456789:".to_vec()))
            .prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => at().prop_map(Change::Cut),
        2 => (at(), 1..30usize).prop_map(|(at, length)| Change::Remove(at, length)),
        2 => (at(), 1..30usize).prop_map(|(at, length)| Change::Repeat(at, length)),
    ];
    prop::collection::vec(change, 1..4)
}

fn apply(mut bytes: Vec<u8>, changes: Vec<Change>) -> Vec<u8> {
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        match change {
            Change::Set(at, byte) => bytes[at.index(length)] = byte,
            Change::Cut(at) => bytes.truncate(at.index(length)),
            Change::Remove(at, count) => {
                let at = at.index(length);
                bytes.drain(at..(at + count).min(length));
            }
            Change::Repeat(at, count) => {
                let at = at.index(length);
                let again = bytes[at..(at + count).min(length)].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}

proptest! {
    #[test]
    fn the_scanner_the_reader_and_the_grammar_agree(bytes in pieces()) {
        let end = naive_end(&bytes);
        let expected = end == Some(bytes.len());
        prop_assert_eq!(scan(&bytes, &Limits::KRPC).is_ok(), expected);
        prop_assert_eq!(read(&bytes, &Limits::KRPC).is_ok(), expected);
    }

    #[test]
    fn the_scanner_and_the_reader_agree_on_anything(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let verdict = scan(&bytes, &Limits::KRPC);
        prop_assert_eq!(read(&bytes, &Limits::KRPC).map(drop), verdict);
        prop_assert_eq!(verdict.is_ok(), naive_end(&bytes) == Some(bytes.len()));
    }

    #[test]
    fn what_is_read_is_written_back_as_it_was(bytes in pieces()) {
        if let Ok(value) = read(&bytes, &Limits::KRPC) {
            let mut out = Vec::new();
            rewrite(&mut Writer::new(&mut out), value);
            prop_assert_eq!(out, bytes);
        }
    }

    #[test]
    fn a_response_that_was_changed_is_refused_or_keeps_every_rule(changes in changes()) {
        let bytes = apply(full_response(), changes);
        let decoded = Message::decode(&bytes);
        let is_bencode = bytes.len() <= MAX_DATAGRAM && naive_end(&bytes) == Some(bytes.len());
        prop_assert!(decoded.is_err() || is_bencode);
        if let Ok(message) = decoded {
            prop_assert!((1..=TRANSACTION_MAX).contains(&message.transaction.len()));
            if let Body::Response(response) = message.body {
                prop_assert!(response.token.is_none_or(|token| token.len() <= TOKEN_MAX));
                let nodes: Vec<_> = response.nodes.iter().collect();
                prop_assert_eq!(nodes.len(), response.nodes.len());
                prop_assert!(nodes.iter().all(|node| node.address.is_ipv4()));
                prop_assert!(nodes.len() * 26 <= bytes.len());
                prop_assert!(response.values.iter().count() * 8 <= bytes.len());
            }
        }
    }

    #[test]
    fn a_byte_changed_inside_a_string_changes_that_string_alone(
        byte in any::<u8>(),
        offset in 0..8usize,
    ) {
        let whole = full_response();
        let start = whole.windows(8).position(|window| window == b"aoeusnth").unwrap();
        let mut bytes = whole.clone();
        bytes[start + offset] = byte;
        let (before, after) = (Message::decode(&whole).unwrap(), Message::decode(&bytes).unwrap());
        let (Body::Response(mut before), Body::Response(after)) = (before.body, after.body) else {
            panic!("responses");
        };
        prop_assert_eq!(after.token, Some(&bytes[start..start + 8]));
        before.token = after.token;
        prop_assert_eq!(before.id, after.id);
        prop_assert_eq!(before.nodes, after.nodes);
        prop_assert!(before.values.iter().eq(after.values.iter()));
    }
}
