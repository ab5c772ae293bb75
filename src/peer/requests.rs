//! What we asked the peer for: the pipeline of requests, its size, and what is overdue.
//!
//! The pipeline is sized so that the peer always has about a second of work from us: measured rate
//! × (latency + 1 s). Until the rate is known it grows by one request with each block that arrives,
//! which doubles it each round trip, as TCP's slow start does.
//!
//! Invariant: a block is outstanding at most once, and what was outstanding is remembered for a
//! while, because a peer may answer a request that we gave up.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Config, Rate};
use crate::metainfo::{BLOCK_LENGTH, BlockRef, PieceIndex};
use crate::time::Instant;
use crate::wire::ProtocolError;

/// How long no block may come, while some are owed, before a peer counts as snubbed. Ours: longer
/// than any queue of a healthy peer, a third of the request timeout.
pub(super) const SNUB_TIMEOUT: Duration = Duration::from_secs(20);

/// How much work a peer is given in advance, beside what is in flight in the network.
const WORK_AHEAD: Duration = Duration::from_secs(1);

/// How long a block takes from a peer of which nothing is known yet.
const LATENCY_GUESS: Duration = Duration::from_secs(1);

/// How long one round of slow start takes; it ends with the first round that brought less than 9/8
/// of the one before.
const ROUND: Duration = Duration::from_millis(500);

/// Requests that a peer takes when it does not say (BEP 10: the default of libtorrent).
const REQUEST_QUEUE_DEFAULT: usize = 250;

/// Requests given up that may still be answered; the oldest are forgotten. 12 bytes each, allocated
/// when needed.
const RECENT_MAX: usize = 1024;

/// Rejects of what we did not ask for before the connection is closed (BEP 6: should be at the first). A
/// request given up long ago may be among them.
const STRAY_REJECTS_MAX: u32 = 50;

/// Requests that a peer may reject in a row before it is asked for nothing more for a while. Ours: a pipeline
/// full of them, as a seed rejects what it gives to others first.
const REJECTED_MAX: u32 = 250;

/// How long a peer that rejects requests is asked for nothing more; twice as long each time, until it sends
/// a block again. Ours: so that who rejects everything costs next to nothing.
const REST_MIN: Duration = Duration::from_secs(1);

/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(60);

/// Blocks that nobody asked for before the connection is closed, beside one in eight of all blocks.
const UNWANTED_MAX: u64 = 100;

/// A request that was sent.
#[derive(Debug, Clone, Copy)]
struct Outstanding {
    block: BlockRef,
    sent: Instant,
    /// The peer choked us then: it is for an allowed piece.
    in_choke: bool,
}

/// What became of a block that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It was asked for; `unsnubbed` if the peer counted as snubbed until now.
    Wanted {
        /// Whether a snubbed peer delivered again.
        unsnubbed: bool,
    },
    /// It was not.
    Unwanted,
}

/// What is overdue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Overdue {
    /// Requests that nobody waits for any more.
    pub(super) lost: Vec<BlockRef>,
    /// Whether the peer counts as snubbed from now on.
    pub(super) snubbed: bool,
}

/// Growth of the pipeline until the rate is known.
#[derive(Debug, Clone, Copy)]
struct SlowStart {
    /// Requests that may be in flight.
    window: usize,
    round_start: Instant,
    round_bytes: u64,
    /// Bytes in the round before.
    previous_bytes: u64,
}

