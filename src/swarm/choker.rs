//! Whom we serve (BEP 3).
//!
//! Every ten seconds the peers are ranked anew. While we fetch, those that sent us most in the last twenty
//! seconds come first; while we seed, everybody gets a turn, and whoever waits longest is next, those last
//! who asked for nothing in their turn, or only for what others have or are getting while something is held by
//! nobody else. One more slot is optimistic: it goes to somebody at random,
//! newcomers with better chances, so that those who have nothing to give yet can begin.
//!
//! A slot that becomes free in between is given away at once, but nobody loses one: each choke voids the
//! requests that are on their way, and what is asked again elsewhere may come twice.

use std::time::Duration;

use super::ConnectionId;
use crate::random::Random;
use crate::time::Instant;

/// Time between two rankings. BEP 3: ten seconds, so that TCP gets up to speed before it is judged.
const ROUND: Duration = Duration::from_secs(10);

/// How long the optimistic slot stays with one peer. BEP 3: 30 seconds.
const OPTIMISTIC_TURN: Duration = Duration::from_secs(30);

/// How long a peer is served by a seed before others of the same merit go first.
const SEED_TURN: Duration = Duration::from_secs(30);

/// How long a peer counts as a newcomer, which is three times as likely to be the optimistic one (BEP 3).
const NEWCOMER: Duration = Duration::from_secs(60);

/// What the choker looks at in a peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) id: ConnectionId,
    /// It wants something from us. Others are never served.
    pub(super) interested: bool,
    /// Bytes per second it sends us.
    pub(super) down_rate: u64,
    /// Since when it is served; `None` if it is choked.
    pub(super) unchoked_at: Option<Instant>,
    /// Since when it waits to be served: since it was served last, or since it came.
    pub(super) waits_since: Instant,
    /// It was served and asked for nothing: others go first.
    pub(super) slept: bool,
    /// It owes us blocks for too long, although we asked: it gets no slot but the optimistic one.
    pub(super) snubbed: bool,
    /// It asks for what others have or are getting, while there is something that nobody has.
    pub(super) repeats: bool,
    /// When it connected.
    pub(super) connected_at: Instant,
}

/// Which side of the exchange we are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// We want pieces.
    Fetch,
    /// We have everything.
    Seed,
}

/// The choker of one torrent.
#[derive(Debug)]
pub(super) struct Choker {
    slots: usize,
    optimistic: Option<ConnectionId>,
    next_round: Instant,
    /// Slots may be free, and somebody may want them.
    hurried: Option<Instant>,
    next_optimistic: Instant,
    random: Random,
}

impl Choker {
    pub(super) const fn new(slots: usize, random: Random, now: Instant) -> Self {
        Self {
            slots,
            optimistic: None,
            next_round: now,
            hurried: None,
            next_optimistic: now,
            random,
        }
    }

    /// When slots are given away next.
    pub(super) fn next_round(&self) -> Instant {
        self.hurried
            .map_or(self.next_round, |hurried| self.next_round.min(hurried))
    }

