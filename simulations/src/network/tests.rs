//! Tests of the network: two or three hosts and no cores.

use super::*;
use crate::time::Heap;

const END: Instant = Instant::from_micros(3_600_000_000);

fn network(hosts: u32, loss: u32, rates: AccessRates) -> Network {
    let queue = Box::<Heap<Happening>>::default();
    let mut network = Network::new(Seeds::new(1), PartsPerMillion(loss), queue);
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
    network.answer_dial(pipe, Some(Owner::Dialling));
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
    let latency = network.links.latency(from, to);
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
    network.answer_dial(pipe, None);
    let refused = network.agenda.next(END);
    assert!(matches!(refused, Some(Happening::Refused(id)) if id == pipe));

    let before = network.now();
    let nobody = HostId(9).address(STREAM_PORT);
    network.dial(HostId(0), nobody);
    let timed_out = network.agenda.next(END);
    assert!(matches!(timed_out, Some(Happening::DialTimedOut(HostId(0), to)) if to == nobody));
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
