//! When to ask which source for peers.
//!
//! A [`Schedule`] belongs to one torrent. It says when to look for peers, its owner does and tells how
//! it went. Whoever announces the torrent finds peers on the way, so a lookup is only due between
//! announces, while the torrent wants peers. When it is announced is decided elsewhere, for all torrents
//! together: [`dht::Node::keep_announced`](crate::dht::Node::keep_announced).
//!
//! Invariant: at most one lookup is under way, and after one that found too little the next waits
//! at least `dht_retry_min`, twice as long each time.
//!
//! Trackers are asked beside that, each when it is due: [`TrackerList`] decides, [`tracker`] holds what is
//! asked and answered, [`tracker_url`] whom a stranger may have us ask, [`udp_tracker`] speaks to those over UDP.

pub mod tracker;
pub mod tracker_list;
pub mod tracker_url;
pub mod udp_tracker;

pub mod local;

use std::time::Duration;

pub use tracker::{Answer, Request, TrackerError, TrackerEvent, Transferred};
pub use tracker_list::{Due, Network, TrackerId, TrackerList, TrackerStatus};
pub use tracker_url::{Scheme, TrackerUrl, UrlError};

use crate::time::{Instant, Wake};

/// Peers that a lookup must find to be worth no early repetition. Ours: fewer are often all gone.
const PEERS_ENOUGH: u32 = 20;

/// Intervals of one torrent's schedule.
#[derive(Debug, Clone)]
pub struct Config {
    /// First pause after a request that found too little; it doubles up to `dht_retry_max`. Default
    /// 5 s.
    pub dht_retry_min: Duration,
    /// Longest pause while peers are wanted. Default 5 minutes.
    pub dht_retry_max: Duration,
    /// Longest pause while no node answers at all. Default 45 s: the network is away, and what
    /// waits for it shall go on within a minute of its return.
    pub dht_silent_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dht_retry_min: Duration::from_secs(5),
            dht_retry_max: Duration::from_secs(300),
            dht_silent_max: Duration::from_secs(45),
        }
    }
}

/// How asking the DHT went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Distinct peers found.
    pub peers: u32,
    /// Nodes that answered; 0 when we have no way into the DHT.
    pub answered: u32,
}

/// Which timer is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeReason {
    /// The DHT is to be asked.
    Dht,
}

/// A pause that doubles with each failure.
#[derive(Debug, Clone, Copy)]
struct BackOff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl BackOff {
    fn new(config: &Config) -> Self {
        Self {
            min: config.dht_retry_min,
            max: config.dht_retry_max,
            next: config.dht_retry_min,
        }
    }

    /// The pause after one more failure.
    fn lengthen(&mut self) -> Duration {
        let pause = self.next.min(self.max);
        self.next = pause.saturating_mul(2);
        pause
    }

    fn reset(&mut self) {
        self.next = self.min;
    }
}

/// One torrent's schedule.
#[derive(Debug)]
pub struct Schedule {
    config: Config,
    /// Whether the torrent wants peers.
    wants_peers: bool,
    /// A lookup was handed out and has not ended.
    is_running: bool,
    /// Only due while peers are wanted.
    lookup_at: Instant,
    back_off: BackOff,
}

