//! Announces to UDP trackers (BEP 15, with the URL's path as BEP 41 has it), all of one process.
//!
//! An exchange first gets a connection id, which later ones to the same tracker use for a minute, and then
//! announces. What is lost is sent again.
//!
//! Invariant: a datagram counts only if it comes from the tracker that was asked, to the address it was
//! asked from, and names the transaction that is open; all others are counted and dropped.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::tracker::{
    ANSWER_PEERS_MAX, Answer, Request, TrackerError, TrackerEvent, bounded, entries_v4, entries_v6,
    usable,
};
use crate::metainfo::plain_text;
use crate::random::Random;
use crate::time::Instant;

/// First number of a connect request (BEP 15).
const PROTOCOL_ID: u64 = 0x0417_2710_1980;

/// How long a connection id is used (BEP 15).
const CONNECTION_LIFETIME: Duration = Duration::from_secs(60);

/// Time until a request is sent again; it doubles (BEP 15: 15 * 2^n seconds).
const RETRANSMIT: Duration = Duration::from_secs(15);

/// How long an exchange may take. Ours: three transmissions. BEP 15 goes on for hours; here the schedule of
/// the torrent does that.
pub const EXCHANGE_MAX: Duration = Duration::from_secs(60);

/// Exchanges under way; more fail at once. Ours: twenty each of two hundred torrents, 200 bytes each.
const EXCHANGES_MAX: usize = 4_000;

/// Connection ids remembered.
const CONNECTIONS_MAX: usize = 256;

/// Bytes of an option's data at most (BEP 41).
const OPTION_LENGTH_MAX: usize = 255;

/// Bytes of a tracker's words that are kept.
const TEXT_LENGTH_MAX: usize = 512;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const ERROR: u32 = 3;

/// Number of an exchange, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExchangeId(u64);

/// Whom an exchange is with: the local address it leaves from, and the tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The address that is listened on, as it was bound.
    pub local: IpAddr,
    /// The tracker.
    pub tracker: SocketAddr,
}

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// From where, and to whom.
    pub route: Route,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// What was dropped, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Datagrams too short for what they say they are.
    pub short: u64,
    /// Datagrams that name no open transaction of that route.
    pub unknown: u64,
    /// Datagrams of another kind than the transaction asks for.
    pub unexpected: u64,
}

/// What an exchange waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    /// With this connection id.
    Announce(u64),
}

/// One exchange.
#[derive(Debug)]
struct Exchange {
    route: Route,
    request: Request,
    /// Path and query of the URL.
    path: String,
    step: Step,
    transaction: u32,
    /// How often the request was sent.
    sent: u32,
    next_at: Instant,
    ends_at: Instant,
}

/// All exchanges with UDP trackers.
#[derive(Debug)]
pub struct UdpExchanges {
    exchanges: BTreeMap<ExchangeId, Exchange>,
    /// Connection ids, and until when they are used.
    connections: BTreeMap<Route, (u64, Instant)>,
    transmits: VecDeque<Datagram>,
    done: VecDeque<(ExchangeId, Result<Answer, TrackerError>)>,
    next_id: u64,
    dropped: Dropped,
    random: Random,
}

impl UdpExchanges {
    /// No exchange yet.
    #[must_use]
    pub fn new(random: Random) -> Self {
        Self {
            exchanges: BTreeMap::new(),
            connections: BTreeMap::new(),
            transmits: VecDeque::new(),
            done: VecDeque::new(),
            next_id: 0,
            dropped: Dropped::default(),
            random,
        }
    }

    /// Begins an exchange. `path` is path and query of the tracker's URL.
    pub fn announce(
        &mut self,
        now: Instant,
        route: Route,
        path: &str,
        request: Request,
    ) -> ExchangeId {
        let id = ExchangeId(self.next_id);
        self.next_id += 1;
        if self.exchanges.len() >= EXCHANGES_MAX {
            let error = TrackerError::Local("too many trackers are being asked".to_owned());
            self.done.push_back((id, Err(error)));
            return id;
        }
        let exchange = Exchange {
            route,
            request,
            path: path.to_owned(),
            step: Step::Connect,
            transaction: 0,
            sent: 0,
            next_at: now,
            ends_at: now + EXCHANGE_MAX,
        };
        self.exchanges.insert(id, exchange);
        self.send(now, id);
        id
    }

