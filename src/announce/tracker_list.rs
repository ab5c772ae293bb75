//! Which tracker of a torrent is asked when (BEP 12).
//!
//! All tiers are asked, each for itself: the first of a tier that answers is asked from then on and moves
//! to its front. One that does not answer within a few seconds is not waited for: the next of its tier
//! is asked beside it. For a private torrent ([`TrackerList::keep_to_one`]) one tracker at a time is asked,
//! tier by tier, and the next only when it fails (BEP 27). Those that know of us already, because a magnet link
//! does not say that its torrent is private, are told at once that we leave.
//!
//! What fails while nobody in the world is heard may be our own network's fault: it is tried again when
//! somebody is heard, and where a tracker could not even be looked for, that does not count against it.
//!
//! Invariant: each tracker has at most one announce under way, and what failed is tried again after a
//! pause that doubles, up to half an hour.

mod tier;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use self::tier::{Failing, Tier};
use super::tracker::{Answer, PEERS_WANTED, TrackerError, TrackerEvent};
use super::tracker_url::TrackerUrl;
use crate::random::Random;
use crate::time::Instant;

/// How long one tracker of a tier may take before the next one is asked beside it. Ours: most answer
/// within a second.
const PATIENCE: Duration = Duration::from_secs(4);

/// First pause after a tracker refused: it is alive and means it.
const REFUSED_RETRY_MIN: Duration = Duration::from_secs(60);

/// Announces under way at most. Ours: a link with a hundred trackers costs no more sockets than that,
/// and twenty dead ones do not hold up a good one.
const UNDER_WAY_MAX: usize = 20;

/// Whether anybody was heard lately, tracker or node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// There is a network.
    Up,
    /// There may be none.
    Unknown,
}

/// Which tracker of a torrent: its place in [`TrackerList::statuses`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrackerId(usize);

/// An announce to make now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// To which tracker; answered with [`TrackerList::handle_answer`] or
    /// [`TrackerList::handle_failure`].
    pub tracker: TrackerId,
    /// Where it is.
    pub url: Arc<TrackerUrl>,
    /// Why.
    pub event: TrackerEvent,
    /// Peers to ask for.
    pub peers_wanted: u32,
    /// What the tracker wants sent back.
    pub tracker_id: Option<Vec<u8>>,
}

/// What is known of a tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackerStatus {
    /// Its URL as the torrent has it.
    pub url: String,
    /// Its tier, counted from 0.
    pub tier: usize,
    /// Whether it is being asked.
    pub is_asked: bool,
    /// Announces that it answered.
    pub answers: u32,
    /// Announces that failed since it last answered.
    pub failures: u32,
    /// Peers that its last answer named.
    pub peers: u32,
    /// Seeds that it knows of.
    pub seeds: Option<u32>,
    /// Other peers that it knows of.
    pub leechers: Option<u32>,
    /// How often everything was fetched, if it says so.
    pub completed: Option<u32>,
    /// Why the last announce failed; `None` when it was answered. Fit for display.
    pub failure: Option<String>,
    /// What the last answer warned of. Fit for display.
    pub warning: Option<String>,
}

/// One tracker.
#[derive(Debug)]
struct Tracker {
    /// `None` when it is never asked.
    url: Option<Arc<TrackerUrl>>,
    /// The event of the announce under way.
    asked: Option<TrackerEvent>,
    /// It knows of us.
    has_started: bool,
    /// It knows us as one that lacks something, or was never asked.
    lacks_completed: bool,
    tracker_id: Option<Vec<u8>>,
    status: TrackerStatus,
}

/// The trackers of one torrent.
#[derive(Debug)]
pub struct TrackerList {
    trackers: Vec<Tracker>,
    tiers: Vec<Tier>,
    wants_peers: bool,
    /// Nothing is missing any more.
    is_complete: bool,
    /// All of them are one tier, of which one is asked at a time.
    keeps_to_one: bool,
    /// Those that are to be told that we leave, and since when.
    farewells: BTreeSet<usize>,
    farewell_at: Instant,
}

impl TrackerList {
    /// The trackers of these tiers, each tier shuffled. The first announces are due at once.
    #[must_use]
    pub fn new(tiers: &[Vec<String>], random: &mut Random, now: Instant) -> Self {
        let mut list = Self {
            trackers: Vec::new(),
            tiers: Vec::new(),
            wants_peers: false,
            is_complete: false,
            keeps_to_one: false,
            farewells: BTreeSet::new(),
            farewell_at: now,
        };
        for (tier, urls) in tiers.iter().enumerate() {
            let mut order = Vec::new();
            for url in urls {
                if list.trackers.iter().any(|known| known.status.url == *url) {
                    continue;
                }
                let tracker = Tracker::new(url, tier);
                if tracker.url.is_some() {
                    order.push(list.trackers.len());
                }
                list.trackers.push(tracker);
            }
            random.shuffle(&mut order);
            if !order.is_empty() {
                list.tiers.push(Tier::new(order, now, now));
            }
        }
        list
    }

