//! Time as the cores see it: microseconds since the node started.
//!
//! There is no `now()` here. A core is told the time with each input, by a driver that reads the
//! operating system's clock or by a simulation that invents it.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A moment, in microseconds since the node (or the simulation) started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The moment at which the node started.
    pub const ZERO: Self = Self(0);

    /// The moment `micros` microseconds after the start.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the start.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since the start, at most `u32::MAX` (136 years).
    #[must_use]
    pub fn as_secs(self) -> u32 {
        u32::try_from(self.0 / 1_000_000).unwrap_or(u32::MAX)
    }

    /// How long ago `earlier` was; zero when `earlier` is in the future.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in whole microseconds, at most `u64::MAX` of them.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }
}

/// The next time a core wants `handle_timeout` to be called, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wake<R> {
    /// When.
    pub at: Instant,
    /// Which timer is due first; for logs and for simulations that explain themselves.
    pub reason: R,
}

impl<R> Wake<R> {
    /// The earlier of two wishes; the first when they are equal.
    #[must_use]
    pub fn earliest(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) if b.at < a.at => Some(b),
            (Some(a), _) => Some(a),
            (None, b) => b,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_saturates_at_both_ends() {
        let second = Duration::from_secs(1);
        assert_eq!(Instant::ZERO - second, Instant::ZERO);
        let end = Instant::from_micros(u64::MAX);
        assert_eq!(end + second, end);
        assert_eq!(Instant::ZERO.saturating_since(end), Duration::ZERO);
        assert_eq!(
            (Instant::ZERO + second).saturating_since(Instant::ZERO),
            second
        );
    }

    #[test]
    fn the_earlier_wake_wins() {
        let early = Wake {
            at: Instant::from_micros(1),
            reason: "a",
        };
        let late = Wake {
            at: Instant::from_micros(2),
            reason: "b",
        };
        assert_eq!(Wake::earliest(Some(late), Some(early)), Some(early));
        assert_eq!(Wake::earliest(Some(early), Some(late)), Some(early));
        assert_eq!(Wake::earliest(None, Some(late)), Some(late));
        assert_eq!(Wake::<&str>::earliest(None, None), None);
    }
}
