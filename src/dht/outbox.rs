//! What waits to be taken by the driver: datagrams and events, both bounded, and the counters.
//!
//! Invariant: a driver that never drains costs a bounded amount of memory, and `LookupDone` is not
//! lost.

use std::collections::VecDeque;

use bytes::Bytes;

use super::config::{Config, LocalId};
use super::counters::Counters;
use super::event::{Event, Transmit};
use std::net::SocketAddr;

/// Entries of capacity that a drained queue keeps; what a burst allocated beyond is given back.
const CAPACITY_KEPT: usize = 8;

/// Bytes of capacity that the write buffer keeps: the longest reply.
const SCRATCH_KEPT: usize = 1024;

/// Queues of what is to be sent and told.
#[derive(Debug)]
pub(super) struct Outbox {
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    transmits_max: usize,
    events_max: usize,
    /// Messages are written here; empty between two of them.
    scratch: Vec<u8>,
    pub(super) stats: Counters,
}

impl Outbox {
    /// Empty queues.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            transmits_max: config.transmits_max,
            events_max: config.events_max,
            scratch: Vec::new(),
            stats: Counters::default(),
        }
    }

    /// Sends what `write` puts into the buffer. Returns its length, 0 when there is no room.
    pub(super) fn send(
        &mut self,
        from: LocalId,
        to: SocketAddr,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        if self.transmits.len() >= self.transmits_max {
            self.stats.transmits_dropped += 1;
            return 0;
        }
        write(&mut self.scratch);
        let payload = Bytes::copy_from_slice(&self.scratch);
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_KEPT);
        Counters::add_bytes(&mut self.stats.bytes_out, payload.len());
        let length = payload.len();
        self.transmits.push_back(Transmit { from, to, payload });
        length
    }

    /// Tells something. Past the bound only `LookupDone` is kept: there are no more of them than
    /// lookups that were started.
    pub(super) fn tell(&mut self, event: Event) {
        let must_arrive = matches!(event, Event::LookupDone { .. });
        if self.events.len() >= self.events_max && !must_arrive {
            self.stats.events_dropped += 1;
            return;
        }
        self.events.push_back(event);
    }

    /// The next datagram.
    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        let next = self.transmits.pop_front();
        if next.is_none() {
            self.transmits.shrink_to(CAPACITY_KEPT);
        }
        next
    }

    /// The next event.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        let next = self.events.pop_front();
        if next.is_none() {
            self.events.shrink_to(CAPACITY_KEPT);
        }
        next
    }

    /// Bytes on the heap, without what the payloads and events hold.
    pub(super) fn memory_bytes(&self) -> usize {
        self.transmits.capacity() * size_of::<Transmit>()
            + self.events.capacity() * size_of::<Event>()
            + self
                .transmits
                .iter()
                .map(|transmit| transmit.payload.len())
                .sum::<usize>()
            + self.scratch.capacity()
    }
}
