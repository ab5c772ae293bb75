//! What a torrent wants done, what it tells, and what it counts.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{DiskError, Job, JobId};
use crate::metainfo::{Info, MetainfoError, PieceIndex};
use crate::wire::ProtocolError;

/// Number of a connection, never used twice in one torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Who named an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerSource {
    /// The user.
    User,
    /// The magnet link (`x.pe`).
    Magnet,
    /// A peer of the local network, about itself (BEP 14).
    Lsd,
    /// A tracker.
    Tracker,
    /// A DHT node.
    Dht,
    /// The peer itself, by dialling us.
    Incoming,
    /// A peer that is connected to it (BEP 11).
    Pex,
}

impl PeerSource {
    /// The word for it, in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Magnet => "magnet",
            Self::Lsd => "lsd",
            Self::Tracker => "tracker",
            Self::Dht => "dht",
            Self::Incoming => "incoming",
            Self::Pex => "pex",
        }
    }
}

/// What carries a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Plain TCP.
    Tcp,
}

/// Why a dial failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DialError {
    /// Nobody listens there.
    Refused,
    /// Nobody answered.
    TimedOut,
    /// There is no route.
    Unreachable,
    /// It could not be tried from here: no descriptor left, no network interface, no local address. That
    /// is not the address's fault: it is tried again soon, and all dialling rests for a few seconds.
    Local,
    /// Anything else.
    Other,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::TimedOut => "did not answer",
            Self::Unreachable => "unreachable",
            Self::Local => "could not be dialled from here",
            Self::Other => "could not be dialled",
        })
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// The peer closed the stream.
    Closed,
    /// The stream broke.
    Reset,
    /// The peer broke a rule.
    Protocol(ProtocolError),
    /// Neither side lacks anything.
    BothSeeds,
    /// The peer sent bad data.
    Banned,
    /// There is another connection to the same peer.
    Duplicate,
    /// A more useful peer took its place.
    Replaced,
    /// Pieces that the peer was told of are not there any more.
    ContentLost,
    /// The torrent is private and changed its tracker (BEP 27).
    TrackerChanged,
    /// The torrent stops.
    Stopping,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the peer"),
            Self::Reset => f.write_str("reset"),
            Self::Protocol(error) => error.fmt(f),
            Self::BothSeeds => f.write_str("both have everything"),
            Self::Banned => f.write_str("sent bad data"),
            Self::Duplicate => f.write_str("connected twice"),
            Self::Replaced => f.write_str("replaced by a more useful peer"),
            Self::ContentLost => f.write_str("what it was offered is gone"),
            Self::TrackerChanged => f.write_str("another tracker is asked now"),
            Self::Stopping => f.write_str("stopping"),
        }
    }
}

/// Why a stream was not taken, or not kept beyond its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// There are as many connections as may be, and each is of use.
    Full,
    /// There are as many connections to its host as may be.
    Host,
    /// It was banned for bad data, or it is ourselves.
    Banned,
    /// There is another connection to the same peer.
    Duplicate,
    /// The torrent cannot use it: it failed, or has nothing to give while the disk takes nothing.
    NotNow,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Host => "too many from one host",
            Self::Banned => "banned",
            Self::Duplicate => "connected twice",
            Self::NotNow => "not now",
        })
    }
}

/// Why a peer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LostReason {
    /// It was never connected.
    Dial(DialError),
    /// The connection ended.
    Connection(Reason),
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::Connection(reason) => reason.fmt(f),
        }
    }
}

