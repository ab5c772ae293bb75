//! Tests of the network: two or three hosts and no cores.

use super::*;
use crate::faults::{Fault, FaultKind, HostSet};
use crate::link::PartsPerMillion;
use crate::time::Heap;

const END: Instant = Instant::from_micros(3_600_000_000);

fn network(hosts: u32, loss: u32, rates: AccessRates) -> Network {
    let queue = Box::<Heap<Happening>>::default();
    let impairments = Impairments::losing(PartsPerMillion(loss));
    let mut network = Network::new(Seeds::new(1), impairments, queue);
    for _ in 0..hosts {
        network.add_host(rates);
    }
    network
}

fn slow() -> AccessRates {
    AccessRates {
        up: 100_000,
        down: 1_000_000,
    }
}

/// Opens a stream from one host to another.
fn open(network: &mut Network, from: HostId, to: HostId) -> PipeId {
    network.dial(from, to.address(STREAM_PORT));
    let Some(Happening::Open(pipe)) = network.agenda.next(END) else {
        panic!("a dial reaches the other host");
    };
    network.answer_dial(pipe, Owner::Dialling);
    let opened = network.agenda.next(END);
    assert!(matches!(opened, Some(Happening::Opened(id)) if id == pipe));
    pipe
}

fn dialler(pipe: PipeId) -> PipeEnd {
    let side = Side::Dialler;
    PipeEnd { pipe, side }
}

fn data(first: &[u8]) -> Segment {
    Segment::Data(Bytes::copy_from_slice(first), Bytes::new())
}

/// Runs until nothing happens any more: what was delivered, when, and by which end it was sent.
fn deliveries(network: &mut Network) -> Vec<(Instant, PipeEnd, Vec<u8>)> {
    let mut delivered = Vec::new();
    while let Some(happening) = network.agenda.next(END) {
        match happening {
            Happening::Sent(host) => {
                network.on_sent(host);
            }
            Happening::Arrived(end) => network.on_arrived(end),
            Happening::Delivered(end) => {
                let segment = network.pipe_mut(end.pipe).take_delivered(end.side);
                network.on_read(end, segment.length());
                let bytes = match segment {
                    Segment::Data(first, second) => [first, second].concat(),
                    Segment::End => b"end".to_vec(),
                };
                delivered.push((network.now(), end, bytes));
            }
            other => panic!("{other:?}"),
        }
    }
    delivered
}

#[test]
fn a_datagram_arrives_after_the_latency_of_its_link() {
    let mut network = network(2, 0, AccessRates::FAST);
    let (from, to) = (HostId(0), HostId(1));
    let latency = network.latency(from, to);
    network.send_datagram(from, to.address(6881), Bytes::from_static(b"abc"));
    let Some(Happening::Datagram { payload, .. }) = network.agenda.next(END) else {
        panic!("nothing is lost here");
    };
    assert_eq!(payload, "abc");
    let took = network.now().saturating_since(Instant::ZERO);
    assert!(took >= latency && took < latency + Duration::from_millis(2));
    let traffic = network.traffic(from);
    assert_eq!((traffic.datagrams, traffic.datagram_bytes), (1, 3));
}

#[test]
fn lost_datagrams_and_those_to_nobody_are_counted_and_do_not_arrive() {
    let mut network = network(2, 1_000_000, AccessRates::FAST);
    let from = HostId(0);
    for to in [HostId(1), HostId(7)] {
        network.send_datagram(from, to.address(6881), Bytes::from_static(b"abc"));
    }
    assert!(network.agenda.next(END).is_none());
    assert_eq!(network.traffic(from).lost, 2);
    assert_eq!(network.now(), END, "time passes although nothing happens");
}

#[test]
fn a_stream_delivers_its_bytes_in_order_at_the_rate_of_the_uplink() {
    let mut network = network(2, 0, slow());
    let pipe = open(&mut network, HostId(0), HostId(1));
    let start = network.now();
    for number in 0..10 {
        network.write(dialler(pipe), data(&[number; 10_000]));
    }
    network.close(dialler(pipe));
    let delivered = deliveries(&mut network);
    let order: Vec<u8> = delivered.iter().map(|(_, _, bytes)| bytes[0]).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, b'e']);
    let took = delivered[9].0.saturating_since(start);
    let least = Duration::from_secs(1) + network.pipe(pipe).latency();
    assert!(took >= least, "{took:?}");
    let most = least + Duration::from_millis(2) + Duration::from_millis(10);
    assert!(took <= most, "{took:?}");
    assert_eq!(network.uploaded(HostId(0)), 100_000);
}

