//! A stream between two hosts: bytes arrive once, in order, after the access links and the latency.
//!
//! What TCP does beyond that is left out: no slow start, no loss, no header bytes; a connection is
//! made in one round trip. A segment waits for the sender's uplink, travels, waits for the
//! receiver's downlink and is handed over.
//!
//! Invariant: each direction is first in, first out, and holds at most [`SEND_BUFFER`] bytes before
//! the uplink plus one segment, and [`RECEIVE_WINDOW`] bytes that the receiver has not read plus
//! one.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use trackless::peer::Incoming;
use trackless::swarm::ConnectionId;
use trackless::time::Instant;

use crate::host::HostId;

/// Bytes of one connection that wait for the uplink before its writer counts as full. Ours: two
/// blocks, so that a shared uplink is divided block by block among those who use it.
pub const SEND_BUFFER: u64 = 2 * 16_400;

/// Bytes sent but not read at which the sender waits. Linux' default limit of an automatically
/// sized receive buffer.
pub const RECEIVE_WINDOW: u64 = 6 << 20;

/// Number of a pipe in its run; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PipeId(pub u32);

/// Which end of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The host that dialled.
    Dialler,
    /// The host that was dialled.
    Acceptor,
}

impl Side {
    const fn index(self) -> usize {
        match self {
            Self::Dialler => 0,
            Self::Acceptor => 1,
        }
    }

    /// The opposite end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

/// One end of one pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PipeEnd {
    /// Which pipe.
    pub pipe: PipeId,
    /// Which of its ends.
    pub side: Side,
}

impl PipeEnd {
    /// The other end of the same pipe.
    #[must_use]
    pub const fn other(self) -> Self {
        Self {
            pipe: self.pipe,
            side: self.side.other(),
        }
    }
}

/// Part of a stream that travels as one.
#[derive(Debug, Clone)]
pub enum Segment {
    /// Bytes in two slices (a block: its header and its content), the second often empty.
    Data(Bytes, Bytes),
    /// The sender closed the stream.
    End,
}

impl Segment {
    /// Bytes it takes on a line.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Data(first, second) => {
                u64::try_from(first.len() + second.len()).expect("a length fits 64 bits")
            }
            Self::End => 0,
        }
    }
}

/// Who reads and writes at an end.
#[derive(Debug)]
pub enum Owner {
    /// The dial is under way.
    Dialling,
    /// The handshake of an accepted stream is being read.
    Handshake(Box<Incoming>),
    /// A connection of the host's torrent.
    Connection(ConnectionId),
    /// Nobody any more: what arrives is dropped.
    Gone,
}

/// One direction of a stream.
#[derive(Debug, Default)]
struct Direction {
    /// Segments written and not yet handed over, oldest first.
    segments: VecDeque<Segment>,
    /// How many of them have reached the receiver's downlink.
    at_downlink: usize,
    /// Bytes that wait for the uplink.
    unsent: u64,
    /// Bytes written that the receiver has not read.
    unread: u64,
    /// Bytes written since the beginning.
    written: u64,
    /// The writer was told that the window is full.
    is_blocked: bool,
    /// When the latest segment reaches the downlink: no later one overtakes it.
    arrives_last: Instant,
}

/// One end: who is there, and what it sends.
#[derive(Debug)]
struct End {
    host: HostId,
    owner: Owner,
    out: Direction,
}

/// A stream.
#[derive(Debug)]
pub struct Pipe {
    ends: [End; 2],
    latency: Duration,
}

impl Pipe {
    /// A stream that `dialler` opens to `acceptor`.
    #[must_use]
    pub fn new(dialler: HostId, acceptor: HostId, latency: Duration) -> Self {
        let end = |host, owner| End {
            host,
            owner,
            out: Direction::default(),
        };
        Self {
            ends: [end(dialler, Owner::Dialling), end(acceptor, Owner::Gone)],
            latency,
        }
    }

    /// One-way latency without jitter.
    #[must_use]
    pub const fn latency(&self) -> Duration {
        self.latency
    }

    /// The host at an end.
    #[must_use]
    pub const fn host(&self, side: Side) -> HostId {
        self.ends[side.index()].host
    }

    /// Who is at an end.
    #[must_use]
    pub const fn owner(&self, side: Side) -> &Owner {
        &self.ends[side.index()].owner
    }

    /// Who is at an end, to be fed or replaced.
    pub const fn owner_mut(&mut self, side: Side) -> &mut Owner {
        &mut self.ends[side.index()].owner
    }

    /// Bytes written at `side` since the beginning.
    #[must_use]
    pub const fn written(&self, side: Side) -> u64 {
        self.ends[side.index()].out.written
    }

    /// Nobody is at the ends of this host any more.
    pub fn disown(&mut self, host: HostId) {
        for end in self.ends.iter_mut().filter(|end| end.host == host) {
            end.owner = Owner::Gone;
        }
    }

