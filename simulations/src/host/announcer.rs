//! Whom a host asks beside the DHT: the trackers of its torrent, by the shipping code.
//!
//! When each is asked is decided by the shipping list of trackers, what is sent by the shipping code for
//! UDP trackers. The datagrams leave from the socket of the DHT node, as they do in the real program.
//!
//! Invariant: an exchange with a tracker belongs to one announce of the list, which hears of its end once.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use trackless::announce::udp_tracker::{ExchangeId, Route, UdpExchanges};
use trackless::announce::{
    Due, Network as Heard, Request, TrackerError, TrackerId, TrackerList, Transferred,
};
use trackless::id::{InfoHash, PeerId};
use trackless::time::Instant;

use super::{HostId, STREAM_PORT};
use crate::network::{Happening, Network};
use crate::time::Alarm;
use crate::time::alarm::Ring;
use crate::world::Notice;

/// The trackers of a torrent, and what is under way with them.
#[derive(Debug)]
pub struct AnnouncerHost {
    host: HostId,
    info_hash: InfoHash,
    peer_id: PeerId,
    key: u32,
    list: TrackerList,
    exchanges: UdpExchanges,
    under_way: BTreeMap<ExchangeId, TrackerId>,
    /// Whom datagrams are taken from.
    trackers: Vec<SocketAddr>,
    transferred: Transferred,
    alarm: Alarm,
}

impl AnnouncerHost {
    /// The trackers at these addresses, each a tier of its own; the first announces are due at once.
    #[must_use]
    pub fn new(
        host: HostId,
        info_hash: InfoHash,
        peer_id: PeerId,
        trackers: &[SocketAddr],
        network: &Network,
    ) -> Self {
        let index = u64::from(host.0);
        let mut random = network.seeds().stream("announcer", index);
        let url = |address: &SocketAddr| vec![format!("udp://{address}/announce")];
        let tiers: Vec<Vec<String>> = trackers.iter().map(url).collect();
        Self {
            host,
            info_hash,
            peer_id,
            key: random.next_u32(),
            list: TrackerList::new(&tiers, &mut random, network.now()),
            exchanges: UdpExchanges::new(network.seeds().stream("udp exchanges", index)),
            under_way: BTreeMap::new(),
            trackers: trackers.to_vec(),
            transferred: Transferred::default(),
            alarm: Alarm::default(),
        }
    }

    /// The list, to be given a command; [`Self::drain`] must follow.
    pub const fn list_mut(&mut self) -> &mut TrackerList {
        &mut self.list
    }

    /// Whether a datagram from there is one of a tracker.
    #[must_use]
    pub fn is_tracker(&self, from: SocketAddr) -> bool {
        self.trackers.contains(&from)
    }

    /// A tracker sent a datagram.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, payload: &[u8]) {
        self.exchanges.handle_datagram(now, route(from), payload);
    }

    /// A queued wake-up fired.
    pub fn handle_wake(&mut self, network: &mut Network) {
        let now = network.now();
        match self.alarm.ring(now) {
            Ring::Stale => {}
            Ring::Again(at) => {
                let again = Happening::WakeAnnouncer(self.host);
                network.agenda.plan(at, again);
            }
            Ring::Due => self.exchanges.handle_timeout(now),
        }
    }

    /// Takes everything that is to be done: announces that are due, datagrams, answers. `transferred` is what
    /// trackers are told now.
    pub fn drain(
        &mut self,
        transferred: Transferred,
        network: &mut Network,
        notices: &mut VecDeque<Notice>,
    ) {
        let now = network.now();
        self.transferred = transferred;
        loop {
            while let Some(due) = self.list.poll_due(now) {
                self.announce(now, &due);
            }
            while let Some(datagram) = self.exchanges.poll_transmit() {
                let to = datagram.route.tracker;
                network.send_datagram(self.host, to, datagram.payload.into());
            }
            let Some((id, result)) = self.exchanges.poll_done() else {
                break;
            };
            let Some(tracker) = self.under_way.remove(&id) else {
                continue;
            };
            match result {
                Ok(answer) => {
                    self.list.handle_answer(now, tracker, &answer);
                    notices.push_back(Notice::TrackerPeers {
                        host: self.host,
                        peers: answer.peers,
                    });
                }
                // Hosts of the simulation never lose their own network.
                Err(error) => self.list.handle_failure(now, tracker, &error, Heard::Up),
            }
        }
        let wishes = [self.list.poll_timeout(), self.exchanges.poll_timeout()];
        let wish = wishes.into_iter().flatten().min();
        if let Some(at) = self.alarm.wish(now, wish) {
            let wake = Happening::WakeAnnouncer(self.host);
            network.agenda.plan(at, wake);
        }
    }

    fn announce(&mut self, now: Instant, due: &Due) {
        let request = Request {
            info_hash: self.info_hash,
            peer_id: self.peer_id,
            port: STREAM_PORT,
            key: self.key,
            transferred: self.transferred,
            event: due.event,
            peers_wanted: due.peers_wanted,
            tracker_id: due.tracker_id.clone(),
        };
        let Some(ip) = due.url.address() else {
            let nowhere = TrackerError::NoAddress;
            return self
                .list
                .handle_failure(now, due.tracker, &nowhere, Heard::Up);
        };
        let to = route(SocketAddr::new(ip, due.url.port()));
        let exchanges = &mut self.exchanges;
        let id = exchanges.announce(now, to, due.url.path(), request);
        self.under_way.insert(id, due.tracker);
    }
}

/// The way from a host's one socket to a tracker.
fn route(tracker: SocketAddr) -> Route {
    Route {
        local: Ipv4Addr::UNSPECIFIED.into(),
        tracker,
    }
}
