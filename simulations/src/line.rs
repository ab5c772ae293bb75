//! The line of each host: its two access links, what waits for the uplink, and what it has sent.
//!
//! Invariant: an uplink that sends has the segment it sends at its head. A host that never opens a
//! stream on a fast line has no access links in memory: a DHT of a million nodes is mostly that.

use std::collections::VecDeque;

use trackless::time::Instant;

use crate::host::HostId;
use crate::link::{AccessRates, Serialiser};
use crate::pipe::PipeEnd;

/// What one host has sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams sent, those lost included.
    pub datagrams: u64,
    /// Their payload in bytes, without the headers of UDP and IP.
    pub datagram_bytes: u64,
    /// Datagrams of it that were lost.
    pub lost: u64,
}

/// The access links of one host.
#[derive(Debug)]
struct Access {
    up: Serialiser,
    down: Serialiser,
    /// Segments handed to the uplink, in order: which end sent it, how long it is.
    uplink: VecDeque<(PipeEnd, u64)>,
    /// What is in the uplink belongs to a host that has crashed since: how many segments.
    orphans: usize,
}

impl Access {
    fn new(rates: AccessRates) -> Self {
        Self {
            up: Serialiser::new(rates.up),
            down: Serialiser::new(rates.down),
            uplink: VecDeque::new(),
            orphans: 0,
        }
    }
}

/// One host's line.
#[derive(Debug, Default)]
struct Line {
    traffic: Traffic,
    /// `None` until a stream uses it, if the line is fast.
    access: Option<Box<Access>>,
}

impl Line {
    fn access(&mut self) -> &mut Access {
        self.access
            .get_or_insert_with(|| Box::new(Access::new(AccessRates::FAST)))
    }
}

/// The lines of all hosts.
#[derive(Debug, Default)]
pub struct Lines(Vec<Line>);

impl Lines {
    /// Adds the line of one more host.
    pub fn add(&mut self, rates: AccessRates) -> HostId {
        let id = u32::try_from(self.0.len()).expect("fewer than 2^32 hosts");
        let is_fast = rates == AccessRates::FAST;
        self.0.push(Line {
            traffic: Traffic::default(),
            access: (!is_fast).then(|| Box::new(Access::new(rates))),
        });
        HostId(id)
    }

    /// Whether there is such a host.
    #[must_use]
    pub fn contains(&self, host: HostId) -> bool {
        host.as_usize() < self.0.len()
    }

    /// Datagrams a host has sent.
    #[must_use]
    pub fn traffic(&self, host: HostId) -> Traffic {
        self.0[host.as_usize()].traffic
    }

    /// Bytes of streams that a host's uplink has taken.
    #[must_use]
    pub fn uploaded(&self, host: HostId) -> u64 {
        let access = self.0[host.as_usize()].access.as_deref();
        access.map_or(0, |access| access.up.total_bytes())
    }

    /// Counts a datagram that a host sends.
    pub fn note_datagram(&mut self, host: HostId, bytes: usize) {
        let traffic = &mut self.0[host.as_usize()].traffic;
        traffic.datagrams += 1;
        traffic.datagram_bytes += u64::try_from(bytes).expect("a length fits 64 bits");
    }

    /// Counts a datagram of a host that is lost.
    pub fn note_lost(&mut self, host: HostId) {
        self.0[host.as_usize()].traffic.lost += 1;
    }

    /// Hands a segment to a host's uplink. If that was idle, when the segment will have left.
    pub fn queue(
        &mut self,
        now: Instant,
        host: HostId,
        end: PipeEnd,
        bytes: u64,
    ) -> Option<Instant> {
        let access = self.0[host.as_usize()].access();
        access.uplink.push_back((end, bytes));
        (access.uplink.len() == 1).then(|| access.up.pass(now, bytes))
    }

    /// The head of a host's uplink has left: what it was, unless its sender has crashed, and when
    /// the next one will have left.
    pub fn on_sent(
        &mut self,
        now: Instant,
        host: HostId,
    ) -> (Option<(PipeEnd, u64)>, Option<Instant>) {
        let access = self.0[host.as_usize()].access();
        let head = access.uplink.pop_front();
        let head = head.expect("an uplink that sends has a head");
        let is_orphan = access.orphans > 0;
        access.orphans = access.orphans.saturating_sub(1);
        let next = access.uplink.front().copied();
        let next_at = next.map(|(_, bytes)| access.up.pass(now, bytes));
        ((!is_orphan).then_some(head), next_at)
    }

    /// Forgets what waits for the uplink of a host; the segment that is being sent is cut off.
    pub fn crash(&mut self, host: HostId) {
        if let Some(access) = self.0[host.as_usize()].access.as_deref_mut() {
            access.uplink.truncate(1);
            access.orphans = access.uplink.len();
        }
    }

    /// When bytes that reach a host now will have passed its downlink.
    pub fn pass_down(&mut self, now: Instant, host: HostId, bytes: u64) -> Instant {
        self.0[host.as_usize()].access().down.pass(now, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::{PipeId, Side};

    const HOST: HostId = HostId(0);

    fn end(number: u32) -> PipeEnd {
        PipeEnd {
            pipe: PipeId(number),
            side: Side::Dialler,
        }
    }

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn lines(up: u64) -> Lines {
        let mut lines = Lines::default();
        assert_eq!(lines.add(AccessRates { up, down: 1 }), HOST);
        lines
    }

    #[test]
    fn an_uplink_sends_one_segment_after_the_other() {
        let mut lines = lines(1_000_000);
        assert_eq!(lines.queue(at(0), HOST, end(1), 5), Some(at(5)));
        assert_eq!(lines.queue(at(1), HOST, end(2), 7), None);
        let first = lines.on_sent(at(5), HOST);
        assert_eq!(first, (Some((end(1), 5)), Some(at(12))));
        assert_eq!(lines.on_sent(at(12), HOST), (Some((end(2), 7)), None));
        assert_eq!(lines.uploaded(HOST), 12);
    }

    #[test]
    fn what_a_crashed_host_had_not_sent_is_never_sent() {
        let mut lines = lines(1_000_000);
        let _ = lines.queue(at(0), HOST, end(1), 5);
        let _ = lines.queue(at(0), HOST, end(2), 5);
        lines.crash(HOST);
        // It is back before the segment that was being sent would have left.
        assert_eq!(lines.queue(at(2), HOST, end(3), 5), None);
        assert_eq!(lines.on_sent(at(5), HOST), (None, Some(at(10))));
        assert_eq!(lines.on_sent(at(10), HOST), (Some((end(3), 5)), None));
    }

    #[test]
    fn a_fast_line_takes_no_memory_before_a_stream_uses_it() {
        let mut lines = Lines::default();
        let host = lines.add(AccessRates::FAST);
        lines.note_datagram(host, 10);
        lines.note_lost(host);
        assert!(lines.0[0].access.is_none());
        let traffic = lines.traffic(host);
        assert_eq!((traffic.datagrams, traffic.lost), (1, 1));
        assert_eq!(lines.uploaded(host), 0);
        assert!(size_of::<Line>() <= 32);
    }
}