    /// The torrent is private: from now on one tracker is asked at a time, in the order of the tiers, and
    /// another only when that fails. The one that answered, or else is asked already, comes first; others that know
    /// of us are told that we leave. Gives those whose announces are given up.
    pub fn keep_to_one(&mut self, now: Instant) -> Vec<TrackerId> {
        let order = self.tiers.iter().flat_map(|tier| &tier.order);
        let mut order: Vec<usize> = order.copied().collect();
        if self.keeps_to_one || order.is_empty() {
            return Vec::new();
        }
        self.keeps_to_one = true;
        let has = |at: &usize, is: fn(&Tracker) -> bool| self.trackers.get(*at).is_some_and(is);
        let answered = order.iter().position(|at| has(at, Tracker::answers));
        let asked = || order.iter().position(|at| has(at, Tracker::is_asked));
        let first = answered.or_else(asked).map(|at| order.remove(at));
        let timers = answered.and_then(|_| {
            let mut tiers = self.tiers.iter();
            let tier = tiers.find(|tier| first.is_some_and(|first| tier.order.contains(&first)))?;
            Some((tier.wanted_at, tier.regular_at))
        });
        let mut given_up = Vec::new();
        for &index in &order {
            let Some(tracker) = self.trackers.get_mut(index) else {
                continue;
            };
            tracker.status.is_asked = false;
            if tracker.asked.take().is_some() {
                given_up.push(TrackerId(index));
            }
            if tracker.has_started {
                self.farewells.insert(index);
            }
        }
        self.farewell_at = now;
        order.splice(0..0, first);
        let (wanted_at, regular_at) = timers.unwrap_or((now, now));
        let mut tier = Tier::new(order, wanted_at, regular_at);
        if tier.is_waiting(&self.trackers) {
            tier.round = Some((1, now));
        }
        self.tiers = vec![tier];
        given_up
    }

    /// A tracker answered an announce that was given up, so it knows of us: it is told that we leave, unless it is
    /// asked again by now.
    pub fn on_late_answer(&mut self, now: Instant, id: TrackerId) {
        let tracker = self.trackers.get_mut(id.0);
        if let Some(tracker) = tracker.filter(|tracker| !tracker.is_asked()) {
            tracker.has_started = true;
            self.farewells.insert(id.0);
            self.farewell_at = now;
        }
    }

    /// An announce that says that we leave, to make now; [`TrackerList::on_left`] when that is done.
    pub fn poll_farewell(&mut self) -> Option<Due> {
        while let Some(index) = self.farewells.pop_first() {
            let tracker = self.trackers.get(index);
            let tracker = tracker.filter(|tracker| !tracker.is_asked());
            if let Some(due) = tracker.and_then(|tracker| tracker.farewell(TrackerId(index))) {
                return Some(due);
            }
        }
        None
    }

    /// A tracker was told that we leave: it does not know of us any more, unless it is asked again by now.
    pub fn on_left(&mut self, id: TrackerId) {
        let tracker = self.trackers.get_mut(id.0);
        if let Some(tracker) = tracker.filter(|tracker| !tracker.is_asked()) {
            tracker.has_started = false;
        }
    }

    /// The tracker that is asked first, once it has answered.
    #[must_use]
    pub fn current(&self) -> Option<TrackerId> {
        let first = *self.tiers.first()?.order.first()?;
        let tracker = self.trackers.get(first)?;
        tracker.answers().then_some(TrackerId(first))
    }

    /// Whether any of them is ever asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }

    /// What is known of each, in the order of the torrent.
    pub fn statuses(&self) -> impl Iterator<Item = &TrackerStatus> {
        self.trackers.iter().map(|tracker| &tracker.status)
    }

    /// The torrent lacks peers, or has enough.
    pub fn set_wants_peers(&mut self, wants: bool) {
        self.wants_peers = wants;
    }

    /// The torrent has everything, or lacks something. Trackers that knew us otherwise are told when
    /// something was fetched, not when it had everything from the start.
    pub fn set_complete(&mut self, now: Instant, is_complete: bool) {
        let completes = is_complete && !self.is_complete;
        self.is_complete = is_complete;
        if !completes {
            return;
        }
        for tier in &mut self.tiers {
            let mut order = tier.order.iter().filter_map(|&at| self.trackers.get(at));
            let waits = |tracker: &Tracker| tracker.has_started && tracker.lacks_completed;
            if tier.failed_rounds + tier.local_rounds == 0 && order.any(waits) {
                (tier.wanted_at, tier.regular_at) = (now, now);
            }
        }
    }