/// The pipeline of requests to one peer.
#[derive(Debug)]
pub(super) struct Requests {
    /// Oldest first.
    outstanding: VecDeque<Outstanding>,
    /// Given up lately, oldest first.
    recent: VecDeque<BlockRef>,
    rate: Rate,
    /// Shortest time from a request to its block: the round trip without any queue.
    latency_min: Option<Duration>,
    /// `None` once the rate is known.
    slow_start: Option<SlowStart>,
    /// Since when the peer owes us a block: the last block, or the first request after a pause.
    waiting_since: Instant,
    snubbed: bool,
    /// Whether a request timed out since the last unchoke: the peer is slower than the smallest
    /// pipeline needs.
    timed_out: bool,
    /// Nothing is asked for before, because the peer rejected requests that it said it would answer.
    rests_until: Option<Instant>,
    /// Rests since the last block.
    rests: u32,
    /// Requests rejected since the last block.
    rejected: u32,
    /// Rejects of what was not asked for.
    stray_rejects: u32,
    /// Blocks that came and were wanted.
    delivered: u64,
    /// Blocks that came and were not.
    unwanted: u64,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self {
            outstanding: VecDeque::new(),
            recent: VecDeque::new(),
            rate: Rate::default(),
            latency_min: None,
            slow_start: None,
            waiting_since: Instant::ZERO,
            snubbed: false,
            timed_out: false,
            rests_until: None,
            rests: 0,
            rejected: 0,
            stray_rejects: 0,
            delivered: 0,
            unwanted: 0,
        }
    }

    /// Blocks asked for and not yet here, oldest first.
    pub(super) fn outstanding(&self) -> impl ExactSizeIterator<Item = BlockRef> + '_ {
        self.outstanding.iter().map(|request| request.block)
    }

    /// Whether the peer owes us blocks for too long.
    pub(super) const fn is_snubbed(&self) -> bool {
        self.snubbed
    }

    /// How long the peer owes us a block.
    pub(super) fn owed_for(&self, now: Instant) -> Duration {
        if self.outstanding.is_empty() {
            return Duration::ZERO;
        }
        now.saturating_since(self.waiting_since)
    }

    /// How long a block would take that is asked for next after `more` others, judged by the rate of the
    /// last seconds.
    pub(super) fn wait_for_next(&self, now: Instant, more: usize) -> Duration {
        let ahead = self.outstanding.len().saturating_add(more);
        self.pace(now).wait(ahead)
    }

    /// Requests that will take so long or longer. Costs nothing if the last will not.
    pub(super) fn late_blocks(
        &self,
        now: Instant,
        least: Duration,
    ) -> impl Iterator<Item = (Duration, BlockRef)> + '_ {
        let pace = self.pace(now);
        let last = self.outstanding.len().saturating_sub(1);
        let count = if pace.wait(last) >= least {
            self.outstanding.len()
        } else {
            0
        };
        let requests = self.outstanding.iter().take(count).enumerate();
        let waits = requests.map(move |(ahead, request)| (pace.wait(ahead), request.block));
        waits.filter(move |(wait, _)| *wait >= least)
    }

    /// How fast the peer answers, judged by the last seconds.
    fn pace(&self, now: Instant) -> Pace {
        let rate = self.rate.bytes_per_second(now);
        let owed = self.owed_for(now);
        if rate == 0 {
            // Nothing came lately: the longer it owes us, the longer it will.
            return Pace {
                latency: Duration::ZERO,
                per_block: LATENCY_GUESS,
                least: owed * 2,
            };
        }
        Pace {
            latency: self.latency_min.unwrap_or(LATENCY_GUESS),
            per_block: Duration::from_micros(u64::from(BLOCK_LENGTH) * 1_000_000 / rate),
            least: owed,
        }
    }

    /// Nothing was read for so long: that time does not count.
    pub(super) fn shift(&mut self, now: Instant, span: Duration) {
        self.waiting_since = (self.waiting_since + span).min(now);
        for request in &mut self.outstanding {
            request.sent = (request.sent + span).min(now);
        }
    }

    /// Bytes of wanted blocks.
    pub(super) const fn rate(&self) -> &Rate {
        &self.rate
    }

    /// How many more requests fit the pipeline; `peer_queue` is the peer's `reqq`, if it told.
    pub(super) fn room(&self, now: Instant, config: &Config, peer_queue: Option<u32>) -> usize {
        if self.rests_until.is_some_and(|until| now < until) {
            return 0;
        }
        self.target(now, config, peer_queue)
            .saturating_sub(self.outstanding.len())
    }

    /// How many requests should be in flight.
    fn target(&self, now: Instant, config: &Config, peer_queue: Option<u32>) -> usize {
        if self.snubbed {
            return 1;
        }
        // One less than it says: Transmission 3.00 says 512 and drops the 512th request without a
        // word, which held the end of a download for the whole request timeout.
        let peer_queue = peer_queue.map_or(REQUEST_QUEUE_DEFAULT, |requests| {
            usize::try_from(requests.saturating_sub(1)).unwrap_or(usize::MAX)
        });
        let max = config.pipeline_max.min(peer_queue).max(1);
        let min = if self.timed_out {
            1
        } else {
            config.pipeline_min
        };
        let window = self.slow_start.map_or(0, |slow_start| slow_start.window);
        self.work_ahead(now).max(window).clamp(min.min(max), max)
    }

    /// Blocks that the peer sends, at its measured rate, in the time that we look ahead.
    fn work_ahead(&self, now: Instant) -> usize {
        let span = WORK_AHEAD + self.latency_min.unwrap_or_default();
        let bytes = u128::from(self.rate.bytes_per_second(now)) * span.as_micros() / 1_000_000;
        usize::try_from(bytes.div_ceil(u128::from(BLOCK_LENGTH))).unwrap_or(usize::MAX)
    }

    /// Notes a request to a peer that chokes us or not; `false` if the block is outstanding already.
    pub(super) fn push(&mut self, now: Instant, block: BlockRef, in_choke: bool) -> bool {
        if self.outstanding().any(|outstanding| outstanding == block) {
            return false;
        }
        // Who is snubbed owes us since before these requests.
        if self.outstanding.is_empty() && !self.snubbed {
            self.waiting_since = now;
        }
        self.outstanding.push_back(Outstanding {
            block,
            sent: now,
            in_choke,
        });
        true
    }

    /// Gives a request up; `false` if it is not outstanding.
    pub(super) fn cancel(&mut self, block: BlockRef) -> bool {
        let position = self.position(block);
        let request = position.and_then(|position| self.outstanding.remove(position));
        if request.is_none() {
            return false;
        }
        self.remember(block);
        true
    }

    /// Gives up the requests for blocks of a piece that the peer lost.
    pub(super) fn cancel_piece(&mut self, piece: PieceIndex) -> Vec<BlockRef> {
        let of_piece = self.outstanding().filter(|block| block.piece == piece);
        let lost: Vec<_> = of_piece.collect();
        self.outstanding
            .retain(|request| request.block.piece != piece);
        for &block in &lost {
            self.remember(block);
        }
        lost
    }

    /// The peer chokes us: everything outstanding is void, unless it `rejects` what it will not answer.
    pub(super) fn on_choked(&mut self, rejects: bool) -> Vec<BlockRef> {
        self.rests_until = None;
        if rejects {
            self.slow_start = None;
            return Vec::new();
        }
        let lost: Vec<_> = self.outstanding().collect();
        self.outstanding = VecDeque::new();
        self.slow_start = None;
        for &block in &lost {
            self.remember(block);
        }
        lost
    }

    /// The peer unchokes us: what it can give now has to be found out anew.
    pub(super) fn on_unchoked(&mut self, now: Instant, config: &Config) {
        self.timed_out = false;
        self.rests_until = None;
        self.slow_start = Some(SlowStart {
            window: config.pipeline_min,
            round_start: now,
            round_bytes: 0,
            previous_bytes: 0,
        });
    }

    /// A block arrived.
    pub(super) fn on_block(
        &mut self,
        now: Instant,
        block: BlockRef,
    ) -> Result<Arrival, ProtocolError> {
        if let Some(position) = self.position(block) {
            if let Some(request) = self.outstanding.remove(position) {
                let latency = now.saturating_since(request.sent);
                self.latency_min = Some(self.latency_min.map_or(latency, |min| min.min(latency)));
            }
        } else if let Some(position) = self.recent.iter().position(|&recent| recent == block) {
            self.recent.remove(position);
        } else {
            return self.on_unwanted();
        }
        self.delivered += 1;
        self.waiting_since = now;
        (self.rests_until, self.rests, self.rejected) = (None, 0, 0);
        let bytes = u64::from(block.length);
        self.rate.add(now, bytes);
        self.slow_start = self
            .slow_start
            .and_then(|slow_start| slow_start.after_block(now, bytes));
        let unsnubbed = std::mem::take(&mut self.snubbed);
        Ok(Arrival::Wanted { unsnubbed })
    }

    /// A request was rejected; whether it was outstanding. That a choke makes it void is no reason for a
    /// rest.
    pub(super) fn on_reject(
        &mut self,
        now: Instant,
        block: BlockRef,
        is_choked: bool,
    ) -> Result<bool, ProtocolError> {
        let position = self.position(block);
        if let Some(request) = position.and_then(|position| self.outstanding.remove(position)) {
            self.waiting_since = now;
            if !is_choked || request.in_choke {
                self.on_rejected(now);
            }
            return Ok(true);
        }
        match self.recent.iter().position(|&recent| recent == block) {
            Some(position) => drop(self.recent.remove(position)),
            None => self.on_stray_reject()?,
        }
        Ok(false)
    }

    /// A request was rejected that could be answered.
    fn on_rejected(&mut self, now: Instant) {
        self.rejected += 1;
        let is_patient = self.rests == 0 && self.rejected < REJECTED_MAX;
        if is_patient || self.rests_until.is_some_and(|until| until > now) {
            return;
        }
        let rest = REST_MIN.saturating_mul(1 << self.rests.min(16));
        self.rests_until = Some(now + rest.min(REST_MAX));
        self.rests += 1;
        self.slow_start = None;
    }

    /// Something was rejected that nobody asked for.
    pub(super) const fn on_stray_reject(&mut self) -> Result<(), ProtocolError> {
        self.stray_rejects += 1;
        if self.stray_rejects > STRAY_REJECTS_MAX {
            return Err(ProtocolError::TooMany {
                what: "rejects of what was not asked for",
            });
        }
        Ok(())
    }

    /// A block arrived that nobody asked for.
    pub(super) const fn on_unwanted(&mut self) -> Result<Arrival, ProtocolError> {
        self.unwanted += 1;
        if self.unwanted > UNWANTED_MAX + self.delivered / 8 {
            return Err(ProtocolError::TooMany {
                what: "blocks that were not asked for",
            });
        }
        Ok(Arrival::Unwanted)
    }

    /// When something becomes overdue.
    pub(super) fn deadline(&self, config: &Config) -> Option<Instant> {
        let overdue = self.outstanding.front().map(|oldest| {
            let lost = oldest.sent + config.request_timeout;
            if self.snubbed {
                lost
            } else {
                lost.min(self.waiting_since + SNUB_TIMEOUT)
            }
        });
        overdue.into_iter().chain(self.rests_until).min()
    }

    /// Gives up what is overdue.
    pub(super) fn handle_timeout(&mut self, now: Instant, config: &Config) -> Overdue {
        let mut overdue = Overdue::default();
        self.rests_until = self.rests_until.filter(|&until| now < until);
        if !self.outstanding.is_empty() && now >= self.waiting_since + SNUB_TIMEOUT {
            overdue.snubbed = !self.snubbed;
            self.snubbed = true;
        }
        while let Some(oldest) = self.outstanding.front() {
            if now < oldest.sent + config.request_timeout {
                break;
            }
            let block = oldest.block;
            self.outstanding.pop_front();
            self.remember(block);
            overdue.lost.push(block);
        }
        if !overdue.lost.is_empty() {
            self.timed_out = true;
            self.slow_start = None;
        }
        overdue
    }

    /// Where a block is among the outstanding ones; peers answer in order, so mostly in front.
    fn position(&self, block: BlockRef) -> Option<usize> {
        self.outstanding()
            .position(|outstanding| outstanding == block)
    }

    /// Keeps in mind that a block may still come.
    fn remember(&mut self, block: BlockRef) {
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(block);
    }
}

/// How fast a peer answers.
#[derive(Debug, Clone, Copy)]
struct Pace {
    latency: Duration,
    per_block: Duration,
    /// No block comes sooner.
    least: Duration,
}

impl Pace {
    /// How long a block takes before which so many others come.
    fn wait(&self, ahead: usize) -> Duration {
        let blocks = u32::try_from(ahead).unwrap_or(u32::MAX).saturating_add(1);
        let work = self.per_block.saturating_mul(blocks);
        self.latency.saturating_add(work).max(self.least)
    }
}

impl SlowStart {
    /// The state after one more block; `None` when the rate does not grow any more.
    fn after_block(mut self, now: Instant, bytes: u64) -> Option<Self> {
        self.window = self.window.saturating_add(1);
        self.round_bytes = self.round_bytes.saturating_add(bytes);
        if now.saturating_since(self.round_start) < ROUND {
            return Some(self);
        }
        if self.round_bytes < self.previous_bytes.saturating_add(self.previous_bytes / 8) {
            return None;
        }
        self.previous_bytes = self.round_bytes;
        self.round_bytes = 0;
        self.round_start = now;
        Some(self)
    }
}

#[cfg(test)]
mod tests;
