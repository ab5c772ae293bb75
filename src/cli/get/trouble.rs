//! Why a download cannot go on, or did not come to its end, in words for the user.

use std::path::Path;

use crate::cli::print::{Failure, size};
use crate::cli::progress::{problem_text, summary_text};
use crate::metainfo::Info;
use crate::session::{Ended, Problem, TorrentStatus};
use crate::swarm::{DiskErrorKind, State};

/// Why the download cannot go on, if so.
///
/// `has_hosts` says that host names of peers or nodes are being resolved: nothing is hopeless
/// before they are.
pub(super) fn failure(
    name: &str,
    info: Option<&Info>,
    status: &TorrentStatus,
    has_hosts: bool,
) -> Option<Failure> {
    if let Some(problem) = &status.problem
        && let Some(hint) = hint_on(problem)
    {
        let message = format!("{name}: {}", problem_text(problem));
        return Some(Failure::new(message).hint(hint));
    }
    match status.ended {
        Some(Ended::Crashed) => {
            let message = format!("{name}: the download broke off by a mistake in this program");
            let hint = "start it again: what is there is kept. Log lines (-v) help to find it";
            return Some(Failure::new(message).hint(hint));
        }
        Some(Ended::Failed | Ended::Stopped) => {
            return Some(Failure::new(format!("{name}: the download ended")));
        }
        Some(Ended::MetadataKnown) | None => {}
    }
    let waits = matches!(status.state, State::Metadata | State::Downloading);
    (waits && status.dht.no_way_in && !has_hosts).then(|| no_way_in(name, info, status))
}

/// What to do about a problem that does not pass by itself; `None` when it may.
fn hint_on(problem: &Problem) -> Option<&'static str> {
    match problem {
        Problem::Metadata(_) => Some(
            "the torrent itself is broken or of a kind that is not supported; no peer can help",
        ),
        Problem::Selection(_) => Some("see the files of the torrent with --list"),
        Problem::Disk(error) => match error.kind {
            DiskErrorKind::Occupied => Some(
                "other content lies at its place: move it away, or choose another folder with \
                 -o DIR",
            ),
            DiskErrorKind::Denied => Some("choose a folder that you may write to with -o DIR"),
            DiskErrorKind::Unusable => {
                Some("no folder can be made there: choose another one with -o DIR")
            }
            // These may pass by themselves; the session tries again.
            DiskErrorKind::Full
            | DiskErrorKind::Changed
            | DiskErrorKind::Missing
            | DiskErrorKind::Truncated
            | DiskErrorKind::Other => None,
        },
    }
}

/// Nothing could ever be found.
fn no_way_in(name: &str, info: Option<&Info>, status: &TorrentStatus) -> Failure {
    if info.is_some_and(Info::is_private) {
        return Failure::new(format!(
            "{name} is private: its peers come from its trackers only"
        ))
        .hint("leave --no-trackers away, if it names any that can be asked, or give a peer with --peer IP:PORT");
    }
    if !status.dht.enabled {
        return Failure::new(format!(
            "{name}: the DHT is off, and neither a peer nor a tracker is known"
        ))
        .hint("leave --no-dht away, or give a peer with --peer IP:PORT");
    }
    let why = match &status.dht.bootstrap_failed {
        Some(reason) => reason.as_str(),
        None => "no bootstrap node, no saved node and no peer",
    };
    Failure::new(format!("{name}: there is no way into the DHT: {why}"))
        .hint("name a node with --bootstrap HOST:PORT, or a peer with --peer IP:PORT")
}

/// What to say when `--timeout` ran out.
pub(super) fn timed_out(name: &str, waited: &str, status: &TorrentStatus) -> Failure {
    Failure::new(format!(
        "{name} timed out after {waited}: {}",
        summary_text(status)
    ))
    .hint(timeout_hint(status))
}

/// What to do about a download that took too long.
fn timeout_hint(status: &TorrentStatus) -> &'static str {
    let (dht, stats) = (&status.dht, &status.stats);
    if matches!(status.problem, Some(Problem::Disk(_))) {
        "the disk stood in the way: make room, or choose another folder with -o"
    } else if stats.peers_connected == 0 && stats.downloaded > 0 {
        "the peers that sent something are gone: the same command later goes on where this ended"
    } else if stats.peers_known > 0 && stats.peers_connected == 0 {
        "peers are known but none could be reached: they may be offline or behind a firewall"
    } else if dht.enabled && dht.nodes_answered == 0 {
        "no DHT node was reached: is UDP let through? try another --bootstrap HOST:PORT"
    } else if stats.peers_known == 0 {
        "nobody announced this torrent: is the link right, and is somebody seeding it? \
         a known peer can be given with --peer IP:PORT"
    } else {
        "give it more time with --timeout; what is there is kept and not fetched again"
    }
}

/// What to say when the user interrupts a download: what was kept, and how to go on.
pub(super) fn interrupted(name: &str, status: &TorrentStatus, output: &Path) -> Failure {
    let (done, wanted) = (status.stats.bytes_done, status.stats.bytes_wanted);
    Failure::interrupted(&match status.state {
        State::Metadata => format!("{name} had no metadata yet, nothing was written"),
        State::Checking => format!(
            "{name} was being checked, what lies in {} stays there; the same command goes on",
            output.display()
        ),
        State::Downloading | State::Stalled | State::Seeding | State::Failed => format!(
            "{name}: {} of {} are kept in {}; the same command goes on from there",
            size(done),
            size(wanted),
            output.display()
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::session::DhtProgress;
    use crate::swarm::{DiskError, Stats};

    fn status(state: State) -> TorrentStatus {
        let dht = DhtProgress {
            enabled: true,
            ..DhtProgress::default()
        };
        TorrentStatus::new(state, Stats::default(), dht)
    }

    fn disk(kind: DiskErrorKind) -> Problem {
        Problem::Disk(Arc::new(DiskError {
            path: "/out/film".into(),
            kind,
            message: "no".to_owned(),
        }))
    }

    #[test]
    fn a_problem_of_the_disk_names_the_path_and_ends_the_download_only_if_it_cannot_pass() {
        let mut status = status(State::Downloading);
        status.problem = Some(disk(DiskErrorKind::Full));
        assert!(failure("film", None, &status, false).is_none());
        status.problem = Some(disk(DiskErrorKind::Denied));
        let failure = failure("film", None, &status, false).unwrap();
        assert_eq!(failure.message, "film: /out/film: no");
        assert!(failure.hint.is_some());
    }

    #[test]
    fn a_name_that_cannot_be_resolved_is_named() {
        let mut status = status(State::Metadata);
        status.dht.no_way_in = true;
        assert!(failure("film", None, &status, true).is_none());
        status.dht.bootstrap_failed = Some("a.example:1: no such host".to_owned());
        let failure = failure("film", None, &status, false).unwrap();
        assert!(
            failure.message.ends_with("a.example:1: no such host"),
            "{}",
            failure.message
        );
    }

    #[test]
    fn an_interruption_says_what_was_kept_and_how_to_go_on() {
        let mut status = status(State::Downloading);
        (status.stats.bytes_done, status.stats.bytes_wanted) = (1 << 20, 3 << 20);
        let said = interrupted("film", &status, Path::new("out")).message;
        let expected = "interrupted: film: 1.0 MiB of 3.0 MiB are kept in out; the same command \
                        goes on from there";
        assert_eq!(said, expected);
        status.state = State::Metadata;
        let said = interrupted("film", &status, Path::new("out")).message;
        assert!(said.contains("nothing was written"), "{said}");
    }
}
