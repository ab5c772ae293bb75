//! What a session is told at its start, with documented defaults.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::id::PeerId;
use crate::metainfo::BLOCK_LENGTH;
use crate::net::limit::Limits;
use crate::{announce, dht, peer, swarm};

/// The port a BitTorrent node listens on when nobody says otherwise.
pub const DEFAULT_PORT: u16 = 6881;

/// Connections of one torrent. Each costs about 40 KiB for buffers and request state.
const PEERS_MAX: usize = 50;

/// Connections of a torrent, however low the download limit is.
const PEERS_LIMITED_MIN: usize = 4;

/// Share of a download limit that is worth a connection, in bytes per second: a block comes within
/// 8 s then, less than half of what makes a peer count as snubbed.
const DOWNLOAD_PER_CONNECTION: u64 = 2 << 10;

/// How much of a download limit one connection is asked for ahead: enough that one peer alone fills
/// the limit across a round trip of many hundred milliseconds.
const PIPELINE_SPAN: Duration = Duration::from_secs(2);

/// Share of an upload limit that is worth an upload slot, in bytes per second: a block a second, as
/// much as makes a difference to whoever gets it.
const UPLOAD_PER_SLOT: u64 = 20 << 10;

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
    /// Whether peers are exchanged with peers (BEP 11). Default `true`; never done for private torrents.
    pub pex: bool,
    /// Whether peers are looked for in the local network, by multicast (BEP 14). Default `true`; never done for
    /// private torrents, nor where peers cannot connect.
    pub lsd: bool,
    /// Whether trackers are asked. Default `true`.
    pub trackers: bool,
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
    /// Bytes a second that all peers together may send us; `None`, the default, sets no limit. See
    /// [`net::limit`](crate::net::limit) for what counts.
    pub download_limit: Option<u64>,
    /// Bytes a second that all peers together are sent; `None`, the default, sets no limit.
    pub upload_limit: Option<u64>,
    /// Disk threads, at least 1. Default as many as there are cores, from 2 to 4: more of them get in
    /// each other's way when all write to one file.
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
            pex: true,
            lsd: true,
            trackers: true,
            node: dht::Config::default(),
            bootstrap: Vec::new(),
            state_dir: None,
            connection: peer::Config::default(),
            announce: announce::Config::default(),
            peers_max: PEERS_MAX,
            download_limit: None,
            upload_limit: None,
            disk_threads: std::thread::available_parallelism()
                .map_or(2, usize::from)
                .clamp(2, 4),
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

    /// The limits of one torrent of a session that listens on `port` and has these rate limits now.
    pub(super) fn torrent(
        &self,
        peer_id: PeerId,
        port: Option<u16>,
        limits: &Limits,
    ) -> swarm::Config {
        let mut config = swarm::Config {
            listen_port: port.filter(|_| self.tcp),
            dht_port: port.filter(|_| self.dht),
            pex: self.pex,
            peers_max: self.peers_max,
            connection: self.connection.clone(),
            ..swarm::Config::new(peer_id)
        };
        if let Some(rate) = limits.download.rate() {
            fit_download(&mut config, rate);
        }
        if let Some(rate) = limits.upload.rate() {
            fit_upload(&mut config, rate);
        }
        config
    }
}

/// Keeps connections and their pipelines as small as a download limit demands. What was asked for
/// waits in line with everything else, and a peer whose blocks wait too long counts as snubbed: so
/// there is one connection for each [`DOWNLOAD_PER_CONNECTION`], and none is asked for more than
/// [`PIPELINE_SPAN`] of the whole limit.
fn fit_download(config: &mut swarm::Config, rate: u64) {
    let connections = at_most(rate / DOWNLOAD_PER_CONNECTION);
    config.peers_max = connections.clamp(PEERS_LIMITED_MIN.min(config.peers_max), config.peers_max);
    let span = PIPELINE_SPAN.as_secs();
    let blocks = at_most(rate.saturating_mul(span) / u64::from(BLOCK_LENGTH)).max(1);
    let connection = &mut config.connection;
    connection.pipeline_max = connection.pipeline_max.min(blocks);
    connection.pipeline_min = connection.pipeline_min.min(blocks.div_ceil(4));
}

/// Serves as few peers at once as an upload limit demands: each gets [`UPLOAD_PER_SLOT`], and two
/// are always served, one of them by chance (the optimistic one).
fn fit_upload(config: &mut swarm::Config, rate: u64) {
    let slots = at_most(rate / UPLOAD_PER_SLOT).saturating_sub(1);
    config.unchoke_slots = slots.clamp(1, config.unchoke_slots.max(1));
}

/// A number of things that only ever counts up to some thousands.
fn at_most(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
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
    use crate::net::clock::Clock;

    #[test]
    fn peer_ids_name_the_program_and_are_random_after_that() {
        let id = peer_id([7; 32]);
        assert!(id.as_bytes().starts_with(PEER_ID_PREFIX));
        assert!(id.as_bytes().ends_with(&[7; 12]));
    }

    #[tokio::test]
    async fn a_torrent_tells_peers_only_about_ports_that_are_open() {
        let mut config = Config {
            tcp: false,
            ..Config::default()
        };
        let no_limits = Limits::new(Clock::start(), None, None);
        let torrent = |config: &Config| config.torrent(peer_id([0; 32]), Some(1), &no_limits);
        assert_eq!(torrent(&config).listen_port, None);
        assert_eq!(torrent(&config).dht_port, Some(1));
        config.dht = false;
        assert_eq!(torrent(&config).dht_port, None);
        assert!(torrent(&config).pex);
        config.pex = false;
        assert!(!torrent(&config).pex);
    }

    #[tokio::test]
    async fn pipelines_connections_and_slots_follow_the_rate_limits() {
        let fitted = |download, upload| {
            let limits = Limits::new(Clock::start(), download, upload);
            let torrent = Config::default().torrent(peer_id([0; 32]), None, &limits);
            let connection = &torrent.connection;
            let pipeline = (connection.pipeline_min, connection.pipeline_max);
            (torrent.peers_max, pipeline, torrent.unchoke_slots)
        };
        assert_eq!(fitted(None, None), (50, (4, 512), 8));
        let kib = |kib: u64| Some(kib << 10);
        assert_eq!(fitted(kib(1), kib(1)), (4, (1, 1), 1));
        assert_eq!(fitted(kib(64), kib(64)), (32, (2, 8), 2));
        assert_eq!(fitted(kib(1 << 20), kib(4 << 10)), (50, (4, 512), 8));
    }
}
