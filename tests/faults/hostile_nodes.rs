//! Hostile datagrams beside a download: to the downloader, to a seeder, and to a DHT node.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::bencode::{Value, string_of};
use crate::content::Noise;
use crate::lab::{Lab, PATIENCE, PORT, address, eventually, setting, socket};
use crate::scene::{GETTER, LATER, MEMORY_MAX, NODE, SEEDER, Scene, node_address};
use crate::stranger::{LyingNode, Stranger, query};

/// The three that are attacked.
fn victims() -> [SocketAddr; 3] {
    [NODE, SEEDER, GETTER].map(|host| (address(host), PORT).into())
}

/// The code of an error answer.
fn error_code(answer: &Value) -> Option<i64> {
    match answer.get("e")? {
        Value::List(parts) => parts.first()?.integer(),
        Value::Integer(_) | Value::Bytes(_) | Value::Dictionary(_) => None,
    }
}

/// Datagrams that are no KRPC at all.
fn junk() -> Vec<Vec<u8>> {
    let mut noise = vec![0; 65_507];
    Noise::new(9).fill(&mut noise);
    let nested = [&b"d1:a".repeat(400)[..], &b"e".repeat(400)].concat();
    vec![
        vec![b'l'; 65_507],
        vec![b'd'; 65_507],
        noise,
        Vec::new(),
        b"d".to_vec(),
        b"de".to_vec(),
        b"i1e".to_vec(),
        b"d1:t2:aa1:y1:q".to_vec(),
        b"d1:t2:aa1:y99999999999999999999:qe".to_vec(),
        b"d1:t2:aa1:yi-0ee".to_vec(),
        nested,
    ]
}

/// Queries with something wrong. A right node answers none of them with a response.
fn wrong_queries() -> Vec<Vec<u8>> {
    let id = [7; 20];
    let hash = string_of(&[8; 20]);
    let raw = |text: &str| text.replace("ID", "abcdefghij0123456789").into_bytes();
    let mut all = vec![
        raw("d1:ad2:id20:IDe1:q4:ping1:y1:qe"),
        raw("d1:ad2:id20:IDe1:q4:ping1:t2:aa1:y1:xe"),
        raw("d1:ad2:id20:IDe1:q4:ping1:t2:aae"),
        raw("d1:ad2:id20:IDe1:qi4e1:t2:aa1:y1:qe"),
        raw("d1:q4:ping1:t2:aa1:y1:qe"),
        raw("d1:ale1:q4:ping1:t2:aa1:y1:qe"),
        query(b"aa", &id[..19], "ping", &[]),
        query(b"aa", &[7; 21], "ping", &[]),
        query(b"aa", &id[..0], "find_node", &[("target", &hash)]),
        query(
            b"aa",
            &id,
            "find_node",
            &[("target", b"19:abcdefghij012345678")],
        ),
        query(b"aa", &id, "find_node", &[]),
        query(b"aa", &id, "get_peers", &[("info_hash", b"i1e")]),
        query(b"aa", &id, "vote", &[("aim", &hash)]),
        query(b"aa", &id, &"x".repeat(1_000), &[]),
        query(&[b't'; 33], &id, "ping", &[]),
        query(&[b't'; 1_500], &id, "ping", &[]),
    ];
    for port in ["i0e", "i-1e", "i65536e", "3:abc", "i99999999999999999999e"] {
        let arguments: [(&str, &[u8]); 3] = [
            ("info_hash", &hash),
            ("port", port.as_bytes()),
            ("token", b"8:notright"),
        ];
        all.push(query(b"aa", &id, "announce_peer", &arguments));
    }
    let implied: [(&str, &[u8]); 4] = [
        ("implied_port", b"i2e"),
        ("info_hash", &hash),
        ("port", b"i0e"),
        ("token", b"0:"),
    ];
    all.push(query(b"aa", &id, "announce_peer", &implied));
    all.extend(bad_puts(&id));
    all
}

/// Writes of BEP 44 that are too big, badly signed, or go back in time.
fn bad_puts(id: &[u8]) -> Vec<Vec<u8>> {
    let big = string_of(&[1; 1_001]);
    let (key, signature) = (string_of(&[2; 32]), string_of(&[3; 64]));
    let salt = string_of(&[4; 65]);
    vec![
        query(b"aa", id, "put", &[("token", b"1:x"), ("v", &big)]),
        query(
            b"aa",
            id,
            "put",
            &[
                ("cas", b"i5e"),
                ("k", &key),
                ("salt", &salt),
                ("seq", b"i-1e"),
                ("sig", &signature),
                ("token", b"1:x"),
                ("v", b"i007e"),
            ],
        ),
    ]
}

