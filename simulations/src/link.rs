//! How long things take between two hosts, and what gets lost.
//!
//! A host has a place in a plane and an access delay of its own. One-way latency is the distance of
//! the places plus both access delays plus a little jitter: few numbers a host, and triangles that
//! behave as on the Internet. Streams also pass the access links, which send one segment after
//! another.
//!
//! Invariant: integers only. No logarithm or sine of a platform's mathematics library decides when
//! something happens, so a seed gives the same run on every machine.

use std::time::Duration;

use bytes::Bytes;
use trackless::random::Random;
use trackless::time::Instant;

use crate::host::HostId;
use crate::seeds::Seeds;

/// Side of the plane in microseconds of one-way latency. Ours: two random places are 47 ms apart on
/// average, which with the access delays gives a mean round trip of about 145 ms, as between home
/// connections on different continents and on the same one.
const PLANE_SIDE: u32 = 90_000;

/// Access delays in microseconds at 0/16, 1/16 ... 16/16 of the hosts: a log-normal distribution
/// with median 8 ms and sigma 0.7, cut at its 1.4th and 98.6th percentile.
const ACCESS_DELAYS: [u32; 17] = [
    1_710, 2_734, 3_576, 4_299, 4_992, 5_681, 6_399, 7_168, 8_000, 8_928, 10_002, 11_266, 12_823,
    14_886, 17_896, 23_416, 37_320,
];

/// By how much a pair's latency is longer or shorter with [`Spread::LongTail`], in 1/1024, at 0/16 ...
/// 16/16 of the pairs: a log-normal distribution with median 0.93 and sigma 0.62. Routes on the
/// Internet are as far from straight, and some are beyond a full buffer.
const DETOURS: [u32; 17] = [
    244, 368, 467, 549, 627, 703, 782, 864, 952, 1_050, 1_160, 1_289, 1_447, 1_651, 1_943, 2_465,
    3_719,
];

/// How round trips between random hosts are distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spread {
    /// Median 135 ms, 90th percentile 200 ms: homes with good lines.
    #[default]
    Even,
    /// Median 120 ms, 90th percentile 300 ms: the same with a detour for each pair of hosts.
    LongTail,
}

/// Greatest extra delay of one datagram or segment, in microseconds. Ours: what an idle line shows.
const JITTER_MAX: u32 = 2_000;

/// A share of all datagrams, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct PartsPerMillion(pub u32);

/// What links do to datagrams, each to a share of them and each drawn on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Impairments {
    /// Lost.
    pub loss: PartsPerMillion,
    /// Delivered twice, the second one with a jitter of its own.
    pub duplication: PartsPerMillion,
    /// Delayed by up to [`REORDER_MAX`], so that later ones overtake them.
    pub reordering: PartsPerMillion,
    /// Delivered with one byte changed.
    pub corruption: PartsPerMillion,
}

impl Impairments {
    /// Links that do nothing but lose.
    #[must_use]
    pub const fn losing(loss: PartsPerMillion) -> Self {
        Self {
            loss,
            duplication: PartsPerMillion(0),
            reordering: PartsPerMillion(0),
            corruption: PartsPerMillion(0),
        }
    }
}

/// Longest extra delay of a reordered datagram, in microseconds. Ours: more than most round trips.
pub const REORDER_MAX: u32 = 200_000;

/// Where a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    x: u32,
    y: u32,
    /// Microseconds that the host's own line adds in each direction.
    access: u32,
}

impl Place {
    fn draw(random: &mut Random) -> Self {
        Self {
            x: random.below(PLANE_SIDE),
            y: random.below(PLANE_SIDE),
            access: interpolated(&ACCESS_DELAYS, random.next_u32()),
        }
    }

    /// One-way latency to another place, without jitter.
    fn latency(&self, other: &Self) -> Duration {
        let square = |a: u32, b: u32| u64::from(a.abs_diff(b)).pow(2);
        let distance = (square(self.x, other.x) + square(self.y, other.y)).isqrt();
        Duration::from_micros(distance + u64::from(self.access) + u64::from(other.access))
    }
}

/// The value at the share `fraction` / 2^32 of a table of 16 equal shares, interpolated.
fn interpolated(values: &[u32; 17], fraction: u32) -> u32 {
    let step = usize::try_from(fraction >> 28).expect("four bits fit usize");
    let (low, high) = (values[step], values[step + 1]);
    let within = u64::from(fraction & 0x0fff_ffff);
    let added = (u64::from(high - low) * within) >> 28;
    low + u32::try_from(added).expect("a part of a 32-bit difference")
}

/// Of a pair of hosts, the same in both directions: a mix of their numbers (SplitMix64) chooses from
/// [`DETOURS`].
fn detour(a: HostId, b: HostId) -> u32 {
    let pair = u64::from(a.0.min(b.0)) << 32 | u64::from(a.0.max(b.0));
    let mut mixed = pair.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    interpolated(&DETOURS, u32::try_from(mixed >> 32).expect("32 bits"))
}

