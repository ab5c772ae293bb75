//! Datagrams that break the rules of BEP 5 and BEP 44, sent to a running node.
//!
//! After each of them comes a ping. Whatever is answered to the datagram is answered before that, so
//! silence needs no waiting. The same rows hold for the core in `src/dht/tests/rows.rs`.

use std::net::{SocketAddr, UdpSocket};

use trackless::dht::{Item, SecretKey};
use trackless::id::{InfoHash, NodeId};
use trackless::krpc::{Body, ContactInfo, Message, Method, Query, Want, compact, write_query};

use crate::command::{PATIENCE, Running, start_node_with};

const ASKER: &str = "2:id20:abcdefghij0123456789";

/// The transaction id of the ping behind each datagram.
const LAST: &[u8] = b"last";

/// Somebody who asks a node.
struct Asker {
    socket: UdpSocket,
    node: SocketAddr,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Silence,
    Error(i64),
    Response,
}

impl Asker {
    fn new(node: SocketAddr) -> Self {
        Self::at("127.0.0.1:0", node)
    }

    fn at(here: &str, node: SocketAddr) -> Self {
        let socket = UdpSocket::bind(here).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, node }
    }

    /// Sends a datagram; gives the datagrams that came back, queries left out.
    fn ask(&self, payload: &[u8]) -> Vec<Vec<u8>> {
        self.socket.send_to(payload, self.node).unwrap();
        let last = format!("d1:ad{ASKER}e1:q4:ping1:t4:last1:y1:qe");
        self.socket.send_to(last.as_bytes(), self.node).unwrap();
        let mut answers = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = self.socket.recv_from(&mut buffer).unwrap();
            assert_eq!(from, self.node);
            assert!(length <= 1400, "{length} bytes");
            let message = Message::decode(&buffer[..length]).unwrap();
            match message.body {
                Body::Query(_) => {}
                _ if message.transaction == LAST => return answers,
                _ => answers.push(buffer[..length].to_vec()),
            }
        }
    }

    fn answer(&self, payload: &[u8]) -> Answer {
        let answers = self.ask(payload);
        assert!(answers.len() <= 1, "{answers:?}");
        let Some(answer) = answers.first() else {
            return Answer::Silence;
        };
        match Message::decode(answer).unwrap().body {
            Body::Error { code, .. } => Answer::Error(code),
            Body::Response(_) => Answer::Response,
            Body::Query(_) => panic!("queries are left out"),
        }
    }

    /// The bytes of a query that is right.
    fn query(method: Method<'_>) -> Vec<u8> {
        let query = Query {
            id: NodeId::new(*b"abcdefghij0123456789"),
            want: Want::default(),
            method,
        };
        let mut out = Vec::new();
        write_query(&mut out, b"aa", true, &query);
        out
    }

    /// A token for a target.
    fn token(&self, target: NodeId) -> Vec<u8> {
        let answers = self.ask(&Self::query(Method::Get { target, seq: None }));
        match Message::decode(&answers[0]).unwrap().body {
            Body::Response(response) => response.token.unwrap().to_vec(),
            body => panic!("{body:?}"),
        }
    }

    fn put(&self, item: &Item, cas: Option<i64>) -> Answer {
        let token = self.token(item.target());
        self.answer(&Self::query(Method::Put(item.put(&token, cas))))
    }
}

/// A node that tells how it is all the time.
fn start() -> (tempfile::TempDir, Running, Asker) {
    let home = tempfile::tempdir().unwrap();
    let flags = ["--no-throttle", "--stats-interval", "50ms"];
    let (node, address) = start_node_with(home.path(), "none", &flags);
    (home, node, Asker::new(address.parse().unwrap()))
}

#[track_caller]
fn check(asker: &Asker, payload: &[u8], expected: Answer) {
    let shown = String::from_utf8_lossy(&payload[..payload.len().min(200)]);
    assert_eq!(asker.answer(payload), expected, "{shown}");
}

/// The next statistics that count this datagram; nothing was stored and nobody is known.
#[track_caller]
fn check_untouched(node: &mut Running, asker: &Asker) {
    let payload = format!("d1:ad{ASKER}e1:q10:new_method1:t2:aa1:y1:qe");
    check(asker, payload.as_bytes(), Answer::Error(204));
    let line = node.line_with(&["\"refused_methods\":1,"]);
    for nothing in [
        "contacts",
        "stored_items",
        "stored_peers",
        "stored_torrents",
    ] {
        assert!(line.contains(&format!("\"{nothing}\":0")), "{line}");
    }
}

