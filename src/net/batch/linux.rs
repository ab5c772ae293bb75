//! `recvmmsg` and `sendmmsg`.

use std::array;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

use super::{BATCH, DATAGRAM_MAX};

/// What a socket must have.
pub trait Handle: AsRawFd {}

impl<S: AsRawFd> Handle for S {}

/// What the system fills in about datagrams that arrive.
#[derive(Debug)]
pub(super) struct ReceiveHeaders(MultiHeaders<SockaddrStorage>);

impl ReceiveHeaders {
    pub(super) fn new(count: usize) -> Self {
        Self(MultiHeaders::preallocate(count, None))
    }
}

/// What the system is told about datagrams that leave.
#[derive(Debug)]
pub(super) struct SendHeaders {
    headers: MultiHeaders<SockaddrStorage>,
    addresses: Vec<Option<SockaddrStorage>>,
}

impl SendHeaders {
    pub(super) fn new(count: usize) -> Self {
        Self {
            headers: MultiHeaders::preallocate(count, None),
            addresses: Vec::with_capacity(count),
        }
    }
}

/// Receives a batch into `buffer`, [`DATAGRAM_MAX`] bytes for each.
pub(super) fn receive(
    socket: &impl AsRawFd,
    headers: &mut ReceiveHeaders,
    buffer: &mut [u8],
    received: &mut Vec<(usize, SocketAddr)>,
) -> io::Result<()> {
    let mut chunks = buffer.chunks_exact_mut(DATAGRAM_MAX);
    let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
        array::from_fn(|_| [IoSliceMut::new(chunks.next().unwrap_or_default())]);
    let (fd, headers) = (socket.as_raw_fd(), &mut headers.0);
    // A socket that blocks waits for the first one only.
    let results = recvmmsg(fd, headers, &mut slices, MsgFlags::MSG_WAITFORONE, None)?;
    received.extend(results.map(|datagram| {
        let from = datagram.address.and_then(|from| address(&from));
        // Without an address it is from nowhere, and dropped as that.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        (datagram.bytes, from.unwrap_or(nowhere))
    }));
    Ok(())
}

fn address(from: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = from.as_sockaddr_in();
    let v4 = v4.map(|from| SocketAddr::V4(SocketAddrV4::from(*from)));
    let v6 = || Some(SocketAddr::V6(SocketAddrV6::from(*from.as_sockaddr_in6()?)));
    v4.or_else(v6)
}

/// Sends as many of a batch as the socket takes; the error is that of the first.
pub(super) fn send<'a>(
    socket: &impl AsRawFd,
    headers: &mut SendHeaders,
    batch: impl Iterator<Item = (SocketAddr, &'a [u8])>,
) -> io::Result<usize> {
    let SendHeaders { headers, addresses } = headers;
    addresses.clear();
    let mut slices = [[IoSlice::new(&[])]; BATCH];
    for (slot, (to, payload)) in slices.iter_mut().zip(batch) {
        addresses.push(Some(SockaddrStorage::from(to)));
        *slot = [IoSlice::new(payload)];
    }
    let fd = socket.as_raw_fd();
    let flags = MsgFlags::empty();
    let results = sendmmsg(fd, headers, &slices, &*addresses, [], flags)?;
    Ok(results.count())
}
