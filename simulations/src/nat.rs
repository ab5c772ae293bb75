//! Address translators and firewalls between a host and the others (RFC 4787, RFC 3489).
//!
//! A host is open, behind a [`Gateway`] of its own, or shares one. A gateway gives what its hosts
//! send a mapping, an external port, and lets in what its filter allows:
//!
//! | kind | mapping for each | lets in |
//! | --- | --- | --- |
//! | full cone | host | everybody, to a mapping |
//! | address-restricted | host | addresses that the host has sent to |
//! | port-restricted | host | addresses and ports that it has sent to |
//! | symmetric | host and remote endpoint | that endpoint |
//! | firewalled | host, with its own port | as port-restricted |
//!
//! A mapping, and a permission to come in, ends a while after the host last sent something by it;
//! what comes in does not prolong it. Streams are dialled out through any gateway, and in only where
//! a port is forwarded.
//!
//! Invariant: an external port of a gateway leads to one host at a time, and what comes in without
//! a mapping that allows it is dropped.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use trackless::random::Random;
use trackless::time::Instant;

use crate::host::{DATAGRAM_PORT, HostId, STREAM_PORT};
use crate::seeds::Seeds;

/// Entries of a gateway from which on expired ones are looked for.
const PURGE_MIN: usize = 64;

/// First port that a gateway gives to mappings of its own choice (IANA's dynamic range).
const PORT_FIRST: u16 = 49_152;

/// Ports from there on.
const PORT_COUNT: u32 = 16_384;

/// What a gateway does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NatKind {
    /// No gateway: everybody reaches the host.
    Open,
    /// One mapping, open to everybody.
    FullCone,
    /// One mapping, open to addresses the host has sent to.
    AddressRestricted,
    /// One mapping, open to endpoints the host has sent to.
    PortRestricted,
    /// A mapping for each endpoint the host sends to.
    Symmetric,
    /// No translation, but nothing unasked comes in.
    Firewalled,
}

/// Which external port a mapping gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRule {
    /// That of the host, if it is free; else one by chance.
    Preserve,
    /// One by chance.
    Random,
}

/// Whether hosts behind one gateway reach each other by its external address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hairpin {
    /// They do.
    Forwarded,
    /// They do not.
    Dropped,
}

/// Whether streams can be dialled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamPort {
    /// To the host whose number is the gateway's: by hand, or by a protocol for that.
    Forwarded,
    /// They time out.
    Closed,
}

/// How a gateway behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatConfig {
    /// Mapping and filter.
    pub kind: NatKind,
    /// How long a mapping lasts after the host sent something by it. Seen are 30 s to 5 minutes;
    /// RFC 4787 wants at least 2 minutes.
    pub mapping_timeout: Duration,
    /// External ports.
    pub ports: PortRule,
    /// Neighbours.
    pub hairpin: Hairpin,
    /// Streams.
    pub streams: StreamPort,
}

impl NatConfig {
    /// A gateway of this kind as many are: two minutes, other ports only if it has to, no hairpin,
    /// nothing forwarded.
    #[must_use]
    pub const fn of(kind: NatKind) -> Self {
        Self {
            kind,
            mapping_timeout: Duration::from_secs(120),
            ports: PortRule::Preserve,
            hairpin: Hairpin::Dropped,
            streams: StreamPort::Closed,
        }
    }
}

/// What becomes of a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialled {
    /// It reaches a port of this host at which something may listen.
    Host(HostId),
    /// It reaches this host at another port.
    Refusal(HostId),
    /// A gateway drops it, or there is no host.
    Silence,
}

/// Whom a mapping is for, and whom a permission lets in: a host, and a remote IP and port as far as
/// they count.
type Flow = (HostId, Ipv4Addr, u16);

/// Stands for "any" in a [`Flow`].
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// A mapping.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    port: u16,
    until: Instant,
}

/// A gateway.
#[derive(Debug)]
pub struct Gateway {
    config: NatConfig,
    random: Random,
    mappings: BTreeMap<Flow, Mapping>,
    /// Whose each external port is.
    ports: BTreeMap<u16, Flow>,
    /// Who may come in, until when.
    allowed: BTreeMap<Flow, Instant>,
    /// Entries at which expired ones are looked for next.
    purge_at: usize,
}

impl Gateway {
    fn new(config: NatConfig, random: Random) -> Self {
        Self {
            config,
            random,
            mappings: BTreeMap::new(),
            ports: BTreeMap::new(),
            allowed: BTreeMap::new(),
            purge_at: PURGE_MIN,
        }
    }

