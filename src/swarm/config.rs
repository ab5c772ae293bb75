//! Limits of one torrent.

use std::time::Duration;

use crate::id::PeerId;
use crate::peer;

/// In which order pieces are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PieceOrder {
    /// Those that the fewest connected peers have go first, in random order among equals: best for the
    /// swarm, and for the time to completion.
    #[default]
    RarestFirst,
    /// From the first to the last: to look at the content while it comes.
    Sequential,
}

/// What a torrent that has everything gives to whom, while there is a piece that no connected peer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Seeding {
    /// Each piece to one peer, until others have it: who asks for what is out, or on its way to another,
    /// waits a little and lets those go first who ask for what is new. Whoever waits is served all the same
    /// when the line would be idle otherwise.
    #[default]
    EachOnce,
    /// Whatever peers ask for.
    AsAsked,
    /// Super-seeding (BEP 16): peers see only what they are to fetch. The seed sends the least before a full
    /// copy is out, and peers get it the more slowly the fewer they are. Only for a torrent that is complete
    /// when it is started; later a seed is [`Seeding::AsAsked`].
    Super,
}

/// Limits and identity of one torrent. Start from [`Config::new`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Our peer id.
    pub peer_id: PeerId,
    /// The TCP port at which we can be reached; told to peers (BEP 10 `p`). `None` if we cannot.
    pub listen_port: Option<u16>,
    /// The UDP port of our DHT node; told to peers (BEP 5 `port`). `None` without a DHT.
    pub dht_port: Option<u16>,
    /// Whether peers are exchanged with peers (BEP 11). Default `true`; never done for a private torrent (BEP
    /// 27), as soon as that is known.
    pub pex: bool,
    /// Connections at most. Default 50. Each costs some 40 KiB while it moves data.
    pub peers_max: usize,
    /// Connections to one host of the Internet at most. Default 4: some share an address behind a NAT,
    /// but one host must not fill a torrent. On private networks and on one machine, where test
    /// networks put many peers at one address, half of `peers_max` is the limit of a host.
    pub peers_per_host_max: usize,
    /// The order of pieces. Default [`PieceOrder::RarestFirst`].
    pub order: PieceOrder,
    /// What a seed gives first. Default [`Seeding::EachOnce`].
    pub seeding: Seeding,
    /// Dials under way at most. Default 16: enough to get past dead addresses, few enough that a home
    /// router's table of flows does not fill.
    pub dials_max: usize,
    /// Known addresses at most. Default 3,000; a quarter of them is out of reach for any one source.
    pub addresses_max: usize,
    /// Peers we serve at once, besides the optimistic one. Default 8.
    pub unchoke_slots: usize,
    /// Unfinished disk jobs at most. Default 1,024. Channels to and from the disk must hold as many.
    pub disk_jobs_max: usize,
    /// Bytes in unfinished writes at most. Default 4 MiB: enough to keep a disk busy, and the system has
    /// room of its own. Beyond it no block is asked for and reading from peers pauses.
    pub disk_bytes_max: usize,
    /// First wait before an address that failed is dialled again. Default 60 s; doubles each time.
    pub reconnect_min: Duration,
    /// Limits of each connection.
    pub connection: peer::Config,
}

impl Config {
    /// The defaults, under this peer id.
    #[must_use]
    pub fn new(peer_id: PeerId) -> Self {
        Self {
            peer_id,
            listen_port: None,
            dht_port: None,
            pex: true,
            peers_max: 50,
            peers_per_host_max: 4,
            order: PieceOrder::RarestFirst,
            seeding: Seeding::EachOnce,
            dials_max: 16,
            addresses_max: 3_000,
            unchoke_slots: 8,
            disk_jobs_max: 1_024,
            disk_bytes_max: 4 << 20,
            reconnect_min: Duration::from_secs(60),
            connection: peer::Config::default(),
        }
    }
}