    const fn out(&mut self, side: Side) -> &mut Direction {
        &mut self.ends[side.index()].out
    }

    /// Whether the writer at `side` has room for another segment; if the receiver's window is what
    /// is missing, the writer is noted as blocked.
    pub fn has_room(&mut self, side: Side) -> bool {
        let out = self.out(side);
        if out.unread >= RECEIVE_WINDOW {
            out.is_blocked = true;
            return false;
        }
        out.unsent < SEND_BUFFER
    }

    /// Queues a segment behind those before it; it now waits for the uplink.
    pub fn push(&mut self, side: Side, segment: Segment) {
        let out = self.out(side);
        out.unsent += segment.length();
        out.unread += segment.length();
        out.written += segment.length();
        out.segments.push_back(segment);
    }

    /// A segment of `bytes` has left the uplink and would arrive at `arrival`; when it really does.
    pub fn on_sent(&mut self, side: Side, bytes: u64, arrival: Instant) -> Instant {
        let out = self.out(side);
        out.unsent -= bytes;
        out.arrives_last = out.arrives_last.max(arrival);
        out.arrives_last
    }

    /// Makes everything sent at `side` from now on arrive no earlier than `arrival`.
    pub fn hold_until(&mut self, side: Side, arrival: Instant) {
        let out = self.out(side);
        out.arrives_last = out.arrives_last.max(arrival);
    }

    /// The next segment sent at `side` has reached the other end's downlink; its bytes.
    pub fn on_arrived(&mut self, side: Side) -> u64 {
        let out = self.out(side);
        let bytes = out.segments[out.at_downlink].length();
        out.at_downlink += 1;
        bytes
    }

    /// Takes the oldest segment sent at `side` that passed the downlink.
    pub fn take_delivered(&mut self, side: Side) -> Segment {
        let out = self.out(side);
        out.at_downlink -= 1;
        out.segments
            .pop_front()
            .expect("each delivery has a segment that arrived")
    }

    /// The receiver read `bytes` of what `side` sent. Whether its writer, blocked before, may go
    /// on.
    pub fn on_read(&mut self, side: Side, bytes: u64) -> bool {
        let out = self.out(side);
        out.unread -= bytes;
        let opens = out.is_blocked && out.unread < RECEIVE_WINDOW / 2;
        if opens {
            out.is_blocked = false;
        }
        opens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> Pipe {
        Pipe::new(HostId(0), HostId(1), Duration::from_millis(50))
    }

    fn data(length: usize) -> Segment {
        Segment::Data(Bytes::from(vec![0; length]), Bytes::new())
    }

    #[test]
    fn segments_are_delivered_in_order() {
        let mut pipe = pipe();
        for length in [3, 1, 2] {
            pipe.push(Side::Dialler, data(length));
        }
        pipe.push(Side::Dialler, Segment::End);
        let arrived: Vec<u64> = (0..4).map(|_| pipe.on_arrived(Side::Dialler)).collect();
        let delivered: Vec<u64> = (0..4)
            .map(|_| pipe.take_delivered(Side::Dialler).length())
            .collect();
        assert_eq!(arrived, [3, 1, 2, 0]);
        assert_eq!(delivered, arrived);
    }

    #[test]
    fn a_segment_never_overtakes_the_one_before_it() {
        let mut pipe = pipe();
        pipe.push(Side::Acceptor, data(1));
        pipe.push(Side::Acceptor, data(1));
        let late = Instant::from_micros(9);
        assert_eq!(pipe.on_sent(Side::Acceptor, 1, late), late);
        let early = Instant::from_micros(4);
        assert_eq!(pipe.on_sent(Side::Acceptor, 1, early), late);
    }

    #[test]
    fn a_writer_waits_for_the_uplink() {
        let mut pipe = pipe();
        while pipe.has_room(Side::Dialler) {
            pipe.push(Side::Dialler, data(16_397));
        }
        assert_eq!(pipe.ends[0].out.unsent, 3 * 16_397);
        pipe.on_sent(Side::Dialler, 16_397, Instant::ZERO);
        assert!(pipe.has_room(Side::Dialler));
        assert!(pipe.has_room(Side::Acceptor), "the other direction is free");
    }

    #[test]
    fn a_reader_that_does_not_read_stops_the_writer_until_half_is_read() {
        let mut pipe = pipe();
        while pipe.has_room(Side::Dialler) {
            pipe.push(Side::Dialler, data(16_384));
            pipe.on_sent(Side::Dialler, 16_384, Instant::ZERO);
        }
        assert_eq!(pipe.ends[0].out.unread, RECEIVE_WINDOW);
        assert!(!pipe.on_read(Side::Dialler, 16_384));
        assert!(pipe.on_read(Side::Dialler, RECEIVE_WINDOW / 2));
        assert!(!pipe.on_read(Side::Dialler, 16_384), "told once");
        assert!(pipe.has_room(Side::Dialler));
    }
}
