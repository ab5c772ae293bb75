//! Local service discovery (BEP 14): multicast sockets and the loop around them.
//!
//! Which torrents there are is read from a watch channel; what is heard of one of them goes to a closure.
//! When something is announced is decided by [`LocalSchedule`].
//!
//! Which interfaces there are is looked at again and again: they come and go with networks.
//!
//! Invariant: nothing here fails. Where multicast does not work, that is traced and nothing else happens.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// How often it is looked which interfaces there are: a new one is used within a minute, as all that waits for
/// a network.
const LOOK_INTERVAL: Duration = Duration::from_secs(45);

/// Where an announce leaves: an address of ours, and the number of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Interface {
    address: IpAddr,
    index: u32,
    /// It is listened on by its address, and no other may be told.
    is_named: bool,
}

/// An address that an interface has.
#[derive(Debug, Clone, Copy)]
struct InterfaceAddress {
    address: IpAddr,
    index: u32,
    is_loopback: bool,
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
    look: fn(&[SocketAddr]) -> Vec<Interface>,
    /// The interfaces at the last look, and when the next one is due.
    interfaces: Vec<Interface>,
    look_at: Instant,
    is_up: Arc<AtomicBool>,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    cookie: String,
    schedule: LocalSchedule,
    /// Start of the current span, and datagrams heard in it.
    counted: (Instant, u32),
}

impl Discovery {
    /// Opens the sockets, inside a tokio runtime.
    #[must_use]
    pub fn open(config: LsdConfig) -> Self {
        Self::open_on(config, interfaces)
    }

    /// The same on the interfaces that `look` finds.
    fn open_on(config: LsdConfig, look: fn(&[SocketAddr]) -> Vec<Interface>) -> Self {
        let mut discovery = Self {
            look,
            interfaces: Vec::new(),
            look_at: Instant::ZERO,
            is_up: Arc::default(),
            v4: None,
            v6: None,
            cookie: cookie(),
            schedule: LocalSchedule::default(),
            counted: (Instant::ZERO, 0),
            config,
        };
        discovery.look();
        discovery
    }

    /// Whether there is an interface that does multicast, now and later.
    #[must_use]
    pub fn is_up(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_up)
    }

    /// Announces and listens until the sender of the torrents is gone. `heard` gets each address at which a
    /// torrent of ours is, our own left out.
    pub async fn run(mut self, heard: impl Fn(InfoHash, SocketAddr) + Send) {
        let clock = self.config.clock;
        let mut v4 = [0; DATAGRAM_MAX + 1];
        let mut v6 = v4;
        self.config.torrents.mark_changed();
        loop {
            // What is due waits for an interface.
            let is_up = !self.interfaces.is_empty();
            let wake = self.schedule.poll_timeout().filter(|_| is_up);
            let look_at = self.look_at;
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
                () = clock.sleep_until(look_at) => self.look(),
            }
        }
    }

    /// Looks which interfaces there are now, and takes part in the groups on them.
    fn look(&mut self) {
        self.look_at = self.config.clock.now() + LOOK_INTERVAL;
        let mut found = (self.look)(&self.config.listen);
        let has = |v6: bool| found.iter().any(|one| one.address.is_ipv6() == v6);
        open_if_needed(&mut self.v4, GROUP_V4.into(), has(false));
        open_if_needed(&mut self.v6, GROUP_V6.into(), has(true));
        found.retain(|interface| self.join(*interface));
        if found != self.interfaces {
            tracing::debug!(interfaces = ?found, "local discovery");
        }
        self.is_up.store(!found.is_empty(), Ordering::Relaxed);
        self.interfaces = found;
    }

    /// Takes part in the group of an interface's family on it; says whether there is a socket for it.
    fn join(&self, interface: Interface) -> bool {
        let joined = match (interface.address, &self.v4, &self.v6) {
            (IpAddr::V4(address), Some(socket), _) => {
                SockRef::from(socket).join_multicast_v4(&GROUP_V4.0, &address)
            }
            (IpAddr::V6(_), _, Some(socket)) => {
                SockRef::from(socket).join_multicast_v6(&GROUP_V6.0, interface.index)
            }
            (IpAddr::V4(_) | IpAddr::V6(_), _, _) => return false,
        };
        if let Err(error) = joined
            && error.kind() != io::ErrorKind::AddrInUse
        {
            tracing::debug!(?interface, %error, "no local discovery on an interface");
        }
        true
    }

    /// Announces what is due on every interface.
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
        self.look();
        for &interface in &self.interfaces {
            if let Err(error) = self.announce_on(interface, &announce).await {
                tracing::debug!(?interface, %error, "not announced in the local network");
            }
        }
    }

    async fn announce_on(&self, interface: Interface, announce: &LocalAnnounce) -> io::Result<()> {
        let group = group_of(interface.address);
        let datagram = announce.encode(group);
        let own;
        let socket = match (interface.address, &self.v4, &self.v6) {
            (IpAddr::V6(address), _, _) if interface.is_named => {
                // Of several addresses the system would choose one, and others would come to that.
                own = socket_at(SocketAddrV6::new(address, 0, 0, interface.index))?;
                &own
            }
            (IpAddr::V4(_), Some(socket), _) | (IpAddr::V6(_), _, Some(socket)) => socket,
            (IpAddr::V4(_) | IpAddr::V6(_), _, _) => return Ok(()),
        };
        leave_by(socket, interface)?;
        socket.send_to(datagram.as_bytes(), group).await.map(drop)
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

/// Opens the socket of a group, if it is of use and not open.
fn open_if_needed(socket: &mut Option<UdpSocket>, group: SocketAddr, is_needed: bool) {
    if is_needed && socket.is_none() {
        let opened = open_socket(group);
        *socket = opened
            .inspect_err(|error| tracing::debug!(%group, %error, "no local discovery there"))
            .ok();
    }
}

/// A socket that sends from one address.
fn socket_at(address: SocketAddrV6) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    socket.bind(&SocketAddr::from(address).into())?;
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
    let mut found = Vec::new();
    for entry in getifaddrs().into_iter().flatten() {
        let address = entry.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        });
        if let Some(address) = address
            && entry.flags.contains(usable)
            && let Ok(index) = if_nametoindex(entry.interface_name.as_str())
        {
            found.push(InterfaceAddress {
                address,
                index,
                is_loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
            });
        }
    }
    choose(listen, &found)
}

