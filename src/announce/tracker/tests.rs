use proptest::prelude::*;

use super::*;

const TRACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8));

fn request(event: TrackerEvent) -> Request {
    Request {
        info_hash: InfoHash::new(*b"\x124Vx\x9a\xbc\xde\xf1#Eg\x89\xab\xcd\xef\x124Vx\x9a"),
        peer_id: PeerId::new(*b"-TL0100-abc~ef-h_j.l"),
        port: 6881,
        key: 7,
        transferred: Transferred {
            uploaded: 1,
            downloaded: 2,
            left: 3,
        },
        event,
        peers_wanted: 50,
        tracker_id: None,
    }
}

fn decode(bytes: &[u8]) -> Result<Answer, TrackerError> {
    Answer::decode(bytes, TRACKER)
}

#[track_caller]
fn check_peers(bytes: &[u8], expected: &[&str]) {
    let expected: Vec<SocketAddr> = expected.iter().map(|peer| peer.parse().unwrap()).collect();
    assert_eq!(decode(bytes).unwrap().peers, expected);
}

#[test]
fn a_request_has_the_parameters_of_bep_3_behind_what_the_url_has() {
    let tracker = TrackerUrl::parse("http://t.example/announce").unwrap();
    let fields = "info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A\
                  &peer_id=-TL0100-abc~ef-h_j.l&port=6881&uploaded=1&downloaded=2&left=3&compact=1\
                  &no_peer_id=1&numwant=50&key=7";
    assert_eq!(
        request(TrackerEvent::Regular).url(&tracker),
        format!("http://t.example/announce?{fields}")
    );
    let keyed = TrackerUrl::parse("http://t.example/announce?passkey=x#top").unwrap();
    let mut started = request(TrackerEvent::Started);
    started.tracker_id = Some(b"a&b".to_vec());
    assert_eq!(
        started.url(&keyed),
        format!("http://t.example/announce?passkey=x&{fields}&event=started&trackerid=a%26b")
    );
}

#[test]
fn compact_peers_of_both_families_are_read() {
    check_peers(
        b"d8:intervali1800e5:peers12:\x01\x02\x03\x04\x1a\xe1\x05\x06\x07\x08\x00\x506:peers618:\
          \x2a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1e",
        &["1.2.3.4:6881", "5.6.7.8:80", "[2a00::1]:6881"],
    );
}

#[test]
fn peers_in_dictionaries_are_read_and_names_are_left_out() {
    check_peers(
        b"d5:peersld2:ip7:1.2.3.47:peer id20:aaaaaaaaaaaaaaaaaaaa4:porti6881eed2:ip7:2a00::14:porti80ee\
          d2:ip9:t.example4:porti80eed2:ip7:1.2.3.44:porti65536eed2:ip7:1.2.3.4ei1eee",
        &["1.2.3.4:6881", "[2a00::1]:80"],
    );
}

#[test]
fn peers_of_odd_length_are_none() {
    for length in [1, 5, 7, 13] {
        let mut bytes = format!("d5:peers{length}:").into_bytes();
        bytes.extend(vec![1; length]);
        bytes.extend(b"6:peers617:aaaaaaaaaaaaaaaaae");
        check_peers(&bytes, &[]);
    }
}

#[test]
fn a_tracker_of_the_internet_names_no_peer_in_a_private_network_and_none_without_a_port() {
    let bytes = b"d5:peers24:\x7f\0\0\x01\0\x50\x0a\0\0\x01\0\x50\x01\x02\x03\x04\0\0\x01\x02\x03\x04\0\x50e";
    check_peers(bytes, &["1.2.3.4:80"]);
    let near = Answer::decode(bytes, Ipv4Addr::LOCALHOST.into()).unwrap();
    assert_eq!(near.peers.len(), 3);
}

#[test]
fn an_answer_with_very_many_peers_is_cut() {
    let mut bytes = b"d5:peers120000:".to_vec();
    for index in 0..20_000u32 {
        bytes.extend([1, 2]);
        bytes.extend(index.to_be_bytes().map(|byte| byte | 1));
    }
    bytes.push(b'e');
    assert_eq!(decode(&bytes).unwrap().peers.len(), ANSWER_PEERS_MAX);
}

#[test]
fn intervals_without_sense_become_sane_ones() {
    for (said, expected) in [
        ("i-1e", 1_800),
        ("i0e", 1_800),
        ("i1e", 60),
        ("i900e", 900),
        ("i86400e", 3_600),
        ("i9223372036854775807e", 3_600),
        ("4:soon", 1_800),
    ] {
        let answer = decode(format!("d8:interval{said}12:min interval{said}e").as_bytes()).unwrap();
        assert_eq!(answer.interval.as_secs(), expected, "{said}");
        assert!(
            answer
                .interval_min
                .is_none_or(|min| min.as_secs() == expected)
        );
    }
    // 2^63 is no integer that bencode is read with here: such an answer counts as a failure, after which
    // the tracker is asked again with back-off.
    let beyond = decode(b"d8:intervali9223372036854775808ee");
    assert!(
        matches!(beyond, Err(TrackerError::Malformed(_))),
        "{beyond:?}"
    );
}

#[test]
fn what_a_tracker_says_is_made_fit_for_display() {
    let refused = decode("d14:failure reason22:no\x1b[2J\u{202e}\n torrent!!!!e".as_bytes());
    assert_eq!(
        refused,
        Err(TrackerError::Refused("no[2J  torrent!!!!".to_owned()))
    );
    let long = format!("d15:warning message2000:{}e", "x".repeat(2_000));
    let warning = decode(long.as_bytes()).unwrap().warning.unwrap();
    assert_eq!(warning.len(), 512);
    let empty = decode(b"d14:failure reasoni1ee");
    assert!(matches!(empty, Err(TrackerError::Refused(_))), "{empty:?}");
}

#[test]
fn the_rest_of_an_answer_is_read() {
    let answer = decode(
        b"d8:completei5e10:downloadedi9e11:external ip4:\x01\x02\x03\x0410:incompletei7e8:intervali1800e\
          12:min intervali300e10:tracker id3:a\0be",
    )
    .unwrap();
    assert_eq!((answer.seeds, answer.leechers), (Some(5), Some(7)));
    assert_eq!(answer.completed, Some(9));
    assert_eq!(answer.external_ip, Some("1.2.3.4".parse().unwrap()));
    assert_eq!(answer.interval_min, Some(Duration::from_secs(300)));
    assert_eq!(answer.tracker_id.as_deref(), Some(&b"a\0b"[..]));
    assert_eq!(decode(b"d11:external ip3:abce").unwrap().external_ip, None);
}

#[test]
fn what_is_no_answer_is_an_error_in_words() {
    for bytes in [&b""[..], b"<html>", b"le", b"d", b"d5:peers5:ae"] {
        let error = decode(bytes).unwrap_err();
        assert!(matches!(error, TrackerError::Malformed(_)), "{error}");
    }
    let nested = [vec![b'l'; 5_000], vec![b'e'; 5_000]].concat();
    assert!(decode(&nested).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
        let mut peers = format!("d5:peers{}:", bytes.len()).into_bytes();
        peers.extend(&bytes);
        peers.push(b'e');
        prop_assert!(decode(&peers).unwrap().peers.len() <= bytes.len() / 6);
    }
}
