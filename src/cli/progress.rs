//! What a user sees while torrents run: a bar on a terminal, a line now and then elsewhere.
//!
//! The texts explain waiting: each says which step the torrent is at and why it does not go on.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::args::Global;
use super::print::{count, duration, escape, is_interactive, note, rate, size};
use crate::session::{DhtProgress, Problem, TorrentHandle, TorrentStatus};
use crate::swarm::{State, Stats};
use crate::time::Instant;

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Reasons listed for peers that failed.
const REASONS_MAX: usize = 4;

/// Where progress goes.
#[derive(Debug)]
pub(super) struct Display {
    bars: Option<MultiProgress>,
    lines: bool,
}

/// The progress of one torrent.
#[derive(Debug)]
pub(super) struct Row {
    bar: Option<ProgressBar>,
    /// Whether the bar has the style of a transfer.
    is_transfer: bool,
    lines: bool,
    next_line: Instant,
}

impl Display {
    /// Bars on a terminal, lines elsewhere, nothing with `--quiet`; programs that read JSON get no
    /// lines.
    pub(super) fn new(global: &Global) -> Self {
        let loud = global.quiet == 0;
        let bars = (loud && is_interactive()).then(MultiProgress::new);
        Self {
            lines: loud && bars.is_none() && !global.json,
            bars,
        }
    }

    /// Progress of one more torrent, whose first line comes a while after `now`.
    pub(super) fn row(&self, now: Instant) -> Row {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            bar.set_style(waiting_style());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let next_line = now + LINE_INTERVAL;
        Row {
            bar,
            is_transfer: false,
            lines: self.lines,
            next_line,
        }
    }

    /// Prints something else without tearing the bars.
    pub(super) fn suspend(&self, print: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }
}

/// A bar for a torrent that has no length yet, or waits.
fn waiting_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is well-formed")
}

/// A bar for a torrent that is being fetched.
fn transfer_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {bar:24} {percent:>3}% {wide_msg}")
        .expect("the template is well-formed")
}

impl Row {
    /// Shows the latest state.
    pub(super) fn update(&mut self, now: Instant, name: &str, status: &TorrentStatus) {
        if let Some(bar) = &self.bar {
            let transfer = matches!(status.state, State::Downloading | State::Checking);
            if transfer != self.is_transfer {
                bar.set_style(if transfer {
                    transfer_style()
                } else {
                    waiting_style()
                });
                self.is_transfer = transfer;
            }
            bar.set_length(status.stats.bytes_wanted);
            bar.set_position(status.stats.bytes_done);
            bar.set_message(format!("{}: {}", escape(name), describe(status)));
        }
        if self.lines && now >= self.next_line {
            self.next_line = now + LINE_INTERVAL;
            let percent = match status.state {
                State::Downloading => format!("{}% ", percent(&status.stats)),
                State::Metadata | State::Checking | State::Seeding | State::Failed => String::new(),
            };
            note(&format!("{}: {percent}{}", escape(name), describe(status)));
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.lines = false;
    }
}

/// Whole percents of the wanted bytes that are there.
fn percent(stats: &Stats) -> u64 {
    let percent = u128::from(stats.bytes_done) * 100 / u128::from(stats.bytes_wanted.max(1));
    u64::try_from(percent).unwrap_or(100)
}

/// The `progress` line of a torrent for programs.
pub(super) fn progress_json(torrent: &TorrentHandle, status: &TorrentStatus) -> Value {
    json!({
        "event": "progress",
        "info_hash": torrent.info_hash().to_string(),
        "state": state_name(status.state),
        "bytes_done": status.stats.bytes_done,
        "bytes_wanted": status.stats.bytes_wanted,
        "down_rate": status.stats.down_rate,
        "up_rate": status.stats.up_rate,
        "peers": status.stats.peers_connected,
        "peers_known": status.stats.peers_known,
        "uploaded": status.stats.uploaded,
        "nodes_answered": status.dht.nodes_answered,
        "hops": status.dht.hops,
        "peers_found": status.dht.peers_found,
        "stored": status.dht.stored,
    })
}

/// The word for a phase in JSON.
fn state_name(state: State) -> &'static str {
    match state {
        State::Metadata => "metadata",
        State::Checking => "checking",
        State::Downloading => "downloading",
        State::Seeding => "seeding",
        State::Failed => "failed",
    }
}