#[test]
fn streams_of_one_host_share_its_uplink() {
    let mut network = network(3, 0, slow());
    let pipes = [1, 2].map(|to| open(&mut network, HostId(0), HostId(to)));
    let start = network.now();
    for _ in 0..5 {
        for pipe in pipes {
            network.write(dialler(pipe), data(&[0; 10_000]));
        }
    }
    let delivered = deliveries(&mut network);
    let to_first = delivered.iter().filter(|(_, end, _)| end.pipe == pipes[0]);
    let last_of_first = to_first.map(|(at, ..)| *at).max().unwrap();
    let took = last_of_first.saturating_since(start);
    assert!(
        took >= Duration::from_millis(900),
        "half of the rate: {took:?}"
    );
}

#[test]
fn a_dial_is_refused_without_a_listener_and_times_out_without_a_host() {
    let mut network = network(2, 0, AccessRates::FAST);
    network.dial(HostId(0), HostId(1).address(STREAM_PORT));
    let Some(Happening::Open(pipe)) = network.agenda.next(END) else {
        panic!("a dial reaches the other host");
    };
    network.fail_dial(pipe, DialError::Refused);
    let refused = network.agenda.next(END);
    let at = HostId(1).address(STREAM_PORT);
    let wanted = DialError::Refused;
    assert!(
        matches!(refused, Some(Happening::DialFailed(HostId(0), to, error)) if (to, error) == (at, wanted))
    );

    let before = network.now();
    let nobody = HostId(9).address(STREAM_PORT);
    network.dial(HostId(0), nobody);
    let timed_out = network.agenda.next(END);
    assert!(
        matches!(timed_out, Some(Happening::DialFailed(HostId(0), to, DialError::TimedOut)) if to == nobody)
    );
    assert_eq!(network.now().saturating_since(before), DIAL_TIMEOUT);
}

#[test]
fn each_end_sees_the_other_hosts_address() {
    let mut network = network(2, 0, AccessRates::FAST);
    let pipe = open(&mut network, HostId(0), HostId(1));
    let seen = network.remote_address(dialler(pipe));
    assert_eq!(seen, HostId(1).address(STREAM_PORT));
    let seen = network.remote_address(dialler(pipe).other());
    assert_eq!(HostId::of(seen), Some(HostId(0)));
    assert_ne!(seen.port(), STREAM_PORT);
}

/// Takes datagrams until none is left: who got which bytes, when.
fn datagrams(network: &mut Network) -> Vec<(Instant, HostId, Bytes)> {
    let mut received = Vec::new();
    while let Some(happening) = network.agenda.next(END) {
        let Happening::Datagram { from, to, payload } = happening else {
            panic!("{happening:?}");
        };
        if let Some(host) = network.receive_datagram(from, to) {
            received.push((network.now(), host, payload));
        }
    }
    received
}

#[test]
fn impairments_act_on_datagrams_and_every_one_of_them_is_accounted_for() {
    let mut network = network(2, 0, AccessRates::FAST);
    let share = PartsPerMillion(100_000);
    network.set_impairments(Impairments {
        loss: share,
        duplication: share,
        reordering: share,
        corruption: share,
    });
    let payload = Bytes::from_static(b"abcdefgh");
    for _ in 0..10_000 {
        network.send_datagram(HostId(0), HostId(1).address(6881), payload.clone());
    }
    let received = datagrams(&mut network);
    let totals = network.totals();
    assert_eq!(totals.sent, 10_000);
    assert_eq!(totals.delivered, u64::try_from(received.len()).unwrap());
    assert_eq!(
        totals.sent + totals.duplicated,
        totals.lost + totals.delivered
    );
    assert!((850..1_150).contains(&totals.lost), "{totals:?}");
    assert!((750..1_050).contains(&totals.duplicated), "{totals:?}");
    let changed = received.iter().filter(|(.., bytes)| *bytes != payload);
    assert!((800..1_200).contains(&changed.count()));
    let latency = network.latency(HostId(0), HostId(1));
    let late = Instant::ZERO + latency + Duration::from_millis(2);
    let held = received.iter().filter(|(at, ..)| *at >= late).count();
    assert!((800..1_200).contains(&held), "{held}");
}

