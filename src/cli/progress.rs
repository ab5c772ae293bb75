//! What a user sees while torrents run: a bar on a terminal, a line now and then elsewhere.
//!
//! The texts explain waiting: each says which step the torrent is at and why it does not go on.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::args::Global;
use super::print::{count, duration, escape, is_interactive, note, number, rate, shorten, size};
use super::trackers::{announced_text, tracker_json, trackers_text};
use crate::id::ID_LENGTH;
use crate::session::{DhtProgress, Problem, TorrentHandle, TorrentStatus};
use crate::swarm::{State, Stats};
use crate::time::Instant;

/// Least time between two lines where there is no terminal, and until the first.
const LINE_INTERVAL_MIN: Duration = Duration::from_secs(5);

/// Longest time between two lines while the state stays the same: a journal is kept for weeks.
const LINE_INTERVAL_MAX: Duration = Duration::from_secs(5 * 60);

/// Reasons listed for peers that failed.
const REASONS_MAX: usize = 4;

/// Characters of a name beside a bar, so that 80 columns have room for what changes.
const NAME_LENGTH_MAX: usize = 20;

/// Characters of a name without a bar, where more is told, and of an info hash that stands for one.
const SHORT_NAME_LENGTH_MAX: usize = 9;

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
    lines: Option<Lines>,
}

/// When the next line is due where there is no terminal: after a change of state, and else ever more seldom.
#[derive(Debug)]
struct Lines {
    /// Nothing is told before.
    earliest: Instant,
    /// When something is told even if nothing has changed.
    latest: Instant,
    interval: Duration,
    told: Option<State>,
}

impl Lines {
    fn new(now: Instant) -> Self {
        let first = now + LINE_INTERVAL_MIN;
        Self {
            earliest: first,
            latest: first,
            interval: LINE_INTERVAL_MIN,
            told: None,
        }
    }

    /// Whether a line is due; then it counts as told.
    fn is_due(&mut self, now: Instant, state: State) -> bool {
        let has_changed = self.told.is_some_and(|told| told != state);
        if now < self.earliest || (now < self.latest && !has_changed) {
            return false;
        }
        self.interval = (self.interval * 2).min(LINE_INTERVAL_MAX);
        self.earliest = now + LINE_INTERVAL_MIN;
        self.latest = now + self.interval;
        self.told = Some(state);
        true
    }
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
        Row {
            bar,
            is_transfer: false,
            lines: self.lines.then(|| Lines::new(now)),
        }
    }

    /// Prints something else without tearing the bars.
    pub(super) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }
}

/// A bar for a torrent that has no length yet, or waits.
fn waiting_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix} {wide_msg}")
        .expect("the template is well-formed")
}

/// A bar for a torrent that is being fetched.
fn transfer_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix} {bar:10} {percent:>3}% {wide_msg}")
        .expect("the template is well-formed")
}

/// A name as it stands before what changes.
fn short_name(name: &str, is_transfer: bool) -> String {
    let is_hash = name.len() == 2 * ID_LENGTH && name.bytes().all(|b| b.is_ascii_hexdigit());
    let length = if is_transfer && !is_hash {
        NAME_LENGTH_MAX
    } else {
        SHORT_NAME_LENGTH_MAX
    };
    shorten(&escape(name), length).into_owned()
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
            let (done, all) = match status.checking {
                Some((done, all)) => (done.into(), all.into()),
                None => (status.stats.bytes_done, status.stats.bytes_wanted),
            };
            bar.set_length(all);
            bar.set_position(done);
            bar.set_prefix(short_name(name, transfer));
            bar.set_message(describe(status));
        }
        let lines = self.lines.as_mut();
        if lines.is_some_and(|lines| lines.is_due(now, status.state)) {
            let percent = match (status.state, status.checking) {
                (State::Checking, Some((done, all))) => percent(done.into(), all.into()),
                (State::Downloading, _) => {
                    percent(status.stats.bytes_done, status.stats.bytes_wanted)
                }
                _ => String::new(),
            };
            note(&format!("{}: {percent}{}", escape(name), describe(status)));
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.lines = None;
    }
}

/// Whole percents, as they stand before the rest of a line.
fn percent(done: u64, all: u64) -> String {
    let percent = u128::from(done) * 100 / u128::from(all.max(1));
    format!("{percent}% ")
}

