use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::announce::{TrackerEvent, TrackerUrl, Transferred};
use crate::dht::Config;
use crate::id::{InfoHash, PeerId};
use crate::net::clock::entropy;
use crate::net::dht::{DhtConfig, spawn};
use crate::net::tracker::Trackers;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A UDP tracker on loopback that names one peer; it ends with the test's runtime. Before each answer it
/// sends what is no answer, and each answer comes from another socket first.
async fn tracker() -> SocketAddr {
    tracker_at(HERE, &[127, 0, 0, 9, 0, 80]).await
}

/// The same at another address, with another peer.
async fn tracker_at(here: IpAddr, peer: &[u8]) -> SocketAddr {
    let socket = UdpSocket::bind((here, 0)).await.unwrap();
    let stranger = UdpSocket::bind((here, 0)).await.unwrap();
    let counts = [0, 0, 3, 132, 0, 0, 0, 1, 0, 0, 0, 2];
    let answer_rest = [&counts[..], peer].concat();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let request = &buffer[..length];
            let answer = |rest: &[u8]| [&request[8..16], rest].concat();
            let answer = if length == 16 {
                answer(&9u64.to_be_bytes())
            } else {
                assert_eq!(url_data(&request[98..]), path().as_bytes());
                answer(&answer_rest)
            };
            let mut wrong = answer.clone();
            wrong[7] ^= 1;
            for bytes in [&wrong[..], &answer[..7], b"\0", b""] {
                socket.send_to(bytes, from).await.unwrap();
            }
            stranger.send_to(&answer, from).await.unwrap();
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

/// Path and query of the tracker's URL: more than one option holds.
fn path() -> String {
    format!("/announce?key={}", "k".repeat(300))
}

/// The data of all options, which are of one kind (BEP 41, `URLData`).
fn url_data(mut options: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let [2, length, rest @ ..] = options {
        let (part, behind) = rest.split_at(usize::from(*length));
        data.extend_from_slice(part);
        options = behind;
    }
    assert!(options.is_empty(), "{options:?}");
    data
}

fn request() -> Request {
    Request {
        info_hash: InfoHash::new([1; 20]),
        peer_id: PeerId::new([2; 20]),
        port: 6881,
        key: 3,
        transferred: Transferred::default(),
        event: TrackerEvent::Started,
        peers_wanted: 50,
        tracker_id: None,
    }
}

/// Announces over the sockets of `dht`, or our own; gives the answer.
async fn announce(dht: Option<DhtHandle>, host: &str, port: u16) -> Outcome {
    announce_from(HERE, dht, host, port).await
}

/// The same from another of our addresses.
async fn announce_from(here: IpAddr, dht: Option<DhtHandle>, host: &str, port: u16) -> Outcome {
    let (trackers, run) = UdpTrackers::new(dht, Clock::start(), entropy());
    let running = tokio::spawn(run);
    let url = TrackerUrl::parse(&format!("udp://{host}:{port}{}", path())).unwrap();
    let trackers = Trackers::new(trackers);
    let outcome = trackers.announce(here, &url, &request()).await;
    drop(trackers);
    running.await.unwrap();
    outcome
}

#[track_caller]
fn check(outcome: Outcome) {
    let answer = outcome.unwrap();
    assert_eq!(answer.peers, ["127.0.0.9:80".parse().unwrap()]);
    assert_eq!((answer.leechers, answer.seeds), (Some(1), Some(2)));
}

#[tokio::test]
async fn a_tracker_is_asked_from_sockets_of_its_own_where_no_dht_runs() {
    let tracker = tracker().await;
    check(announce(None, "127.0.0.1", tracker.port()).await);
    check(announce(None, "localhost", tracker.port()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_is_asked_from_the_sockets_of_the_dht() {
    let tracker = tracker().await;
    let socket = bind_udp((HERE, 0).into()).unwrap();
    let config = DhtConfig {
        node: Config::default(),
        bootstrap: Vec::new(),
        snapshot: None,
    };
    let dht = spawn(vec![socket], config, Clock::start(), entropy()).unwrap();
    check(announce(Some(dht.clone()), "127.0.0.1", tracker.port()).await);
    // What the stranger sent did not get through.
    assert!(dht.status().await.dropped.foreign >= 2);
    dht.stop().await;
}

#[tokio::test]
async fn a_tracker_of_the_other_family_is_not_asked() {
    let asked = announce(None, "[::1]", 9).await;
    assert_eq!(asked, Err(TrackerError::NoAddress));
}

#[tokio::test(start_paused = true)]
async fn a_silent_tracker_is_given_up_after_a_minute() {
    let socket = UdpSocket::bind((HERE, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let asked = announce(None, "127.0.0.1", port).await;
    assert_eq!(asked, Err(TrackerError::TimedOut));
}

#[test]
fn datagrams_pass_from_those_who_were_asked_lately_only() {
    let (sender, mut received) = mpsc::channel(2);
    let mut port = TrackerPort::default();
    let route = |last| Route {
        local: HERE,
        tracker: ([127, 0, 0, last], 80).into(),
    };
    port.on_asked(route(1).tracker);
    assert!(!port.on_datagram(route(1), b"\0"), "nobody takes it");
    port.open(sender);
    assert!(!port.on_datagram(route(2), b"\0"));
    assert!(port.on_datagram(route(1), b"\0") && port.on_datagram(route(1), b"\0"));
    assert!(!port.on_datagram(route(1), b"\0"), "there is no room");
    assert!(received.try_recv().is_ok());
    assert!(port.on_datagram(route(1), b"\0"));
    for number in (1..).take(ASKED_MAX) {
        port.on_asked(([127, 0, 0, 9], number).into());
    }
    assert!(received.try_recv().is_ok());
    assert!(
        !port.on_datagram(route(1), b"\0"),
        "it was asked too long ago"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_is_asked_over_ipv6_from_both_kinds_of_sockets() {
    let here = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let peer: SocketAddr = "[2001:2:0:9::1]:6881".parse().unwrap();
    let mut bytes = "2001:2:0:9::1"
        .parse::<Ipv6Addr>()
        .unwrap()
        .octets()
        .to_vec();
    bytes.extend(6881u16.to_be_bytes());
    let port = tracker_at(here, &bytes).await.port();
    let socket = bind_udp((here, 0).into()).unwrap();
    let config = DhtConfig {
        node: Config::default(),
        bootstrap: Vec::new(),
        snapshot: None,
    };
    let dht = spawn(vec![socket], config, Clock::start(), entropy()).unwrap();
    for dht in [None, Some(dht.clone())] {
        let outcome = announce_from(here, dht, "[::1]", port).await;
        assert_eq!(outcome.unwrap().peers, [peer]);
    }
    dht.stop().await;
}
