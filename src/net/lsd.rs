//! Local service discovery (BEP 14): multicast sockets and the loop around them.
//!
//! Which torrents there are is read from a watch channel; what is heard of one of them goes to a closure.
//! When something is announced is decided by [`LocalSchedule`].
//!
//! Invariant: nothing here fails. Where multicast does not work, that is traced and nothing else happens.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::clock::{Clock, entropy};
use crate::address::is_usable;
use crate::announce::local::LocalSchedule;
use crate::id::InfoHash;
use crate::time::Instant;
use crate::wire::lsd::{
    DATAGRAM_MAX, GROUP_V4, GROUP_V6, INFO_HASHES_MAX, LocalAnnounce, group_of,
};

/// Interfaces on which we announce at most.
const INTERFACES_MAX: usize = 16;

/// Datagrams of others that are read in [`HEARD_SPAN`]; the rest is dropped. Ours: more than a network of
/// hundreds of programs says.
const HEARD_MAX: u32 = 100;

/// The span over which they are counted.
const HEARD_SPAN: Duration = Duration::from_secs(10);

/// Where an announce leaves: an address of ours, and the number of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Interface {
    address: IpAddr,
    index: u32,
}

/// Everything the loop needs to know.
#[derive(Debug)]
pub struct LsdConfig {
    /// The addresses we listen on; an unspecified one stands for all interfaces of its family.
    pub listen: Vec<SocketAddr>,
    /// The port that others are told.
    pub port: u16,
    /// Tells the time.
    pub clock: Clock,
    /// The torrents that are announced and listened for; the loop ends with its sender.
    pub torrents: watch::Receiver<BTreeSet<InfoHash>>,
}

/// The sockets, and when what is said.
#[derive(Debug)]
pub struct Discovery {
    config: LsdConfig,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    cookie: String,
    schedule: LocalSchedule,
    /// Start of the current span, and datagrams heard in it.
    counted: (Instant, u32),
}

impl Discovery {
    /// Opens the sockets, inside a tokio runtime; `None` where no interface does multicast.
    #[must_use]
    pub fn open(config: LsdConfig) -> Option<Self> {
        let has = |v6: bool| config.listen.iter().any(|address| address.is_ipv6() == v6);
        let open = |group: SocketAddr| {
            let opened = open_socket(group);
            opened
                .inspect_err(|error| tracing::debug!(%group, %error, "no local discovery there"))
                .ok()
        };
        let discovery = Self {
            v4: has(false).then(|| open(GROUP_V4.into())).flatten(),
            v6: has(true).then(|| open(GROUP_V6.into())).flatten(),
            cookie: cookie(),
            schedule: LocalSchedule::default(),
            counted: (Instant::ZERO, 0),
            config,
        };
        let is_up = discovery.join().into_iter().any(|interface| {
            let socket = match interface.address {
                IpAddr::V4(_) => &discovery.v4,
                IpAddr::V6(_) => &discovery.v6,
            };
            socket.is_some()
        });
        if !is_up {
            tracing::debug!("no interface for local discovery");
        }
        is_up.then_some(discovery)
    }

