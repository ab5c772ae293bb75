//! How fast bytes come or go: an average over the last seconds, in constant memory.

use std::time::Duration;

use crate::time::Instant;

/// Slots of a window. It averages over the time of so many slots, the newest only partly filled.
const SLOTS: usize = 5;

/// Length of a slot of the short window: a rate over 4 to 5 s, which sizes the pipeline.
const SHORT: Duration = Duration::from_secs(1);

/// Length of a slot of the long window: a rate over 16 to 20 s, by which peers are ranked, as BEP 3
/// has a rolling average of 20 s.
const LONG: Duration = Duration::from_secs(4);

/// The shortest time that is averaged over, so that the first block is not taken for a rate.
const SPAN_MIN: Duration = Duration::from_millis(500);

/// Bytes per second over the last seconds, and a total.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    short: Window,
    long: Window,
    /// When the first bytes came.
    since: Option<Instant>,
    /// All bytes ever.
    total: u64,
}

/// Bytes in each of the last slots of time; the slot of number `n` is `n % SLOTS`.
#[derive(Debug, Clone, Default)]
struct Window {
    slots: [u64; SLOTS],
    /// Number of the slot of the latest bytes, counted from the start of the node.
    newest: u64,
}

impl Window {
    /// Adds bytes; `length` is that of a slot.
    fn add(&mut self, now: Instant, length: Duration, bytes: u64) {
        let number = number(now, length).max(self.newest);
        if number - self.newest >= slots() {
            self.slots = [0; SLOTS];
        } else {
            for passed in self.newest + 1..=number {
                self.slots[place(passed)] = 0;
            }
        }
        self.newest = number;
        let newest = &mut self.slots[place(number)];
        *newest = newest.saturating_add(bytes);
    }

    fn take_back(&mut self, bytes: u64) {
        let newest = &mut self.slots[place(self.newest)];
        *newest = newest.saturating_sub(bytes);
    }

    /// The average of what came since `since`, as far as slots go back.
    fn bytes_per_second(&self, now: Instant, length: Duration, since: Instant) -> u64 {
        let last = number(now, length).max(self.newest);
        let first = last.saturating_sub(slots() - 1);
        let bytes: u64 = (first..=self.newest)
            .map(|number| self.slots[place(number)])
            .fold(0, u64::saturating_add);
        let start = Instant::from_micros(first.saturating_mul(micros(length)));
        let span = now.saturating_since(since.max(start)).max(SPAN_MIN);
        let rate = u128::from(bytes) * 1_000_000 / span.as_micros();
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

impl Rate {
    /// Adds bytes that came or went now.
    pub fn add(&mut self, now: Instant, bytes: u64) {
        self.short.add(now, SHORT, bytes);
        self.long.add(now, LONG, bytes);
        self.since.get_or_insert(now);
        self.total = self.total.saturating_add(bytes);
    }

    /// Takes back bytes that were added lately but did not go after all.
    pub(super) fn take_back(&mut self, bytes: u64) {
        self.short.take_back(bytes);
        self.long.take_back(bytes);
        self.total = self.total.saturating_sub(bytes);
    }

    /// Bytes per second, averaged over 4 to 5 s, or over the time since the first byte while that
    /// is shorter (but at least half a second); 0 after 5 s without any.
    #[must_use]
    pub fn bytes_per_second(&self, now: Instant) -> u64 {
        self.since
            .map_or(0, |since| self.short.bytes_per_second(now, SHORT, since))
    }

    /// Like [`Self::bytes_per_second`], over 16 to 20 s.
    #[must_use]
    pub fn long_bytes_per_second(&self, now: Instant) -> u64 {
        self.since
            .map_or(0, |since| self.long.bytes_per_second(now, LONG, since))
    }

    /// All bytes ever.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }
}

/// Whole slots since the start of the node.
fn number(now: Instant, length: Duration) -> u64 {
    now.as_micros() / micros(length)
}

fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).expect("slots are seconds long")
}

fn slots() -> u64 {
    u64::try_from(SLOTS).expect("a few")
}

/// The place of a slot.
fn place(number: u64) -> usize {
    usize::try_from(number % slots()).expect("the remainder is small")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    #[test]
    fn a_steady_stream_is_measured_exactly() {
        let mut rate = Rate::default();
        for tick in 0..200 {
            rate.add(at(1000 + tick * 100), 1000);
        }
        let measured = rate.bytes_per_second(at(1000 + 200 * 100));
        assert!((9_900..=10_100).contains(&measured), "{measured}");
        assert_eq!(rate.total(), 200_000);
    }

    #[test]
    fn a_young_stream_is_averaged_over_its_age() {
        let mut rate = Rate::default();
        assert_eq!(rate.bytes_per_second(at(0)), 0);
        rate.add(at(10_000), 1000);
        assert_eq!(rate.bytes_per_second(at(10_000)), 2000);
        assert_eq!(rate.bytes_per_second(at(11_000)), 1000);
    }

    #[test]
    fn the_rate_decays_to_zero_and_comes_back() {
        let mut rate = Rate::default();
        rate.add(at(0), 50_000);
        assert!(rate.bytes_per_second(at(4_000)) >= 10_000);
        assert_eq!(rate.bytes_per_second(at(5_000)), 0);
        rate.add(at(60_000), 4_000);
        assert_eq!(rate.bytes_per_second(at(60_000)), 1_000);
        assert_eq!(rate.total(), 54_000);
    }

    #[test]
    fn the_long_rate_remembers_twenty_seconds() {
        let mut rate = Rate::default();
        for second in 0..20 {
            rate.add(at(second * 1000), 1000);
        }
        assert_eq!(rate.long_bytes_per_second(at(20_000)), 1000);
        assert_eq!(rate.bytes_per_second(at(25_000)), 0);
        let faded = rate.long_bytes_per_second(at(30_000));
        assert!((300..=600).contains(&faded), "{faded}");
        assert_eq!(rate.long_bytes_per_second(at(40_000)), 0);
    }

    #[test]
    fn what_did_not_go_is_taken_back() {
        let mut rate = Rate::default();
        rate.add(at(0), 5_000);
        rate.take_back(4_000);
        assert_eq!(
            (rate.total(), rate.bytes_per_second(at(1_000))),
            (1_000, 1_000)
        );
    }

    #[test]
    fn absurd_numbers_do_not_overflow() {
        let mut rate = Rate::default();
        rate.add(Instant::from_micros(u64::MAX), u64::MAX);
        rate.add(Instant::ZERO, u64::MAX);
        assert_eq!(rate.total(), u64::MAX);
        assert!(rate.bytes_per_second(Instant::ZERO) > 0);
    }
}