#[test]
fn datagrams_that_are_wrong_are_answered_with_an_error_or_silence_beside_a_download() {
    let Some(lab) = Lab::open() else { return };
    let mut scene = Scene::open(lab, &[], &[]);
    for victim in victims() {
        let stranger = Stranger::at(address(50));
        for bytes in junk() {
            stranger.send(victim, &bytes);
        }
        for bytes in wrong_queries() {
            stranger.send(victim, &bytes);
        }
        let mut answers = 0;
        while let Some((bytes, _)) = stranger.receive(Duration::from_millis(500)) {
            answers += 1;
            let (answer, _) = crate::bencode::decode(&bytes).expect("an answer is bencode");
            // Where the victim wants to know who we are, it asks, and that is fine.
            if answer.get("q").is_none() {
                let code = error_code(&answer);
                let shown = String::from_utf8_lossy(&bytes);
                assert!(matches!(code, Some(203..=207)), "{code:?}: {shown}");
                let transaction = answer.get("t").and_then(Value::bytes).unwrap_or_default();
                assert!(transaction.len() <= 32, "{shown}");
            }
        }
        eprintln!("{answers} answers from {victim}");
    }
    scene.check_alive("wrong datagrams");
    scene.check_unharmed();
}

#[test]
fn answers_of_a_node_that_lies_lead_nowhere_beside_a_download() {
    let Some(lab) = Lab::open() else { return };
    let dead: SocketAddr = (address(77), 1).into();
    let liar = LyingNode::start(address(66), vec![dead]);
    let mut scene = Scene::open(lab, &[liar.address], &[]);
    // It is asked by lookups of strangers' making too: everybody who is asked for a peer asks around.
    for round in 0..20 {
        let mut stranger = Stranger::at(Ipv4Addr::new(127, 0, 2, round));
        for victim in victims() {
            let _ = stranger.peers(victim, &[round; 20]);
        }
    }
    // Many torrents that nobody has make many lookups.
    let magnets: Vec<String> = (0..16)
        .map(|number| format!("magnet:?xt=urn:btih:{}{number:02x}", "ab".repeat(19)))
        .collect();
    let (entry, liar_entry) = (socket(NODE), liar.address.to_string());
    let ways = ["--bootstrap", &entry, "--bootstrap", &liar_entry];
    let mut searcher = vec!["get", "--json"];
    searcher.extend(ways);
    searcher.extend(magnets.iter().map(String::as_str));
    let searcher = scene.lab.trackless(LATER + 1, &searcher);
    eventually("it was asked often enough", PATIENCE, || liar.lies() > 20);
    let contacts = scene.node_number("contacts");
    eprintln!("{} lies told, {contacts} contacts at the node", liar.lies());
    searcher.check_memory("searcher", MEMORY_MAX);
    // The node, the seeder, the downloader and the liar itself, for it answers pings.
    assert!(
        contacts <= 4,
        "nobody enters who has not answered: {contacts}"
    );
    scene.check_alive("lies");
    scene.check_unharmed();
}

#[test]
fn announces_of_a_hundred_thousand_torrents_do_not_push_out_those_that_matter() {
    let Some(lab) = Lab::open() else { return };
    let mut scene = Scene::open(lab, &[], &[]);
    let count = setting("TRACKLESS_HASHES", 100_000);
    let mut noise = Noise::new(10);
    for victim in victims() {
        let mut stranger = Stranger::at(address(51));
        // Without a token, and with one of another address or torrent, nothing is stored.
        let foreign = Stranger::at(address(52))
            .peers(victim, &[1; 20])
            .map(|(token, _)| token);
        for token in [b"wrong".to_vec(), Vec::new(), foreign.unwrap_or_default()] {
            let (hash, token) = (string_of(&[1; 20]), string_of(&token));
            let arguments: [(&str, &[u8]); 3] =
                [("info_hash", &hash), ("port", b"i1e"), ("token", &token)];
            let answer = stranger.ask(victim, "announce_peer", &arguments);
            let code = answer.as_ref().map(error_code);
            assert!(matches!(code, None | Some(Some(203))), "{code:?}");
        }
        announce_many(&stranger, victim, count / 3, &mut noise);
    }
    let (torrents, peers) = (
        scene.node_number("stored_torrents"),
        scene.node_number("stored_peers"),
    );
    eprintln!("{torrents} torrents and {peers} peers stored at the node");
    assert!(torrents <= 2_000, "{torrents}");
    let (_, peers) = Stranger::at(address(53))
        .peers(node_address(), &scene.content.info_hash)
        .unwrap();
    assert!(peers.contains(&scene.source.address), "{peers:?}");
    scene.check_alive("announces");
    scene.check_unharmed();
}

#[test]
fn a_token_of_an_earlier_run_is_refused_and_nothing_is_stored() {
    let Some(lab) = Lab::open() else { return };
    let start = || {
        let node = ["node", "--json", "--bootstrap", "none"];
        let mut node = lab.trackless(NODE, &node);
        node.wait_for_event("listening");
        node
    };
    let mut node = start();
    let mut stranger = Stranger::at(address(51));
    let (token, _) = stranger.peers(node_address(), &[1; 20]).unwrap();
    assert!(stranger.announce_with(node_address(), &[1; 20], 1, &token));
    node.kill();
    let _node = start();
    assert!(!stranger.announce_with(node_address(), &[1; 20], 1, &token));
    let (_, peers) = stranger.peers(node_address(), &[1; 20]).unwrap();
    assert_eq!(peers, []);
}

