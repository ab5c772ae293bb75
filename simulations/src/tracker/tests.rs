//! The model, asked by the shipping code.

use std::net::{Ipv4Addr, SocketAddr};

use trackless::announce::udp_tracker::{Route, UdpExchanges};
use trackless::announce::{Answer, Request, TrackerError, TrackerEvent, Transferred};
use trackless::id::PeerId;

use super::*;

fn at(secs: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(secs)
}

fn tracker() -> Tracker {
    Tracker::new(Random::from_seed(1))
}

fn peer(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(20, 0, number, 1), 6881)
}

/// One announce of the shipping code, from `from`, of a torrent that lacks `left` bytes.
fn announce(
    tracker: &mut Tracker,
    now: Instant,
    from: SocketAddrV4,
    event: TrackerEvent,
    left: u64,
) -> Result<Answer, TrackerError> {
    let mut exchanges = UdpExchanges::new(Random::from_seed(from.ip().octets()[2].into()));
    let address = SocketAddr::from((Ipv4Addr::new(20, 9, 9, 1), 6881));
    let route = Route {
        local: Ipv4Addr::UNSPECIFIED.into(),
        tracker: address,
    };
    let request = Request {
        info_hash: InfoHash::new([3; 20]),
        peer_id: PeerId::new([4; 20]),
        port: 7_000,
        key: 1,
        transferred: Transferred {
            left,
            ..Transferred::default()
        },
        event,
        peers_wanted: 100,
        tracker_id: None,
    };
    exchanges.announce(now, route, "/announce", request);
    while let Some(datagram) = exchanges.poll_transmit() {
        if let Some(answer) = tracker.handle_datagram(now, from, &datagram.payload) {
            exchanges.handle_datagram(now, route, &answer);
        }
    }
    let (_, result) = exchanges.poll_done().expect("it was answered");
    result
}

#[test]
fn who_announces_is_told_of_others_at_the_port_they_said() {
    let mut tracker = tracker();
    let first = announce(&mut tracker, at(0), peer(1), TrackerEvent::Started, 0).unwrap();
    assert_eq!((first.seeds, first.leechers), (Some(1), Some(0)));
    assert!(first.peers.is_empty());
    let second = announce(&mut tracker, at(1), peer(2), TrackerEvent::Started, 5).unwrap();
    assert_eq!((second.seeds, second.leechers), (Some(1), Some(1)));
    assert_eq!(second.peers, ["20.0.1.1:7000".parse().unwrap()]);
    assert_eq!(second.interval, INTERVAL);
}

#[test]
fn who_says_goodbye_or_is_silent_for_an_hour_is_named_no_more() {
    let mut tracker = tracker();
    for number in [1, 2] {
        announce(&mut tracker, at(0), peer(number), TrackerEvent::Started, 5).unwrap();
    }
    announce(&mut tracker, at(1), peer(1), TrackerEvent::Stopped, 5).unwrap();
    let third = announce(&mut tracker, at(2), peer(3), TrackerEvent::Started, 5).unwrap();
    assert_eq!(third.peers, ["20.0.2.1:7000".parse().unwrap()]);
    let late = announce(&mut tracker, at(3_602), peer(4), TrackerEvent::Started, 5).unwrap();
    assert!(late.peers.is_empty());
}

#[test]
fn an_announce_without_the_connection_id_of_its_endpoint_is_refused() {
    let mut tracker = tracker();
    let connect = [
        &PROTOCOL_ID.to_be_bytes()[..],
        &CONNECT.to_be_bytes(),
        &[9; 4],
    ];
    let answer = tracker.handle_datagram(at(0), peer(1), &connect.concat());
    let id = answer.unwrap()[8..].to_vec();
    let request = [&id[..], &ANNOUNCE.to_be_bytes(), &[9; 4], &[0; 82]].concat();
    let action = |answer: Option<Vec<u8>>| answer.map(|answer| answer[3]);
    assert_eq!(
        action(tracker.handle_datagram(at(119), peer(1), &request)),
        Some(1)
    );
    assert_eq!(
        action(tracker.handle_datagram(at(119), peer(2), &request)),
        Some(3)
    );
    assert_eq!(
        action(tracker.handle_datagram(at(120), peer(1), &request)),
        Some(3)
    );
}

#[test]
fn what_is_no_request_is_not_answered() {
    let mut tracker = tracker();
    for payload in [&b"d1:ad2:id20:"[..], &[0; 16], &[]] {
        assert_eq!(tracker.handle_datagram(at(0), peer(1), payload), None);
    }
}
