//! Until when torrents are seeded, and what is said when that is reached.

use std::time::Duration;

use serde_json::json;

use super::args::Global;
use super::print::{duration, escape, note, print_json, size};
use crate::session::{TorrentHandle, TorrentStatus, Totals};

/// Bounds on seeding: with two, what comes first ends it; without any, nothing does.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Bounds {
    /// So many times the wanted content was sent, in earlier runs and this one.
    pub(super) ratio: Option<f64>,
    /// It was seeded for so long in this run.
    pub(super) time: Option<Duration>,
}

impl Bounds {
    /// Whether a torrent was seeded as much as was asked for, with what was sent in `earlier` runs.
    pub(super) fn are_reached(self, status: &TorrentStatus, earlier: Totals) -> bool {
        let stats = &status.stats;
        let uploaded = earlier.uploaded.saturating_add(stats.uploaded);
        let by_time = match (self.time, status.seeding_for) {
            (Some(wanted), Some(time)) => time >= wanted,
            (Some(_) | None, _) => false,
        };
        let by_ratio = self.ratio.is_some_and(|ratio| {
            // A fraction of a byte is of no importance.
            uploaded as f64 >= ratio * stats.bytes_wanted as f64
        });
        by_time || by_ratio
    }
}

/// Says that a torrent is no longer served.
pub(super) fn tell_stopped(
    torrent: &TorrentHandle,
    name: &str,
    status: &TorrentStatus,
    global: &Global,
) {
    let uploaded = status.stats.uploaded;
    let total = torrent.earlier().uploaded.saturating_add(uploaded);
    let time = status.seeding_for.unwrap_or_default();
    if global.json {
        print_json(&json!({
            "event": "stopped",
            "info_hash": torrent.info_hash().to_string(),
            "uploaded": uploaded,
            "uploaded_total": total,
            "seconds": time.as_secs_f64(),
        }));
    } else if global.quiet == 0 {
        let mut text = format!(
            "{}: seeded for {}, {} sent",
            escape(name),
            duration(time),
            size(uploaded)
        );
        if total > uploaded {
            text.push_str(&format!(", {} with earlier runs", size(total)));
        }
        note(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::DhtProgress;
    use crate::swarm::{State, Stats};

    fn status(uploaded: u64) -> TorrentStatus {
        let stats = Stats {
            bytes_wanted: 1_000,
            uploaded,
            ..Stats::default()
        };
        let mut status = TorrentStatus::new(State::Seeding, stats, DhtProgress::default());
        status.seeding_for = Some(Duration::from_secs(60));
        status
    }

    fn bounds(ratio: Option<f64>, seconds: Option<u64>) -> Bounds {
        Bounds {
            ratio,
            time: seconds.map(Duration::from_secs),
        }
    }

    #[test]
    fn seeding_ends_with_the_first_bound_that_is_reached() {
        let before = status(1_499);
        let ends = |bounds: Bounds, status| bounds.are_reached(status, Totals::default());
        assert!(!ends(Bounds::default(), &before));
        assert!(!ends(bounds(Some(1.5), None), &before));
        assert!(!ends(bounds(Some(1.5), Some(61)), &before));
        assert!(ends(bounds(Some(1.5), Some(60)), &before));
        assert!(ends(bounds(Some(1.5), Some(7_200)), &status(1_500)));
    }

    #[test]
    fn what_earlier_runs_sent_counts_for_the_ratio() {
        let earlier = |uploaded| Totals {
            uploaded,
            downloaded: 1_000,
        };
        let once = bounds(Some(1.0), None);
        assert!(!once.are_reached(&status(400), earlier(599)));
        assert!(once.are_reached(&status(400), earlier(600)));
    }
}
