//! A tracker over UDP (BEP 15), as a model: whoever announces is told of others that did.
//!
//! It is no part of what ships, and is as small as the protocol allows: no limits, no options (BEP 41 lets a
//! tracker ignore them). Who asks it is the shipping code.
//!
//! Invariant: an announce counts only with a connection id that was given to that endpoint, and puts the
//! address it comes from into the list, whatever it says of itself.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use trackless::id::InfoHash;
use trackless::random::Random;
use trackless::time::Instant;

/// Time between two announces that it asks for. What opentracker asks for, as most do.
pub const INTERVAL: Duration = Duration::from_secs(30 * 60);

/// How long who does not announce again is named.
const MEMORY: Duration = Duration::from_secs(2 * 30 * 60);

/// How long a connection id is accepted (BEP 15: until two minutes after it was sent).
const CONNECTION_LIFETIME: Duration = Duration::from_secs(120);

/// Peers that one answer names at most, as with opentracker.
const PEERS_MAX: usize = 200;

/// First number of a connect request (BEP 15).
const PROTOCOL_ID: u64 = 0x0417_2710_1980;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const ERROR: u32 = 3;

/// The event of an announce that says goodbye.
const STOPPED: u32 = 3;

/// A tracker.
#[derive(Debug)]
pub struct Tracker {
    random: Random,
    /// Connection ids, and until when they are accepted.
    connections: BTreeMap<SocketAddrV4, (u64, Instant)>,
    swarms: BTreeMap<InfoHash, BTreeMap<SocketAddrV4, Announced>>,
}

/// Somebody who announced.
#[derive(Debug, Clone, Copy)]
struct Announced {
    lacks_nothing: bool,
    at: Instant,
}

/// An announce as it is asked for (BEP 15).
#[derive(Debug)]
struct Announce {
    info_hash: InfoHash,
    left: u64,
    event: u32,
    peers_wanted: i32,
    port: u16,
}

impl Tracker {
    /// A tracker that knows nobody.
    #[must_use]
    pub const fn new(random: Random) -> Self {
        Self {
            random,
            connections: BTreeMap::new(),
            swarms: BTreeMap::new(),
        }
    }

    /// The answer to a datagram; `None` for what is no request.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddrV4,
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        let mut rest = payload;
        let connection = u64::from_be_bytes(take(&mut rest)?);
        let action = u32::from_be_bytes(take(&mut rest)?);
        let transaction: [u8; 4] = take(&mut rest)?;
        let (action, body) = match action {
            CONNECT if connection == PROTOCOL_ID => (CONNECT, self.connect(now, from)),
            ANNOUNCE if self.is_connected(now, from, connection) => {
                (ANNOUNCE, self.announce(now, from, &Announce::read(rest)?))
            }
            ANNOUNCE => (ERROR, b"unknown connection id".to_vec()),
            _ => return None,
        };
        Some([&action.to_be_bytes()[..], &transaction, &body].concat())
    }

    fn connect(&mut self, now: Instant, from: SocketAddrV4) -> Vec<u8> {
        self.connections.retain(|_, (_, until)| *until > now);
        let id = self.random.next_u64();
        let until = now + CONNECTION_LIFETIME;
        self.connections.insert(from, (id, until));
        id.to_be_bytes().to_vec()
    }

    fn is_connected(&self, now: Instant, from: SocketAddrV4, connection: u64) -> bool {
        let given = self.connections.get(&from);
        given.is_some_and(|(id, until)| *id == connection && *until > now)
    }

    /// Notes who announces, and names others: seeds and leechers counted, peers at random.
    fn announce(&mut self, now: Instant, from: SocketAddrV4, announce: &Announce) -> Vec<u8> {
        let swarm = self.swarms.entry(announce.info_hash).or_default();
        swarm.retain(|_, peer| now.saturating_since(peer.at) < MEMORY);
        let address = SocketAddrV4::new(*from.ip(), announce.port);
        let others = swarm.keys().filter(|other| **other != address);
        let mut others: Vec<SocketAddrV4> = others.copied().collect();
        if announce.event == STOPPED {
            swarm.remove(&address);
            others.clear();
        } else {
            let announced = Announced {
                lacks_nothing: announce.left == 0,
                at: now,
            };
            swarm.insert(address, announced);
        }
        let seeds = swarm.values().filter(|peer| peer.lacks_nothing).count();
        let leechers = swarm.len() - seeds;
        self.random.shuffle(&mut others);
        // A negative number asks for as many as the tracker likes to name.
        let wanted = usize::try_from(announce.peers_wanted).unwrap_or(PEERS_MAX);
        others.truncate(wanted.min(PEERS_MAX));
        let interval = u32::try_from(INTERVAL.as_secs()).expect("half an hour fits 32 bits");
        let count = |number: usize| u32::try_from(number).expect("fewer than 2^32 peers");
        let numbers = [interval, count(leechers), count(seeds)];
        let mut body: Vec<u8> = numbers.into_iter().flat_map(u32::to_be_bytes).collect();
        for other in others {
            body.extend(other.ip().octets());
            body.extend(other.port().to_be_bytes());
        }
        body
    }
}

impl Announce {
    /// Reads what stands behind the transaction of an announce request.
    fn read(mut rest: &[u8]) -> Option<Self> {
        let rest = &mut rest;
        let info_hash = InfoHash::new(take(rest)?);
        let (_peer_id, _downloaded) = (take::<20>(rest)?, take::<8>(rest)?);
        let left = u64::from_be_bytes(take(rest)?);
        let _uploaded = take::<8>(rest)?;
        let event = u32::from_be_bytes(take(rest)?);
        let (_address, _key) = (take::<4>(rest)?, take::<4>(rest)?);
        Some(Self {
            info_hash,
            left,
            event,
            peers_wanted: i32::from_be_bytes(take(rest)?),
            port: u16::from_be_bytes(take(rest)?),
        })
    }
}

/// The next bytes of a datagram.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*bytes)
}

#[cfg(test)]
mod tests;
