//! What a session is told at its start, with documented defaults.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::id::PeerId;
use crate::{announce, dht, peer, swarm};

/// The port a BitTorrent node listens on when nobody says otherwise.
pub const DEFAULT_PORT: u16 = 6881;

/// Connections of one torrent. Each costs about 40 KiB for buffers and request state.
const PEERS_MAX: usize = 50;

/// Bytes at the front of our peer ids (BEP 20): client `TL`, version 0.1.0.
const PEER_ID_PREFIX: &[u8; 8] = b"-TL0100-";

/// Settings of a session. [`Config::default`] is what the command line uses when no flag is given,
/// except that it names no bootstrap node and no state directory.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses for TCP and UDP, both on the same port; port 0 takes a free one. Default
    /// `0.0.0.0:6881` and `[::]:6881`.
    pub listen: Vec<SocketAddr>,
    /// Whether the user named these addresses. Then one that is taken or does not exist is an
    /// error; otherwise the next free port is used and a family that the machine lacks is left out.
    pub listen_explicit: bool,
    /// Whether peers may connect. Default `true`; a pure DHT node needs UDP only.
    pub tcp: bool,
    /// Whether a DHT node runs. Default `true`.
    pub dht: bool,
    /// Limits of the DHT node. Its `locals` are filled from the sockets that were bound.
    pub node: dht::Config,
    /// DHT nodes to start from, as `HOST:PORT`. Default none.
    pub bootstrap: Vec<String>,
    /// Where the routing table and node ids are kept between runs; `None` keeps nothing.
    pub state_dir: Option<PathBuf>,
    /// Limits of each peer connection.
    pub connection: peer::Config,
    /// How often sources of peers are asked.
    pub announce: announce::Config,
    /// Connections of one torrent. Default 50.
    pub peers_max: usize,
    /// Disk threads, at least 1. Default 4: hashing keeps about that many busy on a fast disk.
    pub disk_threads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![
                (Ipv4Addr::UNSPECIFIED, DEFAULT_PORT).into(),
                (Ipv6Addr::UNSPECIFIED, DEFAULT_PORT).into(),
            ],
            listen_explicit: false,
            tcp: true,
            dht: true,
            node: dht::Config::default(),
            bootstrap: Vec::new(),
            state_dir: None,
            connection: peer::Config::default(),
            announce: announce::Config::default(),
            peers_max: PEERS_MAX,
            disk_threads: 4,
        }
    }
}

impl Config {
    /// Settings of a node that listens on these addresses and nowhere else.
    #[must_use]
    pub fn listening(listen: Vec<SocketAddr>) -> Self {
        Self {
            listen,
            listen_explicit: true,
            ..Self::default()
        }
    }

    /// The limits of one torrent of a session that listens on `port`.
    pub(super) fn torrent(&self, peer_id: PeerId, port: Option<u16>) -> swarm::Config {
        swarm::Config {
            listen_port: port.filter(|_| self.tcp),
            dht_port: port.filter(|_| self.dht),
            peers_max: self.peers_max,
            connection: self.connection.clone(),
            ..swarm::Config::new(peer_id)
        }
    }
}

/// A peer id for one torrent: our prefix, then random bytes.
pub(super) fn peer_id(random: [u8; 32]) -> PeerId {
    let mut bytes = [0; 20];
    for (to, from) in bytes.iter_mut().zip(PEER_ID_PREFIX.iter().chain(&random)) {
        *to = *from;
    }
    PeerId::new(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_ids_name_the_program_and_are_random_after_that() {
        let id = peer_id([7; 32]);
        assert!(id.as_bytes().starts_with(PEER_ID_PREFIX));
        assert!(id.as_bytes().ends_with(&[7; 12]));
    }

    #[test]
    fn a_torrent_tells_peers_only_about_ports_that_are_open() {
        let mut config = Config {
            tcp: false,
            ..Config::default()
        };
        let torrent = config.torrent(peer_id([0; 32]), Some(1));
        assert_eq!((torrent.listen_port, torrent.dht_port), (None, Some(1)));
        config.dht = false;
        assert_eq!(config.torrent(peer_id([0; 32]), Some(1)).dht_port, None);
    }
}
