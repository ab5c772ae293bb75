//! Many datagrams with one call of the system: `recvmmsg` and `sendmmsg` on Linux, one after the
//! other elsewhere.
//!
//! [`Inbound`] holds what one call received, [`Outbound`] what waits to be sent. Neither allocates
//! once it has been used.
//!
//! Invariant: a datagram that the system refuses to send takes no other with it, and what a full
//! send buffer does not take waits in its place, up to the bound.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::udp::DATAGRAM_MAX;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(not(target_os = "linux"), test))]
#[cfg_attr(
    target_os = "linux",
    expect(unreachable_pub, reason = "here it is only tested")
)]
mod single;
#[cfg(test)]
mod tests;

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use single as system;

/// Datagrams that one call carries at most. Ours: with so many the call itself costs less than a
/// hundredth of what they do, and the answer to the first waits for less than a millisecond.
pub const BATCH: usize = 64;

/// Bytes that [`Outbound`] keeps for what is sent next: a batch of ordinary answers.
const BYTES_KEPT: usize = BATCH * 512;

/// A socket whose datagrams can be carried in batches.
pub trait Datagrams: system::Handle {
    /// Makes a call that reads, if the socket may have something; one that says that it would block
    /// is not made again before something arrives.
    ///
    /// # Errors
    ///
    /// Those of the call, and [`io::ErrorKind::WouldBlock`] when there is nothing.
    fn reading(&self, call: impl FnOnce() -> io::Result<()>) -> io::Result<()>;

    /// Makes a call that writes, likewise.
    ///
    /// # Errors
    ///
    /// Those of the call, and [`io::ErrorKind::WouldBlock`] when there is no room.
    fn writing(&self, call: impl FnOnce() -> io::Result<()>) -> io::Result<()>;
}

impl Datagrams for UdpSocket {
    fn reading(&self, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        call()
    }

    fn writing(&self, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        call()
    }
}

impl Datagrams for tokio::net::UdpSocket {
    fn reading(&self, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.try_io(tokio::io::Interest::READABLE, call)
    }

    fn writing(&self, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.try_io(tokio::io::Interest::WRITABLE, call)
    }
}

/// What one call received. Each socket needs its own.
#[derive(Debug)]
pub struct Inbound {
    /// [`BATCH`] times [`DATAGRAM_MAX`] bytes.
    buffer: Vec<u8>,
    /// Length and sender of each datagram.
    received: Vec<(usize, SocketAddr)>,
    headers: system::ReceiveHeaders,
}

impl Default for Inbound {
    fn default() -> Self {
        Self {
            buffer: vec![0; BATCH * DATAGRAM_MAX],
            received: Vec::with_capacity(BATCH),
            headers: system::ReceiveHeaders::new(BATCH),
        }
    }
}

impl Inbound {
    /// Receives what has arrived, at most [`BATCH`] datagrams; a socket that blocks waits for the
    /// first. What was received before is gone. Returns how many came.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when nothing has arrived; what the system says otherwise, for
    /// example an error that an earlier datagram of ours caused.
    pub fn receive(&mut self, socket: &impl Datagrams) -> io::Result<usize> {
        let Self {
            buffer,
            received,
            headers,
        } = self;
        received.clear();
        let outcome = socket.reading(|| {
            system::receive(socket, headers, buffer, received)?;
            if received.len() < BATCH {
                // There is no more, so the next call is made when something arrives.
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        match outcome {
            Err(error) if received.is_empty() => Err(error),
            Ok(()) | Err(_) => Ok(received.len()),
        }
    }

    /// The datagrams with their senders, first come first. Of a longer one than [`DATAGRAM_MAX`]
    /// bytes these are there.
    pub fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.buffer
            .chunks_exact(DATAGRAM_MAX)
            .zip(&self.received)
            .map(|(bytes, &(length, from))| (from, &bytes[..length]))
    }
}

/// A datagram in [`Outbound`].
#[derive(Debug, Clone, Copy)]
struct Queued {
    to: SocketAddr,
    /// Where it ends in the buffer; it begins where the one before it ends.
    end: usize,
}

/// What waits to be sent on one socket, first come first.
#[derive(Debug)]
pub struct Outbound {
    max: usize,
    bytes: Vec<u8>,
    /// Where the first one begins.
    start: usize,
    queue: VecDeque<Queued>,
    headers: system::SendHeaders,
}

impl Outbound {
    /// Nothing waits. There is room for `max` datagrams.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
            bytes: Vec::new(),
            start: 0,
            queue: VecDeque::new(),
            headers: system::SendHeaders::new(BATCH),
        }
    }

    /// Datagrams that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Puts a datagram behind those that wait; `false` when there is no room.
    #[must_use]
    pub fn push(&mut self, to: SocketAddr, payload: &[u8]) -> bool {
        if self.queue.len() >= self.max {
            return false;
        }
        self.bytes.extend_from_slice(payload);
        let end = self.bytes.len();
        self.queue.push_back(Queued { to, end });
        true
    }

    /// Sends what waits until the socket has no room. `on_refused` is told of each datagram that
    /// the system did not want, which is lost. Returns how many were sent.
    pub fn flush(
        &mut self,
        socket: &impl Datagrams,
        mut on_refused: impl FnMut(SocketAddr, io::Error),
    ) -> usize {
        let mut total = 0;
        while let Some(first) = self.queue.front().copied() {
            let Self {
                bytes,
                queue,
                start,
                headers,
                ..
            } = self;
            let mut sent = 0;
            let outcome = socket.writing(|| {
                let mut from = *start;
                let batch = queue.iter().take(BATCH).map(|queued| {
                    let payload = &bytes[from..queued.end];
                    from = queued.end;
                    (queued.to, payload)
                });
                sent = system::send(socket, headers, batch)?;
                Ok(())
            });
            total += sent;
            match outcome {
                // Zero datagrams cannot be sent without an error, but a loop must end.
                Ok(()) if sent > 0 => self.forget(sent),
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    on_refused(first.to, error);
                    self.forget(1);
                }
            }
        }
        self.tidy_up();
        total
    }

    /// The first `count` are done with.
    fn forget(&mut self, count: usize) {
        if let Some(last) = self.queue.drain(..count).next_back() {
            self.start = last.end;
        }
    }

    /// Frees the bytes of what was sent.
    fn tidy_up(&mut self) {
        if self.queue.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(BYTES_KEPT);
        } else {
            self.bytes.drain(..self.start);
            for queued in &mut self.queue {
                queued.end -= self.start;
            }
        }
        self.start = 0;
    }
}
