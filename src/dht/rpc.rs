//! Queries in flight: transaction ids, time-outs, and matching answers to them.
//!
//! A query has two time-outs. After the soft one, a little more than round trips take here, whoever
//! waits for it goes on with somebody else, and a late answer is still welcome. After the hard one
//! it has failed. Both follow the measured round-trip times (RFC 6298).
//!
//! Invariant: an answer is matched only if it comes to the local address that asked, from the
//! address that was asked, with the transaction id that was drawn for it; and each query is
//! answered at most once.

use std::net::SocketAddr;
use std::time::Duration;

use super::config::{Config, LocalId, LookupId};
use crate::id::NodeId;
use crate::krpc::ContactInfo;
use crate::random::Random;
use crate::time::Instant;

/// Bytes in a transaction id of ours. BEP 5 calls two enough; with four a stranger who can forge
/// the source address has to send 2^31 datagrams within a time-out for an even chance.
pub(super) const TRANSACTION_LENGTH: usize = 4;

/// Shortest hard time-out. Ours: RFC 6298 says 1 s, but here nothing is sent again and another node
/// is as good; half of it forgives a busy machine.
const HARD_TIMEOUT_MIN: Duration = Duration::from_millis(500);

/// Shortest wait for the answer to a query that was sent a second time. Ours: ten round trips on a
/// local network.
const AGAIN_MIN: Duration = Duration::from_millis(10);

/// Queries for which memory is kept when none is in flight.
const CAPACITY_KEPT: usize = 4;

/// Who is pinged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// Somebody who asked, or was named.
    Stranger,
    /// Somebody who is in the table, waits for a place there, or was there in an earlier run.
    Known,
}

/// What a query is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A ping that lets a node into the table, or checks one in it.
    Verify(Rank),
    /// `find_node` to an address of the bootstrap list.
    Bootstrap,
    /// A step of a lookup.
    Search(LookupId),
    /// `announce_peer` at the end of a lookup.
    Announce(LookupId),
    /// A ping the user asked for.
    Ping(LookupId),
    /// `find_node` to a contact that was lost.
    Reunite,
}

impl Purpose {
    /// Whether somebody else is asked when the answer takes long.
    const fn has_soft_timeout(self) -> bool {
        matches!(self, Self::Search(_) | Self::Announce(_))
    }
}

/// A query in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    transaction: [u8; TRANSACTION_LENGTH],
    pub(super) purpose: Purpose,
    pub(super) local: LocalId,
    pub(super) to: SocketAddr,
    /// Who is expected to answer; `None` when any id will do.
    pub(super) id: Option<NodeId>,
    pub(super) sent: Instant,
    /// It was sent a second time, so nobody knows which of the two is answered.
    pub(super) is_resent: bool,
    /// `None` when it has passed, or there is none.
    pub(super) soft: Option<Instant>,
    hard: Instant,
}

impl Pending {
    /// The next thing that happens to it if no answer comes.
    fn next(&self) -> Instant {
        self.soft.unwrap_or(self.hard)
    }

    /// The contact that was asked, if its id was known.
    pub(super) fn contact(&self) -> Option<ContactInfo> {
        self.id.map(|id| ContactInfo {
            id,
            address: self.to,
        })
    }
}

/// What has become of a query that was not answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    /// It passed its soft time-out and is still in flight.
    Stalled(Pending),
    /// It failed.
    Failed(Pending),
}

/// The queries in flight.
#[derive(Debug)]
pub(super) struct Rpc {
    pending: Vec<Pending>,
    /// Not later than the first thing that is due; `None` when nothing is in flight.
    next: Option<Instant>,
    pending_max: usize,
    timeouts: Timeouts,
}

