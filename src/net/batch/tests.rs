use std::cell::Cell;
use std::os::fd::{AsRawFd, RawFd};

use rustix::io::Errno;

use super::*;
use crate::net::bind_udp;

fn socket() -> UdpSocket {
    bind_udp("127.0.0.1:0".parse().unwrap()).unwrap()
}

fn blocking() -> UdpSocket {
    let socket = socket();
    socket.set_nonblocking(false).unwrap();
    socket
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

/// Receives so many datagrams, in batches as they come.
fn receive(socket: &UdpSocket, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut inbound = Inbound::default();
    let mut all = Vec::new();
    while all.len() < count {
        assert!(inbound.receive(socket).unwrap() > 0);
        let came = inbound.datagrams();
        all.extend(came.map(|(from, bytes)| (from, bytes.to_vec())));
    }
    all
}

/// A socket that can be told what the system says to the next call.
struct Moody<'a> {
    socket: &'a UdpSocket,
    next: Cell<Option<Errno>>,
}

impl AsRawFd for Moody<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Datagrams for Moody<'_> {
    fn reading(&self, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        call()
    }

    fn writing(&self, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.next.take() {
            Some(error) => Err(error.into()),
            None => call(),
        }
    }
}

#[test]
fn more_datagrams_than_a_batch_arrive_in_order_with_their_senders() {
    let (near, far) = (socket(), blocking());
    let mut outbound = Outbound::new(1000);
    let count = 3 * BATCH + 5;
    for number in 0..count {
        assert!(outbound.push(address(&far), number.to_string().as_bytes()));
    }
    let sent = outbound.flush(&near, |to, error| panic!("{to}: {error}"));
    assert_eq!((sent, outbound.len()), (count, 0));
    for (number, (from, bytes)) in receive(&far, count).into_iter().enumerate() {
        assert_eq!(from, address(&near));
        assert_eq!(bytes, number.to_string().as_bytes());
    }
}

#[test]
fn both_families_tell_who_sent() {
    let Ok(near) = bind_udp("[::1]:0".parse().unwrap()) else {
        return; // No IPv6 here.
    };
    let mut outbound = Outbound::new(9);
    for _ in 0..2 {
        assert!(outbound.push(address(&near), b"de"));
        outbound.flush(&near, |to, error| panic!("{to}: {error}"));
        near.set_nonblocking(false).unwrap();
        assert_eq!(receive(&near, 1), [(address(&near), b"de".to_vec())]);
    }
}

#[test]
fn what_is_too_long_is_cut_and_what_is_empty_is_there() {
    let (near, far) = (socket(), blocking());
    let long = vec![b'd'; 4 * DATAGRAM_MAX];
    let payloads = [&b"de"[..], &long, b"", b"le"];
    for payload in payloads {
        near.send_to(payload, address(&far)).unwrap();
    }
    let came = receive(&far, payloads.len());
    let came: Vec<_> = came.iter().map(|(_, bytes)| &bytes[..]).collect();
    assert_eq!(came, [b"de", &long[..DATAGRAM_MAX], b"", b"le"]);
}

#[test]
fn datagrams_that_the_system_refuses_take_no_others_with_them() {
    let (near, far) = (socket(), blocking());
    let nobody = SocketAddr::from(([255, 255, 255, 255], 1));
    let too_long = vec![0; 70_000];
    let here = address(&far);
    let mut outbound = Outbound::new(9);
    let all: [(SocketAddr, &[u8]); 6] = [
        (nobody, b"0"),
        (here, b"1"),
        (here, &too_long),
        (nobody, b"3"),
        (here, b"4"),
        (nobody, b"5"),
    ];
    for (to, payload) in all {
        assert!(outbound.push(to, payload));
    }
    let mut refused = Vec::new();
    let sent = outbound.flush(&near, |to, _| refused.push(to));
    assert_eq!((sent, outbound.len()), (2, 0));
    assert_eq!(refused, [nobody, here, nobody, nobody]);
    let came = receive(&far, 2);
    assert_eq!((&came[0].1[..], &came[1].1[..]), (&b"1"[..], &b"4"[..]));
}

