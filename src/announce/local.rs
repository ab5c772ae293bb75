//! When which torrents are announced in the local network (BEP 14).
//!
//! Invariant: between two announces of a torrent are [`INTERVAL`] or more, and between two datagrams
//! [`DATAGRAM_INTERVAL`].

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::InfoHash;
use crate::time::Instant;

/// Time between announces of one torrent (BEP 14).
pub const INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Time between datagrams (BEP 14: no more than one announce a minute).
pub const DATAGRAM_INTERVAL: Duration = Duration::from_secs(60);

/// How long a torrent waits for others that start with it, to go into one datagram with them.
const GATHER: Duration = Duration::from_millis(500);

/// Torrents that take turns at most; further ones are not announced. Ours: 20 go into a datagram, so all of
/// them take less than an hour and a half.
const TORRENTS_MAX: usize = 1_600;

/// Which torrent is due when.
#[derive(Debug, Default)]
pub struct LocalSchedule {
    due: BTreeMap<InfoHash, Instant>,
    /// When the next datagram may leave.
    open_at: Instant,
}

impl LocalSchedule {
    /// Takes over which torrents there are. New ones are due soon.
    pub fn set_torrents<'a>(
        &mut self,
        now: Instant,
        torrents: impl IntoIterator<Item = &'a InfoHash>,
    ) {
        let mut due = BTreeMap::new();
        for &info_hash in torrents.into_iter().take(TORRENTS_MAX) {
            let known = self.due.get(&info_hash).copied();
            due.insert(info_hash, known.unwrap_or(now + GATHER));
        }
        self.due = due;
    }

    /// When something can be announced.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let first = self.due.values().min()?;
        Some((*first).max(self.open_at))
    }

    /// The torrents of the datagram that leaves now, `max` at most and the longest overdue first; none if
    /// it is not the time.
    pub fn take_due(&mut self, now: Instant, max: usize) -> Vec<InfoHash> {
        if now < self.open_at {
            return Vec::new();
        }
        let due = self.due.iter().filter(|(_, at)| **at <= now);
        let mut due: Vec<(Instant, InfoHash)> = due.map(|(hash, at)| (*at, *hash)).collect();
        due.sort_unstable();
        due.truncate(max);
        for (_, info_hash) in &due {
            self.due.insert(*info_hash, now + INTERVAL);
        }
        if !due.is_empty() {
            self.open_at = now + DATAGRAM_INTERVAL;
        }
        due.into_iter().map(|(_, info_hash)| info_hash).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(range: std::ops::Range<u8>) -> Vec<InfoHash> {
        range.map(|byte| InfoHash::new([byte; 20])).collect()
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_torrent_is_announced_once_in_five_minutes() {
        let mut schedule = LocalSchedule::default();
        assert_eq!(schedule.poll_timeout(), None);
        let mut times = Vec::new();
        let mut now = at(0);
        while now < at(1000) {
            schedule.set_torrents(now, &hashes(0..1));
            now = schedule.poll_timeout().unwrap();
            assert_eq!(schedule.take_due(now, 20), hashes(0..1));
            assert!(schedule.take_due(now, 20).is_empty());
            times.push(now.saturating_since(at(0)).as_secs());
        }
        assert_eq!(times, [0, 300, 600, 900, 1200]);
    }

    #[test]
    fn many_torrents_take_turns_a_datagram_a_minute() {
        let mut schedule = LocalSchedule::default();
        schedule.set_torrents(at(0), &hashes(0..50));
        let mut seen = Vec::new();
        for (minute, count) in [20, 20, 10, 0, 0].into_iter().enumerate() {
            let now = at(1 + 60 * u64::try_from(minute).unwrap());
            let some = schedule.take_due(now, 20);
            assert_eq!(some.len(), count);
            assert!(
                schedule
                    .take_due(now + Duration::from_secs(59), 20)
                    .is_empty()
            );
            seen.extend(some);
        }
        seen.sort_unstable();
        assert_eq!(seen, hashes(0..50));
    }

    #[test]
    fn a_torrent_that_goes_is_announced_no_more_and_a_new_one_soon() {
        let mut schedule = LocalSchedule::default();
        schedule.set_torrents(at(0), &hashes(0..2));
        assert_eq!(schedule.take_due(at(1), 20), hashes(0..2));
        schedule.set_torrents(at(2), &hashes(1..3));
        assert_eq!(schedule.poll_timeout(), Some(at(61)));
        assert_eq!(schedule.take_due(at(61), 20), hashes(2..3));
        schedule.set_torrents(at(62), &[]);
        assert_eq!(schedule.poll_timeout(), None);
    }

    #[test]
    fn no_more_torrents_are_kept_than_may_be() {
        let mut schedule = LocalSchedule::default();
        let many: Vec<InfoHash> = (0..2_000u16)
            .map(|number| {
                let mut bytes = [0; 20];
                bytes[..2].copy_from_slice(&number.to_be_bytes());
                InfoHash::new(bytes)
            })
            .collect();
        schedule.set_torrents(at(0), &many);
        assert_eq!(schedule.due.len(), TORRENTS_MAX);
    }
}
