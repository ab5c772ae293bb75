//! What a session counts about strangers and about itself, by reason.
//!
//! Invariant: a number only grows, and each stream that was accepted is counted under exactly one
//! of the reasons once its fate is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted. The order is that of [`Counters::iter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// A stream was accepted.
    Accepted,
    /// Its handshake was read and it was given to a torrent.
    Routed,
    /// The system gave no stream.
    AcceptFailed,
    /// Too many streams from its address.
    RefusedAddress,
    /// More streams than descriptors allow.
    RefusedStreams,
    /// Its place was needed by another one.
    HandshakeReplaced,
    /// Its handshake took too long.
    HandshakeTimedOut,
    /// It sent something else than a handshake, or closed.
    HandshakeInvalid,
    /// No such torrent here.
    UnknownTorrent,
    /// The torrent had no place for it.
    TorrentBusy,
    /// The torrent did not want it.
    TorrentRefused,
    /// A dial that never left this machine.
    DialLocal,
}

/// How many kinds there are.
const KINDS: usize = Count::DialLocal as usize + 1;

/// The shared tally behind [`Counters`]. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    counts: Arc<[AtomicU64; KINDS]>,
}

impl Tally {
    /// One more.
    pub(crate) fn add(&self, count: Count) {
        self.counts[count as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The numbers so far.
    pub(crate) fn counters(&self) -> Counters {
        let of = |count: Count| self.counts[count as usize].load(Ordering::Relaxed);
        Counters {
            accepted: of(Count::Accepted),
            routed: of(Count::Routed),
            accept_failed: of(Count::AcceptFailed),
            refused_address: of(Count::RefusedAddress),
            refused_streams: of(Count::RefusedStreams),
            handshakes_replaced: of(Count::HandshakeReplaced),
            handshakes_timed_out: of(Count::HandshakeTimedOut),
            handshakes_invalid: of(Count::HandshakeInvalid),
            unknown_torrent: of(Count::UnknownTorrent),
            torrent_busy: of(Count::TorrentBusy),
            torrent_refused: of(Count::TorrentRefused),
            dials_local: of(Count::DialLocal),
        }
    }
}

/// Numbers of a whole session, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Streams accepted.
    pub accepted: u64,
    /// Of these, streams whose handshake was read and that were given to their torrent.
    pub routed: u64,
    /// Failures to accept: mostly that no descriptor is left.
    pub accept_failed: u64,
    /// Streams closed because too many came from their address.
    pub refused_address: u64,
    /// Streams closed because descriptors are short.
    pub refused_streams: u64,
    /// Streams closed during the handshake because their place was needed: too many wait at once.
    pub handshakes_replaced: u64,
    /// Streams closed because their handshake took too long.
    pub handshakes_timed_out: u64,
    /// Streams closed because they sent something else than a handshake, or that closed before.
    pub handshakes_invalid: u64,
    /// Streams closed because their torrent is not here.
    pub unknown_torrent: u64,
    /// Streams closed because their torrent was too busy to take them.
    pub torrent_busy: u64,
    /// Of the streams given to their torrent, those it did not want: it has enough, the peer is
    /// banned, or it is ourselves.
    pub torrent_refused: u64,
    /// Dials that failed for a reason on this machine.
    pub dials_local: u64,
}

impl Counters {
    /// Each number under its name, always in the same order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("accepted", self.accepted),
            ("routed", self.routed),
            ("accept_failed", self.accept_failed),
            ("refused_address", self.refused_address),
            ("refused_streams", self.refused_streams),
            ("handshakes_replaced", self.handshakes_replaced),
            ("handshakes_timed_out", self.handshakes_timed_out),
            ("handshakes_invalid", self.handshakes_invalid),
            ("unknown_torrent", self.unknown_torrent),
            ("torrent_busy", self.torrent_busy),
            ("torrent_refused", self.torrent_refused),
            ("dials_local", self.dials_local),
        ]
        .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_shows_under_its_own_name() {
        let tally = Tally::default();
        tally.add(Count::Accepted);
        tally.clone().add(Count::Accepted);
        tally.add(Count::DialLocal);
        let counters = tally.counters();
        assert_eq!((counters.accepted, counters.dials_local), (2, 1));
        let total: u64 = counters.iter().map(|(_, number)| number).sum();
        assert_eq!(total, 3);
        let mut names: Vec<_> = counters.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KINDS);
    }
}