#[test]
fn what_is_no_message_gets_silence() {
    let (_home, mut node, asker) = start();
    check(&asker, &[b'l'; 65_507], Answer::Silence);
    check(&asker, &[b'd'; 65_507], Answer::Silence);
    check(&asker, &[b'd'; 2_048], Answer::Silence);
    check(&asker, b"", Answer::Silence);
    let long = format!("1:t33:{}", "a".repeat(33));
    for transaction in ["", "1:t0:", "1:ti1e", long.as_str()] {
        let payload = format!("d1:ad{ASKER}e1:q4:ping{transaction}1:y1:qe");
        check(&asker, payload.as_bytes(), Answer::Silence);
    }
    for kind in ["", "1:y0:", "1:y1:x", "1:y2:qq", "1:yi0e"] {
        let payload = format!("d1:ad{ASKER}e1:q4:ping1:t2:aa{kind}e");
        check(&asker, payload.as_bytes(), Answer::Silence);
    }
    check_untouched(&mut node, &asker);
}

#[test]
fn queries_with_wrong_arguments_get_the_error_of_bep_5() {
    let (_home, mut node, asker) = start();
    for id in [
        "19:abcdefghij012345678",
        "21:abcdefghij01234567890",
        "i7e",
        "l2:aae",
    ] {
        for method in [
            "4:ping",
            "9:find_node",
            "9:get_peers",
            "13:announce_peer",
            "3:get",
        ] {
            let payload = format!("d1:ad2:id{id}e1:q{method}1:t2:aa1:y1:qe");
            check(&asker, payload.as_bytes(), Answer::Error(203));
        }
    }
    let target = NodeId::new([b'Z'; 20]);
    let token = asker.token(target);
    let with = |implied: &str, port: &str, token: &[u8]| {
        let torrent = "Z".repeat(20);
        let length = token.len();
        let front = format!("d1:ad{ASKER}{implied}9:info_hash20:{torrent}{port}5:token{length}:");
        [
            front.as_bytes(),
            token,
            b"e1:q13:announce_peer1:t2:aa1:y1:qe",
        ]
        .concat()
    };
    for port in [
        "4:porti0e",
        "4:porti-1e",
        "4:porti65536e",
        "4:porti4294967739e",
        "",
        "4:port2:80",
    ] {
        check(&asker, &with("", port, &token), Answer::Error(203));
    }
    let foreign = Asker::new(asker.node).token(NodeId::new([b'Y'; 20]));
    // The right torrent, and another address than the announce comes from.
    let others = Asker::at("127.0.0.2:0", asker.node).token(target);
    assert_ne!(others, token);
    for wrong in [&b""[..], b"wrong", &foreign, &others] {
        check(&asker, &with("", "4:porti80e", wrong), Answer::Error(203));
    }
    let target = format!(
        "d1:ad{ASKER}6:target20:{}e1:q4:vote1:t2:aa1:y1:qe",
        "Z".repeat(20)
    );
    check(&asker, target.as_bytes(), Answer::Response);
    check_untouched(&mut node, &asker);
    // An implied port of any number but 0 is the source port.
    check(
        &asker,
        &with("12:implied_porti2e", "4:porti0e", &token),
        Answer::Response,
    );
    let info_hash = InfoHash::new([b'Z'; 20]);
    let answers = asker.ask(&Asker::query(Method::GetPeers { info_hash }));
    let Body::Response(response) = Message::decode(&answers[0]).unwrap().body else {
        panic!("{answers:?}");
    };
    let peers: Vec<SocketAddr> = response.values.iter().collect();
    assert_eq!(peers, [asker.socket.local_addr().unwrap()]);
}

#[test]
fn items_that_break_bep_44_get_its_errors_and_are_not_stored() {
    let (_home, mut node, asker) = start();
    let key = SecretKey::from_seed(&[7; 32]);
    let version = |seq, value: &[u8]| Item::mutable(&key, b"salt", seq, value).unwrap();
    let good = version(5, b"1:x");
    let token = asker.token(good.target());
    let Some(signed) = good.put(&token, None).signed else {
        panic!("it is signed");
    };
    let put = |salt: &[u8], signature: &[u8], value: &[u8]| {
        let mut out = format!("d1:ad{ASKER}1:k32:").into_bytes();
        out.extend(signed.key);
        for (name, bytes) in [
            ("4:salt", salt),
            ("3:seqi5e3:sig", signature),
            ("5:token", &token),
        ] {
            out.extend(format!("{name}{}:", bytes.len()).bytes());
            out.extend(bytes);
        }
        out.extend(b"1:v");
        out.extend(value);
        out.extend(b"e1:q3:put1:t2:aa1:y1:qe");
        out
    };
    let right = signed.signature;
    let long = [b"997:", &[b'x'; 997][..]].concat();
    check(&asker, &put(b"salt", right, &long), Answer::Error(205));
    check(&asker, &put(&[b's'; 65], right, b"1:x"), Answer::Error(207));
    check(&asker, &put(b"salt", &[1; 64], b"1:x"), Answer::Error(206));
    check(&asker, &put(b"salt", right, b"1:y"), Answer::Error(206));
    check(
        &asker,
        &put(b"salt", &right[..63], b"1:x"),
        Answer::Error(203),
    );
    for no_value in [&b"i007e"[..], b"i-0e", b"d1:bi1e1:ai1ee", b"02:ab", b""] {
        let answer = asker.answer(&put(b"salt", right, no_value));
        assert_ne!(
            answer,
            Answer::Response,
            "{}",
            String::from_utf8_lossy(no_value)
        );
    }
    check_untouched(&mut node, &asker);
    assert_eq!(asker.put(&good, None), Answer::Response);
    assert_eq!(asker.put(&version(4, b"1:w"), None), Answer::Error(302));
    assert_eq!(asker.put(&version(5, b"1:w"), None), Answer::Error(302));
    assert_eq!(asker.put(&version(6, b"1:w"), Some(4)), Answer::Error(301));
    assert_eq!(asker.put(&version(6, b"1:w"), Some(5)), Answer::Response);
    node.line_with(&["\"stored_items\":1,"]);
}

