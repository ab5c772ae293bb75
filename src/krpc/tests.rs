//! Decoding: the examples of BEP 5, its rules one by one, and any bytes at all.

use proptest::prelude::*;

use super::*;
use crate::id::{InfoHash, NodeId};

mod properties;
mod stored;

const ALICE: NodeId = NodeId::new(*b"abcdefghij0123456789");
const BOB: NodeId = NodeId::new(*b"mnopqrstuvwxyz123456");
const TORRENT: InfoHash = InfoHash::new(*b"mnopqrstuvwxyz123456");

fn query(method: Method<'_>) -> Query<'_> {
    Query {
        id: ALICE,
        want: Want::default(),
        method,
    }
}

/// A query of BEP 5 without its `v`, as the BEP's examples have it.
#[track_caller]
fn check_query(bytes: &str, expected: Method<'_>) {
    let message = Message::decode(bytes.as_bytes()).unwrap();
    assert_eq!(message.transaction, b"aa");
    assert_eq!(message.body, Body::Query(query(expected)));
    let mut out = Vec::new();
    write_query(&mut out, b"aa", false, &query(expected));
    let ours = bytes.replace("1:t2:aa", "1:t2:aa1:v4:TL\0\u{1}");
    assert_eq!(String::from_utf8(out).unwrap(), ours);
}

#[track_caller]
fn response<'a>(bytes: &'a [u8]) -> Response<'a> {
    match Message::decode(bytes).unwrap().body {
        Body::Response(response) => response,
        other => panic!("not a response: {other:?}"),
    }
}

#[track_caller]
fn check_garbage(bytes: &[u8], expected: Garbage) {
    assert_eq!(Message::decode(bytes), Err(DecodeError::Garbage(expected)));
}

/// Arguments (the inside of `a` after the id) that are answered with an error.
#[track_caller]
fn check_refused(method: &str, arguments: &str, expected: ErrorCode) {
    let bytes = query_bytes(method, arguments);
    match Message::decode(bytes.as_bytes()) {
        Err(DecodeError::Refused {
            transaction, code, ..
        }) => {
            assert_eq!((transaction, code), (&b"aa"[..], expected), "{bytes}");
        }
        other => panic!("{bytes}: {other:?}"),
    }
}

fn query_bytes(method: &str, arguments: &str) -> String {
    let length = method.len();
    format!("d1:ad2:id20:abcdefghij0123456789{arguments}e1:q{length}:{method}1:t2:aa1:y1:qe")
}

#[test]
fn the_queries_of_bep_5_are_read_and_written() {
    check_query(
        "d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe",
        Method::Ping,
    );
    check_query(
        "d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe",
        Method::FindNode { target: BOB },
    );
    check_query(
        "d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe",
        Method::GetPeers { info_hash: TORRENT },
    );
    check_query(
        "d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
        Method::AnnouncePeer {
            info_hash: TORRENT,
            port: 6881,
            implied_port: true,
            seed: false,
            token: b"aoeusnth",
        },
    );
}

