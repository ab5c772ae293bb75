use proptest::prelude::*;

use super::super::tracker::Transferred;
use super::*;
use crate::id::{InfoHash, PeerId};

fn at(secs: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(secs)
}

fn route(tracker: &str) -> Route {
    Route {
        local: "10.0.0.1".parse().unwrap(),
        tracker: tracker.parse().unwrap(),
    }
}

fn request() -> Request {
    Request {
        info_hash: InfoHash::new([1; 20]),
        peer_id: PeerId::new([2; 20]),
        port: 6881,
        key: 0x0405_0607,
        transferred: Transferred {
            uploaded: 1,
            downloaded: 2,
            left: 3,
        },
        event: TrackerEvent::Started,
        peers_wanted: 50,
        tracker_id: None,
    }
}

/// Exchanges with one under way, and what it sent.
struct Lab {
    exchanges: UdpExchanges,
    route: Route,
    id: ExchangeId,
}

impl Lab {
    fn new() -> Self {
        Self::with("8.8.8.8:80", "")
    }

    fn with(tracker: &str, path: &str) -> Self {
        let mut exchanges = UdpExchanges::new(Random::from_seed(1));
        let route = route(tracker);
        let id = exchanges.announce(at(0), route, path, request());
        Self {
            exchanges,
            route,
            id,
        }
    }

    fn sent(&mut self) -> Option<Vec<u8>> {
        let datagram = self.exchanges.poll_transmit()?;
        assert_eq!(datagram.route, self.route);
        Some(datagram.payload)
    }

    /// Answers the request that was sent last with `action` and what stands behind the transaction.
    fn answer(&mut self, secs: u64, request: &[u8], action: u32, rest: &[u8]) {
        let payload = [&action.to_be_bytes()[..], &request[12..16], rest].concat();
        self.exchanges
            .handle_datagram(at(secs), self.route, &payload);
    }

    /// Connects; gives the announce request that follows.
    fn connect(&mut self, secs: u64) -> Vec<u8> {
        let connect = self.sent().unwrap();
        self.answer(secs, &connect, CONNECT, &7u64.to_be_bytes());
        self.sent().unwrap()
    }

    fn done(&mut self) -> Option<Result<Answer, TrackerError>> {
        let (id, result) = self.exchanges.poll_done()?;
        assert_eq!(id, self.id);
        Some(result)
    }
}

#[test]
fn an_announce_follows_a_connection_byte_for_byte_as_in_bep_15() {
    let mut lab = Lab::new();
    let connect = lab.sent().unwrap();
    assert_eq!(
        connect[..12],
        [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0]
    );
    assert_eq!(connect.len(), 16);
    lab.answer(1, &connect, CONNECT, &7u64.to_be_bytes());
    let announce = lab.sent().unwrap();
    assert_eq!(announce.len(), 98);
    assert_eq!(announce[..12], [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1]);
    assert_ne!(announce[12..16], connect[12..16]);
    assert_eq!((announce[16], announce[36]), (1, 2));
    let numbers: Vec<u8> = announce[56..].to_vec();
    let expected = [
        &2u64.to_be_bytes()[..],
        &3u64.to_be_bytes(),
        &1u64.to_be_bytes(),
        &[0, 0, 0, 2, 0, 0, 0, 0, 4, 5, 6, 7, 0, 0, 0, 50, 0x1a, 0xe1],
    ];
    assert_eq!(numbers, expected.concat());
    let peers = [1, 2, 3, 4, 0x1a, 0xe1, 5, 6, 7, 8, 0, 80, 9];
    let rest = [&900u32.to_be_bytes()[..], &[0, 0, 0, 4, 0, 0, 0, 5], &peers].concat();
    lab.answer(2, &announce, ANNOUNCE, &rest);
    let answer = lab.done().unwrap().unwrap();
    assert_eq!(answer.interval, Duration::from_secs(900));
    assert_eq!((answer.leechers, answer.seeds), (Some(4), Some(5)));
    let peers: Vec<String> = answer.peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["1.2.3.4:6881", "5.6.7.8:80"]);
    assert_eq!(lab.exchanges.poll_timeout(), None);
}