    /// Announces and listens until the sender of the torrents is gone. `heard` gets each address at which a
    /// torrent of ours is, our own left out.
    pub async fn run(mut self, heard: impl Fn(InfoHash, SocketAddr) + Send) {
        let clock = self.config.clock;
        let mut v4 = [0; DATAGRAM_MAX + 1];
        let mut v6 = v4;
        self.config.torrents.mark_changed();
        loop {
            let wake = self.schedule.poll_timeout();
            // Every branch is cancel-safe: a datagram is taken when its branch is chosen, or not at all.
            tokio::select! {
                changed = self.config.torrents.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let torrents = self.config.torrents.borrow_and_update();
                    self.schedule.set_torrents(clock.now(), torrents.iter());
                }
                received = receive(self.v4.as_ref(), &mut v4) => match received {
                    Ok((length, from)) => self.on_datagram(&v4[..length], from, &heard),
                    Err(error) => {
                        tracing::debug!(%error, "local discovery over IPv4 ends");
                        self.v4 = None;
                    }
                },
                received = receive(self.v6.as_ref(), &mut v6) => match received {
                    Ok((length, from)) => self.on_datagram(&v6[..length], from, &heard),
                    Err(error) => {
                        tracing::debug!(%error, "local discovery over IPv6 ends");
                        self.v6 = None;
                    }
                },
                () = clock.sleep_until(wake.unwrap_or_default()), if wake.is_some() => {
                    self.announce(clock.now()).await;
                }
            }
        }
    }

    /// Takes part in the groups on all interfaces there are now; gives these.
    fn join(&self) -> Vec<Interface> {
        let interfaces = interfaces(&self.config.listen);
        for interface in &interfaces {
            let joined = match (interface.address, &self.v4, &self.v6) {
                (IpAddr::V4(address), Some(socket), _) => {
                    SockRef::from(socket).join_multicast_v4(&GROUP_V4.0, &address)
                }
                (IpAddr::V6(_), _, Some(socket)) => {
                    SockRef::from(socket).join_multicast_v6(&GROUP_V6.0, interface.index)
                }
                (IpAddr::V4(_) | IpAddr::V6(_), _, _) => Ok(()),
            };
            if let Err(error) = joined
                && error.kind() != io::ErrorKind::AddrInUse
            {
                tracing::debug!(?interface, %error, "no local discovery on an interface");
            }
        }
        interfaces
    }

    /// Announces what is due on every interface; those that came since the last time are joined.
    async fn announce(&mut self, now: Instant) {
        let info_hashes = self.schedule.take_due(now, INFO_HASHES_MAX);
        if info_hashes.is_empty() {
            return;
        }
        let announce = LocalAnnounce {
            port: self.config.port,
            info_hashes,
            cookie: Some(self.cookie.clone()),
        };
        for interface in self.join() {
            let group = group_of(interface.address);
            let socket = match interface.address {
                IpAddr::V4(_) => &self.v4,
                IpAddr::V6(_) => &self.v6,
            };
            let Some(socket) = socket else { continue };
            let datagram = announce.encode(group);
            let sent = match leave_by(socket, interface) {
                Ok(()) => socket.send_to(datagram.as_bytes(), group).await.map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                tracing::debug!(?interface, %error, "not announced in the local network");
            }
        }
    }

    /// Somebody announced something.
    fn on_datagram(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        heard: &impl Fn(InfoHash, SocketAddr),
    ) {
        let now = self.config.clock.now();
        let (start, count) = &mut self.counted;
        if now.saturating_since(*start) >= HEARD_SPAN {
            (*start, *count) = (now, 0);
        }
        *count += 1;
        if *count > HEARD_MAX {
            return;
        }
        let Some(announce) = LocalAnnounce::decode(datagram) else {
            return;
        };
        let mut address = from;
        address.set_port(announce.port);
        let is_ours = announce.cookie.as_ref() == Some(&self.cookie);
        if is_ours || !is_usable(address, address.ip()) {
            return;
        }
        let torrents = self.config.torrents.borrow();
        for info_hash in announce.info_hashes {
            if torrents.contains(&info_hash) {
                heard(info_hash, address);
            }
        }
    }
}

/// The next datagram of a socket; never, if there is no socket.
async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

/// By which we know our own announces.
fn cookie() -> String {
    let random = entropy();
    let digits = random.iter().take(8).map(|byte| format!("{byte:02x}"));
    digits.collect()
}

/// A socket for one group, which other programs of this machine can listen to as well.
fn open_socket(group: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    if group.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Bound to the group where that is possible: nothing comes that was not sent to it, so nobody outside
    // the local network is heard.
    let at = if cfg!(unix) {
        group
    } else if group.is_ipv6() {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, group.port()))
    } else {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, group.port()))
    };
    socket.bind(&at.into())?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

/// Has a socket send by this interface.
fn leave_by(socket: &UdpSocket, interface: Interface) -> io::Result<()> {
    let socket = SockRef::from(socket);
    match interface.address {
        IpAddr::V4(address) => socket.set_multicast_if_v4(&address),
        IpAddr::V6(_) => socket.set_multicast_if_v6(interface.index),
    }
}

/// The interfaces of these addresses that do multicast.
#[cfg(target_os = "linux")]
fn interfaces(listen: &[SocketAddr]) -> Vec<Interface> {
    use nix::ifaddrs::getifaddrs;
    use nix::net::if_::{InterfaceFlags, if_nametoindex};

    let usable = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_MULTICAST;
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for entry in getifaddrs().into_iter().flatten() {
        let address = entry.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        });
        let (Some(address), true) = (address, entry.flags.contains(usable)) else {
            continue;
        };
        let is_loopback = entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let is_named = listen.iter().any(|listen| listen.ip() == address);
        let is_meant = listen.iter().any(|listen| {
            listen.ip().is_unspecified() && listen.is_ipv6() == address.is_ipv6() && !is_loopback
        });
        let Ok(index) = if_nametoindex(entry.interface_name.as_str()) else {
            continue;
        };
        // An IPv6 interface has several addresses, and sends by its number.
        let is_new = !address.is_ipv6() || seen.insert(index);
        if (is_named || is_meant) && is_new && found.len() < INTERFACES_MAX {
            found.insert(Interface { address, index });
        }
    }
    found.into_iter().collect()
}

/// The interface that the system takes by default, for each family.
#[cfg(not(target_os = "linux"))]
fn interfaces(listen: &[SocketAddr]) -> Vec<Interface> {
    let mut found: BTreeSet<Interface> = BTreeSet::new();
    for address in listen.iter().map(SocketAddr::ip) {
        let unspecified: IpAddr = match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        if !address.is_loopback() && found.len() < INTERFACES_MAX {
            found.insert(Interface {
                address: unspecified,
                index: 0,
            });
        }
    }
    found.into_iter().collect()
}