#[test]
fn the_responses_of_bep_5_are_read() {
    let ping = response(b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re");
    assert_eq!(ping.id, BOB);
    // The BEP abbreviates the nodes to nine bytes; the response is one nevertheless.
    let nodes = response(b"d1:rd2:id20:0123456789abcdefghij5:nodes9:def456...e1:t2:aa1:y1:re");
    assert!(nodes.nodes.is_empty());
    let values = response(
        b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re",
    );
    assert_eq!(values.token, Some(&b"aoeusnth"[..]));
    let peers: Vec<_> = values.values.iter().map(|peer| peer.to_string()).collect();
    assert_eq!(peers, ["97.120.106.101:11893", "105.100.104.116:28269"]);
}

#[test]
fn the_error_of_bep_5_is_read() {
    let bytes = b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee";
    let text = b"A Generic Error Ocurred";
    assert_eq!(
        Message::decode(bytes).unwrap().body,
        Body::Error { code: 201, text }
    );
}

#[test]
fn errors_are_written_as_bep_5_has_them() {
    let mut out = Vec::new();
    write_error(&mut out, b"aa", ErrorCode::Protocol, "bad token");
    assert_eq!(out, b"d1:eli203e9:bad tokene1:t2:aa1:v4:TL\0\x011:y1:ee");
}

#[test]
fn the_text_of_an_error_is_cut_between_characters() {
    let mut out = Vec::new();
    write_error(&mut out, b"aa", ErrorCode::Generic, &"ä€".repeat(100));
    let Body::Error { text, .. } = Message::decode(&out).unwrap().body else {
        panic!("not an error");
    };
    assert!(text.len() <= ERROR_TEXT_MAX && text.len() > ERROR_TEXT_MAX - 3);
    assert!(std::str::from_utf8(text).is_ok());
    let long = format!("d1:eli201e500:{}e1:t2:aa1:y1:ee", "x".repeat(500));
    let Body::Error { text, .. } = Message::decode(long.as_bytes()).unwrap().body else {
        panic!("not an error");
    };
    assert_eq!(text.len(), ERROR_TEXT_MAX);
}

#[test]
fn error_codes_have_the_numbers_of_bep_5() {
    for (code, number) in [
        (ErrorCode::Generic, 201),
        (ErrorCode::Server, 202),
        (ErrorCode::Protocol, 203),
        (ErrorCode::MethodUnknown, 204),
    ] {
        assert_eq!(code.number(), number);
    }
}

#[test]
fn an_error_without_a_code_is_no_error() {
    for list in ["le", "l1:xe", "i201e", "4:text"] {
        let bytes = format!("d1:e{list}1:t2:aa1:y1:ee");
        assert_eq!(
            Message::decode(bytes.as_bytes()),
            Err(DecodeError::BadResponse)
        );
    }
    assert!(Message::decode(b"d1:eli202ee1:t2:aa1:y1:ee").is_ok());
}

#[test]
fn datagrams_that_are_no_messages_deserve_silence() {
    check_garbage(b"", Garbage::Bencode);
    check_garbage(b"hello", Garbage::Bencode);
    check_garbage(b"le", Garbage::Bencode);
    check_garbage(b"i1e", Garbage::Bencode);
    check_garbage(b"de", Garbage::Transaction);
    check_garbage(&[b'l'; 65_507], Garbage::Length);
    check_garbage(&[b'd'; 2_000], Garbage::Bencode);
    check_garbage(
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe trailing",
        Garbage::Bencode,
    );
}

#[test]
fn datagrams_over_the_limit_are_garbage() {
    let ping = |padding: usize| {
        let padding = format!("{padding}:{}", "x".repeat(padding));
        query_bytes("ping", &format!("3:pad{padding}"))
    };
    let overhead = ping(1900).len() - 1900;
    let largest = ping(MAX_DATAGRAM - overhead);
    assert_eq!(largest.len(), MAX_DATAGRAM);
    assert!(Message::decode(largest.as_bytes()).is_ok());
    check_garbage(
        ping(MAX_DATAGRAM - overhead + 1).as_bytes(),
        Garbage::Length,
    );
}

#[test]
fn a_transaction_that_is_missing_empty_long_or_no_string_deserves_silence() {
    let ping = |transaction: &str| {
        format!("d1:ad2:id20:abcdefghij0123456789e1:q4:ping{transaction}1:y1:qe")
    };
    check_garbage(ping("").as_bytes(), Garbage::Transaction);
    check_garbage(ping("1:t0:").as_bytes(), Garbage::Transaction);
    check_garbage(ping("1:ti7e").as_bytes(), Garbage::Transaction);
    check_garbage(ping("1:tl2:aae").as_bytes(), Garbage::Transaction);
    check_garbage(
        ping(&format!("1:t33:{}", "a".repeat(33))).as_bytes(),
        Garbage::Transaction,
    );
    for length in [1, 2, 4, 8, TRANSACTION_MAX] {
        let bytes = ping(&format!("1:t{length}:{}", "a".repeat(length)));
        assert_eq!(
            Message::decode(bytes.as_bytes()).unwrap().transaction.len(),
            length
        );
    }
}

#[test]
fn a_kind_that_is_unknown_or_missing_deserves_silence() {
    for kind in ["", "1:y0:", "1:y1:x", "1:y2:qq", "1:yi1e", "1:yle"] {
        let bytes = format!("d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa{kind}e");
        check_garbage(bytes.as_bytes(), Garbage::Kind);
    }
}

#[test]
fn a_query_without_a_valid_id_is_refused() {
    for arguments in [
        "de",
        "d2:id19:abcdefghij012345678e",
        "d2:id21:abcdefghij01234567890e",
        "d2:idi5ee",
        "d2:idl20:abcdefghij0123456789ee",
        "le",
        "2:xx",
    ] {
        let bytes = format!("d1:a{arguments}1:q4:ping1:t2:aa1:y1:qe");
        assert!(
            matches!(
                Message::decode(bytes.as_bytes()),
                Err(DecodeError::Refused {
                    transaction: b"aa",
                    code: ErrorCode::Protocol,
                    ..
                })
            ),
            "{bytes}"
        );
    }
}

#[test]
fn a_query_without_a_method_is_refused() {
    for method in ["", "1:qi1e", "1:ql4:pinge"] {
        let bytes = format!("d1:ad2:id20:abcdefghij0123456789e{method}1:t2:aa1:y1:qe");
        assert!(matches!(
            Message::decode(bytes.as_bytes()),
            Err(DecodeError::Refused {
                code: ErrorCode::Protocol,
                ..
            })
        ));
    }
}

#[test]
fn ids_of_the_wrong_length_or_type_are_refused_as_arguments() {
    for value in [
        "",
        "19:mnopqrstuvwxyz12345",
        "21:mnopqrstuvwxyz1234567",
        "i7e",
        "l20:mnopqrstuvwxyz123456e",
    ] {
        let named = |key: &str| {
            if value.is_empty() {
                String::new()
            } else {
                format!("{key}{value}")
            }
        };
        check_refused("find_node", &named("6:target"), ErrorCode::Protocol);
        check_refused("get_peers", &named("9:info_hash"), ErrorCode::Protocol);
        let announce = format!("{}4:porti1e5:token1:x", named("9:info_hash"));
        check_refused("announce_peer", &announce, ErrorCode::Protocol);
    }
}

#[test]
fn ports_out_of_range_are_refused() {
    for port in [
        "",
        "4:porti0e",
        "4:porti-1e",
        "4:porti65536e",
        "4:porti4294967739e",
        "4:port2:80",
        "4:portli80ee",
    ] {
        let arguments = format!("9:info_hash20:mnopqrstuvwxyz123456{port}5:token1:x");
        check_refused("announce_peer", &arguments, ErrorCode::Protocol);
    }
    assert!(matches!(
        announced("4:porti65535e"),
        Method::AnnouncePeer {
            port: 65535,
            implied_port: false,
            seed: false,
            ..
        }
    ));
}

/// The announce with these arguments beside info hash and token.
#[track_caller]
fn announced(port: &str) -> Method<'static> {
    let (implied, port) = port
        .split_once('|')
        .map_or(("", port), |(implied, port)| (implied, port));
    let arguments = format!("{implied}9:info_hash20:mnopqrstuvwxyz123456{port}5:token1:x");
    let bytes = query_bytes("announce_peer", &arguments);
    match Message::decode(bytes.clone().leak().as_bytes())
        .unwrap()
        .body
    {
        Body::Query(query) => query.method,
        other => panic!("{bytes}: {other:?}"),
    }
}

