//! Streams and DHT nodes on loopback.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::dht::{self, Event, LookupReport, PeerKind, PeerPort};
use crate::disk::Storage;
use crate::id::{InfoHash, PeerId};
use crate::peer::{self, Transmit};
use crate::swarm::{ConnectionId, DialError, Reason};
use crate::wire::{Handshake, ProtocolError, Reserved};

mod blocks;

/// Longer than anything here takes; ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connected pair: the dialled end, and the accepted one.
async fn connect(from: Option<IpAddr>) -> (TcpStream, TcpStream) {
    let listener = listen_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let dialled = dial(address, from, PATIENCE).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    (dialled, accepted)
}

/// One end of a stream, as a torrent's task holds it.
struct Peer {
    handle: StreamHandle,
    inputs: mpsc::Receiver<StreamInput>,
    paused: watch::Sender<bool>,
}

impl Peer {
    fn new(stream: TcpStream, storage: Option<Storage>, inputs_max: usize) -> Self {
        let limits = Limits::new(Clock::start(), None, None);
        Self::limited(stream, storage, inputs_max, &limits)
    }

    fn limited(
        stream: TcpStream,
        storage: Option<Storage>,
        inputs_max: usize,
        limits: &Limits,
    ) -> Self {
        let (sender, inputs) = mpsc::channel(inputs_max);
        let (paused, pauses) = watch::channel(false);
        let storage = watch::Sender::new(storage).subscribe();
        let handle = spawn_stream(
            ConnectionId(1),
            stream,
            sender,
            Some(storage),
            pauses,
            limits,
        );
        Self {
            handle,
            inputs,
            paused,
        }
    }

    async fn next(&mut self) -> StreamInput {
        let next = tokio::time::timeout(PATIENCE, self.inputs.recv()).await;
        next.expect("an input in time").expect("tasks are alive")
    }