impl Rpc {
    /// Nothing in flight, nothing measured.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            pending: Vec::new(),
            next: None,
            pending_max: config.pending_max,
            timeouts: Timeouts::new(config),
        }
    }

    /// Whether no further query may be sent now.
    pub(super) const fn is_full(&self) -> bool {
        self.pending.len() >= self.pending_max
    }

    /// Whether as many queries are in flight as a patient lookup may add to: half of what is possible. One
    /// that waits goes on when a quarter of these have ended.
    pub(super) const fn is_half_full(&self, is_waiting: bool) -> bool {
        let half = self.pending_max / 2;
        let enough = if is_waiting { half - half / 4 } else { half };
        self.pending.len() >= enough
    }

    /// Whether an answer from this address is awaited.
    pub(super) fn is_asking(&self, local: LocalId, address: &SocketAddr) -> bool {
        self.pending
            .iter()
            .any(|pending| pending.local == local && pending.to == *address)
    }

    /// The query in flight that asks this address for the same thing.
    pub(super) fn find(
        &self,
        local: LocalId,
        to: &SocketAddr,
        purpose: Purpose,
    ) -> Option<&Pending> {
        self.pending.iter().find(|pending| {
            pending.local == local && pending.to == *to && pending.purpose == purpose
        })
    }

    /// Whether a query with this transaction id is in flight, wherever it went.
    pub(super) fn is_open(&self, transaction: &[u8]) -> bool {
        self.pending
            .iter()
            .any(|pending| pending.transaction == *transaction)
    }

    /// Where the strangers are that are being pinged.
    pub(super) fn pinged_strangers(&self) -> impl Iterator<Item = (LocalId, SocketAddr)> + '_ {
        self.pending
            .iter()
            .filter(|pending| pending.purpose == Purpose::Verify(Rank::Stranger))
            .map(|pending| (pending.local, pending.to))
    }

    /// Notes a query that is about to be sent and draws its transaction id. `rtt` is what the
    /// contact took before, if known.
    pub(super) fn open(
        &mut self,
        now: Instant,
        random: &mut Random,
        query: (LocalId, SocketAddr, Option<NodeId>),
        purpose: Purpose,
        rtt: Option<Duration>,
    ) -> [u8; TRANSACTION_LENGTH] {
        let (local, to, id) = query;
        let transaction = random.bytes();
        let hard = now + self.timeouts.hard(purpose, rtt);
        let soft = purpose
            .has_soft_timeout()
            .then(|| (now + self.timeouts.soft(rtt)).min(hard));
        let pending = Pending {
            transaction,
            purpose,
            local,
            to,
            id,
            sent: now,
            is_resent: false,
            soft,
            hard,
        };
        let next = pending.next();
        self.next = Some(self.next.map_or(next, |first| first.min(next)));
        self.pending.push(pending);
        transaction
    }

    /// A query that passed its soft time-out is sent a second time, under the same transaction id:
    /// it gets a short soft time-out, and the hard one anew. Returns that id.
    pub(super) fn reopen(&mut self, now: Instant, stalled: &Pending) -> [u8; TRANSACTION_LENGTH] {
        let soft = now + self.timeouts.again();
        for pending in &mut self.pending {
            if pending.transaction == stalled.transaction && pending.to == stalled.to {
                let patience = pending.hard.saturating_since(pending.sent);
                pending.is_resent = true;
                pending.hard = now + patience;
                pending.soft = Some(soft.min(pending.hard));
                let next = pending.next();
                self.next = Some(self.next.map_or(next, |first| first.min(next)));
            }
        }
        stalled.transaction
    }

    /// Takes out the query that a response or error answers.
    pub(super) fn accept(
        &mut self,
        local: LocalId,
        from: SocketAddr,
        transaction: &[u8],
    ) -> Option<Pending> {
        let index = self.pending.iter().position(|pending| {
            pending.transaction == *transaction && pending.local == local && pending.to == from
        })?;
        Some(self.take(index))
    }

    /// A response came in so much time.
    pub(super) fn on_measured(&mut self, rtt: Duration) {
        self.timeouts.on_measured(rtt);
    }

    /// The next query that passed a time-out.
    pub(super) fn poll_due(&mut self, now: Instant) -> Option<Due> {
        if self.next.is_none_or(|next| next > now) {
            return None;
        }
        let due = self
            .pending
            .iter()
            .position(|pending| pending.next() <= now);
        let Some(index) = due else {
            self.find_next();
            return None;
        };
        let pending = &mut self.pending[index];
        if pending.hard > now {
            pending.soft = None;
            return Some(Due::Stalled(*pending));
        }
        Some(Due::Failed(self.take(index)))
    }

    /// When [`Rpc::poll_due`] next has something to say, or earlier.
    pub(super) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        self.pending.capacity() * size_of::<Pending>()
    }

    fn take(&mut self, index: usize) -> Pending {
        let pending = self.pending.swap_remove(index);
        if self.pending.is_empty() {
            self.pending.shrink_to(CAPACITY_KEPT);
        }
        if Some(pending.next()) <= self.next {
            self.find_next();
        }
        pending
    }

    fn find_next(&mut self) {
        self.next = self.pending.iter().map(Pending::next).min();
    }
}