impl Schedule {
    /// Nothing is due: peers are not wanted yet.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        let back_off = BackOff::new(&config);
        Self {
            config,
            wants_peers: false,
            is_running: false,
            lookup_at: now,
            back_off,
        }
    }

    /// Whether a lookup is due now. It is handed out once and must be answered by
    /// [`Schedule::handle_done`]; until then none is due.
    pub fn poll_due(&mut self, now: Instant) -> bool {
        let is_due = !self.is_running && self.wants_peers && now >= self.lookup_at;
        self.is_running |= is_due;
        is_due
    }

    /// A lookup ended. One that was not under way is ignored.
    pub fn handle_done(&mut self, now: Instant, outcome: Outcome) {
        if std::mem::replace(&mut self.is_running, false) {
            self.note(now, outcome);
        }
    }

    /// The torrent is about to be announced, which finds peers: no lookup is due meanwhile, unless that
    /// takes long.
    pub fn on_announcing(&mut self, now: Instant) {
        self.lookup_at = self.lookup_at.max(now + self.config.dht_retry_min);
    }

    /// The torrent was announced; on the way so many peers were found.
    pub fn on_announced(&mut self, now: Instant, outcome: Outcome) {
        if !self.is_running {
            self.note(now, outcome);
        }
    }

    fn note(&mut self, now: Instant, outcome: Outcome) {
        if outcome.peers >= PEERS_ENOUGH {
            self.back_off.reset();
            self.lookup_at = now + self.config.dht_retry_max;
            return;
        }
        let mut pause = self.back_off.lengthen();
        if outcome.answered == 0 {
            pause = pause.min(self.config.dht_silent_max);
        }
        self.lookup_at = now + pause;
    }

    /// The torrent wants (more) peers, or does not any more. One that begins to want them is served
    /// as soon as the last pause is over; the pauses start small again only if that was long ago,
    /// so that changing one's mind often does not help.
    pub fn set_wants_peers(&mut self, now: Instant, wants: bool) {
        let forgotten_at = self.lookup_at + self.config.dht_retry_max;
        if wants && !self.wants_peers && now >= forgotten_at {
            self.back_off.reset();
        }
        self.wants_peers = wants;
    }

    /// When [`Schedule::poll_due`] next has something; `None` while a lookup is under way.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Wake<WakeReason>> {
        let is_waiting = self.wants_peers && !self.is_running;
        is_waiting.then_some(Wake {
            at: self.lookup_at,
            reason: WakeReason::Dht,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: Outcome = Outcome {
        peers: 50,
        answered: 20,
    };
    const NO_PEERS: Outcome = Outcome { peers: 0, ..GOOD };
    const NOBODY: Outcome = Outcome {
        peers: 0,
        answered: 0,
    };

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    /// The schedule of a torrent that wants peers.
    fn schedule() -> Schedule {
        let mut schedule = Schedule::new(Config::default(), Instant::ZERO);
        assert_eq!(schedule.poll_timeout(), None);
        schedule.set_wants_peers(at(0), true);
        schedule
    }

    /// Looks for peers whenever that is due, with the same outcome each time; the seconds.
    fn run(schedule: &mut Schedule, outcome: Outcome, until: u64) -> Vec<u32> {
        let mut asked = Vec::new();
        while let Some(wake) = schedule.poll_timeout().filter(|wake| wake.at <= at(until)) {
            assert_eq!(wake.reason, WakeReason::Dht);
            assert!(schedule.poll_due(wake.at), "a wake-up has a reason");
            asked.push(wake.at.as_secs());
            schedule.handle_done(wake.at, outcome);
        }
        asked
    }

    #[test]
    fn the_first_lookup_is_due_at_once_and_handed_out_once() {
        let mut schedule = schedule();
        assert!(schedule.poll_due(at(0)));
        assert!(!schedule.poll_due(at(9999)));
        assert_eq!(schedule.poll_timeout(), None);
    }

    #[test]
    fn while_no_node_answers_each_minute_has_a_try() {
        let asked = run(&mut schedule(), NOBODY, 3_600);
        assert_eq!(asked[..5], [0, 5, 15, 35, 75]);
        assert!(asked.windows(2).all(|two| two[1] - two[0] <= 45));
        assert!(asked.len() < 90, "{asked:?}");
    }

    #[test]
    fn a_torrent_that_finds_no_peers_asks_less_and_less_often() {
        let asked = run(&mut schedule(), NO_PEERS, 899);
        assert_eq!(asked, [0, 5, 15, 35, 75, 155, 315, 615]);
    }

    #[test]
    fn a_torrent_that_found_many_peers_and_wants_more_asks_every_five_minutes() {
        assert_eq!(run(&mut schedule(), GOOD, 650), [0, 300, 600]);
    }

    #[test]
    fn an_announce_finds_peers_so_no_lookup_is_due_beside_it() {
        let mut schedule = schedule();
        schedule.on_announcing(at(0));
        assert!(!schedule.poll_due(at(4)));
        schedule.on_announced(at(4), GOOD);
        assert_eq!(run(&mut schedule, GOOD, 310), [304]);
        // One that takes long is not waited for, and what it brings late counts for nothing.
        schedule.on_announcing(at(700));
        assert!(schedule.poll_due(at(705)));
        schedule.on_announced(at(706), NOBODY);
        assert!(!schedule.poll_due(at(800)));
        schedule.handle_done(at(800), GOOD);
        assert_eq!(schedule.poll_timeout().unwrap().at, at(1100));
    }

    #[test]
    fn pauses_start_small_again_after_success() {
        let mut schedule = schedule();
        run(&mut schedule, NO_PEERS, 1000);
        let wake = schedule.poll_timeout().unwrap().at;
        schedule.on_announced(wake, GOOD);
        let next = schedule.poll_timeout().unwrap().at;
        assert_eq!(next, wake + Duration::from_secs(300));
        assert!(schedule.poll_due(next));
        schedule.handle_done(next, NOBODY);
        let soon = schedule.poll_timeout().unwrap().at;
        assert_eq!(soon, next + Duration::from_secs(5));
    }

    #[test]
    fn no_lookup_is_due_for_a_torrent_that_wants_no_peers() {
        let mut schedule = schedule();
        run(&mut schedule, NO_PEERS, 0);
        schedule.set_wants_peers(at(1), false);
        assert!(!schedule.poll_due(at(800)));
        schedule.set_wants_peers(at(800), true);
        assert!(schedule.poll_due(at(800)));
    }

    #[test]
    fn a_torrent_that_changes_its_mind_often_does_not_ask_more_often() {
        let mut schedule = schedule();
        let mut asked = 0;
        for secs in 0..800 {
            schedule.set_wants_peers(at(secs), secs % 2 == 0);
            if schedule.poll_due(at(secs)) {
                schedule.handle_done(at(secs), NO_PEERS);
                asked += 1;
            }
        }
        assert!(asked <= 9, "{asked}");
    }

    #[test]
    fn an_answer_to_nothing_is_ignored() {
        let mut schedule = schedule();
        schedule.handle_done(at(0), NO_PEERS);
        assert!(schedule.poll_due(at(0)));
    }

    proptest! {
        #[test]
        fn lookups_never_overlap_and_failed_ones_are_apart(
            steps in prop::collection::vec((0u64..400, 0u8..4, 0u32..40), 1..100),
        ) {
            let mut schedule = schedule();
            let (mut secs, mut last) = (0, None);
            for (pause, action, peers) in steps {
                secs += pause;
                let outcome = Outcome { peers, answered: 1 };
                match action {
                    0 => schedule.set_wants_peers(at(secs), false),
                    1 => schedule.on_announcing(at(secs)),
                    2 => schedule.on_announced(at(secs), outcome),
                    _ => schedule.set_wants_peers(at(secs), true),
                }
                if !schedule.poll_due(at(secs)) { continue }
                prop_assert!(!schedule.poll_due(at(secs)));
                prop_assert!(last.is_none_or(|before: u64| secs >= before + 5));
                last = Some(secs);
                schedule.handle_done(at(secs), outcome);
                prop_assert!(schedule.poll_timeout().is_some_and(|wake| wake.at > at(secs)));
            }
        }
    }
}
