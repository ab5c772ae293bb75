//! Binding the sockets of a session.
//!
//! Invariant: the TCP listener and the UDP socket of one address have the same port, so that one
//! number is enough for announces, peers and port forwarding.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use tokio::net::TcpListener;

use super::SessionError;
use crate::address::Scope;
use crate::net;

/// Ports tried after the default one before any free port is taken.
const PORTS_TRIED: u16 = 100;

/// Attempts to find a port that is free for both TCP and UDP.
const FREE_PORT_ATTEMPTS: u32 = 32;

/// What shall be bound on each address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kinds {
    /// A TCP listener.
    pub(super) tcp: bool,
    /// A UDP socket.
    pub(super) udp: bool,
}

/// The sockets of one address.
#[derive(Debug)]
pub(super) struct Bound {
    /// The address, with the port that was taken.
    pub(super) address: SocketAddr,
    /// Accepts peers.
    pub(super) tcp: Option<TcpListener>,
    /// Belongs to the DHT.
    pub(super) udp: Option<UdpSocket>,
}

/// Binds all addresses.
///
/// With `explicit`, each address must be available as it stands. Without, a port that is taken on
/// one address is given up for all of them and the next one tried, and a family that this machine
/// does not have is left out with a log line.
pub(super) fn bind(
    addresses: &[SocketAddr],
    explicit: bool,
    kinds: Kinds,
) -> Result<Vec<Bound>, SessionError> {
    if explicit {
        return bind_explicit(addresses, kinds);
    }
    let first = addresses.first().map_or(0, SocketAddr::port);
    let candidates = (0..=PORTS_TRIED).map_while(|step| first.checked_add(step));
    for port in candidates.filter(|&port| port != 0) {
        match bind_all(addresses, port, kinds) {
            Err(SessionError::Listen { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse => {}
            other => return other,
        }
    }
    // The port that the first address gets may be taken on another one.
    let mut attempt = 1;
    loop {
        match bind_all(addresses, 0, kinds) {
            Err(SessionError::Listen { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse && attempt < FREE_PORT_ATTEMPTS =>
            {
                attempt += 1;
            }
            other => return other,
        }
    }
}

/// Binds addresses that the user gave. Those with port 0 share one free port where that is
/// possible.
fn bind_explicit(addresses: &[SocketAddr], kinds: Kinds) -> Result<Vec<Bound>, SessionError> {
    let mut bound: Vec<Bound> = Vec::new();
    let mut shared = None;
    for &address in addresses {
        let mut sockets = None;
        if let (0, Some(port)) = (address.port(), shared) {
            sockets = bind_pair(SocketAddr::new(address.ip(), port), kinds).ok();
        }
        let sockets = match sockets {
            Some(sockets) => sockets,
            None => bind_pair(address, kinds)
                .map_err(|source| SessionError::Listen { address, source })?,
        };
        if address.port() == 0 {
            shared = Some(sockets.address.port());
        }
        bound.push(sockets);
    }
    if bound.is_empty() {
        Err(SessionError::NoAddress)
    } else {
        Ok(bound)
    }
}

/// Binds all addresses on one port, 0 for any; leaves out families that are not there.
fn bind_all(addresses: &[SocketAddr], port: u16, kinds: Kinds) -> Result<Vec<Bound>, SessionError> {
    let mut bound: Vec<Bound> = Vec::new();
    for address in addresses {
        let port = bound.first().map_or(port, |first| first.address.port());
        let address = SocketAddr::new(address.ip(), port);
        match bind_pair(address, kinds) {
            Ok(sockets) => bound.push(sockets),
            Err(error) if is_missing_family(&error) => {
                tracing::info!(%address, %error, "cannot listen there, going on without");
            }
            Err(source) => return Err(SessionError::Listen { address, source }),
        }
    }
    if bound.is_empty() {
        Err(SessionError::NoAddress)
    } else {
        Ok(bound)
    }
}

/// Whether an error says that the machine lacks the address family.
fn is_missing_family(error: &io::Error) -> bool {
    let missing = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(missing)
}

/// Binds TCP and UDP to one address; with port 0, to a port that is free for both.
fn bind_pair(address: SocketAddr, kinds: Kinds) -> io::Result<Bound> {
    let mut attempt = 1;
    loop {
        match try_bind_pair(address, kinds) {
            Err(error)
                if address.port() == 0
                    && error.kind() == io::ErrorKind::AddrInUse
                    && attempt < FREE_PORT_ATTEMPTS =>
            {
                attempt += 1;
            }
            other => return other,
        }
    }
}

/// One attempt of [`bind_pair`]: the port that TCP got is asked for UDP.
fn try_bind_pair(mut address: SocketAddr, kinds: Kinds) -> io::Result<Bound> {
    let tcp = if kinds.tcp {
        Some(net::peer::listen_tcp(address)?)
    } else {
        None
    };
    if let Some(listener) = &tcp {
        address = listener.local_addr()?;
    }
    let udp = if kinds.udp {
        let socket = net::udp::bind_udp(address)?;
        address = socket.local_addr()?;
        Some(socket)
    } else {
        None
    };
    Ok(Bound { address, tcp, udp })
}

/// Whether a stream to `address` would end at one of our own listeners. Seen from outside a NAT we
/// have an address that nobody on this machine knows, so `false` may be wrong there.
pub(super) fn is_own(listen: &[SocketAddr], address: SocketAddr) -> bool {
    let ip = address.ip();
    listen.iter().any(|ours| {
        ours.port() == address.port()
            && ours.is_ipv4() == address.is_ipv4()
            && (ours.ip() == ip || ours.ip().is_unspecified() && (ip.is_loopback() || is_local(ip)))
    })
}

/// The local address a dial to `to` leaves from: a specific address that we listen on, so that a
/// host with several addresses shows the same one everywhere. `None` lets the system choose.
pub(super) fn dial_from(listen: &[SocketAddr], to: IpAddr) -> Option<IpAddr> {
    listen.iter().map(SocketAddr::ip).find(|ip| {
        ip.is_ipv4() == to.is_ipv4()
            && Scope::of(*ip).is_some_and(|scope| {
                scope != Scope::Loopback || Scope::of(to) == Some(Scope::Loopback)
            })
    })
}

/// Whether an address belongs to this machine: then the system would speak to it from that very
/// address. Nothing is sent to find out.
fn is_local(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 1))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Kinds = Kinds {
        tcp: true,
        udp: true,
    };

    fn loopback(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[tokio::test]
    async fn port_zero_takes_one_port_that_works_for_both() {
        let bound = bind(&[loopback(0)], true, BOTH).unwrap();
        let tcp = bound[0].tcp.as_ref().unwrap().local_addr().unwrap();
        let udp = bound[0].udp.as_ref().unwrap().local_addr().unwrap();
        assert_eq!(tcp, udp);
        assert_eq!(tcp, bound[0].address);
        assert_ne!(tcp.port(), 0);
    }

    #[tokio::test]
    async fn an_explicit_port_that_is_taken_is_an_error_that_names_it() {
        let taken = bind(&[loopback(0)], true, BOTH).unwrap();
        let address = taken[0].address;
        let error = bind(&[address], true, BOTH).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_default_port_that_is_taken_gives_way_to_the_next_free_one() {
        let taken = bind(&[loopback(0)], true, BOTH).unwrap();
        let address = taken[0].address;
        let bound = bind(&[address], false, BOTH).unwrap();
        assert_ne!(bound[0].address.port(), address.port());
    }

    #[tokio::test]
    async fn a_family_that_this_machine_lacks_is_left_out_unless_the_user_named_it() {
        // An address of nobody's machine stands for a family that is not there.
        let missing: SocketAddr = "192.0.2.1:0".parse().unwrap();
        for addresses in [[loopback(0), missing], [missing, loopback(0)]] {
            let bound = bind(&addresses, false, BOTH).unwrap();
            assert_eq!(bound.len(), 1);
            assert_eq!(bound[0].address.ip(), loopback(0).ip());
            assert!(bind(&addresses, true, BOTH).is_err());
        }
        let none = bind(&[missing], false, BOTH);
        assert!(matches!(none, Err(SessionError::NoAddress)), "{none:?}");
        let no_family = rustix::io::Errno::AFNOSUPPORT.into();
        assert!(is_missing_family(&no_family));
    }

    #[tokio::test]
    async fn a_port_whose_udp_half_is_taken_counts_as_taken() {
        let taken = bind(
            &[loopback(0)],
            true,
            Kinds {
                tcp: false,
                udp: true,
            },
        )
        .unwrap();
        let address = taken[0].address;
        assert!(bind(&[address], true, BOTH).is_err());
    }

    #[tokio::test]
    async fn nothing_to_listen_on_is_an_error() {
        assert!(matches!(
            bind(&[], true, BOTH),
            Err(SessionError::NoAddress)
        ));
    }

    #[test]
    fn our_own_address_is_known_as_such_whatever_we_listen_on() {
        let own = |listen: &str, address: &str| {
            is_own(&[listen.parse().unwrap()], address.parse().unwrap())
        };
        assert!(own("127.0.0.2:7", "127.0.0.2:7"));
        assert!(!own("127.0.0.2:7", "127.0.0.3:7"));
        assert!(!own("127.0.0.2:7", "127.0.0.2:8"));
        assert!(own("0.0.0.0:7", "127.0.0.3:7"));
        assert!(!own("0.0.0.0:7", "[::1]:7"));
        assert!(!own("0.0.0.0:7", "192.0.2.1:7"));
    }

    #[test]
    fn dials_leave_from_the_address_we_listen_on() {
        let from = |listen: &[&str], to: &str| {
            let listen: Vec<SocketAddr> = listen.iter().map(|a| a.parse().unwrap()).collect();
            dial_from(&listen, to.parse().unwrap()).map(|ip| ip.to_string())
        };
        assert_eq!(from(&["0.0.0.0:1", "[::]:1"], "10.0.0.1"), None);
        assert_eq!(
            from(&["127.0.0.2:1"], "127.0.0.1").as_deref(),
            Some("127.0.0.2")
        );
        assert_eq!(from(&["127.0.0.2:1"], "10.0.0.1"), None);
        assert_eq!(
            from(&["10.77.0.1:1"], "10.77.0.2").as_deref(),
            Some("10.77.0.1")
        );
        assert_eq!(from(&["10.77.0.1:1"], "::1"), None);
    }
}
