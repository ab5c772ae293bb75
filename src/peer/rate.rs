//! How fast bytes come or go: an average over the last seconds, in constant memory.

use std::time::Duration;

use crate::time::Instant;

/// Slots of one second each; their number is the longest time that is averaged over.
const SLOTS: u64 = 5;

/// The shortest time that is averaged over, so that the first block is not taken for a rate.
const SPAN_MIN: Duration = Duration::from_millis(500);

/// Bytes per second over the last 4 to 5 seconds, and a total.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    /// Bytes in each of the last seconds; the slot of second `s` is `s % SLOTS`.
    slots: [u64; 5],
    /// The second of the latest bytes, counted from the start of the node.
    newest: u64,
    /// When the first bytes came.
    since: Option<Instant>,
    /// All bytes ever.
    total: u64,
}

impl Rate {
    /// Adds bytes that came or went now.
    pub fn add(&mut self, now: Instant, bytes: u64) {
        let second = second(now).max(self.newest);
        if second - self.newest >= SLOTS {
            self.slots = [0; 5];
        } else {
            for passed in self.newest + 1..=second {
                self.slots[slot(passed)] = 0;
            }
        }
        self.newest = second;
        self.since.get_or_insert(now);
        let newest = &mut self.slots[slot(second)];
        *newest = newest.saturating_add(bytes);
        self.total = self.total.saturating_add(bytes);
    }

    /// Takes back bytes that were added lately but did not go after all.
    pub(super) fn take_back(&mut self, bytes: u64) {
        let newest = &mut self.slots[slot(self.newest)];
        *newest = newest.saturating_sub(bytes);
        self.total = self.total.saturating_sub(bytes);
    }

    /// Bytes per second, averaged over 4 to 5 s, or over the time since the first byte while that
    /// is shorter (but at least half a second); 0 after 5 s without any.
    #[must_use]
    pub fn bytes_per_second(&self, now: Instant) -> u64 {
        let Some(since) = self.since else {
            return 0;
        };
        let last = second(now).max(self.newest);
        let first = last.saturating_sub(SLOTS - 1);
        let bytes: u64 = (first..=self.newest)
            .map(|second| self.slots[slot(second)])
            .fold(0, u64::saturating_add);
        let start = since.max(Instant::ZERO + Duration::from_secs(first));
        let span = now.saturating_since(start).max(SPAN_MIN);
        let rate = u128::from(bytes) * 1_000_000 / span.as_micros();
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// All bytes ever.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }
}

/// Whole seconds since the start of the node.
const fn second(now: Instant) -> u64 {
    now.as_micros() / 1_000_000
}

/// The slot of a second.
fn slot(second: u64) -> usize {
    usize::try_from(second % SLOTS).expect("the remainder is below 5")
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