/// Time-outs from measured round-trip times.
#[derive(Debug, Clone, Copy)]
struct Timeouts {
    /// Smoothed round-trip time and its mean deviation over all nodes; `None` before the first.
    measured: Option<(Duration, Duration)>,
    hard_initial: Duration,
    hard_max: Duration,
    soft_initial: Duration,
    soft_min: Duration,
}

impl Timeouts {
    const fn new(config: &Config) -> Self {
        Self {
            measured: None,
            hard_initial: config.query_timeout_initial,
            hard_max: config.query_timeout_max,
            soft_initial: config.soft_timeout_initial,
            soft_min: config.soft_timeout_min,
        }
    }

    /// RFC 6298, section 2, over the answers of all nodes.
    fn on_measured(&mut self, rtt: Duration) {
        let rtt = rtt.min(self.hard_max);
        self.measured = Some(match self.measured {
            None => (rtt, rtt / 2),
            Some((mean, deviation)) => (
                (mean * 7 + rtt) / 8,
                (deviation * 3 + mean.abs_diff(rtt)) / 4,
            ),
        });
    }

    /// What nearly all answers take: mean plus four deviations.
    fn usual(&self) -> Option<Duration> {
        self.measured.map(|(mean, deviation)| mean + deviation * 4)
    }

    /// After this time somebody else is asked too. A contact known to be quick is not waited for as
    /// long as a stranger; a slow one no longer.
    fn soft(&self, rtt: Option<Duration>) -> Duration {
        let usual = self.usual().unwrap_or(self.soft_initial);
        let wanted = rtt.map_or(usual, |rtt| usual.min(rtt * 2));
        wanted.max(self.soft_min).min(self.hard_max)
    }

    /// So long an answer to a query sent a second time is waited for. Whoever waits has the answers
    /// of others meanwhile, so a busy machine does no harm and nearly no floor is needed.
    fn again(&self) -> Duration {
        let usual = self.usual().unwrap_or(self.soft_initial);
        usual.max(AGAIN_MIN).min(self.hard_max)
    }

