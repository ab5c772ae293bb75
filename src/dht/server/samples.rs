//! Samples of the torrents whose peers we store (BEP 51).
//!
//! Invariant: within the interval that an answer tells, the sample does not change.

use std::time::Duration;

use crate::dht::peer_store::PeerStore;
use crate::id::ID_LENGTH;
use crate::krpc::{SAMPLE_INTERVAL_MAX_SECS, Samples};
use crate::random::Random;
use crate::time::Instant;

/// Info hashes in a sample. Ours: with them and eight nodes of either family an answer still has
/// less than 1,024 bytes.
pub(in crate::dht) const SAMPLES_MAX: usize = 20;

/// The sample that is handed out.
#[derive(Debug)]
pub(in crate::dht) struct Sampler {
    interval: Duration,
    /// Info hashes, one after the other.
    hashes: Vec<u8>,
    num: u64,
    /// When the next one is drawn.
    until: Instant,
}

impl Sampler {
    /// Nothing was asked for yet.
    pub(in crate::dht) fn new(interval: Duration) -> Self {
        let longest = Duration::from_secs(SAMPLE_INTERVAL_MAX_SECS.into());
        Self {
            interval: interval.min(longest),
            hashes: Vec::new(),
            num: 0,
            until: Instant::ZERO,
        }
    }

    /// The sample. As long as all torrents fit it is always fresh, and the interval 0.
    pub(in crate::dht) fn sample(
        &mut self,
        now: Instant,
        store: &PeerStore,
        random: &mut Random,
    ) -> Samples<'_> {
        if now >= self.until {
            self.draw(store, random);
            self.until = if store.torrent_count() > SAMPLES_MAX {
                now + self.interval
            } else {
                now
            };
        }
        let left = self.until.saturating_since(now);
        let whole = left + Duration::from_micros(999_999);
        Samples {
            interval_secs: u32::try_from(whole.as_secs()).unwrap_or(SAMPLE_INTERVAL_MAX_SECS),
            num: self.num,
            hashes: &self.hashes,
        }
    }

    /// Draws so that each torrent is as likely as any other (reservoir sampling).
    fn draw(&mut self, store: &PeerStore, random: &mut Random) {
        self.hashes.clear();
        self.num = u64::try_from(store.torrent_count()).unwrap_or(u64::MAX);
        for (index, info_hash) in store.info_hashes().enumerate() {
            let place = if index < SAMPLES_MAX {
                self.hashes.extend_from_slice(&[0; ID_LENGTH]);
                index
            } else {
                random.index(index + 1).unwrap_or(0)
            };
            if let Some(place) = self.hashes.chunks_exact_mut(ID_LENGTH).nth(place) {
                place.copy_from_slice(info_hash.as_bytes());
            }
        }
    }

    /// Bytes on the heap.
    pub(in crate::dht) const fn memory_bytes(&self) -> usize {
        self.hashes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::id::InfoHash;

    const HOUR: Duration = Duration::from_secs(3600);

    fn store(torrents: u8) -> PeerStore {
        let mut store = PeerStore::new(1000, 10, HOUR);
        for number in 0..torrents {
            let peer = ([10, 0, 0, 1], 1).into();
            store.announce(Instant::ZERO, InfoHash::new([number; 20]), peer);
        }
        store
    }

    #[test]
    fn a_few_torrents_are_all_told_and_always_fresh() {
        let (mut sampler, mut random) = (Sampler::new(HOUR), Random::from_seed(1));
        for torrents in [0, 1, 20] {
            let samples = sampler.sample(Instant::ZERO, &store(torrents), &mut random);
            assert_eq!(samples.iter().count(), usize::from(torrents));
            assert_eq!((samples.num, samples.interval_secs), (torrents.into(), 0));
        }
    }

    #[test]
    fn a_sample_of_many_stays_for_the_interval_that_is_told() {
        let (mut sampler, mut random) = (Sampler::new(HOUR), Random::from_seed(1));
        let store = store(200);
        let first = sampler.sample(Instant::ZERO, &store, &mut random);
        assert_eq!((first.num, first.interval_secs), (200, 3600));
        let first = first.hashes.to_vec();
        assert_eq!(first.len(), 400);
        let half = Instant::ZERO + HOUR / 2;
        let again = sampler.sample(half, &store, &mut random);
        assert_eq!((again.hashes, again.interval_secs), (&first[..], 1800));
        let later = sampler.sample(Instant::ZERO + HOUR, &store, &mut random);
        assert_ne!(later.hashes, first);
    }

    #[test]
    fn each_torrent_is_as_likely_as_any_other() {
        let (mut sampler, mut random) = (Sampler::new(HOUR), Random::from_seed(2));
        let store = store(100);
        let mut seen: BTreeMap<InfoHash, u32> = BTreeMap::new();
        for hour in 0..1000 {
            let now = Instant::ZERO + HOUR * hour;
            for info_hash in sampler.sample(now, &store, &mut random).iter() {
                *seen.entry(info_hash).or_default() += 1;
            }
        }
        assert_eq!(seen.len(), 100);
        // 200 each, with a standard deviation of about 13.
        assert!(seen.values().all(|count| (140..260).contains(count)));
    }

    #[test]
    fn the_interval_is_at_most_six_hours() {
        let (mut sampler, mut random) = (Sampler::new(HOUR * 100), Random::from_seed(1));
        let samples = sampler.sample(Instant::ZERO, &store(50), &mut random);
        assert_eq!(samples.interval_secs, 21_600);
    }
}
