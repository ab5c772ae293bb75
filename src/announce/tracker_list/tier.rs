//! Trackers that stand for one another, and when they are asked next.
//!
//! Invariant: a tier is asked by the round, and after each round that failed the pause is twice as long, up to
//! its bound.

use std::time::Duration;

use super::Tracker;
use crate::time::Instant;

/// First pause after a tier failed; it doubles.
const RETRY_MIN: Duration = Duration::from_secs(15);

/// Longest pause after a tier failed.
const RETRY_MAX: Duration = Duration::from_secs(30 * 60);

/// Longest pause while nothing can be reached from here: the network comes back.
const LOCAL_RETRY_MAX: Duration = Duration::from_secs(45);

/// A tier of trackers that stand for one another.
#[derive(Debug)]
pub(super) struct Tier {
    /// Who is asked first.
    pub(super) order: Vec<usize>,
    /// When a round is due: while peers are wanted, and otherwise.
    pub(super) wanted_at: Instant,
    pub(super) regular_at: Instant,
    /// How many of `order` were asked in the round under way, and when the next one is asked.
    pub(super) round: Option<(usize, Instant)>,
    pub(super) failed_rounds: u32,
    /// Rounds in a row that failed because nothing can be reached from here.
    pub(super) local_rounds: u32,
    /// The last round failed while nobody was heard.
    pub(super) waits_for_network: bool,
    /// How the round under way fails, if it does.
    pub(super) failing: Failing,
}

/// What the failures of a round say of the next one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failing {
    /// The first pause.
    pub(super) retry_min: Duration,
    /// Trackers could not even be looked for, while nobody was heard.
    pub(super) is_local: bool,
    /// One failed while nobody was heard.
    pub(super) is_unheard: bool,
}

impl Default for Failing {
    fn default() -> Self {
        Self {
            retry_min: RETRY_MIN,
            is_local: false,
            is_unheard: false,
        }
    }
}

impl Tier {
    pub(super) fn new(order: Vec<usize>, wanted_at: Instant, regular_at: Instant) -> Self {
        Self {
            order,
            wanted_at,
            regular_at,
            round: None,
            failed_rounds: 0,
            local_rounds: 0,
            waits_for_network: false,
            failing: Failing::default(),
        }
    }

    pub(super) fn due_at(&self, wants_peers: bool) -> Instant {
        if wants_peers {
            self.wanted_at.min(self.regular_at)
        } else {
            self.regular_at
        }
    }

    /// Whether one of its trackers is being asked.
    pub(super) fn is_waiting(&self, trackers: &[Tracker]) -> bool {
        let mut asked = self.order.iter().filter_map(|&index| trackers.get(index));
        asked.any(|tracker| tracker.asked.is_some())
    }

    /// All of its trackers were asked in vain.
    pub(super) fn on_round_failed(&mut self, now: Instant) {
        self.round = None;
        let Failing {
            retry_min,
            is_local,
            is_unheard,
        } = self.failing;
        self.waits_for_network = is_unheard;
        let (rounds, retry_max) = if is_local {
            (&mut self.local_rounds, LOCAL_RETRY_MAX)
        } else {
            (&mut self.failed_rounds, RETRY_MAX)
        };
        let pause = retry_min.saturating_mul(2u32.pow((*rounds).min(16)));
        let pause = pause.min(retry_max);
        *rounds = rounds.saturating_add(1);
        (self.wanted_at, self.regular_at) = (now + pause, now + pause);
    }
}
