//! One who takes part in the torrent: seed, liar or newcomer.

use std::net::SocketAddr;
use std::sync::Arc;

use trackless::announce::{self, Schedule};
use trackless::dht::{Event, LookupId, LookupReport};
use trackless::id::PeerId;
use trackless::metainfo::{Info, Magnet};
use trackless::swarm::{self, Torrent};
use trackless::time::Instant;

use crate::adversary::PeerConduct;
use crate::disk::SimDisk;
use crate::host::{HostId, STREAM_PORT};
use crate::seeds::Seeds;

/// By what those with the torrent find each other.
#[derive(Debug, Clone)]
pub(super) struct Discovery {
    /// They take part in the DHT.
    pub(super) dht: bool,
    /// They tell each other of peers.
    pub(super) pex: bool,
    /// They announce to these.
    pub(super) trackers: Vec<SocketAddr>,
    /// The address that the magnet link names.
    pub(super) known: Option<SocketAddr>,
}

/// Who a host is in the torrent.
pub(super) fn peer_id(host: HostId, seeds: Seeds) -> PeerId {
    PeerId::new(seeds.stream("peer id", host.0.into()).bytes())
}

/// What somebody is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Has everything and announces it.
    Seed,
    /// Likewise, but sends wrong metadata.
    Liar,
    /// Has the magnet link.
    Joiner,
}

impl Part {
    /// Its torrent and disk, as `discovery` has it find others.
    pub(super) fn torrent(
        self,
        host: HostId,
        info: &Arc<Info>,
        discovery: &Discovery,
        seeds: Seeds,
        now: Instant,
    ) -> (Torrent, SimDisk) {
        let index = u64::from(host.0);
        let random = seeds.stream("torrent", index);
        let config = swarm::Config {
            listen_port: Some(STREAM_PORT),
            pex: discovery.pex,
            ..swarm::Config::new(peer_id(host, seeds))
        };
        match self {
            Self::Seed | Self::Liar => {
                let torrent = Torrent::from_info(config, Arc::clone(info), random, now);
                (torrent, SimDisk::full())
            }
            Self::Joiner => {
                let mut magnet = Magnet::new(info.info_hash());
                magnet.peers.extend(discovery.known);
                let torrent = Torrent::from_magnet(config, &magnet, random, now);
                (torrent, SimDisk::empty())
            }
        }
    }

    /// How it misbehaves, if it does.
    pub(super) const fn conduct(self) -> Option<PeerConduct> {
        match self {
            Self::Liar => Some(PeerConduct::CorruptMetadata),
            Self::Seed | Self::Joiner => None,
        }
    }
}

/// Somebody with a torrent.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) host: HostId,
    pub(super) part: Part,
    pub(super) schedule: Schedule,
    /// Its torrent wants peers.
    pub(super) wants_peers: bool,
    /// The lookup under way.
    pub(super) under_way: Option<LookupId>,
    /// It can serve something and is not announced yet.
    pub(super) has_content: bool,
    /// Its announces.
    pub(super) kept: Option<LookupId>,
    /// When the earliest planned look at the schedule is, so that each is planned once.
    planned: Option<Instant>,
    pub(super) began: Option<Instant>,
    pub(super) first_peer: Option<Instant>,
    pub(super) metadata: Option<Instant>,
    pub(super) first_piece: Option<Instant>,
    pub(super) completed: Option<Instant>,
}

impl Member {
    /// Somebody who has not begun.
    pub(super) fn new(host: HostId, part: Part) -> Self {
        Self {
            host,
            part,
            schedule: Schedule::new(announce::Config::default(), Instant::ZERO),
            wants_peers: false,
            under_way: None,
            has_content: false,
            kept: None,
            planned: None,
            began: None,
            first_peer: None,
            metadata: None,
            first_piece: None,
            completed: None,
        }
    }

    /// It begins now.
    pub(super) fn begin(&mut self, now: Instant) {
        self.began = Some(now);
        self.schedule = Schedule::new(announce::Config::default(), now);
    }

    /// Its torrent reported something.
    pub(super) fn on_event(&mut self, now: Instant, event: &swarm::Event) {
        match event {
            swarm::Event::PeerConnected { .. } => {
                self.first_peer.get_or_insert(now);
            }
            swarm::Event::MetadataReady(_) => {
                self.metadata.get_or_insert(now);
            }
            // From here on it can serve something.
            swarm::Event::Checked { .. } => self.has_content = true,
            swarm::Event::PieceVerified(_) => {
                self.first_piece.get_or_insert(now);
            }
            swarm::Event::Completed => {
                self.completed.get_or_insert(now);
            }
            _ => {}
        }
    }

    /// Its node reported something; gives peers that were found for its torrent.
    pub(super) fn on_dht(&mut self, now: Instant, event: Event) -> Vec<SocketAddr> {
        let outcome = |report: &LookupReport| announce::Outcome {
            peers: report.peers,
            answered: report.answered,
        };
        match event {
            Event::PeersFound { lookup, peers, .. }
                if Some(lookup) == self.under_way || Some(lookup) == self.kept =>
            {
                return peers;
            }
            Event::LookupDone { lookup, report } if Some(lookup) == self.under_way => {
                self.under_way = None;
                self.schedule.handle_done(now, outcome(&report));
            }
            Event::Announced { report, .. } => self.schedule.on_announced(now, outcome(&report)),
            _ => {}
        }
        Vec::new()
    }

    /// When its schedule is to be looked at, if that is not planned yet.
    pub(super) fn wake_to_plan(&mut self) -> Option<Instant> {
        let at = self.schedule.poll_timeout()?.at;
        if self.planned == Some(at) {
            return None;
        }
        self.planned = Some(at);
        Some(at)
    }
}