#[test]
fn any_integer_but_zero_implies_the_port() {
    for flag in ["1", "2", "-1"] {
        for (text, expected) in [
            ("", 0),
            ("4:porti0e", 0),
            ("4:porti80e", 80),
            ("4:porti65536e", 0),
            ("4:portle", 0),
        ] {
            let method = announced(&format!("12:implied_porti{flag}e|{text}"));
            assert_eq!(
                method,
                Method::AnnouncePeer {
                    info_hash: TORRENT,
                    port: expected,
                    implied_port: true,
                    seed: false,
                    token: b"x",
                }
            );
        }
    }
    assert!(matches!(
        announced("12:implied_porti0e|4:porti80e"),
        Method::AnnouncePeer {
            port: 80,
            implied_port: false,
            seed: false,
            ..
        }
    ));
    let no_number = "12:implied_port1:19:info_hash20:mnopqrstuvwxyz1234564:porti80e5:token1:x";
    check_refused("announce_peer", no_number, ErrorCode::Protocol);
}

#[test]
fn a_token_that_is_missing_or_no_string_is_refused() {
    for token in ["", "5:tokeni7e", "5:tokenl1:xe", "5:tokende"] {
        let arguments = format!("9:info_hash20:mnopqrstuvwxyz1234564:porti80e{token}");
        check_refused("announce_peer", &arguments, ErrorCode::Protocol);
    }
}

