//! `trackless get`: downloads what magnet links, info hashes and .torrent files name.

use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::args::{GetArgs, Global};
use super::interrupted;
use super::node::session_config;
use super::print::{Exit, Failure, duration, escape, note, print_json, print_line, rate, size};
use super::progress::{Display, Row, problem_text, progress_json, summary_text};
use super::show;
use super::start::{resolve_hosts, start_session, stop_session};
use crate::metainfo::Info;
use crate::net::clock::Clock;
use crate::session::{AddOptions, Problem, Session, Source, TorrentHandle, TorrentStatus};
use crate::swarm::{DiskErrorKind, State};
use crate::time::Instant;

/// Time between two looks at everything, even when nothing changed.
const TICK: Duration = Duration::from_millis(250);

/// Time between two progress lines in JSON.
const JSON_INTERVAL: Duration = Duration::from_secs(1);

/// What one SOURCE says.
struct Wanted {
    source: Source,
    /// What to call it before the metadata is known.
    name: String,
    /// Peers named by host (magnet `x.pe`).
    peer_hosts: Vec<(String, u16)>,
    /// DHT nodes named by the .torrent file (BEP 5).
    nodes: Vec<(String, u16)>,
}

impl Wanted {
    /// Reads a SOURCE argument.
    fn read(text: &str) -> Result<Self, Failure> {
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("http://") || lower.starts_with("https://") {
            return Err(Failure::new(format!(
                "cannot fetch {text}: web addresses are not supported"
            ))
            .hint("download the .torrent file first and give its path")
            .exit(Exit::Usage));
        }
        let read = show::Source::read(text).map_err(|failure| failure.exit(Exit::Usage))?;
        Ok(match read {
            show::Source::Magnet(magnet) => Self {
                name: magnet
                    .name
                    .clone()
                    .unwrap_or_else(|| magnet.info_hash.to_string()),
                peer_hosts: magnet.peer_hosts.clone(),
                nodes: Vec::new(),
                source: Source::Magnet(magnet),
            },
            show::Source::Metainfo(metainfo) => Self {
                name: metainfo.info.name().to_owned(),
                peer_hosts: Vec::new(),
                source: Source::Info(Arc::clone(&metainfo.info)),
                nodes: metainfo.nodes,
            },
        })
    }
}

/// Where a download is, as far as the user was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not all there.
    Running,
    /// All pieces are on disk.
    Done,
    /// It cannot go on.
    Failed,
}

/// One download.
struct Download {
    torrent: TorrentHandle,
    name: String,
    /// Hosts are being resolved, so that nothing is hopeless before they are.
    has_hosts: bool,
    row: Row,
    stage: Stage,
    metadata_told: bool,
    problem_told: Option<Problem>,
    next_json: Instant,
    begun: Instant,
}

/// All downloads of the command.
struct Downloads<'a> {
    args: &'a GetArgs,
    global: &'a Global,
    clock: Clock,
    display: Display,
    all: Vec<Download>,
}

/// Runs the command.
pub(super) async fn run(args: GetArgs, global: Global) -> Result<Exit, Failure> {
    let stop = pin!(interrupted());
    let wanted: Vec<Wanted> = args
        .sources
        .iter()
        .map(|text| Wanted::read(text))
        .collect::<Result<_, _>>()?;
    let mut config = session_config(&args.node)?;
    config.dht = !args.peers.no_dht;
    let session = start_session(config).await?;
    let mut helpers = JoinSet::new();
    let result = download(&session, wanted, &args, &global, &mut helpers, stop).await;
    helpers.shutdown().await;
    stop_session(session).await;
    result
}

/// Adds the torrents and follows them to their end, the time limit or an interruption.
async fn download(
    session: &Session,
    wanted: Vec<Wanted>,
    args: &GetArgs,
    global: &Global,
    helpers: &mut JoinSet<()>,
    mut interrupted: Pin<&mut impl Future<Output = ()>>,
) -> Result<Exit, Failure> {
    let clock = Clock::start();
    let display = Display::new(global);
    let mut downloads = Downloads {
        args,
        global,
        clock,
        display,
        all: Vec::new(),
    };
    let changed = Arc::new(Notify::new());
    for wanted in wanted {
        downloads.add(session, wanted, helpers, &changed).await?;
    }
    let mut timeout = pin!(async {
        match args.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    });
    let mut ticks = tokio::time::interval(TICK);
    let mut limited = true;
    loop {
        let still_running = downloads.update();
        if !still_running {
            limited = false;
            if !args.seed || downloads.all.iter().all(|one| one.stage == Stage::Failed) {
                return Ok(downloads.exit());
            }
        }
        // Nothing is lost when a branch is dropped: all of them only say that it is time to look.
        tokio::select! {
            () = &mut interrupted => return Ok(downloads.interrupt()),
            () = &mut timeout, if limited => return Ok(downloads.time_out()),
            () = changed.notified() => {}
            _ = ticks.tick() => {}
        }
    }
}