#[test]
fn what_finds_no_room_waits_in_its_place_up_to_the_bound() {
    let (near, far) = (socket(), blocking());
    let moody = Moody {
        socket: &near,
        next: Cell::new(Some(Errno::AGAIN)),
    };
    let mut outbound = Outbound::new(3);
    for payload in [b"1", b"2"] {
        assert!(outbound.push(address(&far), payload));
    }
    assert_eq!(outbound.flush(&moody, |_, _| panic!("it is no error")), 0);
    assert_eq!(outbound.len(), 2);
    assert!(outbound.push(address(&far), b"3"));
    assert!(!outbound.push(address(&far), b"4"), "there is no room");
    assert_eq!(outbound.flush(&moody, |_, _| panic!("there is room")), 3);
    let came = receive(&far, 3);
    let came: Vec<_> = came.iter().map(|(_, bytes)| &bytes[..]).collect();
    assert_eq!(came, [b"1", b"2", b"3"]);
}

#[test]
fn without_memory_in_the_system_one_datagram_is_lost_and_the_others_leave() {
    let (near, far) = (socket(), blocking());
    let moody = Moody {
        socket: &near,
        next: Cell::new(Some(Errno::NOBUFS)),
    };
    let mut outbound = Outbound::new(9);
    for payload in [b"1", b"2"] {
        assert!(outbound.push(address(&far), payload));
    }
    let mut lost = Vec::new();
    let sent = outbound.flush(&moody, |_, error| lost.push(error.raw_os_error()));
    assert_eq!(lost, [Some(Errno::NOBUFS.raw_os_error())]);
    assert_eq!((sent, outbound.is_empty()), (1, true));
    assert_eq!(receive(&far, 1)[0].1, b"2");
    // An interrupted call is made again.
    moody.next.set(Some(Errno::INTR));
    assert!(outbound.push(address(&far), b"3"));
    assert_eq!(outbound.flush(&moody, |_, _| panic!("it is no error")), 1);
}

#[test]
fn a_burst_leaves_no_memory_behind() {
    let (near, far) = (socket(), socket());
    let mut outbound = Outbound::new(4 * BATCH);
    for _ in 0..4 * BATCH {
        assert!(outbound.push(address(&far), &[0; 1400]));
    }
    outbound.flush(&near, |_, _| {});
    assert!(outbound.bytes.capacity() <= BYTES_KEPT);
}

#[tokio::test]
async fn a_watched_socket_says_when_there_is_something_again() {
    let (near, far) = (socket(), socket());
    let (here, far) = (address(&far), tokio::net::UdpSocket::from_std(far).unwrap());
    let mut inbound = Inbound::default();
    for round in 0..3 {
        for _ in 0..=round {
            near.send_to(b"de", here).unwrap();
        }
        let mut count = 0;
        while count <= round {
            far.readable().await.unwrap();
            match inbound.receive(&far) {
                Ok(came) => count += came,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        let nothing = inbound.receive(&far).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(inbound.datagrams().count(), 0);
    }
}

#[tokio::test]
async fn without_batches_the_same_arrives() {
    let (near, far) = (socket(), blocking());
    let here = address(&far);
    let nobody = SocketAddr::from(([255, 255, 255, 255], 1));
    let mut headers = single::SendHeaders::new(BATCH);
    let mut send = |batch: [(SocketAddr, &'static [u8]); 3]| {
        single::send(&near, &mut headers, batch.into_iter())
    };
    assert!(send([(nobody, b"0"), (here, b"1"), (here, b"2")]).is_err());
    let sent = send([(here, b"1"), (nobody, b"0"), (here, b"2")]);
    assert_eq!(
        sent.unwrap(),
        1,
        "the caller learns of the second by trying again"
    );
    assert_eq!(send([(here, b"2"), (here, b"3"), (here, b"4")]).unwrap(), 3);
    let mut buffer = vec![0; BATCH * DATAGRAM_MAX];
    let mut received = Vec::new();
    let mut headers = single::ReceiveHeaders::new(BATCH);
    // A socket that waits gives one at a time, a watched one all that there is.
    single::receive(&far, &mut headers, &mut buffer, &mut received).unwrap();
    assert_eq!(received, [(1, address(&near))]);
    far.set_nonblocking(true).unwrap();
    let far = tokio::net::UdpSocket::from_std(far).unwrap();
    far.readable().await.unwrap();
    received.clear();
    single::receive(&far, &mut headers, &mut buffer, &mut received).unwrap();
    assert_eq!(received.len(), 3);
    let texts = buffer.chunks(DATAGRAM_MAX).map(|bytes| bytes[0]).take(3);
    assert_eq!(texts.collect::<Vec<_>>(), b"234");
}
