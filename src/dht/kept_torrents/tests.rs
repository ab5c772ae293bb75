use proptest::prelude::*;

use super::*;

const INTERVAL: Duration = Duration::from_secs(900);
const GOOD: Outcome = Outcome {
    answered: 8,
    stored: 8,
    is_early: false,
};
const NOBODY: Outcome = Outcome {
    answered: 0,
    stored: 0,
    is_early: false,
};
/// Announces under way at once, where that does not matter.
const MANY: usize = 1_000;

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1_000)
}

fn torrent(number: u32) -> InfoHash {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    InfoHash::new(bytes)
}

/// Torrents, and what draws their order.
struct Keeper {
    kept: KeptTorrents,
    random: Random,
    last: u64,
}

impl Keeper {
    fn new() -> Self {
        Self {
            kept: KeptTorrents::new(INTERVAL),
            random: Random::from_seed(1),
            last: 0,
        }
    }

    fn keep(&mut self, now: Instant, number: u32, kind: PeerKind) -> LookupId {
        self.last += 1;
        let torrent = (torrent(number), PeerPort::Implied, kind);
        self.kept
            .keep(now, &mut self.random, torrent, LookupId(self.last))
    }

    fn filled(torrents: u32) -> Self {
        let mut keeper = Self::new();
        for number in 0..torrents {
            keeper.keep(at(0), number, PeerKind::Seed);
        }
        keeper
    }

    fn done(&mut self, now: Instant, due: &Due, outcome: Outcome) {
        let random = &mut self.random;
        self.kept
            .on_done(now, random, due.info_hash, due.lookup, outcome);
    }

    /// Announces whatever is due until then, each in no time; when and which.
    fn run(&mut self, until: Instant, outcome: Outcome) -> Vec<(Instant, InfoHash)> {
        let mut announced = Vec::new();
        let mut now = Instant::ZERO;
        while let Some(next) = self.kept.next(MANY).filter(|next| *next <= until) {
            now = now.max(next);
            let due = self
                .kept
                .take_due(now, MANY)
                .expect("a wake-up has a reason");
            announced.push((now, due.info_hash));
            self.done(now, &due, outcome);
        }
        announced
    }
}

#[test]
fn a_few_torrents_are_announced_at_once_and_again_every_15_minutes() {
    let mut keeper = Keeper::filled(3);
    let announced = keeper.run(at(1_900_000), GOOD);
    let times: Vec<_> = announced.iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(times, [0, 0, 0, 900, 900, 900, 1800, 1800, 1800]);
}

#[test]
fn a_hundred_thousand_take_26_minutes_in_an_order_that_is_not_that_of_their_ids() {
    let mut keeper = Keeper::filled(100_000);
    let lap = Duration::from_secs(27 * 60);
    let announced = keeper.run(Instant::ZERO + lap * 2, GOOD);
    let first = |number| {
        let of = announced.iter().filter(|(_, it)| *it == torrent(number));
        of.map(|(at, _)| *at).collect::<Vec<_>>()
    };
    for number in (0..100_000).step_by(5_000) {
        let times = first(number);
        assert!(times.len() >= 2 && times[0] < Instant::ZERO + lap);
        for two in times.windows(2) {
            let between = two[1].saturating_since(two[0]);
            assert!(between < lap && between >= INTERVAL, "{between:?}");
        }
    }
    let mut seconds = vec![0; 60 * 27];
    for (at, _) in &announced {
        if let Some(count) = seconds.get_mut(usize::try_from(at.as_secs()).unwrap()) {
            *count += 1;
        }
    }
    let busiest = seconds.iter().max().unwrap();
    assert!((64..=64 + 4).contains(busiest), "{busiest}");
    let is_rising = |two: &&[(Instant, InfoHash)]| two[0].1 < two[1].1;
    let rising = announced.windows(2).filter(is_rising).count();
    assert!((announced.len() * 4 / 10..announced.len() * 6 / 10).contains(&rising));
}

