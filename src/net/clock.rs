//! The one reader of the operating system's clock, and of its randomness.

use std::time::{Duration, SystemTime};

use rand::TryRng;
use rand::rngs::SysRng;

use crate::time::Instant;

/// Turns the monotonic clock into the cores' [`Instant`]: microseconds since [`Clock::start`].
///
/// Copies share the start, so the instants of every part of a process can be compared. In a test
/// with paused time it follows tokio's clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    /// A clock that shows [`Instant::ZERO`] now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            start: tokio::time::Instant::now(),
        }
    }

    /// The time that has passed since the start. Never goes back; jumps of the wall clock do not
    /// show.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }

    /// Waits until `at`; at once when it has passed. May be dropped at any time.
    pub async fn sleep_until(&self, at: Instant) {
        tokio::time::sleep_until(self.moment(at)).await;
    }

    /// The moment of tokio's clock that corresponds to `at`; a far future one when `at` is beyond
    /// what that clock can show.
    #[must_use]
    pub fn moment(&self, at: Instant) -> tokio::time::Instant {
        /// Farther away than any timer is set: a year.
        const FAR_FUTURE: Duration = Duration::from_secs(365 * 86_400);
        let since = at.saturating_since(Instant::ZERO);
        self.start
            .checked_add(since)
            .unwrap_or_else(|| tokio::time::Instant::now() + FAR_FUTURE)
    }
}

/// The time of day. It may jump; only what compares the times of files asks for it.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one reader of the clock is here"
)]
pub fn wall_time() -> SystemTime {
    SystemTime::now()
}

/// Fresh randomness of the operating system, to seed one [`crate::random::Random`].
///
/// # Panics
///
/// If the system has no source of randomness: without one, ids and tokens could be guessed.
#[must_use]
pub fn entropy() -> [u8; 32] {
    let mut bytes = [0; 32];
    SysRng
        .try_fill_bytes(&mut bytes)
        .expect("the operating system provides randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_shows_what_has_passed_and_wakes_in_time() {
        let clock = Clock::start();
        assert_eq!(clock.now(), Instant::ZERO);
        let hour = Instant::ZERO + Duration::from_secs(3_600);
        clock.sleep_until(hour).await;
        assert_eq!(clock.now(), hour);
        // Long past: at once.
        clock.sleep_until(Instant::ZERO).await;
        assert_eq!(clock.now(), hour);
        // Later than any clock can show.
        let never = clock.moment(Instant::from_micros(u64::MAX));
        assert!(never > clock.moment(hour));
    }

    #[test]
    fn entropy_is_not_the_same_twice() {
        assert_ne!(entropy(), entropy());
    }
}
