//! Rate limits: one bucket of tokens for each direction, shared by all streams of a session.
//!
//! A token is a byte that passes a stream's socket, payload or not: what a person sees on the line,
//! less the headers of TCP and IP. Handshakes of strangers whose torrent is not known yet, the DHT
//! and lookups are not counted. Streams take turns: who waits first is served first, and nobody
//! gets more than a [`Bucket::quantum`] before everybody else who waits had a turn.
//!
//! A stream asks when its socket is ready, and gives back at once what it did not use. A reader
//! that waits leaves bytes in the system's buffer, so TCP slows the peer down. Without a limit a
//! stream pays for one look at an atomic flag.
//!
//! Invariant: in any span of time, no more than limit × time + one [`Bucket::burst`] is granted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::clock::Clock;
use crate::time::Instant;

/// The lowest limit, in bytes per second: below it no handshake ends in time. A lower one, also 0,
/// counts as this.
pub const RATE_MIN: u64 = 1 << 10;

/// Part of a second whose tokens may be saved up: a burst of 100 ms.
const BURSTS_PER_SECOND: u64 = 10;

/// Smallest burst, in bytes: one block with its header fits.
const BURST_MIN: u64 = 17 << 10;

/// Turns that fill a second. At 64 a stream waits for a second when 64 compete.
const TURNS_PER_SECOND: u64 = 64;

/// Smallest quantum, in bytes: more than a packet, so that a low limit does not fill the network
/// with headers.
const QUANTUM_MIN: u64 = 2 << 10;

/// Largest quantum, in bytes: half of what a stream writes as one.
const QUANTUM_MAX: u64 = 128 << 10;

/// Microseconds in a second.
const MICROS: i128 = 1_000_000;

/// The arithmetic of one limit.
#[derive(Debug)]
pub struct Bucket {
    /// Bytes per second.
    rate: u64,
    /// Tokens there, in millionths of a byte; negative after [`Bucket::charge`].
    level: i128,
    /// When `level` was right.
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: u64, now: Instant) -> Self {
        let mut bucket = Self {
            rate: rate.max(RATE_MIN),
            level: 0,
            at: now,
        };
        bucket.level = bucket.capacity();
        bucket
    }

    /// Bytes that may pass at once after a pause: 100 ms of the rate, or one block.
    #[must_use]
    pub fn burst(&self) -> u64 {
        (self.rate / BURSTS_PER_SECOND).max(BURST_MIN)
    }

    /// Bytes that one stream gets at a time.
    #[must_use]
    pub fn quantum(&self) -> u64 {
        (self.rate / TURNS_PER_SECOND).clamp(QUANTUM_MIN, QUANTUM_MAX)
    }

    /// Changes the rate. What was saved up stays, as far as the new burst allows.
    pub fn set_rate(&mut self, now: Instant, rate: u64) {
        self.refill(now);
        self.rate = rate.max(RATE_MIN);
        self.level = self.level.min(self.capacity());
    }

    /// Takes tokens for `wanted` bytes, at most a quantum; says how many bytes may pass.
    ///
    /// # Errors
    ///
    /// When to ask again: there are not enough tokens before. Early questions do no harm.
    pub fn take(&mut self, now: Instant, wanted: u64) -> Result<u64, Instant> {
        self.refill(now);
        let granted = wanted.min(self.quantum());
        let price = i128::from(granted) * MICROS;
        if price <= self.level {
            self.level -= price;
            return Ok(granted);
        }
        let micros = (price - self.level) / i128::from(self.rate) + 1;
        let wait = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        Err(self.at + wait)
    }

    /// Takes back tokens that were granted and not used.
    pub fn refund(&mut self, bytes: u64) {
        self.level = (self.level + i128::from(bytes) * MICROS).min(self.capacity());
    }

    /// Counts bytes that passed without being asked for; whoever comes next waits for them.
    pub fn charge(&mut self, now: Instant, bytes: u64) {
        self.refill(now);
        self.level -= i128::from(bytes) * MICROS;
    }

    /// Adds what has accrued. Time never goes back.
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_since(self.at).as_micros();
        let accrued = i128::from(self.rate).saturating_mul(i128::try_from(passed).unwrap_or(0));
        self.level = self.level.saturating_add(accrued).min(self.capacity());
        self.at = self.at.max(now);
    }

    /// [`Bucket::burst`] in the unit of the level.
    fn capacity(&self) -> i128 {
        i128::from(self.burst()) * MICROS
    }
}

