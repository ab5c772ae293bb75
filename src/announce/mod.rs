//! When to ask which source for peers.
//!
//! A [`Schedule`] belongs to one torrent. It says what is due, its owner performs it and tells how
//! it went. A torrent is announced only once it can serve something: a peer without metadata is of
//! no use to anybody, and one that is gone a moment later is a refused dial for everybody. Announcing
//! finds peers on the way, so a lookup is only due between announces, while the torrent wants peers.
//!
//! Invariant: at most one request is under way, and after one that found too little the next waits
//! at least `dht_retry_min`, twice as long each time.

use std::time::Duration;

use crate::time::{Instant, Wake};

/// Peers that a lookup must find to be worth no early repetition. Ours: fewer are often all gone.
const PEERS_ENOUGH: u32 = 20;

/// Nodes that must have stored an announce to make it last: half of the eight that BEP 5 has in
/// mind. Fewer means that the network is tiny or that we do not know it yet, so it is repeated
/// soon.
const STORED_ENOUGH: u32 = 4;

/// Intervals of one torrent's schedule.
#[derive(Debug, Clone)]
pub struct Config {
    /// Announce to the DHT again after so long. Default 15 minutes: nodes forget peers after 30,
    /// and one announce may fail.
    pub dht_reannounce: Duration,
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
            dht_reannounce: Duration::from_secs(15 * 60),
            dht_retry_min: Duration::from_secs(5),
            dht_retry_max: Duration::from_secs(300),
            dht_silent_max: Duration::from_secs(45),
        }
    }
}

/// A source that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Announce ourselves in the DHT; finds peers on the way.
    DhtAnnounce,
    /// Only look for peers in the DHT.
    DhtLookup,
}

/// How asking a source went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Distinct peers found.
    pub peers: u32,
    /// Nodes that answered; 0 when we have no way into the DHT.
    pub answered: u32,
    /// Nodes that stored the announce.
    pub stored: u32,
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
    /// Handed out and not yet answered.
    running: Option<Due>,
    /// `None` until there is something to announce.
    announce_at: Option<Instant>,
    announce_back_off: BackOff,
    /// Only due while peers are wanted.
    lookup_at: Instant,
    lookup_back_off: BackOff,
}

