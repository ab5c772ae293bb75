//! Datagram sockets, and the sorting of what arrives on them.
//!
//! One port serves every protocol over UDP; the first byte tells them apart.
//!
//! Invariant: an IPv6 socket carries IPv6 only, so the two families have a socket each and no
//! address is ever seen in its IPv4-mapped form.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Receive buffer asked of the system, in bytes. Ours: about 10,000 queries of 100 bytes with their
/// bookkeeping, a tenth of a second at the rate one thread answers. The system may grant less.
pub const RECEIVE_BUFFER: usize = 4 << 20;

/// Bytes of a datagram that are looked at. The rest of a longer one is lost, and what is left is
/// over every limit of the protocols (KRPC: 2,048 bytes), so it is refused as too long. No power of
/// two, so that the datagrams of a batch do not all compete for the same lines of the cache.
pub const DATAGRAM_MAX: usize = 2048 + 64;

/// What a datagram is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramKind {
    /// A KRPC message: a bencoded dictionary begins with `d` (BEP 5).
    Krpc,
    /// What a UDP tracker answers begins with the number of an action, 0 to 3 in 32 bits (BEP 15). Only
    /// those that were asked are listened to.
    Tracker,
    /// Nothing that is spoken here: counted and dropped.
    Other,
}

impl DatagramKind {
    /// Sorts a datagram by its first byte; an empty one is [`Self::Other`].
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        match payload.first() {
            Some(b'd') => Self::Krpc,
            Some(0) => Self::Tracker,
            _ => Self::Other,
        }
    }
}

/// Binds a datagram socket that does not block, with a big receive buffer; port 0 takes a free one.
///
/// # Errors
///
/// What the system says: address in use, no such address on this machine, no IPv6.
pub fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Best effort: with a small buffer a burst is lost, which the protocol survives.
    if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER) {
        tracing::debug!(%error, "receive buffer not enlarged");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_sorted_by_their_first_byte() {
        assert_eq!(DatagramKind::of(b"d1:y1:qe"), DatagramKind::Krpc);
        assert_eq!(DatagramKind::of(b"\0\0\0\x01"), DatagramKind::Tracker);
        for other in [&b""[..], b"\x01\x00", b"\x41\x00", b"le"] {
            assert_eq!(DatagramKind::of(other), DatagramKind::Other);
        }
    }

    #[test]
    fn both_families_can_have_the_same_port_and_a_taken_one_is_refused() {
        let v4 = bind_udp("0.0.0.0:0".parse().unwrap()).unwrap();
        let taken = v4.local_addr().unwrap();
        assert_eq!(
            bind_udp(taken).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        match bind_udp(SocketAddr::new(
            std::net::Ipv6Addr::UNSPECIFIED.into(),
            taken.port(),
        )) {
            Ok(v6) => assert_eq!(v6.local_addr().unwrap().port(), taken.port()),
            // No IPv6 here; anything but a clash with the other family.
            Err(error) => assert_ne!(error.kind(), io::ErrorKind::AddrInUse),
        }
    }
}