/// Latency and loss between all hosts.
#[derive(Debug)]
pub struct Links {
    seeds: Seeds,
    places: Vec<Place>,
    spread: Spread,
    impairments: Impairments,
    losses: Random,
    jitters: Random,
    duplications: Random,
    reorderings: Random,
    corruptions: Random,
}

impl Links {
    /// Links with these impairments.
    #[must_use]
    pub fn new(seeds: Seeds, impairments: Impairments) -> Self {
        Self {
            seeds,
            places: Vec::new(),
            spread: Spread::default(),
            impairments,
            losses: seeds.stream("loss", 0),
            jitters: seeds.stream("jitter", 0),
            duplications: seeds.stream("duplication", 0),
            reorderings: seeds.stream("reordering", 0),
            corruptions: seeds.stream("corruption", 0),
        }
    }

    /// Changes what happens to datagrams from now on.
    pub const fn set_impairments(&mut self, impairments: Impairments) {
        self.impairments = impairments;
    }

    /// Changes how far hosts are from each other.
    pub const fn set_spread(&mut self, spread: Spread) {
        self.spread = spread;
    }

    /// Gives the next host a place.
    pub fn add_host(&mut self) {
        let index = u64::try_from(self.places.len()).expect("hosts fit 64 bits");
        let mut random = self.seeds.stream("topology", index);
        self.places.push(Place::draw(&mut random));
    }

    /// One-way latency without jitter; the same in both directions.
    #[must_use]
    pub fn latency(&self, from: HostId, to: HostId) -> Duration {
        let straight = self.places[from.as_usize()].latency(&self.places[to.as_usize()]);
        match self.spread {
            Spread::Even => straight,
            Spread::LongTail => straight * detour(from, to) / 1024,
        }
    }

    /// The extra delay of one datagram or segment.
    pub fn jitter(&mut self) -> Duration {
        Duration::from_micros(u64::from(self.jitters.below(JITTER_MAX)))
    }

    /// Whether the datagram sent now is lost.
    pub fn loses_next(&mut self) -> bool {
        happens(&mut self.losses, self.impairments.loss)
    }

    /// Whether the datagram sent now arrives twice.
    pub fn duplicates_next(&mut self) -> bool {
        happens(&mut self.duplications, self.impairments.duplication)
    }

    /// By how much the datagram sent now is held back.
    pub fn holds_next(&mut self) -> Duration {
        if happens(&mut self.reorderings, self.impairments.reordering) {
            Duration::from_micros(u64::from(self.reorderings.below(REORDER_MAX)))
        } else {
            Duration::ZERO
        }
    }

    /// What arrives of the datagram sent now: the same bytes, or one of them changed.
    pub fn carries_next(&mut self, payload: Bytes) -> Bytes {
        if !happens(&mut self.corruptions, self.impairments.corruption) {
            return payload;
        }
        let mut changed = payload.to_vec();
        if let Some(index) = self.corruptions.index(changed.len()) {
            let [flip, ..] = self.corruptions.below(255).to_le_bytes();
            changed[index] ^= flip + 1;
        }
        changed.into()
    }
}

/// Draws whether something of this probability happens; an impossible thing takes no draw.
fn happens(random: &mut Random, share: PartsPerMillion) -> bool {
    share.0 > 0 && random.below(1_000_000) < share.0
}

/// One direction of an access link: sends one segment after the other.
#[derive(Debug, Clone, Copy)]
pub struct Serialiser {
    bytes_per_second: u64,
    free_at: Instant,
    /// Bytes that passed or are passing.
    total_bytes: u64,
}

impl Serialiser {
    /// A link of this rate, at least 1 byte per second.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            free_at: Instant::ZERO,
            total_bytes: 0,
        }
    }

    /// When the last of `bytes` has passed, if they are handed over now and wait for those before
    /// them.
    pub fn pass(&mut self, now: Instant, bytes: u64) -> Instant {
        let micros = (bytes * 1_000_000).div_ceil(self.bytes_per_second);
        self.free_at = self.free_at.max(now) + Duration::from_micros(micros);
        self.total_bytes += bytes;
        self.free_at
    }

    /// Bytes handed over so far.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.total_bytes
    }
}

/// Rates of the line that connects a host, for streams. Datagrams of the DHT are too few to matter
/// and pass unhindered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessRates {
    /// Bytes per second from the host.
    pub up: u64,
    /// Bytes per second to the host.
    pub down: u64,
}

