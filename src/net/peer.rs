//! Opening streams: listening, dialling, and the handshake of a stream that was accepted.
//!
//! Invariant: each wait has an end in time, and a handshake takes bounded memory.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::BytesMut;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::clock::Clock;
use crate::peer::{self, Accepted, Incoming};
use crate::swarm::DialError;
use crate::wire::ProtocolError;

/// Streams the system holds until they are accepted.
const BACKLOG: i32 = 256;

/// Opens the listening socket for streams; port 0 takes a free one. An IPv6 socket takes IPv6 only,
/// so that both families can listen on one port.
///
/// # Errors
///
/// What the system says: address in use, no such address on this machine, no IPv6.
pub fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A node that starts again at once gets its port although old connections linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Opens a stream to a peer.
///
/// `from` is the local address to use, so that many nodes on one machine keep an address each. It
/// is left to the system when `None`, unspecified, of the other family, or a loopback address while
/// the peer is not on this machine.
///
/// # Errors
///
/// The class of what went wrong; [`DialError::TimedOut`] also after `timeout`.
pub async fn dial(
    address: SocketAddr,
    from: Option<IpAddr>,
    timeout: Duration,
) -> Result<TcpStream, DialError> {
    let opened = tokio::time::timeout(timeout, open(address, from)).await;
    match opened {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "dial failed");
            Err(dial_error(&error, address))
        }
        Err(_elapsed) => Err(DialError::TimedOut),
    }
}

async fn open(address: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    let usable = |from: &IpAddr| {
        !from.is_unspecified()
            && from.is_ipv4() == address.is_ipv4()
            && (!from.is_loopback() || address.ip().is_loopback())
    };
    if let Some(from) = from.filter(usable) {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    socket.connect(address).await
}

/// Sorts what the system says by whose fault it is.
fn dial_error(error: &io::Error, address: SocketAddr) -> DialError {
    use rustix::io::Errno;
    /// Descriptors, memory, local ports or the network interface are short.
    const LOCAL: [Errno; 6] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
        Errno::NETDOWN,
    ];
    if Errno::from_io_error(error).is_some_and(|error| LOCAL.contains(&error)) {
        return DialError::Local;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused,
        io::ErrorKind::TimedOut => DialError::TimedOut,
        // A machine without any network has no route to anybody. One that only lacks the family of
        // this peer will never reach it.
        io::ErrorKind::NetworkUnreachable if !has_network(address.ip()) => DialError::Local,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            DialError::Unreachable
        }
        _ => DialError::Other,
    }
}

/// Whether this machine has a route to the Internet in either family. Nothing is sent to find out.
fn has_network(unreachable: IpAddr) -> bool {
    // The other family first: that of the peer has just failed.
    let mut probes: [SocketAddr; 2] = [
        (Ipv6Addr::new(0x2001, 0x4860, 0, 0, 0, 0, 0, 1), 1).into(),
        (Ipv4Addr::new(192, 0, 2, 1), 1).into(),
    ];
    if unreachable.is_ipv6() {
        probes.reverse();
    }
    probes.into_iter().any(|probe| {
        let any: IpAddr = match probe {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect(probe).is_ok())
    })
}

/// Reads the handshake of an accepted stream; bounded in time and bytes by [`Incoming`].
///
/// # Errors
///
/// The rule the stream broke. One that ends early never became a BitTorrent stream.
pub async fn read_handshake(
    stream: &mut TcpStream,
    clock: Clock,
    config: &peer::Config,
) -> Result<Accepted, ProtocolError> {
    /// A handshake, and the first messages that a peer sends along with it.
    const FIRST_READ: usize = 1 << 10;
    let mut incoming = Incoming::new(config, clock.now());
    let mut buffer = BytesMut::with_capacity(FIRST_READ);
    loop {
        buffer.reserve(FIRST_READ);
        let deadline = incoming
            .poll_timeout()
            .map_or(clock.now() + config.handshake_timeout, |wake| wake.at);
        tokio::select! {
            // Cancel-safe: bytes that were read are in the buffer, and used in the same step.
            read = stream.read_buf(&mut buffer) => match read {
                Ok(1..) => {
                    let input = buffer.split().freeze();
                    if let Some(accepted) = incoming.handle_bytes(clock.now(), input)? {
                        return Ok(accepted);
                    }
                }
                Ok(0) | Err(_) => return Err(ProtocolError::NotBitTorrent),
            },
            () = clock.sleep_until(deadline) => {
                // The timer may be due a moment before the core thinks so; then it is asked again.
                incoming.handle_timeout(clock.now())?;
                tokio::task::yield_now().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn what_is_short_on_this_machine_is_not_held_against_the_peer() {
        let peer = "127.0.0.1:1".parse().unwrap();
        let error = |errno: Errno| dial_error(&errno.into(), peer);
        for errno in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::ADDRNOTAVAIL,
            Errno::NETDOWN,
        ] {
            assert_eq!(error(errno), DialError::Local, "{errno:?}");
        }
        assert_eq!(error(Errno::CONNREFUSED), DialError::Refused);
        assert_eq!(error(Errno::TIMEDOUT), DialError::TimedOut);
        assert_eq!(error(Errno::HOSTUNREACH), DialError::Unreachable);
        assert_eq!(error(Errno::ACCESS), DialError::Other);
    }
}