/// What a torrent does, and why it waits if it does.
pub(super) fn describe(status: &TorrentStatus) -> String {
    let stats = &status.stats;
    match status.state {
        State::Metadata if stats.peers_connected > 0 => metadata_text(stats),
        State::Metadata => peers_text(status),
        State::Checking => "looking at what is on disk".to_owned(),
        State::Downloading if stats.peers_connected > 0 => transfer_text(stats),
        State::Downloading => {
            format!(
                "{} of {}, {}",
                stats.pieces_done,
                pieces(stats),
                peers_text(status)
            )
        }
        State::Seeding => seeding_text(status),
        State::Failed => match &status.problem {
            Some(problem) => problem_text(problem),
            None => "the disk failed".to_owned(),
        },
    }
}

/// Why a torrent stands still.
pub(super) fn problem_text(problem: &Problem) -> String {
    match problem {
        Problem::Disk(error) => error.to_string(),
        Problem::Metadata(error) => format!("the metadata is not acceptable: {error}"),
    }
}

/// `800 pieces`.
fn pieces(stats: &Stats) -> String {
    count(u64::from(stats.pieces), "piece")
}

/// Progress of the metadata.
fn metadata_text(stats: &Stats) -> String {
    let peers = count(u64::from(stats.peers_connected), "peer");
    if stats.metadata_parts == 0 {
        format!("asking {peers} for the metadata, its size is not known yet")
    } else {
        let (done, all) = (stats.metadata_parts_done, stats.metadata_parts);
        format!("asking {peers} for the metadata, {done}/{all} parts")
    }
}

/// Rate, peers, pieces, time left.
fn transfer_text(stats: &Stats) -> String {
    let left = stats.bytes_wanted.saturating_sub(stats.bytes_done);
    let time = match left.checked_div(stats.down_rate) {
        Some(seconds) => format!("{} left", duration(Duration::from_secs(seconds.max(1)))),
        None if stats.peers_unchoking == 0 => "no peer lets us download yet".to_owned(),
        None => "waiting for data".to_owned(),
    };
    format!(
        "{} of {}, {}, {}, {}/{} pieces, {time}",
        size(stats.bytes_done),
        size(stats.bytes_wanted),
        rate(stats.down_rate),
        count(u64::from(stats.peers_connected), "peer"),
        stats.pieces_done,
        stats.pieces,
    )
}

/// Whom we serve and who can find us.
fn seeding_text(status: &TorrentStatus) -> String {
    let stats = &status.stats;
    let announced = match status.dht.stored {
        _ if !status.dht.enabled => "DHT off".to_owned(),
        0 if status.dht.searching => "announcing in the DHT".to_owned(),
        0 => "no DHT node stored the announce yet".to_owned(),
        stored => format!("announced at {}", count(u64::from(stored), "DHT node")),
    };
    format!(
        "seeding to {}, {}, {} sent, {announced}",
        count(u64::from(stats.peers_connected), "peer"),
        rate(stats.up_rate),
        size(stats.uploaded),
    )
}

/// Why nobody is connected: not found, not reached yet, or failed.
pub(super) fn peers_text(status: &TorrentStatus) -> String {
    let stats = &status.stats;
    if stats.peers_dialling > 0 {
        let of = count(u64::from(stats.peers_known), "peer");
        let tried = match failures_text(stats) {
            Some(failures) => format!(" ({failures})"),
            None => String::new(),
        };
        format!("connecting to {} of {of}{tried}", stats.peers_dialling)
    } else if let Some(failures) = failures_text(stats) {
        format!(
            "{} known, tried: {failures}",
            count(u64::from(stats.peers_known), "peer")
        )
    } else {
        search_text(&status.dht)
    }
}

