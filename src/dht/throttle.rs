//! How much others may ask, and how much those may get who have not proved their address.
//!
//! Each host has a budget of queries. Whoever spends it is not listened to for a while: its
//! datagrams are dropped before they are read, save those that may answer a query of ours. A
//! sender's address can be forged, so the answers to hosts that have neither answered a query of
//! ours nor brought back a write token, the strangers, share a budget of bytes for each host and
//! one for each network: nobody can be flooded by way of us.
//!
//! Invariant: the state is bounded by [`ThrottleConfig::sources_max`], and forgetting a host gives
//! it no more than one fresh budget; one that is silenced is forgotten only for others that are
//! silenced for longer or proved their address.

use std::net::SocketAddr;
use std::time::Duration;

use super::counters::Counters;
use super::host::{Host, Network};
use super::ledger::{Account, Ledger};
use crate::time::Instant;

#[cfg(test)]
mod tests;

/// How long a host counts as known after it proved its address. Ours: as long as a silence, so
/// that neither pushes out the other; contacts of the table are known as long as they are there.
const KNOWN_FOR: Duration = Duration::from_secs(5 * 60);

/// What ends every canonical query: `y` is the last key of a KRPC message.
const QUERY_END: &[u8] = b"1:y1:qe";

/// How much others may ask and get. `Default` is what a real node uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThrottleConfig {
    /// Queries a second that each host may send in the long run; at least 1. Default 5, as in
    /// libtorrent: a lookup asks a node once, so even an office behind one address stays below.
    pub queries_per_second: u32,
    /// Queries at once, when none came for a while. Default 50.
    pub burst: u32,
    /// How long a host that asked more is not listened to. Default 5 minutes.
    pub silence: Duration,
    /// Bytes a second that all answers to one stranger share, at least 1. Default 4 KiB: four of
    /// the longest answers.
    pub stranger_bytes_per_second: u32,
    /// Bytes a second that all answers to the strangers of one /24 or /64 share, at least 1.
    /// Default 32 KiB.
    pub network_bytes_per_second: u32,
    /// Peers in an answer to a stranger. Default 16.
    pub stranger_peers_max: usize,
    /// Hosts that are remembered, about 120 bytes each, and as many networks, about 70 bytes each.
    /// Default 8,192, so 1.5 MiB while a flood comes from that many. Only who asked, or proved an
    /// address, within seconds or minutes is among them.
    pub sources_max: usize,
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        Self {
            queries_per_second: 5,
            burst: 50,
            silence: Duration::from_secs(5 * 60),
            stranger_bytes_per_second: 4 << 10,
            network_bytes_per_second: 32 << 10,
            stranger_peers_max: 16,
            sources_max: 8192,
        }
    }
}

/// What is known of an asker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its address is its own.
    Known,
    /// Its address may be anybody's.
    Stranger,
}

/// A budget that refills with time, as the moment from which it is full.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meter(Instant);

impl Meter {
    /// Takes from the budget; what is not there becomes a debt.
    pub(super) fn spend(&mut self, now: Instant, cost: Duration) {
        self.0 = self.0.max(now) + cost;
    }

    /// How long it takes until it is full.
    pub(super) fn missing(self, now: Instant) -> Duration {
        self.0.saturating_since(now)
    }
}

impl Account for Meter {
    fn idle_from(&self) -> Instant {
        self.0
    }
}

/// The queries of a host.
#[derive(Debug, Clone, Copy)]
enum Queries {
    /// They are answered as long as the budget lasts.
    Counted(Meter),
    /// They are not answered before this moment.
    Silenced(Instant),
}

/// What is remembered of a host.
#[derive(Debug, Clone, Copy)]
struct Source {
    queries: Queries,
    /// Bytes it got as a stranger.
    bytes: Meter,
    known_until: Instant,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            queries: Queries::Counted(Meter::default()),
            bytes: Meter::default(),
            known_until: Instant::ZERO,
        }
    }
}

impl Account for Source {
    fn idle_from(&self) -> Instant {
        let queries = match self.queries {
            Queries::Counted(meter) => meter.idle_from(),
            Queries::Silenced(until) => until,
        };
        queries.max(self.bytes.idle_from()).max(self.known_until)
    }
}

/// Keeps the budgets.
#[derive(Debug)]
pub(super) struct Throttle {
    config: ThrottleConfig,
    sources: Ledger<Host, Source>,
    networks: Ledger<Network, Meter>,
    /// From when on nobody is silenced any more.
    silence_ends: Instant,
}