    /// Has free slots given away at once: one became free, or somebody wants one that is.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.hurried = Some(self.hurried.map_or(now, |hurried| hurried.min(now)));
    }

    /// Whether somebody could be served besides these many.
    pub(super) const fn has_room(&self, unchoked: usize) -> bool {
        unchoked < self.slots + 1
    }

    /// The peers to serve from now on; all others are choked. Between two rankings those that are served
    /// stay, as long as they are interested.
    pub(super) fn rank(
        &mut self,
        now: Instant,
        goal: Goal,
        candidates: &[Candidate],
    ) -> Vec<ConnectionId> {
        self.hurried = None;
        let ranks_anew = now >= self.next_round;
        if ranks_anew {
            self.next_round = now + ROUND;
        }
        let mut eligible: Vec<Candidate> = candidates
            .iter()
            .copied()
            .filter(|peer| peer.interested)
            .collect();
        // Chance decides among equals: sorting keeps the order of what compares equal.
        self.random.shuffle(&mut eligible);
        match goal {
            Goal::Fetch => {
                // Who sends something has its slot, whether it uses it or not.
                eligible.sort_by_key(|peer| {
                    let rate = std::cmp::Reverse(peer.down_rate);
                    (peer.snubbed, rate, peer.slept)
                });
            }
            Goal::Seed => eligible.sort_by_key(|peer| {
                // Whoever is served keeps its turn; then those that wait longest; last, whoever slept
                // through its turn. How fast a peer takes and how often it comes back changes nothing.
                let served = peer.unchoked_at.map(|since| now.saturating_since(since));
                match served {
                    _ if peer.repeats => (3, peer.waits_since),
                    _ if peer.slept => (2, peer.waits_since),
                    Some(served) if served < SEED_TURN => (0, Instant::ZERO),
                    Some(_) => (1, now),
                    None => (1, peer.waits_since),
                }
            }),
        }
        if !ranks_anew {
            // Those that are served first, the optimistic one among the last so that it stays what it is.
            let optimistic = self.optimistic;
            eligible.sort_by_key(|peer| {
                let snubs = goal == Goal::Fetch && peer.snubbed;
                let is_optimistic = optimistic == Some(peer.id);
                (
                    snubs,
                    peer.repeats,
                    is_optimistic,
                    peer.unchoked_at.is_none(),
                )
            });
        }
        let may_be_regular = |peer: &&Candidate| !(goal == Goal::Fetch && peer.snubbed);
        let regular = eligible.iter().take_while(may_be_regular).count();
        let regular = regular.min(self.slots);
        let rest = eligible.split_off(regular);
        let mut served: Vec<ConnectionId> = eligible.iter().map(|peer| peer.id).collect();
        served.extend(self.choose_optimistic(now, &rest));
        served
    }

    /// Keeps the optimistic peer for its turn, then chooses another among those not served anyway.
    fn choose_optimistic(&mut self, now: Instant, rest: &[Candidate]) -> Option<ConnectionId> {
        let others = rest.iter().any(|peer| !peer.repeats);
        let rest = rest.iter().filter(|peer| !(others && peer.repeats));
        let rest: Vec<Candidate> = rest.copied().collect();
        let stays = self
            .optimistic
            .filter(|id| now < self.next_optimistic && rest.iter().any(|peer| peer.id == *id));
        if stays.is_some() {
            return stays;
        }
        self.next_optimistic = now + OPTIMISTIC_TURN;
        let tickets: Vec<ConnectionId> = rest
            .iter()
            .flat_map(|peer| {
                let new = now.saturating_since(peer.connected_at) < NEWCOMER;
                std::iter::repeat_n(peer.id, if new { 3 } else { 1 })
            })
            .collect();
        let winner = self
            .random
            .index(tickets.len())
            .and_then(|ticket| tickets.get(ticket));
        self.optimistic = winner.copied();
        self.optimistic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u64, down_rate: u64) -> Candidate {
        Candidate {
            id: ConnectionId(number),
            interested: true,
            down_rate,
            unchoked_at: None,
            waits_since: Instant::ZERO,
            slept: false,
            snubbed: false,
            repeats: false,
            connected_at: Instant::ZERO,
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn choker(slots: usize) -> Choker {
        Choker::new(slots, Random::from_seed(1), Instant::ZERO)
    }

    #[test]
    fn those_who_send_most_are_served_and_one_more_at_random() {
        let peers: Vec<_> = (0..20).map(|number| peer(number, number * 1_000)).collect();
        let served = choker(4).rank(at(0), Goal::Fetch, &peers);
        assert_eq!(served[..4], [19, 18, 17, 16].map(ConnectionId));
        assert_eq!(served.len(), 5);
        assert!(served[4] < ConnectionId(16));
    }

    #[test]
    fn peers_that_want_nothing_are_not_served() {
        let mut peers: Vec<_> = (0..3).map(|number| peer(number, 1)).collect();
        peers[1].interested = false;
        let served = choker(4).rank(at(0), Goal::Fetch, &peers);
        assert_eq!(served.len(), 2);
        assert!(!served.contains(&ConnectionId(1)));
    }

    #[test]
    fn a_snubbing_peer_comes_last_whatever_it_sent() {
        let mut peers: Vec<_> = (0..5).map(|number| peer(number, 10)).collect();
        peers[0].down_rate = 1_000_000;
        peers[0].snubbed = true;
        let served = choker(4).rank(at(0), Goal::Fetch, &peers);
        assert_eq!(served.last(), Some(&ConnectionId(0)));
    }

    #[test]
    fn the_optimistic_slot_changes_hands_every_thirty_seconds() {
        let mut choker = choker(1);
        let peers: Vec<_> = (0..30).map(|number| peer(number, 1_000 - number)).collect();
        let turns: Vec<_> = (0..12)
            .map(|round| choker.rank(at(round * 10), Goal::Fetch, &peers)[1])
            .collect();
        for turn in turns.chunks(3) {
            assert!(turn.iter().all(|id| *id == turn[0]), "{turns:?}");
        }
        assert!(turns.iter().any(|id| *id != turns[0]), "{turns:?}");
    }

    #[test]
    fn newcomers_are_favoured_by_the_optimistic_slot() {
        let mut choker = choker(0);
        let mut chosen = 0;
        for round in 0..400 {
            let now = at(1_000 + round * 30);
            let mut peers: Vec<_> = (0..10).map(|number| peer(number, 0)).collect();
            peers[0].connected_at = now;
            chosen += usize::from(choker.rank(now, Goal::Fetch, &peers)[0] == ConnectionId(0));
        }
        // Three tickets of twelve: 100 of 400 expected, 40 without the favour.
        assert!((70..130).contains(&chosen), "{chosen}");
    }

    #[test]
    fn between_two_rankings_nobody_loses_a_slot() {
        let mut choker = choker(3);
        let mut peers: Vec<_> = (0..9).map(|number| peer(number, 0)).collect();
        let first = choker.rank(at(0), Goal::Fetch, &peers);
        for peer in &mut peers {
            peer.unchoked_at = first.contains(&peer.id).then_some(at(0));
        }
        for second in 1..10 {
            choker.hurry(at(second));
            assert_eq!(choker.next_round(), at(second));
            let mut again = choker.rank(at(second), Goal::Fetch, &peers);
            assert_eq!(choker.next_round(), at(10));
            again.sort_unstable();
            let mut before = first.clone();
            before.sort_unstable();
            assert_eq!(again, before);
        }
        // One that is not interested any more makes room for one other.
        let lost = first[0];
        for peer in &mut peers {
            peer.interested = peer.id != lost;
        }
        let then = choker.rank(at(9), Goal::Fetch, &peers);
        assert_eq!(then.len(), 4);
        let stayed = then.iter().filter(|id| first.contains(id)).count();
        assert_eq!(stayed, 3);
    }

    #[test]
    fn a_seed_gives_everybody_a_turn() {
        let mut choker = choker(2);
        let mut peers: Vec<_> = (0..8).map(|number| peer(number, 0)).collect();
        let mut turns = std::collections::BTreeMap::new();
        for round in 0..60 {
            let now = at(round * 10);
            let served = choker.rank(now, Goal::Seed, &peers);
            for peer in &mut peers {
                let serves = served.contains(&peer.id);
                if peer.unchoked_at.is_some() && !serves {
                    peer.waits_since = now;
                }
                peer.unchoked_at = peer.unchoked_at.or(Some(now)).filter(|_| serves);
            }
            for id in served {
                *turns.entry(id).or_insert(0) += 1;
            }
        }
        assert_eq!(turns.len(), 8);
        // Three slots for eight peers, 60 rounds: 22.5 each on average, and the optimistic slot is chance.
        assert!(
            turns.values().all(|turns| (15..=31).contains(turns)),
            "{turns:?}"
        );
    }

    #[test]
    fn a_few_peers_that_come_back_all_the_time_do_not_keep_a_seed_from_the_others() {
        let mut choker = choker(2);
        let mut peers: Vec<_> = (0..8).map(|number| peer(number, 0)).collect();
        let mut honest = 0;
        let mut served_in_all = 0;
        for round in 0..300u64 {
            let now = at(round * 10);
            // Half of them reconnect before each round, and take whatever they get at once.
            for peer in &mut peers[..4] {
                peer.id = ConnectionId(1_000 + round * 10 + peer.id.0 % 10);
                (peer.connected_at, peer.waits_since, peer.unchoked_at) = (now, now, None);
            }
            let served = choker.rank(now, Goal::Seed, &peers);
            for peer in &mut peers {
                let serves = served.contains(&peer.id);
                if peer.unchoked_at.is_some() && !serves {
                    peer.waits_since = now;
                }
                peer.unchoked_at = peer.unchoked_at.or(Some(now)).filter(|_| serves);
            }
            served_in_all += served.len();
            honest += served.iter().filter(|id| id.0 < 8).count();
        }
        assert!(honest * 2 > served_in_all, "{honest} of {served_in_all}");
    }

    #[test]
    fn whoever_asks_for_what_others_are_getting_makes_room_for_those_who_do_not() {
        let mut choker = choker(3);
        let mut peers: Vec<_> = (0..8).map(|number| peer(number, 0)).collect();
        let first = choker.rank(at(0), Goal::Seed, &peers);
        for peer in &mut peers {
            peer.unchoked_at = first.contains(&peer.id).then_some(at(0));
            peer.repeats = first.contains(&peer.id);
        }
        choker.hurry(at(1));
        let then = choker.rank(at(1), Goal::Seed, &peers);
        assert!(then.iter().all(|id| !first.contains(id)), "{then:?}");
        assert_eq!(then.len(), 4);
        // If nobody else wants a slot they keep theirs.
        peers.retain(|peer| peer.repeats);
        assert_eq!(choker.rank(at(2), Goal::Seed, &peers).len(), 4);
    }

    #[test]
    fn whoever_slept_through_its_turn_comes_last_but_is_served_if_nobody_waits() {
        let mut peers: Vec<_> = (0..8).map(|number| peer(number, 0)).collect();
        for peer in &mut peers[..5] {
            peer.slept = true;
            peer.unchoked_at = Some(at(95));
        }
        let served = choker(3).rank(at(100), Goal::Seed, &peers);
        assert!(served[..3].iter().all(|id| id.0 >= 5), "{served:?}");
        let served = choker(8).rank(at(100), Goal::Seed, &peers);
        assert_eq!(served.len(), 8);
        let fetched = choker(3).rank(at(100), Goal::Fetch, &peers);
        assert!(fetched[..3].iter().all(|id| id.0 >= 5), "{fetched:?}");
        // Who sends us something has its slot, whether it uses it or not.
        peers[0].down_rate = 1;
        let fetched = choker(3).rank(at(100), Goal::Fetch, &peers);
        assert_eq!(fetched[0], ConnectionId(0));
    }

    #[test]
    fn a_snubbing_peer_gets_no_slot_even_if_one_is_free() {
        let mut peers: Vec<_> = (0..3).map(|number| peer(number, 10)).collect();
        peers[0].snubbed = true;
        peers[1].snubbed = true;
        let served = choker(4).rank(at(0), Goal::Fetch, &peers);
        // One of the two may try as the optimistic one.
        assert_eq!((served.len(), served[0]), (2, ConnectionId(2)));
        let seeded = choker(4).rank(at(0), Goal::Seed, &peers);
        assert_eq!(seeded.len(), 3);
    }
}