    /// After this time a query has failed. The user's own pings get the most.
    fn hard(&self, purpose: Purpose, rtt: Option<Duration>) -> Duration {
        if matches!(purpose, Purpose::Ping(_)) {
            return self.hard_max;
        }
        let usual = self.usual().map_or(self.hard_initial, |usual| usual * 2);
        let wanted = rtt.map_or(usual, |rtt| usual.max(rtt * 4));
        wanted.max(HARD_TIMEOUT_MIN).min(self.hard_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: LocalId = LocalId(0);

    fn address(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    fn millis(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    fn rpc() -> (Rpc, Random) {
        (Rpc::new(&Config::default()), Random::from_seed(1))
    }

    fn search(rpc: &mut Rpc, random: &mut Random, at: Instant, port: u16) -> [u8; 4] {
        let query = (HERE, address(port), None);
        rpc.open(at, random, query, Purpose::Search(LookupId(1)), None)
    }

    #[test]
    fn an_answer_needs_the_right_address_transaction_and_socket() {
        let (mut rpc, mut random) = rpc();
        let transaction = search(&mut rpc, &mut random, Instant::ZERO, 1);
        assert!(rpc.accept(HERE, address(2), &transaction).is_none());
        assert!(rpc.accept(LocalId(1), address(1), &transaction).is_none());
        assert!(rpc.accept(HERE, address(1), &transaction[..2]).is_none());
        assert!(rpc.accept(HERE, address(1), b"pn\0\0").is_none());
        assert!(rpc.accept(HERE, address(1), &transaction).is_some());
        let again = rpc.accept(HERE, address(1), &transaction);
        assert!(again.is_none(), "each query is answered once");
    }

    #[test]
    fn an_answered_query_leaves_no_timer_behind() {
        let (mut rpc, mut random) = rpc();
        let first = search(&mut rpc, &mut random, Instant::ZERO, 1);
        let second = search(&mut rpc, &mut random, millis(100), 2);
        assert_eq!(rpc.next(), Some(millis(250)));
        rpc.accept(HERE, address(1), &first);
        assert_eq!(rpc.next(), Some(millis(350)));
        rpc.accept(HERE, address(2), &second);
        assert_eq!(rpc.next(), None);
        assert!(rpc.memory_bytes() <= CAPACITY_KEPT * size_of::<Pending>());
    }

    #[test]
    fn a_query_stalls_once_and_then_fails() {
        let (mut rpc, mut random) = rpc();
        search(&mut rpc, &mut random, Instant::ZERO, 1);
        assert!(rpc.poll_due(millis(249)).is_none());
        assert!(matches!(rpc.poll_due(millis(250)), Some(Due::Stalled(_))));
        assert!(rpc.poll_due(millis(250)).is_none());
        assert_eq!(rpc.next(), Some(millis(1000)));
        assert!(matches!(rpc.poll_due(millis(1000)), Some(Due::Failed(_))));
        assert_eq!(rpc.next(), None);
    }

    #[test]
    fn a_late_wake_up_fails_a_query_without_stalling_it_first() {
        let (mut rpc, mut random) = rpc();
        search(&mut rpc, &mut random, Instant::ZERO, 1);
        assert!(matches!(rpc.poll_due(millis(5000)), Some(Due::Failed(_))));
        assert!(rpc.poll_due(millis(5000)).is_none());
    }

    #[test]
    fn time_outs_follow_the_round_trip_times() {
        let mut timeouts = Timeouts::new(&Config::default());
        let (search, ms) = (Purpose::Search(LookupId(1)), Duration::from_millis);
        assert_eq!(timeouts.soft(None), ms(250));
        assert_eq!(timeouts.hard(search, None), ms(1000));
        for _ in 0..100 {
            timeouts.on_measured(ms(1));
        }
        assert_eq!(timeouts.soft(None), ms(50), "the floor");
        assert_eq!(timeouts.hard(search, None), HARD_TIMEOUT_MIN);
        assert_eq!(timeouts.hard(Purpose::Ping(LookupId(1)), None), ms(2000));
        for _ in 0..100 {
            timeouts.on_measured(ms(200));
        }
        assert!(timeouts.soft(None) >= ms(200) && timeouts.soft(None) < ms(400));
        assert!(timeouts.soft(Some(ms(30))) < ms(100), "a quick contact");
        for _ in 0..100 {
            timeouts.on_measured(Duration::MAX);
        }
        assert_eq!(timeouts.hard(search, None), ms(2000), "the cap");
    }

    #[test]
    fn queries_in_flight_are_bounded() {
        let (mut rpc, mut random) = rpc();
        for port in 1..=512 {
            assert!(!rpc.is_full());
            search(&mut rpc, &mut random, Instant::ZERO, port);
        }
        assert!(rpc.is_full());
        assert!(rpc.is_asking(HERE, &address(512)) && !rpc.is_asking(HERE, &address(513)));
    }

    #[test]
    fn transaction_ids_do_not_follow_from_each_other() {
        let (mut rpc, mut random) = rpc();
        let ids: Vec<_> = (1..=100)
            .map(|port| u32::from_be_bytes(search(&mut rpc, &mut random, Instant::ZERO, port)))
            .collect();
        let mut steps: Vec<_> = ids
            .windows(2)
            .map(|pair| pair[1].wrapping_sub(pair[0]))
            .collect();
        steps.sort_unstable();
        steps.dedup();
        assert_eq!(steps.len(), 99);
    }
}