impl Throttle {
    /// Nobody is known.
    pub(super) fn new(config: &ThrottleConfig) -> Self {
        Self {
            sources: Ledger::new(config.sources_max),
            networks: Ledger::new(config.sources_max),
            silence_ends: Instant::ZERO,
            config: config.clone(),
        }
    }

    /// Whether a datagram from here is to be dropped unread. `is_asking` tells whether an answer
    /// from there is awaited; it is only called for a silenced host.
    pub(super) fn drops(
        &self,
        now: Instant,
        from: &SocketAddr,
        payload: &[u8],
        is_asking: impl FnOnce() -> bool,
    ) -> bool {
        self.is_silenced(now, from) && (payload.ends_with(QUERY_END) || !is_asking())
    }

    fn is_silenced(&self, now: Instant, from: &SocketAddr) -> bool {
        if now >= self.silence_ends {
            return false;
        }
        let source = self.sources.get(&Host::of(from));
        source
            .is_some_and(|source| matches!(source.queries, Queries::Silenced(until) if now < until))
    }

    /// A query came: it is paid for, and this is what is known of who sent it. `None` when there
    /// was nothing left to pay with, and from then on for the time of the silence.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        from: &SocketAddr,
        counters: &mut Counters,
    ) -> Option<Standing> {
        let cost = Duration::from_secs(1) / self.config.queries_per_second.max(1);
        let capacity = cost * self.config.burst.max(1);
        let silence_ends = now + self.config.silence;
        let source = self.open(now, from, counters);
        let mut meter = match source.queries {
            Queries::Silenced(until) if now < until => return None,
            Queries::Silenced(_) => Meter::default(),
            Queries::Counted(meter) => meter,
        };
        if meter.missing(now) + cost <= capacity {
            meter.spend(now, cost);
            source.queries = Queries::Counted(meter);
            return Some(if now < source.known_until {
                Standing::Known
            } else {
                Standing::Stranger
            });
        }
        source.queries = Queries::Silenced(silence_ends);
        self.silence_ends = silence_ends;
        counters.sources_silenced += 1;
        None
    }

    /// A host answered a query of ours, or brought back a token: it gets what comes from its
    /// address.
    pub(super) fn on_proof(&mut self, now: Instant, from: &SocketAddr, counters: &mut Counters) {
        self.open(now, from, counters).known_until = now + KNOWN_FOR;
    }

    /// Whether a stranger may get an answer now.
    pub(super) fn has_bytes(&self, now: Instant, to: &SocketAddr) -> bool {
        let second = Duration::from_secs(1);
        let source = self.sources.get(&Host::of(to)).map(|source| source.bytes);
        let network = Network::of(to).and_then(|network| self.networks.get(&network));
        source.is_none_or(|meter| meter.missing(now) < second)
            && network.is_none_or(|meter| meter.missing(now) < second)
    }

    /// A stranger was sent so many bytes.
    pub(super) fn on_sent(
        &mut self,
        now: Instant,
        to: &SocketAddr,
        length: usize,
        counters: &mut Counters,
    ) {
        let cost = |rate: u32| {
            let nanos = u64::try_from(length).unwrap_or(u64::MAX);
            Duration::from_nanos(nanos.saturating_mul(1_000_000_000) / u64::from(rate.max(1)))
        };
        let (host, network) = (
            cost(self.config.stranger_bytes_per_second),
            cost(self.config.network_bytes_per_second),
        );
        self.open(now, to, counters).bytes.spend(now, host);
        if let Some(key) = Network::of(to) {
            let (meter, is_lost) = self.networks.open(now, key);
            meter.spend(now, network);
            counters.sources_forgotten += u64::from(is_lost);
        }
    }

    /// Peers in an answer to a stranger.
    pub(super) const fn stranger_peers_max(&self) -> usize {
        self.config.stranger_peers_max
    }

    /// Forgets whom there is no reason to remember.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.sources.sweep(now);
        self.networks.sweep(now);
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        self.sources.memory_bytes() + self.networks.memory_bytes()
    }

    fn open(&mut self, now: Instant, from: &SocketAddr, counters: &mut Counters) -> &mut Source {
        let (source, is_lost) = self.sources.open(now, Host::of(from));
        counters.sources_forgotten += u64::from(is_lost);
        source
    }
}