impl Schedule {
    /// Nothing is due: peers are not wanted yet, and there is nothing to announce.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        let back_off = BackOff::new(&config);
        Self {
            config,
            wants_peers: false,
            running: None,
            announce_at: None,
            announce_back_off: back_off,
            lookup_at: now,
            lookup_back_off: back_off,
        }
    }

    /// What is due now. Each is handed out once and must be answered by [`Schedule::handle_done`];
    /// until then nothing is due.
    pub fn poll_due(&mut self, now: Instant) -> Option<Due> {
        if self.running.is_none() {
            if self.announce_at.is_some_and(|at| now >= at) {
                self.running = Some(Due::DhtAnnounce);
                return self.running;
            }
            if self.wants_peers && now >= self.lookup_at {
                self.running = Some(Due::DhtLookup);
                return self.running;
            }
        }
        None
    }

    /// A request ended. One that was not under way is ignored.
    pub fn handle_done(&mut self, now: Instant, due: Due, outcome: Outcome) {
        if self.running != Some(due) {
            return;
        }
        self.running = None;
        let longest = if outcome.answered == 0 {
            self.config.dht_silent_max
        } else {
            self.config.dht_reannounce
        };
        if outcome.peers >= PEERS_ENOUGH {
            self.lookup_back_off.reset();
            self.lookup_at = now + self.config.dht_retry_max;
        } else {
            self.lookup_at = now + self.lookup_back_off.lengthen().min(longest);
        }
        if due == Due::DhtAnnounce {
            let pause = if outcome.stored >= STORED_ENOUGH {
                self.announce_back_off.reset();
                self.config.dht_reannounce
            } else {
                self.announce_back_off.lengthen().min(longest)
            };
            self.announce_at = Some(now + pause);
        }
    }

    /// The torrent can serve something from now on: the first announce is due at once.
    pub fn start_announcing(&mut self, now: Instant) {
        self.announce_at.get_or_insert(now);
    }

    /// Whether this torrent is announced.
    #[must_use]
    pub const fn is_announcing(&self) -> bool {
        self.announce_at.is_some()
    }

    /// The torrent wants (more) peers, or does not any more. One that begins to want them is served
    /// as soon as the last pause is over; the pauses start small again only if that was long ago,
    /// so that changing one's mind often does not help.
    pub fn set_wants_peers(&mut self, now: Instant, wants: bool) {
        let forgotten_at = self.lookup_at + self.config.dht_retry_max;
        if wants && !self.wants_peers && now >= forgotten_at {
            self.lookup_back_off.reset();
        }
        self.wants_peers = wants;
    }

    /// When [`Schedule::poll_due`] next has something; `None` while a request is under way.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Wake<WakeReason>> {
        let wake = |at| Wake {
            at,
            reason: WakeReason::Dht,
        };
        if self.running.is_some() {
            return None;
        }
        let lookup = self.wants_peers.then(|| wake(self.lookup_at));
        Wake::earliest(self.announce_at.map(wake), lookup)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: Outcome = Outcome {
        peers: 50,
        answered: 20,
        stored: 8,
    };
    const NO_PEERS: Outcome = Outcome { peers: 0, ..GOOD };
    const NOBODY: Outcome = Outcome {
        peers: 0,
        answered: 0,
        stored: 0,
    };

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    /// The schedule of a torrent that can serve something.
    fn schedule() -> Schedule {
        let mut schedule = Schedule::new(Config::default(), Instant::ZERO);
        schedule.start_announcing(Instant::ZERO);
        schedule
    }

    /// Performs what is due whenever it is, with the same outcome each time; the seconds and kinds.
    fn run(schedule: &mut Schedule, outcome: Outcome, until: u64) -> Vec<(u32, Due)> {
        let mut asked = Vec::new();
        while let Some(wake) = schedule.poll_timeout().filter(|wake| wake.at <= at(until)) {
            assert_eq!(wake.reason, WakeReason::Dht);
            let due = schedule.poll_due(wake.at).expect("a wake-up has a reason");
            asked.push((wake.at.as_secs(), due));
            schedule.handle_done(wake.at, due, outcome);
        }
        asked
    }

    #[test]
    fn the_first_announce_is_due_at_once_and_handed_out_once() {
        let mut schedule = schedule();
        schedule.set_wants_peers(at(0), true);
        assert_eq!(schedule.poll_due(at(0)), Some(Due::DhtAnnounce));
        assert_eq!(schedule.poll_due(at(9999)), None);
        assert_eq!(schedule.poll_timeout(), None);
    }

    #[test]
    fn a_torrent_without_metadata_searches_and_is_announced_once_it_has_them() {
        let mut schedule = Schedule::new(Config::default(), Instant::ZERO);
        assert_eq!(schedule.poll_timeout(), None);
        schedule.set_wants_peers(at(0), true);
        let asked = run(&mut schedule, NO_PEERS, 40);
        let expected = [0, 5, 15, 35].map(|secs| (secs, Due::DhtLookup));
        assert_eq!(asked, expected);
        assert!(!schedule.is_announcing());
        schedule.start_announcing(at(41));
        assert_eq!(schedule.poll_due(at(41)), Some(Due::DhtAnnounce));
        schedule.handle_done(at(41), Due::DhtAnnounce, GOOD);
        // To start again changes nothing.
        schedule.start_announcing(at(42));
        assert_eq!(schedule.poll_due(at(42)), None);
    }

    #[test]
    fn while_no_node_answers_each_minute_has_a_try() {
        let mut schedule = schedule();
        schedule.set_wants_peers(at(0), true);
        let asked = run(&mut schedule, NOBODY, 3_600);
        let announced: Vec<u32> = asked
            .into_iter()
            .filter(|(_, due)| *due == Due::DhtAnnounce)
            .map(|(secs, _)| secs)
            .collect();
        assert!(announced.windows(2).all(|two| two[1] - two[0] <= 45));
        assert!(announced.len() < 90, "{announced:?}");
    }

    #[test]
    fn an_announce_is_repeated_before_nodes_forget_it() {
        let asked = run(&mut schedule(), GOOD, 3600);
        let expected = [0, 900, 1800, 2700, 3600].map(|secs| (secs, Due::DhtAnnounce));
        assert_eq!(asked, expected);
    }

    #[test]
    fn a_torrent_that_wants_peers_and_finds_none_asks_less_and_less_often() {
        let mut schedule = schedule();
        schedule.set_wants_peers(at(0), true);
        let asked = run(&mut schedule, NO_PEERS, 899);
        let secs: Vec<_> = asked.iter().map(|(secs, _)| *secs).collect();
        assert_eq!(secs, [0, 5, 15, 35, 75, 155, 315, 615]);
        assert!(asked[1..].iter().all(|(_, due)| *due == Due::DhtLookup));
    }

    #[test]
    fn a_torrent_that_found_many_peers_and_wants_more_asks_every_five_minutes() {
        let mut schedule = schedule();
        schedule.set_wants_peers(at(0), true);
        let asked = run(&mut schedule, GOOD, 650);
        let expected = [
            (0, Due::DhtAnnounce),
            (300, Due::DhtLookup),
            (600, Due::DhtLookup),
        ];
        assert_eq!(asked, expected);
    }

    #[test]
    fn an_announce_that_nobody_answered_is_tried_again_soon() {
        let asked = run(&mut schedule(), NOBODY, 80);
        let expected = [0, 5, 15, 35, 75].map(|secs| (secs, Due::DhtAnnounce));
        assert_eq!(asked, expected);
    }

    #[test]
    fn an_announce_that_few_nodes_stored_is_repeated_early() {
        let few = Outcome { stored: 1, ..GOOD };
        assert_eq!(run(&mut schedule(), few, 40).len(), 4);
    }

    #[test]
    fn pauses_start_small_again_after_success() {
        let mut schedule = schedule();
        run(&mut schedule, NOBODY, 1000);
        let wake = schedule.poll_timeout().unwrap().at;
        assert_eq!(schedule.poll_due(wake), Some(Due::DhtAnnounce));
        schedule.handle_done(wake, Due::DhtAnnounce, GOOD);
        let next = schedule.poll_timeout().unwrap().at;
        assert_eq!(next, wake + Duration::from_secs(900));
        assert_eq!(schedule.poll_due(next), Some(Due::DhtAnnounce));
        schedule.handle_done(next, Due::DhtAnnounce, NOBODY);
        let soon = schedule.poll_timeout().unwrap().at;
        assert_eq!(soon, next + Duration::from_secs(5));
    }

    #[test]
    fn no_lookup_is_due_for_a_torrent_that_wants_no_peers() {
        let mut schedule = schedule();
        run(&mut schedule, NO_PEERS, 0);
        assert_eq!(schedule.poll_due(at(800)), None);
        schedule.set_wants_peers(at(800), true);
        assert_eq!(schedule.poll_due(at(800)), Some(Due::DhtLookup));
    }

    #[test]
    fn a_torrent_that_changes_its_mind_often_does_not_ask_more_often() {
        let mut schedule = schedule();
        let mut asked = 0;
        for secs in 0..800 {
            schedule.set_wants_peers(at(secs), secs % 2 == 0);
            if let Some(due) = schedule.poll_due(at(secs)) {
                schedule.handle_done(at(secs), due, NO_PEERS);
                asked += 1;
            }
        }
        assert!(asked <= 9, "{asked}");
    }

    #[test]
    fn an_answer_to_nothing_is_ignored() {
        let mut schedule = schedule();
        schedule.handle_done(at(0), Due::DhtLookup, GOOD);
        schedule.handle_done(at(0), Due::DhtAnnounce, GOOD);
        assert_eq!(schedule.poll_due(at(0)), Some(Due::DhtAnnounce));
    }

    proptest! {
        #[test]
        fn requests_never_overlap_and_failed_ones_are_apart(
            steps in prop::collection::vec((0u64..400, any::<bool>(), 0u32..40, 0u32..9), 1..100),
        ) {
            let mut schedule = schedule();
            let (mut secs, mut last, mut announced) = (0, None, None);
            for (pause, wants, peers, stored) in steps {
                secs += pause;
                schedule.set_wants_peers(at(secs), wants);
                let Some(due) = schedule.poll_due(at(secs)) else { continue };
                prop_assert_eq!(schedule.poll_due(at(secs)), None);
                // A lookup waits after whatever was asked, an announce after the one before it.
                let before = match due {
                    Due::DhtLookup => last,
                    Due::DhtAnnounce => announced.replace(secs),
                };
                prop_assert!(before.is_none_or(|before: u64| secs >= before + 5));
                last = Some(secs);
                schedule.handle_done(at(secs), due, Outcome { peers, answered: 1, stored });
                prop_assert!(schedule.poll_timeout().is_some_and(|wake| wake.at > at(secs)));
            }
        }
    }
}