/// Announces random torrents as fast as tokens come.
fn announce_many(stranger: &Stranger, victim: SocketAddr, count: u64, noise: &mut Noise) {
    let mut stored = 0u64;
    for number in 0..count {
        let mut hash = [0; 20];
        noise.fill(&mut hash);
        let info_hash = string_of(&hash);
        stranger.send(
            victim,
            &query(
                &hash,
                &stranger.id,
                "get_peers",
                &[("info_hash", &info_hash)],
            ),
        );
        // Every 32 queries it is time to look what came back.
        let wait = if number % 32 == 31 { 5 } else { 0 };
        while let Some((bytes, _)) = stranger.receive(Duration::from_millis(wait)) {
            let Some((answer, _)) = crate::bencode::decode(&bytes) else {
                continue;
            };
            let transaction = answer.get("t").and_then(Value::bytes).unwrap_or_default();
            let token = answer
                .get("r")
                .and_then(|r| r.get("token"))
                .and_then(Value::bytes);
            let (Some(token), 20) = (token, transaction.len()) else {
                continue;
            };
            let (hash, token) = (string_of(transaction), string_of(token));
            let arguments: [(&str, &[u8]); 3] =
                [("info_hash", &hash), ("port", b"i6881e"), ("token", &token)];
            stranger.send(
                victim,
                &query(b"an", &stranger.id, "announce_peer", &arguments),
            );
            stored += 1;
        }
    }
    eprintln!("{count} torrents shown to {victim}, {stored} announced");
}

#[test]
fn a_flood_of_queries_is_throttled_and_others_are_answered_all_the_while() {
    let Some(lab) = Lab::open() else { return };
    let mut scene = Scene::open(lab, &[], &[]);
    let before = (
        scene.node_number("bytes_in"),
        scene.node_number("bytes_out"),
    );
    let target = string_of(&[5; 20]);
    let mut most = 0;
    for victim in victims() {
        let flooder = Stranger::at(address(54));
        let mut honest = Stranger::at(address(55));
        let datagram = query(b"fl", &flooder.id, "find_node", &[("target", &target)]);
        let (mut sent, mut answered, mut served) = (0u32, 0u32, 0u32);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            for _ in 0..1_000 {
                flooder.send(victim, &datagram);
                sent += 1;
            }
            served += u32::from(honest.ping(victim));
            while flooder.receive(Duration::ZERO).is_some() {
                answered += 1;
            }
        }
        eprintln!(
            "{victim}: {sent} queries sent, {answered} answered; {served} honest ones answered"
        );
        assert!(served > 0, "the honest one is answered");
        most = most.max(answered);
    }
    let after = (
        scene.node_number("bytes_in"),
        scene.node_number("bytes_out"),
    );
    let (came, went) = (after.0 - before.0, after.1 - before.1);
    eprintln!("the node took {came} bytes and sent {went}");
    scene.check_alive("a flood");
    scene.check_unharmed();
    // 50 at once and five a second, and some for the time that a busy machine takes.
    assert!(most <= 200, "{most} answers to a flood");
}

#[test]
fn nodes_ground_close_to_a_target_and_nodes_that_change_their_id_get_no_more_than_their_place() {
    let Some(lab) = Lab::open() else { return };
    let mut scene = Scene::open(lab, &[], &[]);
    let mut seen = BTreeSet::new();
    for round in 0..400u32 {
        // One address with a new id each time, and a whole subnet of ids close to the torrent's.
        let mut id = scene.content.info_hash;
        id[19] ^= u8::try_from(round % 255).unwrap() + 1;
        let host = u8::try_from(round % 250).unwrap() + 1;
        let mut stranger = Stranger::at(Ipv4Addr::new(
            127,
            0,
            3,
            if round % 2 == 0 { 1 } else { host },
        ));
        stranger.id = id;
        for victim in victims() {
            stranger.send(victim, &query(b"pi", &id, "ping", &[]));
            // What the victim asks is answered, so that it could believe us.
            while let Some((bytes, from)) = stranger.receive(Duration::from_millis(1)) {
                let Some((question, _)) = crate::bencode::decode(&bytes) else {
                    continue;
                };
                if let (Some(_), Some(t)) =
                    (question.get("q"), question.get("t").and_then(Value::bytes))
                {
                    let answer = crate::stranger::response(t, &id, &[]);
                    stranger.send(from, &answer);
                    seen.insert(from);
                }
            }
        }
    }
    let contacts = scene.node_number("contacts");
    eprintln!("{contacts} contacts at the node; asked by {seen:?}");
    assert!(
        contacts <= 2 + 8,
        "more than one bucket of strangers: {contacts}"
    );
    scene.check_alive("ground ids");
    scene.check_unharmed();
}