#[test]
fn a_host_behind_a_gateway_is_answered_and_not_asked() {
    let mut network = network(3, 0, AccessRates::FAST);
    let (inside, asked, stranger) = (HostId(0), HostId(1), HostId(2));
    network.put_behind(inside, NatConfig::of(NatKind::PortRestricted));
    let hello = Bytes::from_static(b"hello");
    network.send_datagram(inside, asked.address(6881), hello.clone());
    let Some(Happening::Datagram { from, to, .. }) = network.agenda.next(END) else {
        panic!("nothing is lost here");
    };
    assert_eq!(network.receive_datagram(from, to), Some(asked));
    assert_eq!(SocketAddr::from(from), inside.address(6881));
    for sender in [asked, stranger] {
        network.send_datagram(sender, from.into(), hello.clone());
    }
    let received = datagrams(&mut network);
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].1, inside);
    assert_eq!(network.totals().filtered, 1);
}

#[test]
fn streams_are_dialled_out_of_a_gateway_and_not_in() {
    let mut network = network(2, 0, slow());
    let (inside, outside) = (HostId(0), HostId(1));
    network.put_behind(inside, NatConfig::of(NatKind::FullCone));
    let pipe = open(&mut network, inside, outside);
    let seen = network.remote_address(dialler(pipe).other());
    assert_eq!(HostId::of(seen), Some(inside));
    network.dial(outside, inside.address(STREAM_PORT));
    let failed = network.agenda.next(END);
    assert!(
        matches!(failed, Some(Happening::DialFailed(host, _, DialError::TimedOut)) if host == outside)
    );
}

#[test]
fn a_host_that_shares_a_gateway_is_where_the_gateway_is() {
    let mut network = network(3, 0, slow());
    let (owner, guest, outside) = (HostId(0), HostId(1), HostId(2));
    network.put_behind(owner, NatConfig::of(NatKind::FullCone));
    network.put_behind_same(guest, owner);
    assert_eq!(network.nat_kind(guest), NatKind::FullCone);
    assert_eq!(
        network.latency(guest, outside),
        network.latency(owner, outside)
    );
    let pipe = open(&mut network, guest, outside);
    let seen = network.remote_address(dialler(pipe).other());
    assert_eq!(HostId::of(seen), Some(owner));
}

#[test]
fn a_partition_loses_datagrams_and_holds_streams_and_dials() {
    let mut network = network(3, 0, AccessRates::FAST);
    let pipe = open(&mut network, HostId(0), HostId(1));
    let now = network.now();
    let over = now + Duration::from_secs(30);
    network.set_faults(Faults::new(vec![Fault {
        from: now,
        until: over,
        kind: FaultKind::Partition(HostSet::of(3, [HostId(0)])),
    }]));
    network.write(dialler(pipe), data(b"abc"));
    network.close(dialler(pipe));
    let delivered = deliveries(&mut network);
    assert_eq!(delivered.len(), 2);
    assert!(delivered.iter().all(|(at, ..)| *at >= over));

    network.set_faults(Faults::new(vec![Fault {
        from: network.now(),
        until: network.now() + Duration::from_secs(30),
        kind: FaultKind::Partition(HostSet::of(3, [HostId(0)])),
    }]));
    network.send_datagram(
        HostId(0),
        HostId(1).address(6881),
        Bytes::from_static(b"abc"),
    );
    assert_eq!(network.totals().lost, 1);
    network.dial(HostId(0), HostId(1).address(STREAM_PORT));
    let failed = network.agenda.next(network.now() + Duration::from_secs(60));
    assert!(matches!(
        failed,
        Some(Happening::DialFailed(_, _, DialError::TimedOut))
    ));
}

#[test]
fn what_a_crashed_host_has_written_is_not_delivered() {
    let mut network = network(2, 0, slow());
    let pipe = open(&mut network, HostId(0), HostId(1));
    for _ in 0..3 {
        network.write(dialler(pipe), data(&[0; 10_000]));
    }
    network.crash(HostId(0));
    assert!(matches!(
        network.pipe(pipe).owner(Side::Dialler),
        Owner::Gone
    ));
    while let Some(happening) = network.agenda.next(END) {
        assert!(matches!(happening, Happening::Sent(_)), "{happening:?}");
        assert_eq!(network.on_sent(HostId(0)), None);
    }
}
