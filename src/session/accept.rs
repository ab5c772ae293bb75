//! Accepting peers: their handshake says which torrent they want.
//!
//! A stream is accepted first and judged then, so that strangers who wait cannot keep others in the
//! system's queue. At most [`Places::handshakes_max`] handshakes are awaited. When there is no place,
//! the oldest stream of the host that has most of them makes room: it had its time, and whoever opens
//! many streams competes with itself. When several hosts have as many, it is the oldest of all theirs.
//!
//! Invariant: however many silent streams there are, a new one is read at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::Routes;
use super::counters::{Count, Tally};
use super::handle::{Command, Guest, Incoming};
use super::places::{Places, host_of, is_far};
use crate::net::clock::Clock;
use crate::wire::ProtocolError;
use crate::{net, peer};

/// Handshakes that are awaited from one host of the Internet; a peer needs one at a time for each
/// torrent.
const HANDSHAKES_PER_HOST_MAX: usize = 8;

/// The same for one host of a private network or this machine.
const HANDSHAKES_PER_NEAR_HOST_MAX: usize = 32;

/// Wait after a failed accept: the process has no descriptor left, and trying at once does not
/// help.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts the peers of one listener and sorts them by torrent.
#[derive(Clone)]
pub(super) struct Acceptor {
    pub(super) clock: Clock,
    pub(super) connection: peer::Config,
    pub(super) routes: Arc<Routes>,
    pub(super) places: Places,
    pub(super) tally: Tally,
}

impl Acceptor {
    /// Accepts until it is ended.
    pub(super) async fn run(self, listener: TcpListener) {
        let mut pending = Pending::new(self.places.handshakes_max());
        let mut handshakes = JoinSet::new();
        let mut failing = false;
        loop {
            // Both branches are cancel-safe: what is not chosen is still there the next time.
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(ended) = handshakes.join_next() => {
                    // Those that were aborted are forgotten already.
                    if let Ok(number) = ended {
                        pending.remove(number);
                    }
                    continue;
                }
            };
            match accepted {
                Ok((stream, address)) => {
                    failing = false;
                    self.begin(&mut pending, &mut handshakes, stream, address);
                }
                Err(error) => {
                    self.tally.add(Count::AcceptFailed);
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "cannot accept peers, trying again");
                    }
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// Starts to read a handshake, if the stream may have a place.
    fn begin(
        &self,
        pending: &mut Pending,
        handshakes: &mut JoinSet<u64>,
        stream: TcpStream,
        address: SocketAddr,
    ) {
        self.tally.add(Count::Accepted);
        let host = host_of(address.ip());
        while let Some(replaced) = pending.make_room(host) {
            tracing::debug!(peer = %address, "another handshake makes room");
            self.tally.add(Count::HandshakeReplaced);
            replaced.abort();
        }
        let Some(place) = self.places.take() else {
            tracing::debug!(peer = %address, "no place for another stream");
            self.tally.add(Count::RefusedStreams);
            return;
        };
        let guest = Guest {
            stream,
            address,
            place,
        };
        let (clock, connection) = (self.clock, self.connection.clone());
        let (routes, tally) = (Arc::clone(&self.routes), self.tally.clone());
        let number = pending.next_number();
        let task = handshakes.spawn(async move {
            tally.add(greet(guest, clock, &connection, &routes).await);
            number
        });
        pending.insert(host, task);
    }
}

/// Reads the handshake of one accepted stream and hands the stream to its torrent; says what became
/// of it. One for a torrent that is not here is closed, as is one that breaks a rule or takes too
/// long.
async fn greet(
    mut guest: Guest,
    clock: Clock,
    connection: &peer::Config,
    routes: &Routes,
) -> Count {
    let peer = guest.address;
    let accepted = match net::peer::read_handshake(&mut guest.stream, clock, connection).await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::debug!(%peer, %error, "handshake refused");
            return match error {
                ProtocolError::TimedOut { .. } => Count::HandshakeTimedOut,
                _ => Count::HandshakeInvalid,
            };
        }
    };
    let info_hash = accepted.handshake.info_hash;
    let route = routes.borrow().get(&info_hash).cloned();
    let Some(route) = route else {
        tracing::debug!(%peer, %info_hash, "no such torrent");
        return Count::UnknownTorrent;
    };
    if !guest.place.is_granted_to(peer.ip()) {
        tracing::debug!(%peer, "too many streams from there");
        return Count::RefusedAddress;
    }
    match route.try_send(Command::Incoming(Box::new(Incoming { guest, accepted }))) {
        Ok(()) => Count::Routed,
        Err(_) => {
            tracing::debug!(%peer, %info_hash, "torrent too busy for another peer");
            Count::TorrentBusy
        }
    }
}

/// The handshakes that are awaited, by age and host.
#[derive(Debug)]
struct Pending<T = AbortHandle> {
    /// Oldest first: numbers grow.
    all: BTreeMap<u64, (IpAddr, T)>,
    next: u64,
    max: usize,
}