/// What a node that is asked answers: nodes and peers in raw bytes.
fn lies(transaction: &[u8], nodes: &[u8], values: &str) -> Vec<u8> {
    let mut bytes = b"d1:rd2:id20:mnopqrstuvwxyz123456".to_vec();
    bytes.extend(format!("5:nodes{}:", nodes.len()).bytes());
    bytes.extend(nodes);
    bytes.extend(format!("6:valuesl{values}ee1:t{}:", transaction.len()).bytes());
    bytes.extend(transaction);
    bytes.extend(b"1:y1:re");
    bytes
}

fn packed(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<u8> {
    let mut packed = Vec::new();
    for (address, number) in addresses.into_iter().zip(1u8..) {
        let id = NodeId::new([number; 20]);
        compact::write_node(&mut packed, &ContactInfo { id, address });
    }
    packed
}

/// The next query of the node that a bootstrap node is asked, and who asks.
fn next_query(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        let message = Message::decode(&buffer[..length]).unwrap();
        if matches!(message.body, Body::Query(_)) {
            return (message.transaction.to_vec(), from);
        }
    }
}

#[test]
fn answers_that_nobody_waits_for_or_that_lie_lead_nowhere() {
    let home = tempfile::tempdir().unwrap();
    let bind = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (entry, other, victim) = (bind(), bind(), bind());
    let at = |socket: &UdpSocket| socket.local_addr().unwrap();
    let flags = ["--no-throttle", "--stats-interval", "50ms"];
    let (mut node, address) = start_node_with(home.path(), &at(&entry).to_string(), &flags);
    let (transaction, from) = next_query(&entry);
    assert_eq!(from.to_string(), address);
    let named = packed([at(&victim)]);
    // Right transaction from somebody else; then wrong ones from the right one.
    other
        .send_to(&lies(&transaction, &named, ""), from)
        .unwrap();
    for guess in [&b"aa"[..], b"\0\0\0\0", b"pn\0\0", &transaction[1..]] {
        entry.send_to(&lies(guess, &named, ""), from).unwrap();
    }
    let thousand = packed(std::iter::repeat_n(at(&victim), 250));
    entry
        .send_to(&lies(&transaction, &thousand, ""), from)
        .unwrap();
    let values = "6:abcdef".repeat(5_000);
    entry
        .send_to(&lies(&transaction, &named, &values), from)
        .unwrap();
    // The answer that it waits for names nobody whom one should ask: odd bytes, multicast, port 0, the
    // node itself.
    let mut odd = packed([at(&victim)]);
    odd.pop();
    let odd = lies(&transaction, &odd, "5:abcde7:abcdefg");
    entry.send_to(&odd, from).unwrap();
    let line = node.line_with(&["\"contacts\":1,"]);
    for part in [
        "malformed_length\":2,",
        "unsolicited\":5,",
        "unsolicited_foreign\":1,",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    // Once it is answered, another answer to the same query is one that nobody waits for.
    entry
        .send_to(&lies(&transaction, &named, ""), from)
        .unwrap();
    let nobody = packed([
        "224.0.0.1:6881".parse().unwrap(),
        "127.0.0.1:0".parse().unwrap(),
        "0.0.0.0:6881".parse().unwrap(),
        "255.255.255.255:6881".parse().unwrap(),
        from,
    ]);
    for _ in 0..2 {
        let (transaction, _) = next_query(&entry);
        entry
            .send_to(&lies(&transaction, &nobody, "i7e2:ab"), from)
            .unwrap();
    }
    node.line_with(&["\"contacts\":1,", "\"unsolicited\":6,"]);
    victim.set_nonblocking(true).unwrap();
    let asked = victim.recv_from(&mut [0; 9]);
    assert!(asked.is_err(), "nobody asked the victim");
}
