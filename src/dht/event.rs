//! What a node hands out: datagrams, events, reports, and why it wants to be woken.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::config::{LocalId, LookupId};
use super::item::Item;
use crate::id::{InfoHash, NodeId};
use crate::krpc::ContactInfo;

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// From which socket.
    pub from: LocalId,
    /// To whom.
    pub to: SocketAddr,
    /// Its bytes, at most 1,024, or 1,400 with an item.
    pub payload: Bytes,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A node named peers: reported as soon as it did. Addresses whose scope is narrower than that
    /// of the node that named them are not among them.
    PeersFound {
        /// The lookup.
        lookup: LookupId,
        /// The torrent.
        info_hash: InfoHash,
        /// Addresses, each once within one lookup.
        peers: Vec<SocketAddr>,
    },
    /// A node has an item, or a newer version of it than all before (BEP 44). It was verified.
    ItemFound {
        /// The lookup.
        lookup: LookupId,
        /// The item.
        item: Arc<Item>,
    },
    /// A node told torrents of which it stores peers (BEP 51).
    SamplesFound {
        /// The lookup.
        lookup: LookupId,
        /// Who told.
        from: ContactInfo,
        /// The sample.
        info_hashes: Vec<InfoHash>,
        /// How many torrents there are in all, as it says.
        num: u64,
        /// After this time it will tell others.
        interval: Duration,
    },
    /// A lookup or a single ping ended. Each that was started and not cancelled ends once.
    LookupDone {
        /// The lookup.
        lookup: LookupId,
        /// How it went.
        report: LookupReport,
    },
    /// A torrent that is kept announced was announced.
    Announced {
        /// The number of its announces, the same each time: see
        /// [`Node::keep_announced`](super::Node::keep_announced).
        lookup: LookupId,
        /// How it went.
        report: LookupReport,
    },
    /// One query of a lookup was answered or timed out; only with
    /// [`Config::report_steps`](super::Config::report_steps).
    Step {
        /// The lookup.
        lookup: LookupId,
        /// The query.
        step: Step,
    },
    /// Others see a local socket at an address that was not known, or is another than before (BEP
    /// 42). Lookups, announces and contacts go on.
    AddressChanged {
        /// The socket.
        local: LocalId,
        /// Its address.
        address: IpAddr,
        /// Our id there from now on, for the state file.
        id: NodeId,
    },
    /// The number of good contacts passed from 0 to more, or back.
    TableChanged {
        /// Good contacts in all tables.
        contacts: usize,
    },
}

/// One query of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Id of the node that was asked, or that answered; `None` when neither is known.
    pub id: Option<NodeId>,
    /// Its address.
    pub address: SocketAddr,
    /// Name of the method: `find_node`, ...
    pub method: &'static str,
    /// 1 for a contact of our own table; a node first named by one of hop h has h + 1.
    pub hop: u32,
    /// Time to the answer; `None` when it did not come in time.
    pub rtt: Option<Duration>,
    /// Nodes in the answer.
    pub nodes: usize,
    /// Peers in the answer.
    pub peers: usize,
    /// A KRPC error that came instead of an answer, its text made printable.
    pub error: Option<(i64, String)>,
}

/// How a lookup went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LookupReport {
    /// Queries sent, each counted once; 0 when there was nobody to ask.
    pub queries: u32,
    /// Queries sent a second time, because no answer had come.
    pub resent: u32,
    /// Nodes that answered the search (or the ping).
    pub answered: u32,
    /// Queries that were not answered in time.
    pub timed_out: u32,
    /// Hops of the closest node that answered; 0 when none did.
    pub hops: u32,
    /// Distinct peers found.
    pub peers: u32,
    /// Closest nodes that answered, closest first, at most `bucket_size` for each local address.
    pub closest: Vec<ContactInfo>,
    /// Nodes that acknowledged the announce, or stored the item.
    pub stored: u32,
    /// KRPC errors in answer to announces or puts: code and how often, at most eight codes.
    pub errors: Vec<(i64, u32)>,
    /// The number of the newest version of a mutable item (BEP 44).
    pub seq: Option<i64>,
    /// Nodes that had the newest version, or the immutable item.
    pub copies: u32,
    /// How many have the torrent (BEP 33); `None` when that was not asked.
    pub scrape: Option<Scrape>,
    /// Time from start to end.
    pub duration: Duration,
}

/// How many have a torrent, estimated from what several nodes store (BEP 33).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scrape {
    /// Those who have all of it.
    pub seeds: u32,
    /// The others.
    pub peers: u32,
    /// Nodes that counted; without any, `peers` are those that were named.
    pub filters: u32,
}

/// Why the node wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeReason {
    /// A query passes its soft or hard time-out, or a lookup has waited long enough for a contact.
    Query,
    /// A contact is checked, a bucket refreshed, an item of our own put again, or a torrent announced.
    Maintenance,
    /// Stored peers or items expire.
    Expiry,
    /// Nobody is known: the bootstrap list is asked again.
    Bootstrap,
}