#[test]
fn an_unknown_method_keeps_its_target() {
    for (arguments, expected) in [
        ("", None),
        ("6:target20:mnopqrstuvwxyz123456", Some(BOB)),
        ("9:info_hash20:mnopqrstuvwxyz123456", Some(BOB)),
        ("6:target19:mnopqrstuvwxyz12345", None),
        (
            "9:info_hash20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456",
            Some(BOB),
        ),
    ] {
        let bytes = query_bytes("vote", arguments);
        let expected = Method::Unknown {
            name: b"vote",
            target: expected,
        };
        let message = Message::decode(bytes.as_bytes()).unwrap();
        assert_eq!(message.body, Body::Query(query(expected)));
    }
}

#[test]
fn an_unknown_method_without_an_id_is_answered_with_204() {
    for arguments in ["", "1:ade", "1:ai1e"] {
        let bytes = format!("d{arguments}1:q4:vote1:t2:aa1:y1:qe");
        assert!(matches!(
            Message::decode(bytes.as_bytes()),
            Err(DecodeError::Refused {
                code: ErrorCode::MethodUnknown,
                ..
            })
        ));
    }
}

#[test]
fn families_wanted_are_read_and_other_strings_ignored() {
    for (list, v4, v6) in [
        ("l2:n4e", true, false),
        ("l2:n62:n4e", true, true),
        ("l2:n9i4ele2:n6e", false, true),
        ("le", false, false),
        ("2:n4", false, false),
    ] {
        let bytes = query_bytes(
            "find_node",
            &format!("6:target20:mnopqrstuvwxyz1234564:want{list}"),
        );
        match Message::decode(bytes.as_bytes()).unwrap().body {
            Body::Query(query) => assert_eq!(
                query.want,
                Want {
                    v4,
                    v6,
                    ..Want::default()
                },
                "{list}"
            ),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_read_only_sender_says_so() {
    let mut out = Vec::new();
    write_query(&mut out, b"aa", true, &query(Method::Ping));
    assert!(out.windows(7).any(|window| window == b"2:roi1e"));
    assert!(Message::decode(&out).unwrap().read_only);
    let zero = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping2:roi0e1:t2:aa1:y1:qe";
    assert!(!Message::decode(zero).unwrap().read_only);
}

#[test]
fn our_address_as_seen_by_others_is_read() {
    let seen = |ip: &[u8]| {
        let mut bytes = format!("d2:ip{}:", ip.len()).into_bytes();
        bytes.extend_from_slice(ip);
        bytes.extend_from_slice(b"1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re");
        Message::decode(&bytes).unwrap().external
    };
    assert_eq!(
        seen(&[1, 2, 3, 4, 0, 80]),
        Some("1.2.3.4:80".parse().unwrap())
    );
    assert_eq!(
        seen(&[1; 18]),
        Some("[101:101:101:101:101:101:101:101]:257".parse().unwrap())
    );
    assert_eq!(seen(&[1, 2, 3, 4]), None);
}

#[test]
fn a_response_without_a_valid_id_is_bad() {
    for body in [
        "",
        "1:rde",
        "1:rd2:id19:mnopqrstuvwxyz12345e",
        "1:rle",
        "1:r2:xx",
    ] {
        let bytes = format!("d{body}1:t2:aa1:y1:re");
        assert_eq!(
            Message::decode(bytes.as_bytes()),
            Err(DecodeError::BadResponse)
        );
    }
}

#[test]
fn values_of_the_wrong_type_in_a_response_are_empty() {
    let response = response(
        b"d1:rd2:id20:mnopqrstuvwxyz1234565:nodesle6:nodes6i1e5:tokenle6:values6:axje.ue1:t2:aa1:y1:re",
    );
    assert!(response.nodes.is_empty() && response.nodes6.is_empty());
    assert_eq!(response.token, None);
    assert_eq!(response.values.iter().count(), 0);
}

#[test]
fn values_of_other_lengths_are_skipped() {
    let response = response(
        b"d1:rd2:id20:mnopqrstuvwxyz1234566:valuesl5:axje.6:axje.ui6e7:axje.uu18:aaaaaaaaaaaaaaaaaaleee1:t2:aa1:y1:re",
    );
    let peers: Vec<_> = response.values.iter().collect();
    assert_eq!(peers.len(), 2);
    assert!(peers[0].is_ipv4() && peers[1].is_ipv6());
}

#[test]
fn ten_thousand_values_are_garbage_and_as_many_as_fit_are_read() {
    let bytes = |count: usize| {
        let values = "6:axje.u".repeat(count);
        format!("d1:rd2:id20:mnopqrstuvwxyz1234566:valuesl{values}ee1:t2:aa1:y1:re")
    };
    check_garbage(bytes(10_000).as_bytes(), Garbage::Length);
    assert_eq!(response(bytes(200).as_bytes()).values.iter().count(), 200);
}

#[test]
fn a_token_that_is_too_long_counts_as_none() {
    let token = |length: usize| {
        let token = "x".repeat(length);
        let bytes =
            format!("d1:rd2:id20:mnopqrstuvwxyz1234565:token{length}:{token}e1:t2:aa1:y1:re");
        response(bytes.as_bytes()).token.map(<[u8]>::len)
    };
    assert_eq!(token(TOKEN_MAX), Some(TOKEN_MAX));
    assert_eq!(token(TOKEN_MAX + 1), None);
}

#[test]
fn of_two_values_under_one_key_the_first_counts_or_the_datagram_is_dropped() {
    let bytes = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:t2:bb1:y1:qe";
    match Message::decode(bytes) {
        Ok(message) => assert_eq!(message.transaction, b"aa"),
        Err(error) => assert_eq!(error, DecodeError::Garbage(Garbage::Bencode)),
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(&bytes);
    }

    #[test]
    fn a_message_with_any_byte_changed_is_decoded_without_panic(
        position in 0usize..200,
        byte in any::<u8>(),
        cut in 0usize..200,
    ) {
        let bytes = query_bytes(
            "announce_peer",
            "12:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnth",
        );
        let mut bytes = bytes.into_bytes();
        let position = position % bytes.len();
        bytes[position] = byte;
        let _ = Message::decode(&bytes);
        bytes.truncate(cut);
        let _ = Message::decode(&bytes);
    }
}