    /// Nobody waits for an exchange any more.
    pub fn cancel(&mut self, id: ExchangeId) {
        self.exchanges.remove(&id);
    }

    /// A datagram could not be sent: exchanges on its route end.
    pub fn handle_unsent(&mut self, route: Route, error: &TrackerError) {
        let on_route =
            |(id, exchange): (&ExchangeId, &Exchange)| (exchange.route == route).then_some(*id);
        let ended: Vec<ExchangeId> = self.exchanges.iter().filter_map(on_route).collect();
        for id in ended {
            self.end(id, Err(error.clone()));
        }
    }

    /// A datagram came from a tracker.
    pub fn handle_datagram(&mut self, now: Instant, route: Route, payload: &[u8]) {
        let Some((action, rest)) = take_u32(payload) else {
            self.dropped.short += 1;
            return;
        };
        let Some((transaction, rest)) = take_u32(rest) else {
            self.dropped.short += 1;
            return;
        };
        let mut open = self.exchanges.iter();
        let is_open =
            |exchange: &Exchange| exchange.route == route && exchange.transaction == transaction;
        let Some((&id, exchange)) = open.find(|(_, exchange)| is_open(exchange)) else {
            self.dropped.unknown += 1;
            return;
        };
        match (action, exchange.step) {
            (CONNECT, Step::Connect) => match rest.first_chunk() {
                Some(connection) => {
                    self.on_connected(now, id, route, u64::from_be_bytes(*connection));
                }
                None => self.dropped.short += 1,
            },
            (ANNOUNCE, Step::Announce(_)) => match answer(rest, route.tracker.ip()) {
                Some(answer) => self.end(id, Ok(answer)),
                None => self.dropped.short += 1,
            },
            (ERROR, Step::Connect | Step::Announce(_)) => {
                // It may mean that the tracker does not know our connection any more.
                self.connections.remove(&route);
                let words = plain_text(rest, TEXT_LENGTH_MAX);
                let words = words.unwrap_or_else(|| "nothing".to_owned());
                self.end(id, Err(TrackerError::Refused(words)));
            }
            (_, Step::Connect | Step::Announce(_)) => self.dropped.unexpected += 1,
        }
    }

    fn on_connected(&mut self, now: Instant, id: ExchangeId, route: Route, connection: u64) {
        self.connections.retain(|_, (_, until)| *until > now);
        if self.connections.len() >= CONNECTIONS_MAX {
            self.connections.pop_first();
        }
        let until = now + CONNECTION_LIFETIME;
        self.connections.insert(route, (connection, until));
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.sent = 0;
        }
        self.send(now, id);
    }

    /// Sends again what was not answered, and ends what took too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |(id, exchange): (&ExchangeId, &Exchange)| {
            (exchange.next_at.min(exchange.ends_at) <= now).then_some((*id, exchange.ends_at))
        };
        let due: Vec<_> = self.exchanges.iter().filter_map(due).collect();
        for (id, ends_at) in due {
            if ends_at <= now {
                self.end(id, Err(TrackerError::TimedOut));
            } else {
                self.send(now, id);
            }
        }
    }

    /// Sends the request of an exchange: the announce if there is a connection id, else one for that.
    fn send(&mut self, now: Instant, id: ExchangeId) {
        let transaction = self.random.next_u32();
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let connection = self.connections.get(&exchange.route);
        let step = match connection.filter(|(_, until)| *until > now) {
            Some((connection, _)) => Step::Announce(*connection),
            None => Step::Connect,
        };
        if exchange.sent == 0 || exchange.step != step {
            exchange.transaction = transaction;
        }
        exchange.step = step;
        exchange.next_at = now + RETRANSMIT * 2u32.pow(exchange.sent.min(8));
        exchange.sent = exchange.sent.saturating_add(1);
        let datagram = Datagram {
            route: exchange.route,
            payload: match step {
                Step::Connect => connect_request(exchange.transaction),
                Step::Announce(connection) => exchange.announce_request(connection),
            },
        };
        self.transmits.push_back(datagram);
    }

    fn end(&mut self, id: ExchangeId, result: Result<Answer, TrackerError>) {
        if self.exchanges.remove(&id).is_some() {
            self.done.push_back((id, result));
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Datagram> {
        self.transmits.pop_front()
    }

    /// How an exchange ended. Each that was not cancelled ends once.
    pub fn poll_done(&mut self) -> Option<(ExchangeId, Result<Answer, TrackerError>)> {
        self.done.pop_front()
    }

    /// When [`UdpExchanges::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next_at = |exchange: &Exchange| exchange.next_at.min(exchange.ends_at);
        self.exchanges.values().map(next_at).min()
    }

    /// What was dropped so far.
    #[must_use]
    pub const fn dropped(&self) -> Dropped {
        self.dropped
    }
}