impl Downloads<'_> {
    /// Starts one torrent. One that is named twice is fetched once.
    async fn add(
        &mut self,
        session: &Session,
        wanted: Wanted,
        helpers: &mut JoinSet<()>,
        changed: &Arc<Notify>,
    ) -> Result<(), Failure> {
        let info_hash = wanted.source.info_hash();
        if self
            .all
            .iter()
            .any(|other| other.torrent.info_hash() == info_hash)
        {
            return Ok(());
        }
        let options = AddOptions {
            output: self.args.output.clone(),
            peers: self.args.peers.peer.clone(),
            assume_complete: false,
        };
        let torrent = session
            .add(wanted.source, options)
            .await
            .map_err(|error| Failure::because("cannot start the download", &error))?;
        resolve_hosts(
            helpers,
            &torrent,
            session.dht(),
            &wanted.peer_hosts,
            &wanted.nodes,
        );
        let (mut status, changed) = (torrent.watch(), Arc::clone(changed));
        helpers.spawn(async move {
            while status.changed().await.is_ok() {
                changed.notify_one();
            }
        });
        let now = self.clock.now();
        self.all.push(Download {
            torrent,
            name: wanted.name,
            has_hosts: !wanted.peer_hosts.is_empty() || !wanted.nodes.is_empty(),
            row: self.display.row(now),
            stage: Stage::Running,
            metadata_told: false,
            problem_told: None,
            next_json: now,
            begun: now,
        });
        Ok(())
    }

    /// Looks at every torrent and tells what is new; says whether any is still running.
    fn update(&mut self) -> bool {
        let now = self.clock.now();
        for one in &mut self.all {
            if one.stage == Stage::Failed {
                continue;
            }
            let status = one.torrent.status();
            one.tell_metadata(self.global);
            one.row.update(now, &one.name, &status);
            if self.global.json && now >= one.next_json {
                one.next_json = now + JSON_INTERVAL;
                print_json(&progress_json(&one.torrent, &status));
            }
            if one.stage == Stage::Running {
                if status.state == State::Seeding {
                    one.stage = Stage::Done;
                    let seconds = now.saturating_since(one.begun);
                    if !self.args.seed {
                        one.row.finish();
                    }
                    self.display.suspend(|| {
                        one.tell_done(&status, seconds, &self.args.output, self.global);
                    });
                } else if let Some(failure) = one.failure(&status) {
                    one.stage = Stage::Failed;
                    one.row.finish();
                    self.display.suspend(|| failure.report(self.global.json));
                } else {
                    self.display.suspend(|| one.tell_problem(&status));
                }
            }
        }
        self.all.iter().any(|one| one.stage == Stage::Running)
    }

    /// How it went, once nothing runs any more.
    fn exit(&self) -> Exit {
        if self.all.iter().all(|one| one.stage == Stage::Done) {
            Exit::Done
        } else {
            Exit::Failed
        }
    }

    /// The user does not want to wait any longer.
    fn interrupt(&mut self) -> Exit {
        for one in &mut self.all {
            one.row.finish();
        }
        Exit::Interrupted
    }

    /// `--timeout` ran out: says for each torrent how far it came.
    fn time_out(&mut self) -> Exit {
        let waited = duration(self.args.timeout.unwrap_or_default());
        for one in &mut self.all {
            one.row.finish();
        }
        for one in self.all.iter().filter(|one| one.stage == Stage::Running) {
            let status = one.torrent.status();
            Failure::new(format!(
                "{} timed out after {waited}: {}",
                one.name,
                summary_text(&status)
            ))
            .hint(timeout_hint(&status))
            .report(self.global.json);
        }
        Exit::TimedOut
    }
}