    /// Somebody is heard after nobody was: what failed meanwhile is tried at once.
    pub fn on_network_back(&mut self, now: Instant) {
        let waiting = self.tiers.iter_mut().filter(|tier| tier.waits_for_network);
        for tier in waiting {
            (tier.wanted_at, tier.regular_at) = (now, now);
            tier.waits_for_network = false;
        }
    }

    /// An announce that is due now. Each is handed out once. Where announces have to take turns, dead trackers
    /// do not hold up those that answer: tiers that failed come last.
    pub fn poll_due(&mut self, now: Instant) -> Option<Due> {
        if self.is_full() {
            return None;
        }
        let has_failed = |tier: &Tier| tier.failed_rounds + tier.local_rounds > 0;
        let mut tiers: Vec<usize> = (0..self.tiers.len()).collect();
        tiers.sort_by_key(|&tier| self.tiers.get(tier).is_some_and(has_failed));
        tiers.into_iter().find_map(|tier| self.poll_tier(now, tier))
    }

    /// Whether no more announces may be under way.
    fn is_full(&self) -> bool {
        let under_way = |tracker: &&Tracker| tracker.asked.is_some();
        self.trackers.iter().filter(under_way).count() >= UNDER_WAY_MAX
    }

    fn poll_tier(&mut self, now: Instant, tier: usize) -> Option<Due> {
        let (wants_peers, keeps_to_one) = (self.wants_peers, self.keeps_to_one);
        let tier = self.tiers.get_mut(tier)?;
        loop {
            let (position, next_at) = match tier.round {
                Some(round) => round,
                None if now >= tier.due_at(wants_peers) => {
                    tier.failing = Failing::default();
                    (0, now)
                }
                None => return None,
            };
            let is_waiting = tier.is_waiting(&self.trackers);
            if is_waiting && (keeps_to_one || now < next_at) {
                return None;
            }
            let Some(&index) = tier.order.get(position) else {
                if !is_waiting {
                    tier.on_round_failed(now);
                }
                return None;
            };
            tier.round = Some((position + 1, now + PATIENCE));
            let tracker = self.trackers.get_mut(index)?;
            if let Some(due) = tracker.ask(TrackerId(index), self.is_complete, wants_peers) {
                return Some(due);
            }
        }
    }

    /// A tracker answered. One that was not asked is ignored.
    pub fn handle_answer(&mut self, now: Instant, id: TrackerId, answer: &Answer) {
        let Some(tracker) = self.trackers.get_mut(id.0) else {
            return;
        };
        let Some(event) = tracker.asked.take() else {
            return;
        };
        tracker.on_answer(event, self.is_complete, answer);
        let complete_is_due = self.is_complete && tracker.lacks_completed;
        let Some(tier) = self.tier_of(id) else { return };
        if let Some(at) = tier.order.iter().position(|&index| index == id.0) {
            let first = tier.order.remove(at);
            tier.order.insert(0, first);
        }
        tier.round = None;
        (tier.failed_rounds, tier.local_rounds) = (0, 0);
        tier.waits_for_network = false;
        let interval_min = answer.interval_min.unwrap_or_default();
        tier.regular_at = now + answer.interval.max(interval_min);
        tier.wanted_at = now + answer.interval_min.unwrap_or(answer.interval);
        if complete_is_due {
            (tier.wanted_at, tier.regular_at) = (now, now);
        }
    }

    /// A tracker did not answer as it should, while there was this network. One that was not asked is
    /// ignored.
    pub fn handle_failure(
        &mut self,
        now: Instant,
        id: TrackerId,
        error: &TrackerError,
        network: Network,
    ) {
        let Some(tracker) = self.trackers.get_mut(id.0) else {
            return;
        };
        if tracker.asked.take().is_none() {
            return;
        }
        let status = &mut tracker.status;
        status.is_asked = false;
        status.failures = status.failures.saturating_add(1);
        status.failure = Some(error.to_string());
        let Some(tier) = self.tier_of(id) else { return };
        let is_unheard = network == Network::Unknown && !error.is_answer();
        tier.failing.is_unheard |= is_unheard;
        match error {
            TrackerError::Refused(_) => tier.failing.retry_min = REFUSED_RETRY_MIN,
            TrackerError::Local(_) | TrackerError::Lookup(_) => {
                tier.failing.is_local |= is_unheard;
            }
            TrackerError::Malformed(_)
            | TrackerError::TooLong
            | TrackerError::Status(_)
            | TrackerError::Redirects
            | TrackerError::Url(_)
            | TrackerError::NoAddress
            | TrackerError::TimedOut
            | TrackerError::Unreachable(_) => {}
        }
        let is_waiting = self.is_waiting(id);
        if let Some(tier) = self.tier_of(id).filter(|_| !is_waiting)
            && let Some((asked, _)) = tier.round
        {
            // The next one need not wait any longer.
            tier.round = Some((asked, now));
            if asked >= tier.order.len() {
                tier.on_round_failed(now);
            }
        }
    }

