//! A machine in the simulated network, and the shipping cores that run on it.
//!
//! Invariant: a host gives a core the one input that happened, drains the core, and queues at most
//! one live wake-up for it, as the drivers of the real node do.

pub mod announcer;
pub mod control;
pub mod dht;
pub mod swarm;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub use announcer::AnnouncerHost;
pub use control::ControlHost;
pub use dht::DhtHost;
pub use swarm::SwarmHost;

use crate::time::Alarm;
use crate::tracker::Tracker;

/// UDP port of each host's DHT node.
pub const DATAGRAM_PORT: u16 = 6881;

/// TCP port of each host's torrent.
pub const STREAM_PORT: u16 = 6881;

/// First octet of the first host's address. Ours: the sixteen /8 networks from here on are all
/// global unicast, so the scope rules of the cores apply as on the Internet.
const FIRST_OCTET: u8 = 20;

/// Hosts that have an address: sixteen /8 networks of one host for each /24, because a /24 counts
/// as one party in routing tables and throttles.
pub const HOSTS_MAX: u32 = 16 << 16;

/// Number of a host, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub u32);

impl HostId {
    /// The number as an index into a slice with one element for each host.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).expect("a u32 fits usize on supported targets")
    }

    /// Where others reach this host, if it is not behind somebody else's gateway.
    ///
    /// # Panics
    ///
    /// From [`HOSTS_MAX`] on.
    #[must_use]
    pub fn address(self, port: u16) -> SocketAddr {
        SocketAddr::from((self.ip(), port))
    }

    /// The IP address of [`address`](Self::address).
    ///
    /// # Panics
    ///
    /// From [`HOSTS_MAX`] on.
    #[must_use]
    pub fn ip(self) -> Ipv4Addr {
        assert!(self.0 < HOSTS_MAX, "host {} has no address", self.0);
        let [_, a, b, c] = swap_counted(self.0).to_be_bytes();
        Ipv4Addr::new(FIRST_OCTET + a, b, c, self.last_octet())
    }

    /// The host that an address belongs to, if there were that many hosts.
    #[must_use]
    pub fn of(address: SocketAddr) -> Option<Self> {
        let IpAddr::V4(ip) = address.ip() else {
            return None;
        };
        let [first, b, c, last] = ip.octets();
        let a = first.checked_sub(FIRST_OCTET)?;
        let host = Self(swap_counted(u32::from_be_bytes([0, a, b, c])));
        (host.0 < HOSTS_MAX && last == host.last_octet()).then_some(host)
    }

    /// The last octet of the address, 1 to 254. It differs, because most of what ids follow from (BEP 42) is in it:
    /// with the same one everywhere a hundred thousand nodes would crowd around 32,768 places.
    fn last_octet(self) -> u8 {
        let [high, ..] = self.0.wrapping_mul(0x9e37_79b9).to_be_bytes();
        1 + high % 254
    }
}

/// Swaps bits 12 and 13 of a number with bits 16 and 17; doing so twice changes nothing.
///
/// Of the octets that a host's number makes, BEP 42 counts the low 2, 4 and 6 bits. So the hosts numbered
/// first differ in bits that count. If they do not, ids crowd: among a hundred thousand, the eight nodes
/// closest to a target are 8 % farther away on average than in a network whose addresses are anywhere.
const fn swap_counted(number: u32) -> u32 {
    let kept = number & !0x3_3000;
    kept | (number >> 4) & 0x3000 | (number << 4) & 0x3_0000
}

/// What runs on one machine.
#[derive(Debug, Default)]
pub struct Host {
    /// Its DHT node, if it runs one.
    pub dht: Option<Box<DhtHost>>,
    /// The control that it runs instead.
    pub control: Option<Box<ControlHost>>,
    /// The wake-up of either. It is here and not beside the node because most wake-ups come too
    /// early, and what is here is in the processor's cache sooner.
    pub alarm: Alarm,
    /// Its torrent, if it has one.
    pub swarm: Option<Box<SwarmHost>>,
    /// What asks trackers for that torrent, if any are asked.
    pub announcer: Option<Box<AnnouncerHost>>,
    /// The tracker that it runs, if it runs one.
    pub tracker: Option<Box<Tracker>>,
    /// How often it has left.
    pub departures: u32,
    /// Whether it has left and not come back: nobody refuses a dial.
    pub is_away: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use trackless::address::Scope;

    #[test]
    fn each_host_has_a_global_address_in_a_24_of_its_own() {
        for number in [0, 1, 255, 256, 4096, 65_536, 0x2_1000, HOSTS_MAX - 1] {
            let address = HostId(number).address(DATAGRAM_PORT);
            assert_eq!(HostId::of(address), Some(HostId(number)));
            assert_eq!(Scope::of(address.ip()), Some(Scope::Global));
        }
    }

    #[test]
    fn sixteen_thousand_hosts_differ_in_what_ids_follow_from() {
        let counted = |host: u32| {
            let [first, second, third, _] = HostId(host).ip().octets();
            (first & 0x03, second & 0x0f, third & 0x3f)
        };
        let all: std::collections::BTreeSet<_> = (0..16_384).map(counted).collect();
        assert_eq!(all.len(), 4 * 16 * 64);
    }

    #[test]
    fn other_addresses_belong_to_no_host() {
        for text in ["19.0.0.1:1", "36.0.0.1:1", "20.0.0.2:1", "[2001::1]:1"] {
            assert_eq!(HostId::of(text.parse().unwrap()), None, "{text}");
        }
    }
}
