//! One socket that speaks from a thousand addresses of loopback.
//!
//! It is bound to every address, says with each datagram from which one it comes, and is told of
//! each that arrives to which one it was sent.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::sockopt::Ipv4PacketInfo;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg,
    setsockopt,
};
use trackless::net::bind_udp;

/// Addresses that queries come from.
pub(crate) const SOURCES: u32 = 1_000;

/// Queries of one source that are sent with one call.
pub(crate) const BURST: usize = 4;

/// Datagrams that are received with one call.
const BATCH: usize = 64;

/// Room for a datagram.
const DATAGRAM: usize = 1_536 + 64;

/// The address of a source.
pub(crate) fn address(source: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x7f_0a_00_00 + ((source / 250) << 8) + 1 + source % 250)
}

/// The source of an address.
fn source_of(address: Ipv4Addr) -> Option<u32> {
    let offset = address.to_bits().checked_sub(0x7f_0a_00_01)?;
    let source = (offset >> 8) * 250 + (offset & 0xff);
    (source < SOURCES).then_some(source)
}

/// The socket with the buffers that it needs.
pub(crate) struct Sources {
    socket: UdpSocket,
    to: SockaddrIn,
    receive: MultiHeaders<SockaddrIn>,
    send: MultiHeaders<SockaddrIn>,
    buffer: Vec<u8>,
    /// Length and source of what came.
    received: Vec<(usize, Option<u32>)>,
}

impl Sources {
    /// A socket of its own.
    pub(crate) fn open() -> Self {
        let socket = bind_udp((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        setsockopt(&socket, Ipv4PacketInfo, &true).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        Self {
            socket,
            to: SockaddrIn::new(127, 0, 0, 1, 0),
            receive: MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(in_pktinfo))),
            send: MultiHeaders::preallocate(BURST, Some(nix::cmsg_space!(in_pktinfo))),
            buffer: vec![0; BATCH * DATAGRAM],
            received: Vec::with_capacity(BATCH),
        }
    }

    /// Sends to this server from now on.
    pub(crate) fn aim(&mut self, server: SocketAddrV4) {
        self.to = SockaddrIn::from(server);
    }

    /// The port of all sources.
    pub(crate) fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    /// Whether [`Sources::receive`] waits for something to arrive, 20 ms at most.
    pub(crate) fn wait(&self, waits: bool) {
        self.socket.set_nonblocking(!waits).unwrap();
    }

    /// Sends datagrams of one source, [`BURST`] at most.
    pub(crate) fn send(&mut self, source: u32, datagrams: &[Vec<u8>]) {
        let info = in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: in_addr {
                s_addr: address(source).to_bits().to_be(),
            },
            ipi_addr: in_addr { s_addr: 0 },
        };
        let slices = datagrams.iter().map(|bytes| [IoSlice::new(bytes)]);
        let slices: Vec<_> = slices.collect();
        let to = [Some(self.to); BURST];
        let (fd, from) = (
            self.socket.as_raw_fd(),
            [ControlMessage::Ipv4PacketInfo(&info)],
        );
        // What finds no room is lost, and counted as not answered.
        let _ = sendmmsg(
            fd,
            &mut self.send,
            &slices,
            to,
            from,
            MsgFlags::MSG_DONTWAIT,
        );
    }

    /// Receives a batch; how many came.
    pub(crate) fn receive(&mut self) -> usize {
        self.received.clear();
        let mut chunks = self.buffer.chunks_exact_mut(DATAGRAM);
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(chunks.next().unwrap())]);
        let (fd, headers) = (self.socket.as_raw_fd(), &mut self.receive);
        match recvmmsg(fd, headers, &mut slices, MsgFlags::MSG_WAITFORONE, None) {
            Ok(results) => self.received.extend(results.map(|datagram| {
                let mut local = None;
                for message in datagram.cmsgs().into_iter().flatten() {
                    if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
                        let address = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                        local = source_of(address);
                    }
                }
                (datagram.bytes, local)
            })),
            Err(errno) => {
                let error = io::Error::from(errno);
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
            }
        }
        self.received.len()
    }

    /// A datagram of the batch, and the source it was sent to.
    pub(crate) fn datagram(&self, index: usize) -> (&[u8], Option<u32>) {
        let (length, source) = self.received[index];
        let start = index * DATAGRAM;
        (&self.buffer[start..start + length], source)
    }

    /// The server.
    pub(crate) fn server(&self) -> SocketAddr {
        SocketAddr::V4(self.to.into())
    }

    /// The address of a source with the port.
    pub(crate) fn socket_address(&self, source: u32) -> SocketAddr {
        (address(source), self.port()).into()
    }
}
