//! One torrent that is served: what is told of it, and when it is enough.

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::many::Crowd;
use crate::cli::args::Global;
use crate::cli::bounds::{Bounds, tell_stopped};
use crate::cli::print::{Failure, count, escape, note, print_json, print_line, size};
use crate::cli::progress::{Display, Row, problem_text, progress_json};
use crate::cli::trackers::{News, announced_text};
use crate::session::{Problem, Session, TorrentHandle, TorrentStatus};
use crate::time::Instant;

/// Time between two progress lines in JSON.
const JSON_INTERVAL: Duration = Duration::from_secs(1);

/// Why a torrent is no longer served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was seeded as much as was asked for.
    Enough,
    /// It ended by itself.
    Failed,
}

/// One torrent that is served.
pub(super) struct Seeding {
    torrent: TorrentHandle,
    /// Tells when there is something new.
    pub(super) changes: watch::Receiver<TorrentStatus>,
    name: String,
    /// The link that others get it with.
    magnet: String,
    row: Row,
    announce_told: bool,
    news: News,
    problem_told: Option<Problem>,
    /// That it is over, and that was told.
    pub(super) end: Option<End>,
    next_json: Instant,
}

impl Seeding {
    /// A torrent that is served from now on, under the link that others get it with.
    pub(super) fn new(
        torrent: TorrentHandle,
        name: String,
        magnet: String,
        row: Row,
        now: Instant,
    ) -> Self {
        let mut changes = torrent.watch();
        changes.mark_changed();
        Self {
            torrent,
            changes,
            name,
            magnet,
            row,
            announce_told: false,
            news: News::default(),
            problem_told: None,
            end: None,
            next_json: now,
        }
    }

    /// Takes its bar away.
    pub(super) fn finish(&mut self) {
        self.row.finish();
    }

    /// The first line: the magnet link, or its JSON form.
    pub(super) fn tell_seeding(&self, session: &Session, global: &Global) {
        let Some(info) = self.torrent.info() else {
            return;
        };
        let magnet = &self.magnet;
        let listen: Vec<String> = session
            .listen_addresses()
            .iter()
            .map(ToString::to_string)
            .collect();
        if global.json {
            print_json(&json!({
                "event": "seeding",
                "info_hash": self.torrent.info_hash().to_string(),
                "name": info.name(),
                "magnet": magnet,
                "listen": listen,
            }));
            return;
        }
        print_line(magnet);
        if global.quiet == 0 {
            let total = size(info.geometry().total_length());
            note(&format!(
                "seeding {} ({total}) at {}",
                escape(&self.name),
                listen.join(", ")
            ));
        }
    }

    /// Says what was sent of it, when it was served to the end of the command.
    pub(super) fn tell_sent(&self, global: &Global) {
        if self.end.is_none() {
            tell_stopped(&self.torrent, &self.name, &self.torrent.status(), global);
        }
    }

    /// Says that it is no longer served, although nobody stopped it.
    fn report_end(&self, global: &Global) {
        let info_hash = self.torrent.info_hash().to_string();
        Failure::new(format!("{}: it is no longer seeded", self.name))
            .hint("start it again. Log lines (-v) help to find the mistake in this program")
            .report_with(global.json, json!({"info_hash": info_hash}));
    }

    /// Ends it if it was seeded as much as was asked for, and says so.
    pub(super) fn end_if_enough(
        &mut self,
        bounds: Bounds,
        display: &Display,
        global: &Global,
        helpers: &mut JoinSet<()>,
    ) {
        if self.end.is_some() || bounds == Bounds::default() {
            return;
        }
        let status = self.torrent.status();
        if !bounds.are_reached(&status, self.torrent.earlier()) {
            return;
        }
        self.end = Some(End::Enough);
        self.row.finish();
        display.suspend(|| tell_stopped(&self.torrent, &self.name, &status, global));
        let torrent = self.torrent.clone();
        helpers.spawn(async move {
            // Nobody waits for the reason.
            let _ = torrent.stop().await;
        });
    }

    /// Shows the latest state and tells what is new.
    pub(super) fn update(
        &mut self,
        now: Instant,
        display: &Display,
        session: &Session,
        global: &Global,
        crowd: &Crowd,
    ) {
        if self.end.is_some() {
            return;
        }
        // Of many, only those of which there is news; what cannot be told yet stays news.
        let is_news = || self.changes.has_changed().unwrap_or(true);
        let may_be_told = !global.json || now >= self.next_json;
        if crowd.is_crowd() && !(may_be_told && is_news()) {
            return;
        }
        self.changes.mark_unchanged();
        let status = self.torrent.status();
        if status.ended.is_some() {
            self.end = Some(End::Failed);
            display.suspend(|| self.report_end(global));
            return;
        }
        self.row.update(now, &self.name, &status);
        if global.json && now >= self.next_json {
            self.next_json = now + JSON_INTERVAL;
            print_json(&progress_json(&self.torrent, &status));
        }
        self.news.tell(&self.torrent, &status, global, display);
        let name = escape(&self.name);
        if status.problem != self.problem_told {
            if let Some(problem) = status.problem.as_ref().filter(|_| crowd.tells_problems()) {
                display.suspend(|| note(&format!("{name}: {}", problem_text(problem))));
            }
            self.problem_told.clone_from(&status.problem);
        }
        if global.quiet > 0 {
            return;
        }
        if !self.announce_told {
            if let Some(trackers) = announced_text(&status.trackers).filter(|_| !status.dht.enabled)
            {
                self.announce_told = true;
                display.suspend(|| note(&format!("{name}: announced at {trackers}")));
            } else if status.dht.stored > 0 {
                self.announce_told = true;
                let nodes = count(status.dht.stored.into(), "DHT node");
                display.suspend(|| note(&format!("{name}: announced at {nodes}")));
            } else if status.dht.no_way_in {
                self.announce_told = true;
                let why = if status.dht.enabled {
                    "there is no node to start from (--bootstrap HOST:PORT)"
                } else {
                    "it is not used"
                };
                let port = session
                    .listen_addresses()
                    .first()
                    .map_or(0, |address| address.port());
                display.suspend(|| {
                    note(&format!(
                        "{name}: nobody can find it through the DHT: {why}. Others can be given \
                         this machine's address with --peer IP:{port}"
                    ));
                });
            }
        }
    }
}
