//! One download: what the user was told of it, and when it has done enough.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::wanted::Wanted;
use super::{metadata, trouble};
use crate::cli::args::{GetArgs, Global};
use crate::cli::bounds::tell_stopped;
use crate::cli::print::{Failure, duration, escape, note, print_json, print_line, rate, size};
use crate::cli::progress::{Display, Row, problem_text, progress_json};
use crate::cli::trackers::News;
use crate::metainfo::{FileSelection, Info};
use crate::session::{Ended, Problem, TorrentHandle, TorrentStatus};
use crate::swarm::{State, Stats};
use crate::time::Instant;

/// Time between two progress lines in JSON.
const JSON_INTERVAL: Duration = Duration::from_secs(1);

/// Where a download is, as far as the user was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not all there.
    Running,
    /// All wanted pieces are on disk, and it is served to others.
    Seeding,
    /// Nothing more to do.
    Done,
    /// It cannot go on.
    Failed,
}

/// One download.
pub(super) struct Download {
    pub(super) torrent: TorrentHandle,
    pub(super) wanted: Wanted,
    pub(super) stage: Stage,
    name: String,
    row: Row,
    metadata_told: bool,
    news: News,
    problem_told: Option<Problem>,
    next_json: Instant,
    begun: Instant,
}

impl Download {
    /// A download that was just added.
    pub(super) fn new(torrent: TorrentHandle, wanted: Wanted, row: Row, now: Instant) -> Self {
        Self {
            torrent,
            name: wanted.name.clone(),
            wanted,
            stage: Stage::Running,
            row,
            metadata_told: false,
            news: News::default(),
            problem_told: None,
            next_json: now,
            begun: now,
        }
    }

    /// Looks at the torrent and tells what is new.
    pub(super) fn update(
        &mut self,
        now: Instant,
        args: &GetArgs,
        global: &Global,
        display: &Display,
    ) {
        if matches!(self.stage, Stage::Failed | Stage::Done) {
            return;
        }
        let status = self.torrent.status();
        self.tell_metadata(global, display);
        self.row.update(now, &self.name, &status);
        self.news.tell(&self.torrent, &status, global, display);
        if global.json && now >= self.next_json {
            self.next_json = now + JSON_INTERVAL;
            display.suspend(|| print_json(&progress_json(&self.torrent, &status)));
        }
        match self.stage {
            Stage::Running => self.update_running(&status, now, args, global, display),
            Stage::Seeding => {
                if matches!(status.ended, Some(Ended::Crashed | Ended::Failed)) {
                    self.row.finish();
                    self.stage = Stage::Failed;
                    let failure = Failure::new(format!("{}: it is no longer seeded", self.name))
                        .hint("start it again: what is there is kept. Log lines (-v) help");
                    display.suspend(|| self.report(&failure, global));
                    return;
                }
                self.tell_problem(&status, display);
                if args.bounds().are_reached(&status, self.torrent.earlier()) {
                    self.row.finish();
                    self.stage = Stage::Done;
                    display.suspend(|| {
                        tell_stopped(&self.torrent, &self.name, &status, global);
                    });
                }
            }
            Stage::Done | Stage::Failed => {}
        }
    }

    /// Whether it came to an end that the user waits for.
    fn update_running(
        &mut self,
        status: &TorrentStatus,
        now: Instant,
        args: &GetArgs,
        global: &Global,
        display: &Display,
    ) {
        let took = now.saturating_since(self.begun);
        let info = self.torrent.info();
        let only_metadata = args.list || args.metadata_only;
        let concluded = match &info {
            Some(info) if only_metadata => {
                self.row.finish();
                display
                    .suspend(|| metadata::conclude(&self.wanted, info, took, args, global))
                    .map(|()| Stage::Done)
            }
            Some(info) if status.state == State::Seeding => {
                if !args.is_seeding() {
                    self.row.finish();
                }
                display.suspend(|| self.tell_done(info, status, took, args, global));
                Ok(if args.is_seeding() {
                    Stage::Seeding
                } else {
                    Stage::Done
                })
            }
            _ => match trouble::failure(&self.name, info.as_deref(), status, self.has_hosts()) {
                Some(failure) => Err(failure),
                None => {
                    self.tell_problem(status, display);
                    Ok(Stage::Running)
                }
            },
        };
        self.stage = concluded.unwrap_or_else(|failure| {
            self.row.finish();
            display.suspend(|| self.report(&failure, global));
            Stage::Failed
        });
    }

    /// Whether host names are being resolved for it.
    fn has_hosts(&self) -> bool {
        !self.wanted.peer_hosts.is_empty() || !self.wanted.around.nodes.is_empty()
    }

    /// Prints a failure of this torrent.
    pub(super) fn report(&self, failure: &Failure, global: &Global) {
        let info_hash = self.torrent.info_hash().to_string();
        failure.report_with(global.json, json!({"info_hash": info_hash}));
    }

    /// The user interrupts it: says what was kept.
    pub(super) fn interrupt(&mut self, args: &GetArgs, global: &Global) {
        self.row.finish();
        let status = self.torrent.status();
        match self.stage {
            Stage::Running => {
                let failure = trouble::interrupted(&self.name, &status, &args.output);
                self.report(&failure, global);
            }
            Stage::Seeding => tell_stopped(&self.torrent, &self.name, &status, global),
            Stage::Done | Stage::Failed => {}
        }
    }