impl AccessRates {
    /// A line that is never the limit: 10 Gbit/s both ways.
    pub const FAST: Self = Self {
        up: 1_250_000_000,
        down: 1_250_000_000,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(hosts: usize, loss: u32) -> Links {
        let impairments = Impairments::losing(PartsPerMillion(loss));
        let mut links = Links::new(Seeds::new(1), impairments);
        for _ in 0..hosts {
            links.add_host();
        }
        links
    }

    #[test]
    fn latency_is_symmetric_and_of_internet_size() {
        let links = links(200, 0);
        let mut total = Duration::ZERO;
        let mut pairs = 0;
        for from in (0..200).map(HostId) {
            for to in (0..from.0).map(HostId) {
                assert_eq!(links.latency(from, to), links.latency(to, from));
                total += links.latency(from, to);
                pairs += 1;
            }
        }
        let mean = total / pairs;
        assert!(
            (Duration::from_millis(55)..Duration::from_millis(85)).contains(&mean),
            "{mean:?}"
        );
    }

    #[test]
    fn round_trips_have_the_percentiles_that_their_spread_promises() {
        for (spread, median, high) in [
            (Spread::Even, 128..142, 192..212),
            (Spread::LongTail, 115..125, 285..315),
        ] {
            let mut links = Links::new(Seeds::new(1), Impairments::default());
            links.set_spread(spread);
            for _ in 0..2_000 {
                links.add_host();
            }
            let pairs = (0..1_000).map(|host| (HostId(host), HostId(host + 1_000)));
            let round_trip = |(from, to)| 2 * links.latency(from, to).as_millis() + 2;
            let mut all: Vec<u128> = pairs.map(round_trip).collect();
            all.sort_unstable();
            let percentiles = (all[500], all[900]);
            let is_right = median.contains(&percentiles.0) && high.contains(&percentiles.1);
            assert!(is_right, "{spread:?}: {percentiles:?}");
        }
    }

    #[test]
    fn more_hosts_do_not_move_those_before_them() {
        assert_eq!(links(3, 0).places, links(9, 0).places[..3]);
    }

    #[test]
    fn the_wanted_share_of_datagrams_is_lost() {
        let count = |loss| {
            let mut links = links(0, loss);
            (0..100_000).filter(|_| links.loses_next()).count()
        };
        assert_eq!(count(0), 0);
        assert_eq!(count(1_000_000), 100_000);
        assert!((19_000..21_000).contains(&count(200_000)));
    }

    #[test]
    fn the_wanted_shares_are_duplicated_held_back_and_changed() {
        let share = PartsPerMillion(100_000);
        let mut links = Links::new(
            Seeds::new(1),
            Impairments {
                duplication: share,
                reordering: share,
                corruption: share,
                ..Impairments::default()
            },
        );
        let payload = Bytes::from_static(b"abcdefgh");
        let (mut twice, mut held, mut changed) = (0, 0, 0);
        for _ in 0..20_000 {
            twice += u32::from(links.duplicates_next());
            let delay = links.holds_next();
            assert!(delay < Duration::from_micros(u64::from(REORDER_MAX)));
            held += u32::from(delay > Duration::ZERO);
            let carried = links.carries_next(payload.clone());
            let differing = carried.iter().zip(&payload).filter(|(a, b)| a != b);
            let differing = u32::try_from(differing.count()).unwrap();
            assert!(differing <= 1 && carried.len() == payload.len());
            changed += differing;
        }
        for count in [twice, held, changed] {
            assert!((1_850..2_150).contains(&count), "{count}");
        }
        assert!(links.carries_next(Bytes::new()).is_empty());
    }

    #[test]
    fn one_impairment_does_not_shift_the_draws_of_another() {
        let draws = |duplication| {
            let impairments = Impairments {
                duplication: PartsPerMillion(duplication),
                ..Impairments::losing(PartsPerMillion(300_000))
            };
            let mut links = Links::new(Seeds::new(1), impairments);
            let draw = |_| {
                let _ = links.duplicates_next();
                (links.loses_next(), links.jitter())
            };
            (0..100).map(draw).collect::<Vec<_>>()
        };
        assert_eq!(draws(0), draws(500_000));
    }

    #[test]
    fn access_delays_are_interpolated_from_end_to_end() {
        let delay = |fraction| interpolated(&ACCESS_DELAYS, fraction);
        assert_eq!(delay(0), ACCESS_DELAYS[0]);
        assert_eq!(delay(1 << 31), ACCESS_DELAYS[8]);
        assert!((37_300..=37_320).contains(&delay(u32::MAX)));
    }

    #[test]
    fn a_link_sends_one_segment_after_the_other() {
        let mut link = Serialiser::new(1_000);
        let at = Instant::from_micros;
        assert_eq!(link.pass(at(0), 500), at(500_000));
        assert_eq!(link.pass(at(100), 500), at(1_000_000), "waits");
        assert_eq!(link.pass(at(3_000_000), 1), at(3_001_000), "idle before");
        assert_eq!(link.total_bytes(), 1_001);
    }
}
