//! What is written can be read back, is canonical, and fits into a datagram.

use proptest::prelude::*;

use super::super::{Body, Message, TOKEN_MAX, TRANSACTION_MAX};
use super::*;
use crate::id::InfoHash;

const BOB: NodeId = NodeId::new(*b"mnopqrstuvwxyz123456");

fn contact(index: u8, family: Family) -> ContactInfo {
    let address = match family {
        Family::V4 => SocketAddr::from(([10, 0, 0, index], 1000)),
        Family::V6 => SocketAddr::from(([0x2a00, 0, 0, 0, 0, 0, 0, u16::from(index)], 1000)),
    };
    ContactInfo {
        id: NodeId::new([index; 20]),
        address,
    }
}

#[test]
fn a_response_is_written_in_canonical_order() {
    let nodes = [contact(7, Family::V4)];
    let mut out = Vec::new();
    ResponseWriter {
        transaction: b"aa",
        id: BOB,
        asker: "1.2.3.4:258".parse().unwrap(),
        nodes: Some(&nodes),
        nodes6: Some(&[]),
        token: Some(b"tok"),
        values: &["97.120.106.101:11893".parse().unwrap()],
        extra: Extra::None,
    }
    .write(&mut out);
    let mut expected = b"d2:ip6:\x01\x02\x03\x04\x01\x021:rd2:id20:mnopqrstuvwxyz123456".to_vec();
    expected.extend_from_slice(b"5:nodes26:");
    expected.extend_from_slice(&[7; 20]);
    expected.extend_from_slice(&[10, 0, 0, 7, 3, 232]);
    expected.extend_from_slice(b"6:nodes60:5:token3:tok6:valuesl6:axje.uee1:t2:aa");
    expected.extend_from_slice(b"1:v4:TL\x00\x011:y1:re");
    assert_eq!(out, expected);
}

#[test]
fn the_largest_ordinary_reply_has_room_for_peers_of_both_families() {
    let nodes: Vec<_> = (0..8).map(|index| contact(index, Family::V4)).collect();
    let nodes6: Vec<_> = (0..8).map(|index| contact(index, Family::V6)).collect();
    let response = ResponseWriter {
        transaction: &[b't'; TRANSACTION_MAX],
        id: BOB,
        asker: "[2a00::1]:1".parse().unwrap(),
        nodes: Some(&nodes),
        nodes6: Some(&nodes6),
        token: Some(&[1; 8]),
        values: &[],
        extra: Extra::None,
    };
    assert!(response.values_max(Family::V4) >= 40);
    assert!(response.values_max(Family::V6) >= 15);
    let bare = ResponseWriter {
        nodes: None,
        nodes6: None,
        ..response
    };
    assert!(bare.values_max(Family::V4) >= 100);
}

proptest! {
    #[test]
    fn queries_come_back_as_they_went(
        transaction in prop::collection::vec(any::<u8>(), 1..=TRANSACTION_MAX),
        (id, target) in any::<([u8; 20], [u8; 20])>(),
        port in 1u16..,
        token in prop::collection::vec(any::<u8>(), 0..40),
        (v4, v6, read_only, implied_port) in any::<(bool, bool, bool, bool)>(),
        which in 0..5,
    ) {
        let info_hash = InfoHash::new(target);
        let target = NodeId::new(target);
        let method = match which {
            0 => Method::Ping,
            1 => Method::FindNode { target },
            2 => Method::GetPeers { info_hash },
            3 => Method::AnnouncePeer { info_hash, port, implied_port, seed: port % 2 == 1, token: &token },
            _ => Method::Unknown { name: b"vote", target: v4.then_some(target) },
        };
        let query = Query { id: NodeId::new(id), want: crate::krpc::Want { v4, v6, ..Default::default() }, method };
        let mut out = Vec::new();
        write_query(&mut out, &transaction, read_only, &query);
        let message = Message::decode(&out).unwrap();
        prop_assert_eq!(message, Message {
            transaction: &transaction,
            version: Some(&VERSION),
            read_only,
            external: None,
            body: Body::Query(query),
        });
    }

    #[test]
    fn responses_come_back_as_they_went_and_fit(
        transaction in prop::collection::vec(any::<u8>(), 1..=TRANSACTION_MAX),
        token in prop::option::of(prop::collection::vec(any::<u8>(), 0..=TOKEN_MAX)),
        (nodes, nodes6) in any::<(Option<u8>, Option<u8>)>(),
        values in prop::collection::vec(any::<([u8; 4], u16)>(), 0..150),
        values6 in any::<bool>(),
    ) {
        let contacts = |count: Option<u8>, family| {
            count.map(|count| (0..count % 40).map(|i| contact(i, family)).collect::<Vec<_>>())
        };
        let nodes = contacts(nodes, Family::V4);
        let nodes6 = contacts(nodes6, Family::V6);
        let family = if values6 { Family::V6 } else { Family::V4 };
        let values: Vec<SocketAddr> = values
            .into_iter()
            .map(|(ip, port)| match family {
                Family::V4 => (ip, port).into(),
                Family::V6 => {
                    let [a, b, c, d] = ip.map(u16::from);
                    ([0x2a00, 0, 0, 0, a, b, c, d], port).into()
                }
            })
            .collect();
        let asker = values.first().copied().unwrap_or_else(|| ([1, 2, 3, 4], 5).into());
        let writer = ResponseWriter {
            transaction: &transaction,
            id: BOB,
            asker,
            nodes: nodes.as_deref(),
            nodes6: nodes6.as_deref(),
            token: token.as_deref(),
            values: &values,
            extra: Extra::None,
        };
        let mut out = Vec::new();
        writer.write(&mut out);
        prop_assert!(out.len() <= REPLY_MAX);
        let message = Message::decode(&out).unwrap();
        prop_assert_eq!(message.transaction, &transaction[..]);
        prop_assert_eq!(message.external, Some(asker));
        let Body::Response(response) = message.body else { panic!("not a response") };
        prop_assert_eq!(response.token, token.as_deref());
        let read: Vec<_> = response.values.iter().collect();
        let expected = values.len().min(writer.values_max(family));
        prop_assert_eq!(&read[..], &values[..expected]);
        // Up to eight contacts of each family always go whole.
        for (read, given) in [(response.nodes, &nodes), (response.nodes6, &nodes6)] {
            let given = given.as_deref().unwrap_or_default();
            let read: Vec<_> = read.iter().collect();
            prop_assert_eq!(&read[..], &given[..read.len()]);
        }
        let whole = |nodes: &Option<Vec<ContactInfo>>| nodes.as_ref().map_or(0, Vec::len) <= 8;
        if whole(&nodes) && whole(&nodes6) {
            prop_assert_eq!(response.nodes.len(), nodes.map_or(0, |nodes| nodes.len()));
            prop_assert_eq!(response.nodes6.len(), nodes6.map_or(0, |nodes| nodes.len()));
        }
    }
}