    /// `--timeout` ran out: says how far it came.
    pub(super) fn time_out(&mut self, args: &GetArgs, global: &Global) {
        self.row.finish();
        if self.stage == Stage::Running {
            let waited = duration(args.timeout.unwrap_or_default());
            let failure = trouble::timed_out(&self.name, &waited, &self.torrent.status());
            self.report(&failure, global);
        }
    }

    /// Says once what the torrent is called.
    fn tell_metadata(&mut self, global: &Global, display: &Display) {
        if self.metadata_told {
            return;
        }
        if let Some(info) = self.torrent.info() {
            self.metadata_told = true;
            info.name().clone_into(&mut self.name);
            if global.json {
                let line = json!({
                    "event": "metadata",
                    "info_hash": self.torrent.info_hash().to_string(),
                    "name": info.name(),
                });
                display.suspend(|| print_json(&line));
            }
        }
    }

    /// Prints where the files are.
    fn tell_done(
        &self,
        info: &Arc<Info>,
        status: &TorrentStatus,
        took: Duration,
        args: &GetArgs,
        global: &Global,
    ) {
        let paths = file_paths(info, &self.wanted.files, &args.output);
        let bytes = chosen_length(info, &self.wanted.files);
        let magnet = self.wanted.around.metainfo(info).magnet().to_string();
        if global.json {
            print_json(&json!({
                "event": "done",
                "info_hash": self.torrent.info_hash().to_string(),
                "paths": paths,
                "bytes": bytes,
                "seconds": took.as_secs_f64(),
                "downloaded": status.stats.downloaded,
                "magnet": magnet,
            }));
            return;
        }
        for path in paths {
            print_line(&path);
        }
        if global.quiet == 0 {
            let how = closing_text(&status.stats, bytes, took);
            note(&format!("{}: {how}", escape(&self.name)));
            if args.is_seeding() {
                note(&format!("seeding it to others, with the link {magnet}"));
            } else if self.wanted.info().is_some() {
                note(&format!("hint: others get it with {magnet}"));
            }
        }
    }

    /// Says once what holds the download up and may pass.
    fn tell_problem(&mut self, status: &TorrentStatus, display: &Display) {
        // The same problem after another try is no news.
        if let Some(problem) = &status.problem
            && status.problem != self.problem_told
        {
            let text = format!("{}: {}, trying again", self.name, problem_text(problem));
            display.suspend(|| note(&escape(&text)));
            self.problem_told.clone_from(&status.problem);
        }
    }
}

/// How the content came: fetched, found on disk, or both. `chosen` is how much of it there is; whole
/// pieces around it may be more.
fn closing_text(stats: &Stats, chosen: u64, took: Duration) -> String {
    let fetched = stats.downloaded.saturating_sub(stats.wasted);
    let there = stats.bytes_wanted.saturating_sub(fetched);
    let (all, took_text) = (size(chosen), duration(took));
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let pace = rate(fetched.saturating_mul(1_000_000) / micros);
    if fetched == 0 {
        format!("{all} were there already and are right, looked at in {took_text}")
    } else if stats.bytes_wanted > chosen {
        let whole = size(fetched);
        format!("{all} in {took_text} ({pace}), for which {whole} came in whole pieces")
    } else if there == 0 {
        format!("{all} in {took_text} ({pace})")
    } else {
        format!(
            "{all}, of which {} were there already and {} came in {took_text} ({pace})",
            size(there),
            size(fetched)
        )
    }
}

/// Bytes of the chosen files of a torrent, pad files left out.
fn chosen_length(info: &Info, files: &FileSelection) -> u64 {
    // The session has resolved the same selection before.
    let chosen = files.resolve(info).unwrap_or_default();
    info.files()
        .wanted()
        .filter(|(index, _)| chosen.binary_search(index).is_ok())
        .map(|(_, file)| file.length)
        .sum()
}

/// Paths of the chosen files of a torrent under the output folder, pad files left out.
fn file_paths(info: &Info, files: &FileSelection, output: &Path) -> Vec<String> {
    // The session has resolved the same selection before.
    let chosen = files.resolve(info).unwrap_or_default();
    info.files()
        .wanted()
        .filter(|(index, _)| chosen.binary_search(index).is_ok())
        .map(|(_, file)| {
            let mut path = output.to_owned();
            path.extend(&file.path);
            path.to_string_lossy().into_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_closing(chosen: u64, downloaded: u64, expected: &str) {
        let stats = Stats {
            bytes_wanted: 20 << 20,
            downloaded,
            ..Stats::default()
        };
        let told = closing_text(&stats, chosen, Duration::from_secs(2));
        assert_eq!(told, expected);
    }

    #[test]
    fn the_closing_line_tells_what_came_from_what_was_there() {
        check_closing(20 << 20, 20 << 20, "20.0 MiB in 2.0s (10.0 MiB/s)");
        check_closing(
            1_000,
            20 << 20,
            "1000 B in 2.0s (10.0 MiB/s), for which 20.0 MiB came in whole pieces",
        );
        check_closing(
            20 << 20,
            0,
            "20.0 MiB were there already and are right, looked at in 2.0s",
        );
        check_closing(
            20 << 20,
            5 << 20,
            "20.0 MiB, of which 15.0 MiB were there already and 5.0 MiB came in 2.0s (2.5 MiB/s)",
        );
    }
}