/// `3 refused, 2 timed out`, most frequent first; `None` when nothing failed.
fn failures_text(stats: &Stats) -> Option<String> {
    let mut failures: Vec<(&String, &u32)> = stats.failures.iter().collect();
    failures.sort_by_key(|&(_, number)| std::cmp::Reverse(*number));
    let texts: Vec<String> = failures
        .into_iter()
        .take(REASONS_MAX)
        .map(|(reason, number)| format!("{number} {reason}"))
        .collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// How far the search in the DHT came.
pub(super) fn search_text(dht: &DhtProgress) -> String {
    if !dht.enabled {
        return "waiting for peers, the DHT is not used".to_owned();
    }
    if dht.nodes_answered == 0 {
        if let Some(reason) = &dht.bootstrap_failed {
            return format!("no way into the DHT yet: {}", escape(reason));
        }
        return match dht.nodes_silent {
            0 if dht.contacts == 0 => "looking for a way into the DHT".to_owned(),
            0 => format!("asking {} for peers", count(size_of_table(dht), "DHT node")),
            silent => format!("no DHT node answered, {silent} asked"),
        };
    }
    format!(
        "looking for peers: {} answered, {}, {} found",
        count(u64::from(dht.nodes_answered), "node"),
        count(u64::from(dht.hops), "hop"),
        count(u64::try_from(dht.peers_found).unwrap_or(u64::MAX), "peer"),
    )
}

/// Contacts as a number to print.
fn size_of_table(dht: &DhtProgress) -> u64 {
    u64::try_from(dht.contacts).unwrap_or(u64::MAX)
}

/// The whole way a search came, for the end of a download that failed.
pub(super) fn summary_text(status: &TorrentStatus) -> String {
    let (dht, stats) = (&status.dht, &status.stats);
    let search = if dht.enabled {
        let found = match u64::try_from(dht.peers_found).unwrap_or(u64::MAX) {
            0 => "no peer was found".to_owned(),
            found => format!("{} found", count(found, "peer")),
        };
        format!(
            "{} answered, the lookup came {} far, {found}",
            count(u64::from(dht.nodes_answered), "DHT node"),
            count(u64::from(dht.hops), "hop"),
        )
    } else {
        "the DHT was not used".to_owned()
    };
    let mut text = search;
    if dht.nodes_answered == 0 {
        if let Some(reason) = &dht.bootstrap_failed {
            text.push_str(&format!(" ({reason})"));
        } else if dht.nodes_silent > 0 {
            text.push_str(&format!(" ({} did not answer)", dht.nodes_silent));
        }
    }
    if let Some(failures) = failures_text(stats) {
        text.push_str(&format!("; peers: {failures}"));
    }
    if stats.peers_connected > 0 {
        text.push_str(&format!(
            "; {} connected",
            count(stats.peers_connected.into(), "peer")
        ));
    }
    if stats.bytes_wanted > 0 {
        let (done, wanted) = (size(stats.bytes_done), size(stats.bytes_wanted));
        text.push_str(&format!("; {done} of {wanted} are there"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(dht: DhtProgress, stats: Stats) -> TorrentStatus {
        let dht = DhtProgress {
            enabled: true,
            ..dht
        };
        TorrentStatus {
            state: State::Metadata,
            stats,
            dht,
            problem: None,
        }
    }

    #[track_caller]
    fn check(status: &TorrentStatus, expected: &str) {
        assert_eq!(describe(status), expected);
    }

    #[test]
    fn a_magnet_that_waits_says_how_far_the_lookup_came() {
        let none = waiting(DhtProgress::default(), Stats::default());
        check(&none, "looking for a way into the DHT");
        let silent = DhtProgress {
            nodes_silent: 3,
            ..DhtProgress::default()
        };
        check(
            &waiting(silent, Stats::default()),
            "no DHT node answered, 3 asked",
        );
        let searching = DhtProgress {
            nodes_answered: 12,
            hops: 3,
            ..DhtProgress::default()
        };
        check(
            &waiting(searching, Stats::default()),
            "looking for peers: 12 nodes answered, 3 hops, 0 peers found",
        );
    }

    #[test]
    fn a_magnet_that_waits_says_why_peers_failed() {
        let mut stats = Stats {
            peers_known: 5,
            ..Stats::default()
        };
        stats.failures.insert("refused".to_owned(), 3);
        stats.failures.insert("timed out".to_owned(), 2);
        let status = waiting(DhtProgress::default(), stats.clone());
        check(&status, "5 peers known, tried: 3 refused, 2 timed out");
        stats.peers_dialling = 1;
        let status = waiting(DhtProgress::default(), stats);
        check(
            &status,
            "connecting to 1 of 5 peers (3 refused, 2 timed out)",
        );
    }

    #[test]
    fn metadata_is_counted_in_parts() {
        let stats = Stats {
            peers_connected: 3,
            metadata_parts: 2,
            metadata_parts_done: 1,
            ..Stats::default()
        };
        let status = waiting(DhtProgress::default(), stats);
        check(&status, "asking 3 peers for the metadata, 1/2 parts");
    }

    #[test]
    fn a_transfer_shows_rate_peers_pieces_and_time_left() {
        let stats = Stats {
            bytes_done: 10 << 20,
            bytes_wanted: 20 << 20,
            down_rate: 1 << 20,
            peers_connected: 1,
            pieces_done: 40,
            pieces: 80,
            ..Stats::default()
        };
        let mut status = waiting(DhtProgress::default(), stats);
        status.state = State::Downloading;
        check(
            &status,
            "10.0 MiB of 20.0 MiB, 1.0 MiB/s, 1 peer, 40/80 pieces, 10.0s left",
        );
    }

    #[test]
    fn the_summary_names_nodes_hops_and_peers() {
        let dht = DhtProgress {
            nodes_answered: 1,
            hops: 2,
            ..DhtProgress::default()
        };
        let text = summary_text(&waiting(dht, Stats::default()));
        assert_eq!(
            text,
            "1 DHT node answered, the lookup came 2 hops far, no peer was found"
        );
    }
}