#[test]
fn the_path_of_the_url_goes_along_in_options() {
    let mut lab = Lab::with("8.8.8.8:80", "/dir?a=b&c=d");
    let announce = lab.connect(0);
    assert_eq!(announce[98..], *b"\x02\x0c/dir?a=b&c=d");
    let long = format!("/{}", "x".repeat(299));
    let announce = Lab::with("8.8.8.8:80", &long).connect(0);
    assert_eq!(announce[98..100], [2, 255]);
    assert_eq!(announce[355..357], [2, 45]);
    assert_eq!(announce.len(), 98 + 300 + 4);
}

#[test]
fn peers_of_an_ipv6_tracker_have_eighteen_bytes() {
    let mut lab = Lab::with("[2a00::1]:80", "");
    let announce = lab.connect(0);
    let mut rest = vec![0; 12];
    rest.extend("2a00::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    rest.extend([0, 80]);
    lab.answer(0, &announce, ANNOUNCE, &rest);
    let answer = lab.done().unwrap().unwrap();
    assert_eq!(answer.peers, ["[2a00::2]:80".parse().unwrap()]);
}

#[test]
fn what_is_lost_is_sent_again_after_15_and_30_seconds_and_given_up_after_a_minute() {
    let mut lab = Lab::new();
    let first = lab.sent().unwrap();
    let mut times = Vec::new();
    while let Some(wake) = lab.exchanges.poll_timeout() {
        lab.exchanges.handle_timeout(wake);
        times.push(wake.as_secs());
        if let Some(again) = lab.sent() {
            assert_eq!(again, first);
        }
    }
    assert_eq!(times, [15, 45, 60]);
    assert_eq!(lab.done(), Some(Err(TrackerError::TimedOut)));
}

#[test]
fn a_connection_id_serves_other_torrents_for_a_minute() {
    let mut lab = Lab::new();
    lab.connect(0);
    let announce = |lab: &mut Lab, secs| {
        let route = lab.route;
        lab.exchanges.announce(at(secs), route, "", request());
        lab.sent().unwrap()
    };
    assert_eq!(announce(&mut lab, 59).len(), 98);
    assert_eq!(announce(&mut lab, 60).len(), 16);
    // Another tracker has another one.
    lab.route = route("9.9.9.9:80");
    assert_eq!(announce(&mut lab, 59).len(), 16);
}

#[test]
fn an_announce_whose_connection_id_is_too_old_connects_again() {
    let mut lab = Lab::new();
    let connect = lab.sent().unwrap();
    lab.exchanges.handle_timeout(at(15));
    assert!(lab.sent().is_some());
    lab.answer(16, &connect, CONNECT, &7u64.to_be_bytes());
    let mut sizes = vec![lab.sent().unwrap().len()];
    for secs in [31, 60] {
        lab.exchanges.handle_timeout(at(secs));
        sizes.extend(lab.sent().map(|sent| sent.len()));
    }
    assert_eq!(sizes, [98, 98]);
    let id = lab.exchanges.announce(at(76), lab.route, "", request());
    assert_eq!(lab.sent().unwrap().len(), 16);
    lab.exchanges.cancel(id);
    assert_eq!(lab.exchanges.poll_timeout(), None);
}

#[test]
fn wrong_transactions_short_packets_and_other_sources_are_counted_and_dropped() {
    let mut lab = Lab::new();
    let connect = lab.sent().unwrap();
    let good = [&[0; 4][..], &connect[12..16], &[0; 8]].concat();
    let route = lab.route;
    for length in 0..8 {
        lab.exchanges.handle_datagram(at(0), route, &good[..length]);
    }
    lab.exchanges.handle_datagram(at(0), route, &good[..15]);
    assert_eq!(lab.exchanges.dropped().short, 9);
    let mut wrong = good.clone();
    wrong[4] ^= 1;
    lab.exchanges.handle_datagram(at(0), route, &wrong);
    let other = Route {
        tracker: "8.8.8.8:81".parse().unwrap(),
        ..route
    };
    lab.exchanges.handle_datagram(at(0), other, &good);
    let elsewhere = Route {
        local: "10.0.0.2".parse().unwrap(),
        ..route
    };
    lab.exchanges.handle_datagram(at(0), elsewhere, &good);
    assert_eq!(lab.exchanges.dropped().unknown, 3);
    // An answer to an announce that was not made yet.
    lab.answer(0, &connect, ANNOUNCE, &[0; 12]);
    assert_eq!(lab.exchanges.dropped().unexpected, 1);
    assert!(lab.sent().is_none() && lab.done().is_none());
    lab.exchanges.handle_datagram(at(0), route, &good);
    let announce = lab.sent().unwrap();
    lab.answer(0, &announce, ANNOUNCE, &[0; 11]);
    assert_eq!(lab.exchanges.dropped().short, 10);
    // The same connect response once more opens nothing.
    lab.exchanges.handle_datagram(at(0), route, &good);
    assert!(lab.sent().is_none() && lab.done().is_none());
}

#[test]
fn a_tracker_that_refuses_is_quoted_and_its_connection_forgotten() {
    let mut lab = Lab::new();
    let announce = lab.connect(0);
    lab.answer(0, &announce, ERROR, b"no\x1b[2J torrent");
    let refused = TrackerError::Refused("no[2J torrent".to_owned());
    assert_eq!(lab.done(), Some(Err(refused)));
    lab.exchanges.announce(at(1), lab.route, "", request());
    assert_eq!(lab.sent().unwrap().len(), 16);
}

#[test]
fn intervals_without_sense_become_sane_ones() {
    for (said, expected) in [(u32::MAX, 1_800), (0, 1_800), (1, 60), (86_400, 3_600)] {
        let mut lab = Lab::new();
        let announce = lab.connect(0);
        let rest = [&said.to_be_bytes()[..], &[0; 8]].concat();
        lab.answer(0, &announce, ANNOUNCE, &rest);
        assert_eq!(lab.done().unwrap().unwrap().interval.as_secs(), expected);
    }
}

#[test]
fn a_datagram_that_cannot_be_sent_ends_its_exchange() {
    let mut lab = Lab::new();
    let error = TrackerError::Local("no network".to_owned());
    lab.exchanges.handle_unsent(route("9.9.9.9:80"), &error);
    assert_eq!(lab.done(), None);
    lab.exchanges.handle_unsent(lab.route, &error);
    assert_eq!(lab.done(), Some(Err(error)));
}

#[test]
fn exchanges_and_connections_are_bounded() {
    let mut exchanges = UdpExchanges::new(Random::from_seed(1));
    for index in 0..5_000u32 {
        let tracker = SocketAddr::from((index.to_be_bytes(), 80));
        let local = "10.0.0.1".parse().unwrap();
        let route = Route { local, tracker };
        exchanges.announce(at(0), route, "", request());
        if let Some(connect) = exchanges.poll_transmit() {
            let answer = [&[0; 4][..], &connect.payload[12..16], &[1; 8]].concat();
            exchanges.handle_datagram(at(0), route, &answer);
            exchanges.poll_transmit();
        }
    }
    assert_eq!(exchanges.exchanges.len(), EXCHANGES_MAX);
    assert_eq!(exchanges.connections.len(), CONNECTIONS_MAX);
    assert!(matches!(
        exchanges.poll_done(),
        Some((_, Err(TrackerError::Local(_))))
    ));
}

proptest! {
    #[test]
    fn any_datagram_is_read_without_panic(
        action in 0u32..5,
        rest in prop::collection::vec(any::<u8>(), 0..200),
        connected: bool,
    ) {
        let mut lab = Lab::new();
        let request = if connected { lab.connect(0) } else { lab.sent().unwrap() };
        lab.answer(0, &request, action, &rest);
        lab.exchanges.handle_datagram(at(0), lab.route, &rest);
        if let Some(Ok(answer)) = lab.done() {
            prop_assert!(answer.peers.len() <= rest.len() / 6);
        }
    }
}