/// What the driver should do, in order.
#[derive(Debug)]
pub enum Action {
    /// Connect; answer with `handle_connected` or `handle_dial_failed`.
    Dial {
        /// To whom.
        address: SocketAddr,
    },
    /// Drop the stream. No `handle_disconnected` is expected.
    Close {
        /// Which.
        id: ConnectionId,
        /// Why.
        reason: Reason,
    },
    /// Do this job; answer with `handle_disk`. Jobs of one piece keep their order.
    Disk {
        /// Its number.
        id: JobId,
        /// What to do.
        job: Job,
    },
    /// Whether more peers are wanted.
    WantPeers(bool),
    /// Stop reading from all connections: the disk is behind.
    PauseReading,
    /// Go on reading.
    ResumeReading,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The info dictionary is known.
    MetadataReady(Arc<Info>),
    /// What lies on disk was checked.
    Checked {
        /// Pieces found good.
        pieces: u32,
    },
    /// A piece is on disk and right.
    PieceVerified(PieceIndex),
    /// A piece was wrong and is fetched again.
    PieceFailed(PieceIndex),
    /// Every wanted piece is on disk.
    Completed,
    /// The handshake with a peer is done.
    PeerConnected {
        /// Its address.
        address: SocketAddr,
    },
    /// A dial failed or a connection ended.
    PeerLost {
        /// Its address.
        address: SocketAddr,
        /// Why.
        reason: LostReason,
    },
    /// A peer named its DHT node (BEP 5).
    DhtNode(SocketAddr),
    /// The disk takes no more writes, or what lies there could not be looked at. Nothing is fetched
    /// meanwhile (`State::Stalled`), what is verified is served, and the torrent tries again by itself.
    /// Told once, until [`Event::DiskRecovered`].
    DiskFailed(Arc<DiskError>),
    /// Files changed, or could not be read, and so many verified pieces are not right any more. They are
    /// fetched again if they are wanted.
    PiecesLost {
        /// How many.
        pieces: u32,
    },
    /// The disk works again: something was verified or made durable.
    DiskRecovered,
    /// The metadata has the right hash but cannot be accepted: this torrent cannot go on.
    MetadataRefused(MetainfoError),
}

/// What a torrent is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Waits for the info dictionary.
    Metadata,
    /// Looks at what lies on disk.
    Checking,
    /// Fetches pieces.
    Downloading,
    /// Would fetch pieces, but the disk takes none. What is there is served; it is tried again after a
    /// while, and at once by `retry_disk`.
    Stalled,
    /// Has every wanted piece.
    Seeding,
    /// Cannot go on: the metadata is not acceptable.
    Failed,
}

impl State {
    /// The word for it, in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Checking => "checking",
            Self::Downloading => "downloading",
            Self::Stalled => "stalled",
            Self::Seeding => "seeding",
            Self::Failed => "failed",
        }
    }
}

/// Which timer is due first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeReason {
    /// The choker's next round.
    Choke,
    /// A timer of a connection.
    Connection,
    /// An address may be dialled again.
    Dial,
    /// A part of the metadata is overdue.
    Metadata,
    /// The disk is tried again, or files are looked at.
    Disk,
    /// A peer may be told of others.
    Exchange,
    /// A peer without work may take over what others are slow to send.
    Endgame,
    /// Nobody may be taking anything: whoever waits for what others have can be served.
    Serve,
}

/// Reasons why peers were lost that are told apart; further ones count as "other".
pub(super) const FAILURE_REASONS_MAX: usize = 40;

/// Numbers for people and programs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of wanted pieces that are verified.
    pub bytes_done: u64,
    /// Bytes of all wanted pieces (see `Torrent::set_wanted`); 0 before the metadata is known.
    pub bytes_wanted: u64,
    /// Wanted pieces that are verified.
    pub pieces_done: u32,
    /// Wanted pieces in all.
    pub pieces: u32,
    /// Payload bytes received.
    pub downloaded: u64,
    /// Payload bytes sent.
    pub uploaded: u64,
    /// Payload bytes received in vain: twice, unasked, or in bad pieces.
    pub wasted: u64,
    /// Payload bytes received a second, now.
    pub down_rate: u64,
    /// Payload bytes sent a second, now.
    pub up_rate: u64,
    /// Addresses known.
    pub peers_known: u32,
    /// Of these, how many each source named ([`PeerSource::as_str`]); the most trusted of several counts.
    pub sources: BTreeMap<&'static str, u32>,
    /// Dials under way.
    pub peers_dialling: u32,
    /// Connections whose handshake is done.
    pub peers_connected: u32,
    /// Of these, peers that have everything.
    pub peers_seeding: u32,
    /// Peers that let us ask for blocks.
    pub peers_unchoking: u32,
    /// Peers that we let ask for blocks.
    pub peers_unchoked: u32,
    /// Peers banned for bad data.
    pub peers_banned: u32,
    /// How often peers were lost, by reason in words.
    pub failures: BTreeMap<String, u32>,
    /// Streams that were not taken, by reason in words ([`Refusal`]).
    pub refused: BTreeMap<String, u32>,
    /// Metadata parts that are there.
    pub metadata_parts_done: u32,
    /// Metadata parts in all; 0 while the size is unknown.
    pub metadata_parts: u32,
    /// Copies of the rarest piece that connected peers have, in thousandths; the fraction says how many
    /// of the pieces have more.
    pub availability_permille: u32,
}