    /// A host sends to a remote endpoint: its external port.
    fn outbound(&mut self, now: Instant, host: HostId, to: SocketAddrV4) -> u16 {
        self.purge(now);
        let until = now + self.config.mapping_timeout;
        let flow = match self.config.kind {
            NatKind::Symmetric => (host, *to.ip(), to.port()),
            NatKind::Open
            | NatKind::FullCone
            | NatKind::AddressRestricted
            | NatKind::PortRestricted
            | NatKind::Firewalled => (host, ANY, 0),
        };
        match self.config.kind {
            NatKind::AddressRestricted => {
                self.allowed.insert((host, *to.ip(), 0), until);
            }
            NatKind::PortRestricted | NatKind::Firewalled => {
                self.allowed.insert((host, *to.ip(), to.port()), until);
            }
            NatKind::Open | NatKind::FullCone | NatKind::Symmetric => {}
        }
        if let Some(mapping) = self.mappings.get_mut(&flow)
            && mapping.until > now
        {
            mapping.until = until;
            return mapping.port;
        }
        if let Some(expired) = self.mappings.remove(&flow) {
            self.ports.remove(&expired.port);
        }
        let port = self.free_port(now);
        self.mappings.insert(flow, Mapping { port, until });
        self.ports.insert(port, flow);
        port
    }

    /// An external port that leads nowhere.
    fn free_port(&mut self, now: Instant) -> u16 {
        let preserves =
            self.config.ports == PortRule::Preserve || self.config.kind == NatKind::Firewalled;
        if preserves && self.is_free(now, DATAGRAM_PORT) {
            return DATAGRAM_PORT;
        }
        let offset = self.random.below(PORT_COUNT);
        let ports = (offset..PORT_COUNT).chain(0..offset);
        let mut ports = ports.map(|offset| PORT_FIRST + u16::try_from(offset).expect("below 2^14"));
        let free = ports.find(|port| self.is_free(now, *port));
        free.expect("the timeout of mappings leaves some of 16,384 ports free")
    }

    /// Whether a port leads nowhere; an expired mapping of it ends.
    fn is_free(&mut self, now: Instant, port: u16) -> bool {
        let Some(flow) = self.ports.get(&port) else {
            return true;
        };
        let is_live = |mapping: &Mapping| mapping.until > now;
        if self.mappings.get(flow).is_some_and(is_live) {
            return false;
        }
        self.mappings.remove(flow);
        self.ports.remove(&port);
        true
    }

    /// The host that gets what a remote endpoint sends to an external port.
    fn inbound(&self, now: Instant, from: SocketAddrV4, port: u16) -> Option<HostId> {
        let flow = self.ports.get(&port)?;
        self.mappings
            .get(flow)
            .filter(|mapping| mapping.until > now)?;
        let (host, ..) = *flow;
        let allows = |flow: Flow| self.allowed.get(&flow).is_some_and(|until| *until > now);
        let is_let_in = match self.config.kind {
            NatKind::Open | NatKind::FullCone => true,
            NatKind::AddressRestricted => allows((host, *from.ip(), 0)),
            NatKind::PortRestricted | NatKind::Firewalled => {
                allows((host, *from.ip(), from.port()))
            }
            NatKind::Symmetric => *flow == (host, *from.ip(), from.port()),
        };
        is_let_in.then_some(host)
    }

    /// Forgets what has expired, each time the number of entries has doubled.
    fn purge(&mut self, now: Instant) {
        if self.mappings.len() + self.allowed.len() < self.purge_at {
            return;
        }
        let ports = &mut self.ports;
        self.mappings.retain(|_, mapping| {
            let stays = mapping.until > now;
            if !stays {
                ports.remove(&mapping.port);
            }
            stays
        });
        self.allowed.retain(|_, until| *until > now);
        self.purge_at = (2 * (self.mappings.len() + self.allowed.len())).max(PURGE_MIN);
    }
}

/// All gateways, and who is behind them.
#[derive(Debug)]
pub struct Gateways {
    seeds: Seeds,
    /// By the host whose address is its external one. Ends with the last gateway.
    gateways: Vec<Option<Box<Gateway>>>,
    /// Hosts that are behind the gateway of another one.
    guests: BTreeMap<HostId, HostId>,
    /// Hosts at another address than their number says, and who is there.
    moved: BTreeMap<HostId, Ipv4Addr>,
    movers: BTreeMap<Ipv4Addr, HostId>,
}

