//! One datagram after the other, for systems that know no batches.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::{BATCH, DATAGRAM_MAX};

/// What a socket must be able to do.
pub trait Handle {
    /// Whether receiving may wait, so that one datagram at a time has to do.
    const WAITS: bool;

    /// Receives a datagram.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn receive_one(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)>;

    /// Sends a datagram.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn send_one(&self, to: SocketAddr, payload: &[u8]) -> io::Result<usize>;
}

impl Handle for UdpSocket {
    const WAITS: bool = true;

    fn receive_one(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.recv_from(buffer)
    }

    fn send_one(&self, to: SocketAddr, payload: &[u8]) -> io::Result<usize> {
        self.send_to(payload, to)
    }
}

impl Handle for tokio::net::UdpSocket {
    const WAITS: bool = false;

    fn receive_one(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.try_recv_from(buffer)
    }

    fn send_one(&self, to: SocketAddr, payload: &[u8]) -> io::Result<usize> {
        self.try_send_to(payload, to)
    }
}

/// Nothing is kept between two calls.
#[derive(Debug)]
pub(super) struct ReceiveHeaders;

impl ReceiveHeaders {
    pub(super) const fn new(_: usize) -> Self {
        Self
    }
}

/// Nothing is kept between two calls.
#[derive(Debug)]
pub(super) struct SendHeaders;

impl SendHeaders {
    pub(super) const fn new(_: usize) -> Self {
        Self
    }
}

/// Receives a batch into `buffer`, [`DATAGRAM_MAX`] bytes for each.
pub(super) fn receive<S: Handle>(
    socket: &S,
    _: &mut ReceiveHeaders,
    buffer: &mut [u8],
    received: &mut Vec<(usize, SocketAddr)>,
) -> io::Result<()> {
    let most = if S::WAITS { 1 } else { BATCH };
    for chunk in buffer.chunks_exact_mut(DATAGRAM_MAX).take(most) {
        match socket.receive_one(chunk) {
            Ok(datagram) => received.push(datagram),
            Err(error) if received.is_empty() => return Err(error),
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// Sends as many of a batch as the socket takes; the error is that of the first.
pub(super) fn send<'a>(
    socket: &impl Handle,
    _: &mut SendHeaders,
    batch: impl Iterator<Item = (SocketAddr, &'a [u8])>,
) -> io::Result<usize> {
    let mut sent = 0;
    for (to, payload) in batch {
        match socket.send_one(to, payload) {
            Ok(_) => sent += 1,
            Err(error) if sent == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(sent)
}