impl<T> Pending<T> {
    /// None yet, and never more than `max`.
    const fn new(max: usize) -> Self {
        Self {
            all: BTreeMap::new(),
            next: 0,
            max,
        }
    }

    /// The number that the next one gets.
    const fn next_number(&self) -> u64 {
        self.next
    }

    /// One more from this host.
    fn insert(&mut self, host: IpAddr, task: T) {
        self.all.insert(self.next, (host, task));
        self.next += 1;
    }

    /// One is over; does nothing if it is not known.
    fn remove(&mut self, number: u64) {
        self.all.remove(&number);
    }

    /// Takes out one that has to go before another may come from `host`; `None` when there is room.
    fn make_room(&mut self, host: IpAddr) -> Option<T> {
        let limit = if is_far(host) {
            HANDSHAKES_PER_HOST_MAX
        } else {
            HANDSHAKES_PER_NEAR_HOST_MAX
        };
        let counts = self.counts();
        let crowded = if counts.get(&host).is_some_and(|&count| count >= limit) {
            host
        } else if self.all.len() >= self.max {
            self.busiest()?
        } else {
            return None;
        };
        let mut from_it = self.all.iter().filter(|(_, (host, _))| *host == crowded);
        let oldest = *from_it.next()?.0;
        self.all.remove(&oldest).map(|(_, task)| task)
    }

    /// The host that has most; of several, the one that came first.
    fn busiest(&self) -> Option<IpAddr> {
        let counts = self.counts();
        let most = counts.values().max()?;
        // Oldest first, so the first of such a host is the oldest of all of them.
        let mut hosts = self.all.values().map(|(host, _)| *host);
        hosts.find(|host| counts.get(host) == Some(most))
    }

    /// How many there are of each host.
    fn counts(&self) -> BTreeMap<IpAddr, usize> {
        let mut counts = BTreeMap::new();
        for (host, _) in self.all.values() {
            *counts.entry(*host).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Handshakes in these tests.
    const MAX: usize = 64;

    fn far(host: u8) -> IpAddr {
        [8, 8, 8, host].into()
    }

    /// Adds one, and gives the numbers of those that had to go.
    fn add(pending: &mut Pending<u64>, host: IpAddr) -> Vec<u64> {
        let replaced = std::iter::from_fn(|| pending.make_room(host)).collect();
        pending.insert(host, pending.next_number());
        replaced
    }

    #[test]
    fn a_host_that_opens_many_streams_competes_with_itself() {
        let mut pending = Pending::new(MAX);
        let honest = far(1);
        assert!(add(&mut pending, honest).is_empty());
        for number in 0..100 {
            let replaced = add(&mut pending, far(2));
            let expected = (number >= 8).then(|| number - 8 + 1);
            assert_eq!(replaced, Vec::from_iter(expected));
        }
        assert!(pending.all.contains_key(&0));
    }

    #[test]
    fn when_all_places_are_taken_the_oldest_of_the_busiest_host_goes() {
        let mut pending = Pending::new(MAX);
        for host in 0..60 {
            assert!(add(&mut pending, far(host)).is_empty());
        }
        for _ in 0..4 {
            assert!(add(&mut pending, far(30)).is_empty());
        }
        assert_eq!(add(&mut pending, far(200)), [30]);
        assert_eq!(pending.all.len(), MAX);
        pending.remove(5);
        pending.remove(5);
        assert!(add(&mut pending, far(201)).is_empty());
    }

    #[test]
    fn of_hosts_that_have_as_many_the_oldest_makes_room_whatever_its_address() {
        let mut pending = Pending::new(MAX);
        let six: IpAddr = "2001:db8::1".parse().unwrap();
        let hosts = [far(150), far(9), six, far(200)];
        for host in hosts.into_iter().chain((10..70).map(far)) {
            assert!(add(&mut pending, host).is_empty());
        }
        for number in 0..6 {
            assert_eq!(add(&mut pending, far(100 + number)), [u64::from(number)]);
        }
    }

    #[test]
    fn places_stay_within_their_bounds_whatever_comes_and_goes() {
        let mut random = Random::from_seed(5);
        let mut pending = Pending::new(MAX);
        for _ in 0..5_000 {
            let host = far(u8::try_from(random.below(20)).unwrap());
            if random.below(4) == 0 {
                let next = u32::try_from(pending.next_number().max(1)).unwrap();
                pending.remove(random.below(next).into());
            } else {
                let newest = pending.next_number();
                let replaced = add(&mut pending, host);
                assert!(replaced.len() <= 1 && !replaced.contains(&newest));
                assert!(pending.all.contains_key(&newest), "the new one stays");
            }
            assert!(pending.all.len() <= MAX);
            let counts = pending.counts();
            assert!(
                counts
                    .values()
                    .all(|&count| count <= HANDSHAKES_PER_HOST_MAX)
            );
        }
    }
}
