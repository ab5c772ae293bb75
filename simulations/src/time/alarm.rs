//! The one wake-up of a core.
//!
//! A core changes its mind about its next timer with almost every input. Queuing each wish would
//! fill the queue with wake-ups nobody needs any more, so an [`Alarm`] keeps one live entry and
//! re-arms it lazily: a wish for later than the live entry waits until that entry fires.
//!
//! The wish is kept beside it, so that an entry which fires too early, as most do, because the
//! answer that its query waited for has come, is dealt with without a look at the core.
//!
//! Invariant: while a core has a wish, a live entry is queued that is due no later than the wish.

use trackless::time::Instant;

/// State of the wake-up of one core.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alarm {
    /// When the live queue entry is due.
    armed: Option<Instant>,
    /// The core's last wish.
    wish: Option<Instant>,
}

/// What a fired entry means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// An entry that a later, earlier one replaced: nothing to do.
    Stale,
    /// The live entry, but the core has put its timer off: queue another entry for that moment.
    Again(Instant),
    /// The core's timer is due.
    Due,
}

impl Alarm {
    /// Notes at `now` that the core wants to be woken at `wish`, at once if that has passed; the
    /// result is the entry to queue, if any.
    pub fn wish(&mut self, now: Instant, wish: Option<Instant>) -> Option<Instant> {
        self.wish = wish;
        let wish = wish?.max(now);
        if self.armed.is_some_and(|armed| armed <= wish) {
            return None;
        }
        self.armed = Some(wish);
        Some(wish)
    }

    /// A queue entry for `at` fired.
    pub fn ring(&mut self, at: Instant) -> Ring {
        if self.armed != Some(at) {
            return Ring::Stale;
        }
        self.armed = None;
        match self.wish {
            None => Ring::Stale,
            Some(wish) if wish > at => {
                self.armed = Some(wish);
                Ring::Again(wish)
            }
            Some(_) => Ring::Due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: Instant = Instant::from_micros(10);
    const LATE: Instant = Instant::from_micros(20);

    #[test]
    fn a_wish_for_later_queues_nothing_until_the_live_entry_fires() {
        let mut alarm = Alarm::default();
        assert_eq!(alarm.wish(Instant::ZERO, Some(EARLY)), Some(EARLY));
        assert_eq!(alarm.wish(Instant::ZERO, Some(LATE)), None);
        assert_eq!(alarm.ring(EARLY), Ring::Again(LATE));
        assert_eq!(alarm.ring(LATE), Ring::Due);
    }

    #[test]
    fn an_earlier_wish_replaces_the_live_entry() {
        let mut alarm = Alarm::default();
        assert_eq!(alarm.wish(Instant::ZERO, Some(LATE)), Some(LATE));
        assert_eq!(alarm.wish(Instant::ZERO, Some(EARLY)), Some(EARLY));
        assert_eq!(alarm.ring(EARLY), Ring::Due);
        assert_eq!(alarm.ring(LATE), Ring::Stale);
    }

    #[test]
    fn a_wish_that_has_passed_is_for_now() {
        let mut alarm = Alarm::default();
        assert_eq!(alarm.wish(LATE, Some(EARLY)), Some(LATE));
        assert_eq!(alarm.ring(LATE), Ring::Due);
        assert_eq!(alarm.wish(LATE, Some(EARLY)), Some(LATE), "and again");
    }

    #[test]
    fn a_core_without_a_wish_is_not_woken() {
        let mut alarm = Alarm::default();
        assert_eq!(alarm.wish(Instant::ZERO, None), None);
        assert_eq!(alarm.wish(Instant::ZERO, Some(EARLY)), Some(EARLY));
        assert_eq!(alarm.wish(Instant::ZERO, None), None);
        assert_eq!(alarm.ring(EARLY), Ring::Stale);
        assert_eq!(alarm.wish(Instant::ZERO, Some(LATE)), Some(LATE));
    }
}