#[test]
fn new_ones_come_first_until_the_others_are_late_and_then_they_take_turns() {
    let mut keeper = Keeper::filled(60_000);
    keeper.run(at(1_200_000), GOOD);
    for number in 60_000..100_000 {
        keeper.keep(at(1_200_000), number, PeerKind::Peer);
    }
    let mut count = |from: u64| {
        let mut now = at(from);
        let (mut new, mut old) = (0, 0);
        for _ in 0..1_000 {
            now = now.max(keeper.kept.next(MANY).unwrap());
            let due = keeper.kept.take_due(now, MANY).unwrap();
            let is_new = due.kind == PeerKind::Peer;
            (new, old) = (new + u32::from(is_new), old + u32::from(!is_new));
            keeper.done(now, &due, GOOD);
        }
        (new, old)
    };
    assert_eq!(count(1_200_000), (1_000, 0));
    assert_eq!(count(1_900_000), (500, 500));
}

#[test]
fn a_torrent_that_is_named_again_is_announced_soon_under_the_same_number() {
    let mut keeper = Keeper::new();
    let lookup = keeper.keep(at(0), 1, PeerKind::Peer);
    assert_eq!(keeper.keep(at(0), 1, PeerKind::Peer), lookup);
    let due = keeper.kept.take_due(at(0), MANY).unwrap();
    assert_eq!((due.lookup, due.kind), (lookup, PeerKind::Peer));
    assert_eq!(keeper.kept.next(MANY), None);
    // While it is being announced, and after that.
    assert_eq!(keeper.keep(at(1), 1, PeerKind::Seed), lookup);
    assert_eq!(keeper.kept.next(MANY), None);
    keeper.done(at(300), &due, GOOD);
    let due = keeper.kept.take_due(at(300), MANY).unwrap();
    assert_eq!((due.lookup, due.kind), (lookup, PeerKind::Seed));
    keeper.done(at(600), &due, GOOD);
    assert_eq!(keeper.kept.next(MANY), Some(at(900_600)));
    keeper.keep(at(10_000), 1, PeerKind::Peer);
    assert!(keeper.kept.take_due(at(10_000), MANY).is_some());
}

#[test]
fn one_that_few_nodes_stored_is_repeated_with_pauses_that_double() {
    let few = Outcome {
        answered: 3,
        stored: 3,
        is_early: false,
    };
    let seconds = |outcome| -> Vec<u32> {
        let announced = Keeper::filled(1).run(at(1_500_000), outcome);
        announced.iter().map(|(at, _)| at.as_secs()).collect()
    };
    assert_eq!(seconds(few), [0, 5, 15, 35, 75, 155, 315, 635, 1275]);
    assert_eq!(seconds(NOBODY)[..6], [0, 5, 15, 35, 75, 120]);
    let mut keeper = Keeper::filled(1);
    keeper.run(at(300_000), few);
    keeper.run(at(315_000), GOOD);
    assert_eq!(keeper.kept.next(MANY), Some(at(1_215_000)));
}

#[test]
fn one_that_a_new_node_announced_is_repeated_soon_and_then_as_any() {
    let early = Outcome {
        is_early: true,
        ..GOOD
    };
    let mut keeper = Keeper::filled(1);
    assert_eq!(keeper.run(at(1_000), early).len(), 1);
    assert_eq!(keeper.kept.next(MANY), Some(at(180_000)));
    keeper.run(at(180_000), GOOD);
    assert_eq!(keeper.kept.next(MANY), Some(at(1_080_000)));
}

