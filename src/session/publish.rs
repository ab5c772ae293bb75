//! When the state of a torrent is made visible: often enough for people, seldom enough to cost
//! nothing.

use std::time::Duration;

use crate::time::Instant;

/// Shortest time between two published states.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);

/// Time between two published states while only the rates decay.
const STATUS_IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// When the state was published, and whether it changed since.
#[derive(Debug)]
pub(super) struct Publishing {
    last: Instant,
    /// An input came since.
    pub(super) changed: bool,
    /// Something came that somebody may wait for.
    pub(super) urgent: bool,
    /// Rates were not zero: they decay without any input.
    moving: bool,
}

impl Publishing {
    /// Nothing was published yet, so that is due at once.
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            last: now,
            changed: true,
            urgent: true,
            moving: false,
        }
    }

    /// When the state shall be published next; `None` while nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.urgent {
            Some(self.last)
        } else if self.changed {
            Some(self.last + STATUS_INTERVAL)
        } else if self.moving {
            Some(self.last + STATUS_IDLE_INTERVAL)
        } else {
            None
        }
    }

    /// The state was published; `moving` says that data is on its way.
    pub(super) const fn on_published(&mut self, now: Instant, moving: bool) {
        *self = Self {
            last: now,
            changed: false,
            urgent: false,
            moving,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_published_at_once_when_urgent_and_never_when_nothing_happens() {
        let start = Instant::ZERO;
        let mut publishing = Publishing::new(start);
        assert_eq!(publishing.due(), Some(start));
        publishing.on_published(start, false);
        assert_eq!(publishing.due(), None);
        publishing.changed = true;
        assert_eq!(publishing.due(), Some(start + STATUS_INTERVAL));
        publishing.urgent = true;
        assert_eq!(publishing.due(), Some(start));
    }

    #[test]
    fn rates_that_decay_are_published_once_a_second() {
        let mut publishing = Publishing::new(Instant::ZERO);
        publishing.on_published(Instant::ZERO, true);
        assert_eq!(publishing.due(), Some(Instant::ZERO + STATUS_IDLE_INTERVAL));
    }
}
