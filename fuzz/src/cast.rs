//! Who speaks to the node, and from where.
//!
//! Invariant: a forged speaker never sees what is sent to its address, so nothing it says holds a
//! token or a transaction id of the node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;

use trackless::dht::LocalId;
use trackless::dht::secure_id::bind;
use trackless::id::NodeId;
use trackless::krpc::ContactInfo;
use trackless::random::Random;

/// What a speaker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A node that gets what is sent to it.
    Node,
    /// Somebody who writes another's address on the datagram.
    Forged,
    /// An address that nobody can have, or the node's own.
    Nowhere,
}

/// One of the cast.
#[derive(Debug, Clone, Copy)]
pub struct Speaker {
    /// What it is.
    pub role: Role,
    /// The source of what it sends.
    pub address: SocketAddr,
    /// The socket of the node that it sends to.
    pub local: LocalId,
    /// Its id.
    pub id: NodeId,
}

impl Speaker {
    /// How it is named to others.
    #[must_use]
    pub const fn info(&self) -> ContactInfo {
        ContactInfo {
            id: self.id,
            address: self.address,
        }
    }
}

/// The node's own addresses, by [`LocalId`].
#[must_use]
pub fn own_addresses() -> [SocketAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    [(Ipv4Addr::new(10, 0, 0, 1), 6881).into(), (v6, 6881).into()]
}

/// Everybody, in a fixed order: private and global nodes of both families, forged senders of both,
/// and addresses from nowhere.
#[must_use]
pub fn cast() -> &'static [Speaker] {
    static CAST: LazyLock<Vec<Speaker>> = LazyLock::new(make_cast);
    &CAST
}

fn make_cast() -> Vec<Speaker> {
    let v6 = |first, last| Ipv6Addr::new(first, last, 0, 0, 0, 0, 0, last);
    let mut addresses: Vec<(Role, SocketAddr)> = Vec::new();
    for number in 2..14u8 {
        let ip = Ipv4Addr::new(10, 0, 0, number);
        addresses.push((Role::Node, (ip, 6881).into()));
    }
    for number in 2..10 {
        addresses.push((Role::Node, (v6(0xfd00, number), 6881).into()));
    }
    for number in 1..9u8 {
        let ip = Ipv4Addr::new(8, 8, number / 3, number);
        addresses.push((Role::Node, (ip, 6881).into()));
    }
    for number in 1..5 {
        addresses.push((Role::Node, (v6(0x2a00, number), 6881).into()));
    }
    for number in 1..4u8 {
        let ip = Ipv4Addr::new(45, 9, number, 9);
        addresses.push((Role::Forged, (ip, 9).into()));
    }
    addresses.push((Role::Forged, (Ipv4Addr::new(10, 9, 9, 9), 9).into()));
    for number in 1..3 {
        addresses.push((Role::Forged, (v6(0x2a02, number), 9).into()));
    }
    let nowhere: [(IpAddr, u16); 5] = [
        (Ipv4Addr::new(224, 0, 0, 1).into(), 6881),
        (Ipv4Addr::UNSPECIFIED.into(), 6881),
        (Ipv4Addr::new(10, 0, 0, 60).into(), 0),
        (Ipv4Addr::LOCALHOST.into(), 6881),
        (Ipv6Addr::UNSPECIFIED.into(), 6881),
    ];
    addresses.extend(nowhere.map(|address| (Role::Nowhere, address.into())));
    addresses.extend(own_addresses().map(|address| (Role::Nowhere, address)));
    let mut random = Random::from_seed(0);
    addresses
        .into_iter()
        .map(|(role, address)| {
            let id = NodeId::new(random.bytes());
            // Half of them follow BEP 42.
            let is_bound = id.bit(159);
            Speaker {
                role,
                address,
                local: LocalId(u8::from(address.is_ipv6())),
                id: if is_bound { bind(id, address.ip()) } else { id },
            }
        })
        .collect()
}