#[test]
fn one_that_is_withdrawn_is_announced_no_more() {
    let mut keeper = Keeper::filled(2);
    let due = keeper.kept.take_due(at(0), MANY).unwrap();
    assert_eq!(keeper.kept.withdraw(due.info_hash), Some(due.lookup));
    keeper.kept.on_given_up();
    assert_eq!(keeper.kept.withdraw(due.info_hash), None);
    assert_eq!(keeper.run(at(800_000), GOOD).len(), 1);
    let left = [0, 1].map(torrent).into_iter();
    let left: Vec<_> = left.filter(|it| keeper.kept.get(*it).is_some()).collect();
    assert_eq!(left.len(), 1);
    keeper.kept.withdraw(left[0]);
    assert_eq!((keeper.kept.next(MANY), keeper.kept.len()), (None, 0));
    assert!(keeper.kept.soon.is_empty() && keeper.kept.later.is_empty());
}

#[test]
fn no_more_run_at_once_than_may() {
    let mut keeper = Keeper::filled(100);
    let mut due = Vec::new();
    for secs in 0..100 {
        due.extend(keeper.kept.take_due(at(secs * 1_000), 8));
    }
    assert_eq!(due.len(), 8);
    assert_eq!(keeper.kept.next(8), None);
    keeper.done(at(100_000), &due[0], NOBODY);
    assert!(keeper.kept.take_due(at(100_000), 8).is_some());
}

#[test]
fn a_network_that_returns_causes_no_burst() {
    let mut keeper = Keeper::filled(5_000);
    keeper.run(at(600_000), NOBODY);
    // Nothing could be announced for half an hour; then all are overdue.
    let late = at(2_400_000);
    let mut started = 0;
    let mut now = late;
    while now < late + Duration::from_secs(10) {
        now = now.max(keeper.kept.next(MANY).unwrap());
        let due = keeper.kept.take_due(now, MANY).unwrap();
        keeper.done(now, &due, GOOD);
        started += 1;
    }
    // 5,000 in 15 minutes are 5.6 a second.
    assert!((50..=62).contains(&started), "{started}");
}

proptest! {
    #[test]
    fn announces_are_apart_and_nobody_starves(
        torrents in 1u32..300,
        steps in prop::collection::vec((0u64..20_000, 0u8..10, any::<u32>()), 1..200),
    ) {
        let mut keeper = Keeper::filled(torrents);
        let (mut now, mut started, mut running) = (at(0), Vec::new(), Vec::new());
        for (pause, action, number) in steps {
            now += Duration::from_millis(pause);
            match action {
                0 => { keeper.keep(now, number % 300, PeerKind::Peer); }
                1 => {
                    let info_hash = torrent(number % 300);
                    keeper.kept.withdraw(info_hash);
                    let before = running.len();
                    running.retain(|due: &Due| due.info_hash != info_hash);
                    if running.len() < before { keeper.kept.on_given_up(); }
                }
                2 | 3 => for due in running.drain(..) { keeper.done(now, &due, NOBODY) },
                4 | 5 => for due in running.drain(..) { keeper.done(now, &due, GOOD) },
                _ => {}
            }
            while let Some(due) = keeper.kept.take_due(now, 50) {
                prop_assert!(!running.contains(&due));
                running.push(due);
                started.push(now);
            }
            prop_assert!(running.len() <= 50);
            prop_assert!(keeper.kept.next(50).is_none_or(|next| next > now));
            let waiting = keeper.kept.soon.len() + keeper.kept.later.len();
            prop_assert_eq!(waiting + running.len(), keeper.kept.len());
        }
        // In the time between any two starts there is room for the others between them.
        let burst = usize::try_from(BURST).unwrap();
        for few in started.windows(burst + 1) {
            prop_assert!(few[burst].saturating_since(few[0]) >= SPACING_MIN);
        }
        // From now on all goes well: each is announced within an interval and a lap.
        for due in running.drain(..) { keeper.done(now, &due, GOOD) }
        let until = now + INTERVAL * 2;
        let announced = keeper.run(until, GOOD);
        for info_hash in keeper.kept.torrents.keys() {
            prop_assert!(announced.iter().any(|(_, it)| it == info_hash));
        }
    }
}