    fn is_waiting(&self, id: TrackerId) -> bool {
        let mut tiers = self.tiers.iter();
        tiers.any(|tier| tier.order.contains(&id.0) && tier.is_waiting(&self.trackers))
    }

    fn tier_of(&mut self, id: TrackerId) -> Option<&mut Tier> {
        let mut tiers = self.tiers.iter_mut();
        tiers.find(|tier| tier.order.contains(&id.0))
    }

    /// The torrent ends: the announces that say so, to each tracker that may know of us. Nothing is due
    /// from then on.
    pub fn stop(&mut self) -> Vec<Due> {
        self.tiers.clear();
        self.farewells.clear();
        let known = |(index, tracker): (usize, &Tracker)| {
            let may_know = tracker.has_started || tracker.is_asked();
            tracker.farewell(TrackerId(index)).filter(|_| may_know)
        };
        self.trackers.iter().enumerate().filter_map(known).collect()
    }

    /// When [`TrackerList::poll_due`] or [`TrackerList::poll_farewell`] next has something, unless somebody
    /// answers before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.farewells.is_empty() {
            return Some(self.farewell_at);
        }
        if self.is_full() {
            return None;
        }
        let due = |tier: &Tier| match tier.round {
            None => Some(tier.due_at(self.wants_peers)),
            Some(_) if self.keeps_to_one && tier.is_waiting(&self.trackers) => None,
            Some((asked, next_at)) if asked < tier.order.len() => Some(next_at),
            Some(_) => None,
        };
        self.tiers.iter().filter_map(due).min()
    }
}

impl Tracker {
    fn new(text: &str, tier: usize) -> Self {
        let (url, failure) = match TrackerUrl::parse(text) {
            Ok(url) => (Some(Arc::new(url)), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self {
            url,
            asked: None,
            has_started: false,
            lacks_completed: false,
            tracker_id: None,
            status: TrackerStatus {
                url: text.to_owned(),
                tier,
                is_asked: false,
                answers: 0,
                failures: 0,
                peers: 0,
                seeds: None,
                leechers: None,
                completed: None,
                failure,
                warning: None,
            },
        }
    }

    /// Whether it answered the last announce that ended.
    const fn answers(&self) -> bool {
        self.status.answers > 0 && self.status.failures == 0
    }

    /// Whether an announce is under way.
    const fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// An announce to this tracker, unless one is under way.
    fn ask(&mut self, tracker: TrackerId, is_complete: bool, wants_peers: bool) -> Option<Due> {
        let url = Arc::clone(self.url.as_ref().filter(|_| self.asked.is_none())?);
        let event = if !self.has_started {
            TrackerEvent::Started
        } else if is_complete && self.lacks_completed {
            TrackerEvent::Completed
        } else {
            TrackerEvent::Regular
        };
        self.asked = Some(event);
        if event == TrackerEvent::Started {
            self.lacks_completed = !is_complete;
        }
        self.status.is_asked = true;
        Some(Due {
            tracker,
            url,
            event,
            peers_wanted: if wants_peers { PEERS_WANTED } else { 0 },
            tracker_id: self.tracker_id.clone(),
        })
    }

    /// The announce that says that we leave.
    fn farewell(&self, tracker: TrackerId) -> Option<Due> {
        Some(Due {
            tracker,
            url: Arc::clone(self.url.as_ref()?),
            event: TrackerEvent::Stopped,
            peers_wanted: 0,
            tracker_id: self.tracker_id.clone(),
        })
    }

    fn on_answer(&mut self, event: TrackerEvent, is_complete: bool, answer: &Answer) {
        self.has_started = true;
        if event == TrackerEvent::Completed {
            self.lacks_completed = !is_complete;
        }
        if let Some(id) = &answer.tracker_id {
            self.tracker_id = Some(id.clone());
        }
        let status = &mut self.status;
        status.is_asked = false;
        status.answers = status.answers.saturating_add(1);
        status.failures = 0;
        status.peers = u32::try_from(answer.peers.len()).unwrap_or(u32::MAX);
        (status.seeds, status.leechers) = (answer.seeds, answer.leechers);
        status.completed = answer.completed;
        status.failure = None;
        status.warning.clone_from(&answer.warning);
    }
}

#[cfg(test)]
mod tests;