impl Gateways {
    /// Nobody is behind a gateway.
    #[must_use]
    pub const fn new(seeds: Seeds) -> Self {
        Self {
            seeds,
            gateways: Vec::new(),
            guests: BTreeMap::new(),
            moved: BTreeMap::new(),
            movers: BTreeMap::new(),
        }
    }

    /// Gives a host, and the gateway in front of it, this address in place of the one that follows from its number.
    ///
    /// # Panics
    ///
    /// If it is one that follows from a number.
    pub fn move_to(&mut self, host: HostId, ip: Ipv4Addr) {
        let numbered = HostId::of((ip, DATAGRAM_PORT).into());
        assert_eq!(numbered, None, "{ip} is another host's");
        if let Some(before) = self.moved.insert(host, ip) {
            self.movers.remove(&before);
        }
        self.movers.insert(ip, host);
    }

    /// The address that others see for a host, and for all behind its gateway.
    #[must_use]
    pub fn ip(&self, host: HostId) -> Ipv4Addr {
        let owner = self.owner(host);
        self.moved
            .get(&owner)
            .copied()
            .unwrap_or_else(|| owner.ip())
    }

    /// Whose address this is, if there were that many hosts.
    #[must_use]
    pub fn host_at(&self, address: SocketAddr) -> Option<HostId> {
        HostId::of(address).or_else(|| match address {
            SocketAddr::V4(address) => self.movers.get(address.ip()).copied(),
            SocketAddr::V6(_) => None,
        })
    }

    /// Puts a host behind a gateway of its own, whose external address is the host's.
    pub fn add(&mut self, host: HostId, config: NatConfig) {
        let index = host.as_usize();
        if self.gateways.len() <= index {
            self.gateways.resize_with(index + 1, || None);
        }
        let random = self.seeds.stream("nat", u64::from(host.0));
        let gateway = Gateway::new(config, random);
        self.gateways[index] = (config.kind != NatKind::Open).then(|| Box::new(gateway));
    }

    /// Puts a host behind the gateway of another one.
    pub fn share(&mut self, host: HostId, owner: HostId) {
        self.guests.insert(host, owner);
    }

    /// The host whose address others see for this one.
    #[must_use]
    pub fn owner(&self, host: HostId) -> HostId {
        self.guests.get(&host).copied().unwrap_or(host)
    }

    /// What a host is behind.
    #[must_use]
    pub fn kind(&self, host: HostId) -> NatKind {
        self.gateway(self.owner(host))
            .map_or(NatKind::Open, |gateway| gateway.config.kind)
    }

    /// The endpoint that others see when a host sends a datagram.
    pub fn outbound(&mut self, now: Instant, host: HostId, to: SocketAddrV4) -> SocketAddrV4 {
        let owner = self.owner(host);
        let slot = self.gateways.get_mut(owner.as_usize());
        let port = match slot.and_then(Option::as_deref_mut) {
            Some(gateway) => gateway.outbound(now, host, to),
            None => DATAGRAM_PORT,
        };
        SocketAddrV4::new(self.ip(owner), port)
    }

    /// The host that gets a datagram which has arrived.
    #[must_use]
    pub fn inbound(&self, now: Instant, from: SocketAddrV4, to: SocketAddrV4) -> Option<HostId> {
        let owner = self.host_at(to.into())?;
        let Some(gateway) = self.gateway(owner) else {
            return (to.port() == DATAGRAM_PORT).then_some(owner);
        };
        let is_neighbour = from.ip() == to.ip();
        if is_neighbour && gateway.config.hairpin == Hairpin::Dropped {
            return None;
        }
        gateway.inbound(now, from, to.port())
    }

    /// What becomes of a stream dialled to this endpoint.
    #[must_use]
    pub fn dialled(&self, to: SocketAddrV4) -> Dialled {
        let Some(owner) = self.host_at(to.into()) else {
            return Dialled::Silence;
        };
        let listens = to.port() == STREAM_PORT;
        match self.gateway(owner) {
            None if listens => Dialled::Host(owner),
            None => Dialled::Refusal(owner),
            Some(gateway) => match gateway.config.streams {
                StreamPort::Forwarded if listens => Dialled::Host(owner),
                StreamPort::Forwarded | StreamPort::Closed => Dialled::Silence,
            },
        }
    }

    fn gateway(&self, owner: HostId) -> Option<&Gateway> {
        self.gateways.get(owner.as_usize())?.as_deref()
    }
}

#[cfg(test)]
mod tests;