/// What to do about a download that took too long.
fn timeout_hint(status: &TorrentStatus) -> &'static str {
    let (dht, stats) = (&status.dht, &status.stats);
    if matches!(status.problem, Some(Problem::Disk(_))) {
        "the disk stood in the way: make room, or choose another folder with -o"
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

impl Download {
    /// Says once what the torrent is called.
    fn tell_metadata(&mut self, global: &Global) {
        if self.metadata_told {
            return;
        }
        if let Some(info) = self.torrent.info() {
            self.metadata_told = true;
            info.name().clone_into(&mut self.name);
            if global.json {
                print_json(&json!({
                    "event": "metadata",
                    "info_hash": self.torrent.info_hash().to_string(),
                    "name": info.name(),
                }));
            }
        }
    }

    /// Prints where the files are.
    fn tell_done(&self, status: &TorrentStatus, took: Duration, output: &Path, global: &Global) {
        let paths = self
            .torrent
            .info()
            .map(|info| file_paths(&info, output))
            .unwrap_or_default();
        let bytes = status.stats.bytes_wanted;
        if global.json {
            print_json(&json!({
                "event": "done",
                "info_hash": self.torrent.info_hash().to_string(),
                "paths": paths,
                "bytes": bytes,
                "seconds": took.as_secs_f64(),
            }));
            return;
        }
        for path in paths {
            print_line(&path);
        }
        if global.quiet == 0 {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
            let fetched = status.stats.downloaded.saturating_mul(1_000_000) / micros;
            note(&format!(
                "{}: {} in {} ({})",
                escape(&self.name),
                size(bytes),
                duration(took),
                rate(fetched)
            ));
        }
    }

    /// Why the download cannot go on, if so.
    fn failure(&self, status: &TorrentStatus) -> Option<Failure> {
        let name = &self.name;
        match &status.problem {
            Some(problem @ Problem::Metadata(_)) => {
                return Some(
                    Failure::new(format!("{name}: {}", problem_text(problem))).hint(
                        "the torrent itself is broken or of a kind that is not supported; \
                     no peer can help",
                    ),
                );
            }
            Some(problem @ Problem::Disk(error)) => {
                let hint = match error.kind {
                    DiskErrorKind::Occupied => {
                        "other content lies at its place: move it away, or choose another folder \
                         with -o DIR"
                    }
                    DiskErrorKind::Denied => "choose a folder that you may write to with -o DIR",
                    // These may pass by themselves; the session tries again.
                    DiskErrorKind::Full
                    | DiskErrorKind::Missing
                    | DiskErrorKind::Truncated
                    | DiskErrorKind::Other => return None,
                };
                return Some(Failure::new(format!("{name}: {}", problem_text(problem))).hint(hint));
            }
            None => {}
        }
        let waits = matches!(status.state, State::Metadata | State::Downloading);
        (waits && status.dht.no_way_in && !self.has_hosts).then(|| self.no_way_in(status))
    }

    /// Nothing could ever be found.
    fn no_way_in(&self, status: &TorrentStatus) -> Failure {
        let name = &self.name;
        if self.torrent.info().is_some_and(|info| info.is_private()) {
            return Failure::new(format!(
                "{name} is private: its peers come from its trackers only"
            ))
            .hint("give a peer with --peer IP:PORT; trackers are not supported");
        }
        if !status.dht.enabled {
            return Failure::new(format!("{name}: the DHT is off and no peer is known"))
                .hint("leave --no-dht away, or give a peer with --peer IP:PORT");
        }
        Failure::new(format!(
            "{name}: there is no way into the DHT: no bootstrap node, no saved node and no peer"
        ))
        .hint("name a node with --bootstrap HOST:PORT, or a peer with --peer IP:PORT")
    }

    /// Says once what holds the download up and may pass.
    fn tell_problem(&mut self, status: &TorrentStatus) {
        // The same problem after another try is no news.
        if let Some(problem) = &status.problem
            && status.problem != self.problem_told
        {
            note(&format!(
                "{}: {}, trying again",
                escape(&self.name),
                problem_text(problem)
            ));
            self.problem_told.clone_from(&status.problem);
        }
    }
}

/// Paths of all files of a torrent under the output folder, pad files left out.
fn file_paths(info: &Info, output: &Path) -> Vec<String> {
    let files = info.files().all().iter().filter(|file| !file.is_pad);
    files
        .map(|file| {
            let mut path = output.to_owned();
            path.extend(&file.path);
            path.to_string_lossy().into_owned()
        })
        .collect()
}