/// Those by which to announce: each address that is listened on, and where all are, each interface.
fn choose(listen: &[SocketAddr], addresses: &[InterfaceAddress]) -> Vec<Interface> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for &InterfaceAddress {
        address,
        index,
        is_loopback,
    } in addresses
    {
        let is_named = listen.iter().any(|listen| listen.ip() == address);
        let is_meant = listen.iter().any(|listen| {
            listen.ip().is_unspecified() && listen.is_ipv6() == address.is_ipv6() && !is_loopback
        });
        // An IPv6 interface has several addresses, and sends by its number.
        let is_chosen = is_named || (is_meant && (address.is_ipv4() || seen.insert(index)));
        if is_chosen && found.len() < INTERFACES_MAX {
            found.insert(Interface {
                address,
                index,
                is_named,
            });
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
                is_named: false,
            });
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(listed: &[(&str, u32)]) -> Vec<InterfaceAddress> {
        let of = |&(address, index): &(&str, u32)| InterfaceAddress {
            address: address.parse().unwrap(),
            index,
            is_loopback: index == 1,
        };
        listed.iter().map(of).collect()
    }

    #[track_caller]
    fn check_chosen(listen: &str, expected: &[(&str, u32)]) {
        let there = addresses(&[
            ("127.0.0.1", 1),
            ("::1", 1),
            ("192.168.1.2", 2),
            ("192.168.1.3", 2),
            ("fe80::1", 2),
            ("2001:db8::1", 2),
            ("2001:db8::2", 2),
            ("fe80::2", 3),
        ]);
        let chosen = choose(&[listen.parse().unwrap()], &there);
        let chosen: Vec<(String, u32)> = chosen
            .iter()
            .map(|one| (one.address.to_string(), one.index))
            .collect();
        let expected: Vec<(String, u32)> = expected
            .iter()
            .map(|&(address, index)| (address.to_owned(), index))
            .collect();
        assert_eq!(chosen, expected, "{listen}");
    }

    #[test]
    fn an_address_that_is_listened_on_is_announced_whatever_its_interface_has_besides() {
        check_chosen("[2001:db8::2]:1", &[("2001:db8::2", 2)]);
        check_chosen("192.168.1.3:1", &[("192.168.1.3", 2)]);
        check_chosen("127.0.0.1:1", &[("127.0.0.1", 1)]);
        check_chosen("[::]:1", &[("fe80::1", 2), ("fe80::2", 3)]);
        check_chosen("0.0.0.0:1", &[("192.168.1.2", 2), ("192.168.1.3", 2)]);
        check_chosen("10.0.0.1:1", &[]);
    }

    /// An interface that is there from the second look on.
    fn appearing(_listen: &[SocketAddr]) -> Vec<Interface> {
        static LOOKED: AtomicBool = AtomicBool::new(false);
        let interface = Interface {
            address: Ipv4Addr::LOCALHOST.into(),
            index: 1,
            is_named: true,
        };
        let is_there = LOOKED.swap(true, Ordering::SeqCst);
        is_there.then_some(interface).into_iter().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_interface_that_comes_later_is_used_within_a_minute() {
        let (torrents, receiver) = watch::channel(BTreeSet::from([InfoHash::new([1; 20])]));
        let config = LsdConfig {
            listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
            port: 6881,
            clock: Clock::start(),
            torrents: receiver,
        };
        let discovery = Discovery::open_on(config, appearing);
        let is_up = discovery.is_up();
        let running = tokio::spawn(discovery.run(|_, _| {}));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!is_up.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert!(is_up.load(Ordering::SeqCst));
        drop(torrents);
        running.await.unwrap();
    }
}