impl Exchange {
    /// The announce request of BEP 15, and behind it the URL's path in options (BEP 41).
    fn announce_request(&self, connection: u64) -> Vec<u8> {
        let Request {
            info_hash,
            peer_id,
            port,
            key,
            transferred,
            event,
            peers_wanted,
            ..
        } = &self.request;
        let event: u32 = match event {
            TrackerEvent::Regular => 0,
            TrackerEvent::Completed => 1,
            TrackerEvent::Started => 2,
            TrackerEvent::Stopped => 3,
        };
        let mut out = Vec::with_capacity(98 + self.path.len() + 16);
        out.extend(connection.to_be_bytes());
        out.extend(ANNOUNCE.to_be_bytes());
        out.extend(self.transaction.to_be_bytes());
        out.extend(info_hash.as_bytes());
        out.extend(peer_id.as_bytes());
        out.extend(transferred.downloaded.to_be_bytes());
        out.extend(transferred.left.to_be_bytes());
        out.extend(transferred.uploaded.to_be_bytes());
        out.extend(event.to_be_bytes());
        // The address that the datagram comes from.
        out.extend([0; 4]);
        out.extend(key.to_be_bytes());
        out.extend(peers_wanted.to_be_bytes());
        out.extend(port.to_be_bytes());
        for part in self.path.as_bytes().chunks(OPTION_LENGTH_MAX) {
            out.push(2);
            out.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
            out.extend(part);
        }
        out
    }
}

fn connect_request(transaction: u32) -> Vec<u8> {
    let mut out = PROTOCOL_ID.to_be_bytes().to_vec();
    out.extend(CONNECT.to_be_bytes());
    out.extend(transaction.to_be_bytes());
    out
}

/// The number at the front, and what follows it.
fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

/// An answer behind action and transaction. The family of the tracker's address is that of the peers; bytes
/// behind the last whole one are something of the future (BEP 15).
fn answer(bytes: &[u8], from: IpAddr) -> Option<Answer> {
    let (interval, rest) = take_u32(bytes)?;
    let (leechers, rest) = take_u32(rest)?;
    let (seeds, rest) = take_u32(rest)?;
    let peers = match from {
        IpAddr::V4(_) => entries_v4(rest.as_chunks().0)
            .take(ANSWER_PEERS_MAX)
            .collect(),
        IpAddr::V6(_) => entries_v6(rest.as_chunks().0)
            .take(ANSWER_PEERS_MAX)
            .collect(),
    };
    Some(Answer {
        interval: bounded(i64::from(interval.cast_signed())),
        interval_min: None,
        peers: usable(peers, from),
        seeds: Some(seeds),
        leechers: Some(leechers),
        completed: None,
        external_ip: None,
        warning: None,
        tracker_id: None,
    })
}

#[cfg(test)]
mod tests;