/// The `progress` line of a torrent for programs.
pub(super) fn progress_json(torrent: &TorrentHandle, status: &TorrentStatus) -> Value {
    let (stats, dht) = (&status.stats, &status.dht);
    let session: serde_json::Map<String, Value> = status
        .counters
        .iter()
        .map(|(name, number)| (name.to_owned(), number.into()))
        .collect();
    json!({
        "event": "progress",
        "info_hash": torrent.info_hash().to_string(),
        "state": status.state.as_str(),
        "bytes_done": stats.bytes_done,
        "bytes_wanted": stats.bytes_wanted,
        "down_rate": stats.down_rate,
        "up_rate": stats.up_rate,
        "peers": stats.peers_connected,
        "peers_known": stats.peers_known,
        "peers_by_source": stats.sources,
        "peers_dialling": stats.peers_dialling,
        "peers_seeding": stats.peers_seeding,
        "peers_banned": stats.peers_banned,
        "peers_lost": stats.failures,
        "downloaded": stats.downloaded,
        "uploaded": stats.uploaded,
        "wasted": stats.wasted,
        "pieces_done": stats.pieces_done,
        "pieces": stats.pieces,
        "pieces_checked": status.checking.map(|(done, _)| done),
        "seeding_seconds": status.seeding_for.map(|time| time.as_secs_f64()),
        "nodes_known": dht.contacts,
        "nodes_answered": dht.nodes_answered,
        "hops": dht.hops,
        "peers_found": dht.peers_found,
        "stored": dht.stored,
        "tracker_peers": status.trackers.peers_found,
        "trackers": status.trackers.trackers.iter().map(tracker_json).collect::<Vec<_>>(),
        "problem": status.problem.as_ref().map(problem_text),
        "session": session,
    })
}

/// What a torrent does, and why it waits if it does. What matters most comes first: on a narrow
/// terminal the end is cut off.
pub(super) fn describe(status: &TorrentStatus) -> String {
    let stats = &status.stats;
    match status.state {
        State::Metadata => metadata_text(status),
        State::Checking => "looking at what is on disk".to_owned(),
        State::Downloading if stats.peers_connected > 0 => transfer_text(stats),
        State::Downloading => waiting_text(status),
        State::Seeding => seeding_text(status),
        State::Stalled | State::Failed => match &status.problem {
            Some(problem) => problem_text(problem),
            None => "the disk takes nothing, trying again".to_owned(),
        },
    }
}

/// Why a torrent stands still.
pub(super) fn problem_text(problem: &Problem) -> String {
    match problem {
        Problem::Disk(error) => error.to_string(),
        Problem::Selection(error) => error.to_string(),
        Problem::Metadata(error) => format!("the metadata is not acceptable: {error}"),
    }
}

/// Progress of the metadata, or why there is none.
fn metadata_text(status: &TorrentStatus) -> String {
    let stats = &status.stats;
    let waiting = waiting_text(status);
    if stats.peers_connected == 0 {
        format!("metadata: {waiting}")
    } else if stats.metadata_parts == 0 {
        format!("metadata asked for: {waiting}")
    } else {
        let (done, all) = (stats.metadata_parts_done, stats.metadata_parts);
        format!("metadata {done}/{all}: {waiting}")
    }
}