    /// Reads so many bytes.
    async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut read = Vec::new();
        while read.len() < length {
            match self.next().await {
                StreamInput::Bytes(_, bytes) => read.extend_from_slice(&bytes),
                StreamInput::Writable(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(read.len(), length);
        read
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut block = Sha1::digest(b"noise");
    let mut bytes = Vec::with_capacity(length + 20);
    while bytes.len() < length {
        block = Sha1::digest(block);
        bytes.extend_from_slice(&block);
    }
    bytes.truncate(length);
    bytes
}

#[tokio::test]
async fn a_stream_carries_everything_in_order_through_slow_and_small_queues() {
    let (near, far) = connect(None).await;
    let mut near = Peer::new(near, None, 3);
    let mut far = Peer::new(far, None, 1);
    // The far end sends everything back, as it comes.
    let echo = tokio::spawn(async move {
        let mut waiting = VecDeque::new();
        loop {
            match far.next().await {
                StreamInput::Bytes(_, bytes) => waiting.push_back(bytes),
                StreamInput::Writable(_) => {}
                StreamInput::Closed(_, reason) => return reason,
                other => panic!("{other:?}"),
            }
            while far.handle.room() > 0
                && let Some(bytes) = waiting.pop_front()
            {
                assert!(far.handle.send(Transmit::Bytes(bytes)));
            }
        }
    });
    let all = Bytes::from(noise(20_000_000));
    let mut sent = 0;
    let mut received = Vec::with_capacity(all.len());
    let mut full = 0;
    while received.len() < all.len() {
        while sent < all.len() && near.handle.room() > 0 {
            let end = all.len().min(sent + 1 + (sent * 7919) % 50_000);
            assert!(near.handle.send(Transmit::Bytes(all.slice(sent..end))));
            sent = end;
        }
        full += usize::from(near.handle.room() == 0);
        match near.next().await {
            StreamInput::Bytes(_, bytes) => received.extend_from_slice(&bytes),
            StreamInput::Writable(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(received == all);
    assert!(full > 0, "the queue was never full: the test is too small");
    drop(near);
    assert!(matches!(
        echo.await.unwrap(),
        Reason::Closed | Reason::Reset
    ));
}

#[tokio::test]
async fn a_paused_reader_stops_the_sender_and_goes_on_where_it_was() {
    let (near, far) = connect(None).await;
    let mut near = Peer::new(near, None, 8);
    let mut far = Peer::new(far, None, 1);
    far.paused.send(true).unwrap();
    let chunk = Bytes::from(noise(1 << 20));
    let mut sent = 0;
    // The system's buffers and the queue take some of it, and then no more.
    while near.handle.room() > 0 {
        assert!(near.handle.send(Transmit::Bytes(chunk.clone())));
        sent += 1;
        assert!(sent < 1_000, "nothing stops the sender");
        tokio::task::yield_now().await;
    }
    assert!(!near.handle.send(Transmit::Bytes(chunk.clone())));
    far.paused.send(false).unwrap();
    let receive = async { far.read(sent * chunk.len()).await };
    let (received, writable) = tokio::join!(receive, near.next());
    assert!(matches!(writable, StreamInput::Writable(_)), "{writable:?}");
    assert!(received.chunks(chunk.len()).all(|part| part == chunk));
    assert!(near.handle.room() > 0);
}

#[tokio::test]
async fn the_end_of_a_stream_is_told_once() {
    let (near, far) = connect(None).await;
    let near = Peer::new(near, None, 8);
    let mut far = Peer::new(far, None, 8);
    drop(near);
    assert!(matches!(far.next().await, StreamInput::Closed(..)));
    // Writing into the closed stream fails, which is the same end; then both tasks are gone.
    let chunk = Bytes::from(noise(100_000));
    while far.handle.send(Transmit::Bytes(chunk.clone())) {
        tokio::task::yield_now().await;
    }
    loop {
        match tokio::time::timeout(PATIENCE, far.inputs.recv()).await {
            Ok(Some(StreamInput::Writable(_))) => {}
            Ok(None) => break,
            other => panic!("{other:?}"),
        }
    }
}

/// Three streams through which as much is sent as passes, in paused time; the bytes that arrived by
/// each of them within `seconds`. One end of each has these limits.
async fn race(limits: &Limits, limited_end_sends: bool, seconds: u64) -> Vec<u64> {
    let mut streams = tokio::task::JoinSet::new();
    let clock = Clock::start();
    let until = clock.now() + Duration::from_secs(seconds);
    for _ in 0..3 {
        let (near, far) = connect(None).await;
        let mut near = Peer::limited(near, None, 8, limits);
        let mut far = Peer::new(far, None, 8);
        streams.spawn(async move {
            let (sender, receiver) = if limited_end_sends {
                (&mut near, &mut far)
            } else {
                (&mut far, &mut near)
            };
            let chunk = Bytes::from(noise(16_384));
            let mut arrived = 0;
            while clock.now() < until {
                while sender.handle.room() > 0 {
                    assert!(sender.handle.send(Transmit::Bytes(chunk.clone())));
                }
                tokio::select! {
                    input = receiver.inputs.recv() => {
                        let Some(StreamInput::Bytes(_, bytes)) = input else {
                            panic!("{input:?}")
                        };
                        arrived += u64::try_from(bytes.len()).unwrap();
                    }
                    _ = sender.inputs.recv() => {}
                    () = clock.sleep_until(until) => {}
                }
            }
            arrived
        });
    }
    streams.join_all().await
}

#[tokio::test(start_paused = true)]
async fn limits_hold_over_all_streams_and_every_stream_has_its_share() {
    let rate = 300_000;
    for limited_end_sends in [true, false] {
        let limits = if limited_end_sends {
            Limits::new(Clock::start(), None, Some(rate))
        } else {
            Limits::new(Clock::start(), Some(rate), None)
        };
        let arrived = race(&limits, limited_end_sends, 20).await;
        let total: u64 = arrived.iter().sum();
        assert!(total.abs_diff(20 * rate) <= 2 * rate, "{arrived:?}");
        let share = 20 * rate / 3;
        let is_fair = arrived.iter().all(|one| one.abs_diff(share) < share / 10);
        assert!(is_fair, "{arrived:?}");
    }
}

#[tokio::test]
async fn a_dial_keeps_its_address_and_says_why_it_failed() {
    let from = "127.0.0.5".parse().unwrap();
    let (_, accepted) = connect(Some(from)).await;
    assert_eq!(accepted.peer_addr().unwrap().ip(), from);
    // Of the other family: left to the system.
    let (_, accepted) = connect(Some("::1".parse().unwrap())).await;
    assert!(accepted.peer_addr().unwrap().ip().is_loopback());

    let listener = listen_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let refused = dial(closed, None, PATIENCE).await.unwrap_err();
    assert_eq!(refused, DialError::Refused);
}

fn handshake() -> Handshake {
    Handshake {
        reserved: Reserved::ours(true),
        info_hash: InfoHash::new([7; 20]),
        peer_id: PeerId::new([9; 20]),
    }
}

#[tokio::test]
async fn a_handshake_in_pieces_is_read_and_what_follows_is_kept() {
    let (mut near, mut far) = connect(None).await;
    let send = async {
        let bytes = handshake().encode();
        for part in bytes.chunks(30) {
            near.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        near.write_all(b"more").await.unwrap();
    };
    let config = peer::Config::default();
    let ((), accepted) = tokio::join!(send, read_handshake(&mut far, Clock::start(), &config));
    let accepted = accepted.unwrap();
    assert_eq!(accepted.handshake, handshake());
    let mut rest = accepted.rest.to_vec();
    while rest.len() < 4 {
        far.read_buf(&mut rest).await.unwrap();
    }
    assert_eq!(rest, b"more");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_silent_closed_or_something_else_is_no_handshake() {
    let config = peer::Config::default();
    let (mut near, mut far) = connect(None).await;
    near.write_all(b"GET / HTTP/1.1").await.unwrap();
    let refused = read_handshake(&mut far, Clock::start(), &config).await;
    assert_eq!(refused.unwrap_err(), ProtocolError::NotBitTorrent);

    let (mut near, mut far) = connect(None).await;
    near.write_all(&handshake().encode()[..67]).await.unwrap();
    drop(near);
    let closed = read_handshake(&mut far, Clock::start(), &config).await;
    assert_eq!(closed.unwrap_err(), ProtocolError::NotBitTorrent);

    let (_near, mut far) = connect(None).await;
    let clock = Clock::start();
    let silent = read_handshake(&mut far, clock, &config).await;
    assert!(matches!(silent, Err(ProtocolError::TimedOut { .. })));
    assert!(clock.now().as_secs() >= 10);
}

/// A DHT node on loopback that starts from these nodes.
fn node(bootstrap: &[SocketAddr]) -> (DhtHandle, SocketAddr) {
    let socket = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let config = DhtConfig {
        node: dht::Config::default(),
        bootstrap: bootstrap.iter().map(ToString::to_string).collect(),
        snapshot: None,
    };
    let handle = super::dht::spawn(vec![socket], config, Clock::start(), entropy()).unwrap();
    (handle, address)
}

/// The peers a lookup named, and its report.
async fn finish(mut lookup: Lookup) -> (Vec<SocketAddr>, LookupReport) {
    let mut found = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, lookup.next()).await;
        match next.expect("an event in time").expect("the node is alive") {
            Event::PeersFound { peers, .. } => found.extend(peers),
            Event::LookupDone { report, .. } => {
                assert_eq!(lookup.next().await, None);
                return (found, report);
            }
            _ => {}
        }
    }
}

/// Waits until a node has a contact.
async fn connected(node: &DhtHandle) -> DhtStatus {
    let wait = async {
        loop {
            let status = node.status().await;
            if status.contacts > 0 {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}

#[tokio::test]
async fn an_announced_peer_is_found_through_real_sockets() {
    let (router, address) = node(&[]);
    let (seeder, seeder_address) = node(&[address]);
    let (leecher, _) = node(&[address]);
    connected(&seeder).await;
    connected(&leecher).await;
    let info_hash = InfoHash::new([3; 20]);
    let announce = seeder.announce(info_hash, PeerPort::Explicit(4_567)).await;
    let (_, report) = finish(announce).await;
    assert!(report.stored > 0, "{report:?}");
    let (found, _) = finish(leecher.find_peers(info_hash).await).await;
    assert!(found.contains(&SocketAddr::new(seeder_address.ip(), 4_567)));
    let (_, report) = finish(leecher.find_node(info_hash.as_target()).await).await;
    assert!(report.answered > 0);
    let status = router.status().await;
    assert_eq!(status.ids[0].0, address);
    assert!(status.stats.answered_announce > 0 && status.stored.0 == 1);
    assert!(!seeder.snapshot().await.contacts.is_empty());
    for node in [router, seeder, leecher] {
        node.stop().await;
        assert_eq!(node.status().await.contacts, 0);
        assert_eq!(node.find_peers(info_hash).await.next().await, None);
    }
}

#[tokio::test]
async fn a_torrent_is_kept_announced_until_its_reader_is_gone() {
    let (router, address) = node(&[]);
    let (seeder, seeder_address) = node(&[address]);
    connected(&seeder).await;
    let info_hash = InfoHash::new([4; 20]);
    let announced = async |keeping: &mut Keeping| loop {
        match tokio::time::timeout(PATIENCE, keeping.next()).await {
            Ok(Some(event)) => {
                if let Event::Announced { report, .. } = *event {
                    return report;
                }
            }
            ended => panic!("{ended:?}"),
        }
    };
    let port = PeerPort::Explicit(4_568);
    let keep = async |kind| seeder.keep_announced(info_hash, port, kind).await;
    let mut first = keep(PeerKind::Peer).await;
    assert!(announced(&mut first).await.stored > 0);
    let mut second = keep(PeerKind::Seed).await;
    assert!(announced(&mut second).await.stored > 0);
    // Whoever names it again takes over: the first one hears no more and ends nothing.
    while first.next().await.is_some() {}
    drop(first);
    // One that stores nothing itself.
    let socket = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = DhtConfig {
        node: dht::Config {
            read_only: true,
            ..dht::Config::default()
        },
        bootstrap: vec![seeder_address.to_string()],
        snapshot: None,
    };
    let leecher = super::dht::spawn(vec![socket], config, Clock::start(), entropy()).unwrap();
    connected(&leecher).await;
    let ours = SocketAddr::new(seeder_address.ip(), 4_568);
    let (found, _) = finish(leecher.find_peers(info_hash).await).await;
    assert!(found.contains(&ours));
    router.stop().await;
    // With its last reader it is withdrawn: the seeder names itself no longer.
    drop(second);
    let gone = async {
        while finish(leecher.find_peers(info_hash).await)
            .await
            .0
            .contains(&ours)
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    seeder.stop().await;
    leecher.stop().await;
}

#[tokio::test]
async fn a_closed_port_and_foreign_datagrams_do_not_stop_the_loop() {
    let (dht, address) = node(&[]);
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    // Its time-out comes after the refusal was received as an error.
    let (_, report) = finish(dht.ping(nobody).await).await;
    assert_eq!((report.answered, report.timed_out), (0, 1));
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for garbage in [&b"\x41\x00"[..], b"", b"d", b"dddd"] {
        stranger.send_to(garbage, address).unwrap();
    }
    let (other, other_address) = node(&[]);
    let (_, report) = finish(dht.ping(other_address).await).await;
    assert_eq!(report.answered, 1);
    let status = dht.status().await;
    assert_eq!(status.dropped.foreign, 2);
    other.stop().await;
    dht.stop().await;
}

#[tokio::test]
async fn a_bootstrap_name_is_resolved_and_a_bad_one_is_reported() {
    let (router, address) = node(&[]);
    let socket = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = DhtConfig {
        node: dht::Config::default(),
        bootstrap: vec![
            "no port here".to_owned(),
            format!("localhost:{}", address.port()),
        ],
        snapshot: None,
    };
    let dht = super::dht::spawn(vec![socket], config, Clock::start(), entropy()).unwrap();
    connected(&dht).await;
    let failed = dht.status().await.bootstrap_failed.unwrap();
    assert!(failed.starts_with("no port here: "), "{failed}");
    dht.stop().await;
    router.stop().await;
}

#[tokio::test]
async fn the_thread_ends_when_nobody_can_reach_it() {
    let (dht, address) = node(&[]);
    let lookup = dht.ping("127.0.0.1:9".parse().unwrap()).await;
    drop((dht, lookup));
    // The socket is closed with the loop: its port is free again.
    let freed = async {
        while bind_udp(address).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.unwrap();
}