/// One direction's limit, as streams see it. Clones share it.
#[derive(Debug, Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    /// Whether there is a limit: all that a stream looks at without one.
    limited: AtomicBool,
    /// Never held across an await; `None` without a limit.
    bucket: Mutex<Option<Bucket>>,
    /// The permit of whose turn it is: the system's queue of waiters is fair, and only the first
    /// one has a timer.
    turn: Semaphore,
    /// Tells whoever waits for tokens that the limit is another one now.
    changes: watch::Sender<()>,
}

impl Limiter {
    /// A limit in bytes per second; `None` for none.
    #[must_use]
    pub fn new(clock: Clock, rate: Option<u64>) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock,
                limited: AtomicBool::new(rate.is_some()),
                bucket: Mutex::new(rate.map(|rate| Bucket::new(rate, clock.now()))),
                turn: Semaphore::new(1),
                changes: watch::Sender::new(()),
            }),
        }
    }

    /// Sets another limit, or none. Whoever waits goes on under it at once.
    pub fn set(&self, rate: Option<u64>) {
        let now = self.shared.clock.now();
        self.with_bucket(|bucket| match (bucket, rate) {
            (Some(bucket), Some(rate)) => bucket.set_rate(now, rate),
            (bucket, rate) => *bucket = rate.map(|rate| Bucket::new(rate, now)),
        });
        self.shared.limited.store(rate.is_some(), Ordering::Relaxed);
        self.shared.changes.send_replace(());
    }

    /// Whether there is a limit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.shared.limited.load(Ordering::Relaxed)
    }

    /// The limit in bytes per second, if there is one.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.with_bucket(|bucket| bucket.as_ref().map(|bucket| bucket.rate))
    }

    /// Waits for its turn and for tokens; the number of bytes that may pass now is at least 1, when
    /// `wanted` is, and at most `wanted`. What is not used is to be given back by
    /// [`Limiter::refund`]. May be dropped: the turn passes on.
    pub async fn acquire(&self, wanted: usize) -> usize {
        if !self.is_limited() {
            return wanted;
        }
        // The semaphore is never closed. It is no lock: nothing is protected by it but the order.
        let _turn = self.shared.turn.acquire().await;
        let mut changes = self.shared.changes.subscribe();
        loop {
            let now = self.shared.clock.now();
            let asked = u64::try_from(wanted).unwrap_or(u64::MAX);
            let taken = self.with_bucket(|bucket| {
                bucket
                    .as_mut()
                    .map_or(Ok(asked), |bucket| bucket.take(now, asked))
            });
            match taken {
                Ok(granted) => return usize::try_from(granted).unwrap_or(wanted),
                Err(at) => tokio::select! {
                    // Both only say that it is time to ask again.
                    () = self.shared.clock.sleep_until(at) => {}
                    _ = changes.changed() => {}
                },
            }
        }
    }

    /// Gives back what was acquired and not used.
    pub fn refund(&self, bytes: usize) {
        if bytes > 0 && self.is_limited() {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            self.with_bucket(|bucket| bucket.as_mut().map(|bucket| bucket.refund(bytes)));
        }
    }

    /// Counts bytes that passed while there was no limit, if there is one by now.
    pub fn charge(&self, bytes: usize) {
        if self.is_limited() {
            let now = self.shared.clock.now();
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            self.with_bucket(|bucket| bucket.as_mut().map(|bucket| bucket.charge(now, bytes)));
        }
    }

    /// Does something with the bucket. A panic elsewhere leaves nothing half done in it.
    fn with_bucket<T>(&self, of: impl FnOnce(&mut Option<Bucket>) -> T) -> T {
        let bucket = self.shared.bucket.lock();
        of(&mut bucket.unwrap_or_else(PoisonError::into_inner))
    }
}

/// The limits of both directions. Clones share them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// What peers send us.
    pub download: Limiter,
    /// What peers are sent.
    pub upload: Limiter,
}

impl Limits {
    /// Limits in bytes per second; `None` for none.
    #[must_use]
    pub fn new(clock: Clock, download: Option<u64>, upload: Option<u64>) -> Self {
        Self {
            download: Limiter::new(clock, download),
            upload: Limiter::new(clock, upload),
        }
    }
}

#[cfg(test)]
mod tests;