/// Time left, rate, peers, bytes, pieces.
fn transfer_text(stats: &Stats) -> String {
    let left = stats.bytes_wanted.saturating_sub(stats.bytes_done);
    let time = match left.checked_div(stats.down_rate) {
        Some(seconds) => {
            let time = match seconds.max(1) {
                seconds @ ..60 => format!("{seconds}s"),
                seconds => duration(Duration::from_secs(seconds)),
            };
            format!("{time} left, {}", rate(stats.down_rate))
        }
        None if stats.peers_unchoking == 0 => "no peer lets us download yet".to_owned(),
        None => "waiting for data".to_owned(),
    };
    format!(
        "{time}, {}, {} of {}, {} of {}",
        count(u64::from(stats.peers_connected), "peer"),
        size(stats.bytes_done),
        size(stats.bytes_wanted),
        stats.pieces_done,
        count(u64::from(stats.pieces), "piece"),
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
    let announced = match announced_text(&status.trackers) {
        Some(trackers) => format!("{announced}, known to {trackers}"),
        None => announced,
    };
    format!(
        "seeding to {}, {}, {} sent, {announced}",
        count(u64::from(stats.peers_connected), "peer"),
        rate(stats.up_rate),
        size(stats.uploaded),
    )
}

/// How far the search for peers came, and what became of those found.
pub(super) fn waiting_text(status: &TorrentStatus) -> String {
    let stats = &status.stats;
    let lost: u32 = stats.failures.values().sum();
    let tried = lost
        .saturating_add(stats.peers_connected)
        .saturating_add(stats.peers_dialling);
    let mut text = search_text(&status.dht);
    if let Some(trackers) = trackers_text(&status.trackers) {
        text.push_str(", ");
        text.push_str(&trackers);
    }
    if stats.peers_known > 0 || tried > 0 || status.dht.nodes_answered > 0 {
        text.push_str(&format!(
            ", {}: {tried} tried, {} connected",
            count(u64::from(stats.peers_known), "peer"),
            stats.peers_connected,
        ));
    }
    if let Some(failures) = failures_text(stats) {
        text.push_str(&format!(", {failures}"));
    }
    text
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
fn search_text(dht: &DhtProgress) -> String {
    if !dht.enabled {
        return "the DHT is not used".to_owned();
    }
    let known = number(dht.contacts).max(dht.nodes_answered.into());
    if dht.nodes_answered == 0 {
        if let Some(reason) = &dht.bootstrap_failed {
            return format!("no way into the DHT yet: {}", escape(reason));
        }
        return match dht.nodes_silent {
            0 if known == 0 => "looking for a way into the DHT".to_owned(),
            0 => format!("asking {}", count(known, "node")),
            silent => format!(
                "no DHT node answered, {} sent",
                count(silent.into(), "query")
            ),
        };
    }
    format!(
        "{}, {}",
        count(known, "node"),
        count(u64::from(dht.hops), "hop"),
    )
}

/// The whole way a search came, for the end of a download that failed.
pub(super) fn summary_text(status: &TorrentStatus) -> String {
    let (dht, stats) = (&status.dht, &status.stats);
    let search = if dht.enabled {
        let found = match number(dht.peers_found) {
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
    if let Some(trackers) = trackers_text(&status.trackers) {
        text.push_str(&format!("; {trackers}"));
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
    if let Some(problem) = &status.problem {
        text.push_str(&format!("; {}", problem_text(problem)));
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
        TorrentStatus::new(State::Metadata, stats, dht)
    }

    #[track_caller]
    fn check(status: &TorrentStatus, expected: &str) {
        assert_eq!(describe(status), expected);
    }

    #[test]
    fn a_magnet_that_waits_says_how_far_the_lookup_came() {
        let none = waiting(DhtProgress::default(), Stats::default());
        check(&none, "metadata: looking for a way into the DHT");
        let silent = DhtProgress {
            nodes_silent: 3,
            ..DhtProgress::default()
        };
        check(
            &waiting(silent, Stats::default()),
            "metadata: no DHT node answered, 3 queries sent",
        );
        let searching = DhtProgress {
            nodes_answered: 12,
            contacts: 40,
            hops: 3,
            ..DhtProgress::default()
        };
        check(
            &waiting(searching, Stats::default()),
            "metadata: 40 nodes, 3 hops, 0 peers: 0 tried, 0 connected",
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
        let dht = DhtProgress {
            nodes_answered: 1,
            hops: 1,
            ..DhtProgress::default()
        };
        check(
            &waiting(dht, stats),
            "metadata: 1 node, 1 hop, 5 peers: 5 tried, 0 connected, 3 refused, 2 timed out",
        );
    }

    #[test]
    fn metadata_is_counted_in_parts() {
        let stats = Stats {
            peers_known: 3,
            peers_connected: 3,
            metadata_parts: 2,
            metadata_parts_done: 1,
            ..Stats::default()
        };
        let mut status = waiting(DhtProgress::default(), stats);
        status.dht.enabled = false;
        check(
            &status,
            "metadata 1/2: the DHT is not used, 3 peers: 3 tried, 3 connected",
        );
    }

    #[test]
    fn a_transfer_shows_the_time_left_first() {
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
            "10s left, 1.0 MiB/s, 1 peer, 10.0 MiB of 20.0 MiB, 40 of 80 pieces",
        );
    }

    #[test]
    fn lines_come_with_changes_of_state_and_else_ever_more_seldom() {
        let mut lines = Lines::new(Instant::ZERO);
        let mut told = Vec::new();
        for seconds in 0..3600 {
            let state = match seconds {
                0..1000 => State::Downloading,
                1000.. => State::Seeding,
            };
            if lines.is_due(Instant::ZERO + Duration::from_secs(seconds), state) {
                told.push(seconds);
            }
        }
        assert_eq!(told[..8], [5, 15, 35, 75, 155, 315, 615, 915]);
        assert_eq!(told[8..11], [1000, 1300, 1600]);
        let mut wavering = Lines::new(Instant::ZERO);
        let told = (0..100).filter(|seconds| {
            let state = [State::Stalled, State::Downloading][usize::from(seconds % 2 > 0)];
            wavering.is_due(Instant::ZERO + Duration::from_secs(*seconds), state)
        });
        assert!(told.count() <= 20, "no more than one in five seconds");
    }

    #[test]
    fn names_beside_a_bar_are_short() {
        assert_eq!(short_name("film", true), "film");
        assert_eq!(short_name(&"0123abcd".repeat(5), true), "0123abcd…");
        let name = "debian-12.5.0-amd64-netinst.iso";
        assert_eq!(short_name(name, true), "debian-12.5.0-amd64…");
        assert_eq!(short_name(name, false), "debian-1…");
        assert_eq!(percent(1, 3), "33% ");
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
