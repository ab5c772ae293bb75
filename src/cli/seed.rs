//! `trackless seed`: makes files and folders available under a magnet link.

mod known;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use super::args::{Global, SeedArgs};
use super::bounds::{Bounds, tell_stopped};
use super::create::{Options, hash_content, wrap, write_new};
use super::interrupted;
use super::node::session_config;
use super::print::{Exit, Failure, count, escape, note, print_json, print_line, shorten, size};
use super::progress::{Display, Row, problem_text, progress_json};
use super::show::read_torrent;
use super::start::{resolve_hosts, start_session, stop_session};
use super::trackers::{News, announced_text};
use crate::disk::Resume;
use crate::disk::hash::collect;
use crate::metainfo::{Magnet, Metainfo};
use crate::net::clock::Clock;
use crate::session::{AddOptions, Problem, Session, Source, TorrentHandle, TorrentStatus};
use crate::swarm::State;
use crate::time::Instant;

/// Time between two looks at everything.
const TICK: Duration = Duration::from_millis(500);

/// Time between two progress lines in JSON.
const JSON_INTERVAL: Duration = Duration::from_secs(1);

/// One PATH, ready to be seeded.
struct Prepared {
    metainfo: Metainfo,
    /// Folder that holds the content under its own name.
    root: PathBuf,
    /// What we know of it, if we hashed it a moment ago.
    fresh: Option<Resume>,
}

impl Prepared {
    /// How it is added to a session.
    fn add_options(&self, peers: Vec<SocketAddr>) -> AddOptions {
        AddOptions {
            output: self.root.clone(),
            peers,
            trackers: self.metainfo.trackers.clone(),
            resume: self.fresh.clone(),
            ..AddOptions::default()
        }
    }
}

/// Why a torrent is no longer served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It was seeded as much as was asked for.
    Enough,
    /// It ended by itself.
    Failed,
}

/// One torrent that is served.
struct Seeding {
    torrent: TorrentHandle,
    name: String,
    /// The link that others get it with.
    magnet: String,
    row: Row,
    announce_told: bool,
    news: News,
    problem_told: Option<Problem>,
    /// That it is over, and that was told.
    end: Option<End>,
    next_json: Instant,
}

/// Runs the command.
pub(super) async fn run(args: SeedArgs, global: Global) -> Result<Exit, Failure> {
    let stop = pin!(interrupted());
    check_arguments(&args)?;
    let mut config = session_config(&args.node)?;
    config.dht = !args.peers.no_dht;
    config.pex = !args.peers.no_pex;
    config.lsd = !args.peers.no_lsd;
    config.trackers = !args.peers.no_trackers;
    // The sockets come first: a port that is taken is better known before hours of hashing.
    let session = start_session(config).await?;
    let mut helpers = JoinSet::new();
    let result = serve(&session, &args, &global, &mut helpers, stop).await;
    helpers.shutdown().await;
    stop_session(session).await;
    result
}

/// Prepares and adds each PATH, then serves until interrupted.
async fn serve(
    session: &Session,
    args: &SeedArgs,
    global: &Global,
    helpers: &mut JoinSet<()>,
    mut interrupted: Pin<&mut impl Future<Output = ()>>,
) -> Result<Exit, Failure> {
    let clock = Clock::start();
    let display = Display::new(global);
    let mut all: Vec<Seeding> = Vec::new();
    for path in &args.paths {
        let (wanted, settings) = (path.clone(), global.clone());
        let data = args.data.clone();
        // Only names, sizes and times are read, so that nobody needs to interrupt it.
        let known = tokio::task::block_in_place(|| known::prepared(path, session.state()));
        let prepared = match known {
            Some(known) => known,
            None => {
                let work = tokio::task::spawn_blocking(move || prepare(&wanted, data, &settings));
                tokio::select! {
                    prepared = work => prepared
                        .map_err(|error| Failure::because("cannot read the content", &error))??,
                    () = &mut interrupted => return Ok(Exit::Interrupted),
                }
            }
        };
        keep_torrent(session, &prepared, args, global)?;
        let Some(one) = add(
            session,
            prepared,
            args,
            &display,
            clock,
            helpers,
            interrupted.as_mut(),
        )
        .await?
        else {
            return Ok(Exit::Interrupted);
        };
        one.tell_seeding(session, global);
        all.push(one);
    }
    let mut ticks = tokio::time::interval(TICK);
    let mut exit = Exit::Interrupted;
    loop {
        tokio::select! {
            () = &mut interrupted => break,
            _ = ticks.tick() => {}
        }
        let now = clock.now();
        for one in &mut all {
            one.update(now, &display, session, global);
            one.end_if_enough(args.bounds(), &display, global, helpers);
        }
        if all.iter().all(|one| one.end.is_some()) {
            let is_enough = all.iter().all(|one| one.end == Some(End::Enough));
            exit = if is_enough { Exit::Done } else { Exit::Failed };
            break;
        }
    }
    for one in &mut all {
        one.row.finish();
    }
    Ok(exit)
}

/// Whether the arguments make sense, before anything is started.
fn check_arguments(args: &SeedArgs) -> Result<(), Failure> {
    let wrong = |message: String| Failure::new(message).exit(Exit::Usage);
    if args.torrent_out.is_some() && args.paths.len() > 1 {
        return Err(wrong(
            "--torrent-out can name the file of one PATH only".to_owned(),
        ));
    }
    for path in &args.paths {
        let text = path.to_string_lossy();
        if !path.exists() && Magnet::parse(&text).is_ok() {
            let what = shorten(&text, 60);
            return Err(wrong(format!(
                "{what} is a magnet link or info hash: there is no content to seed"
            ))
            .hint("`trackless get --seed` downloads it and goes on seeding"));
        }
        if args.data.is_some() && !is_torrent(path) {
            return Err(wrong(format!(
                "--data is for .torrent files, and {} is none",
                path.display()
            ))
            .hint("leave --data away: a file or folder is seeded from where it is"));
        }
    }
    Ok(())
}

/// Whether a path names a .torrent file.
fn is_torrent(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("torrent"))
}

/// Reads a .torrent, or hashes content. Runs on a thread that may block.
fn prepare(path: &Path, data: Option<PathBuf>, global: &Global) -> Result<Prepared, Failure> {
    if path.is_file() && is_torrent(path) {
        let metainfo = read_torrent(path)?;
        let root = data.unwrap_or_else(|| PathBuf::from("."));
        return Ok(Prepared {
            metainfo,
            root,
            fresh: None,
        });
    }
    let content = collect(path)
        .map_err(|error| Failure::because(format!("cannot seed {}", path.display()), &error))?;
    let info = hash_content(&content, Options::default(), global)?;
    let fresh = Some(content.resume(&info));
    let (metainfo, root) = (wrap(info, false), content.root);
    check_names(&metainfo, &root)?;
    Ok(Prepared {
        metainfo,
        root,
        fresh,
    })
}

/// Whether each file is found under the name that the torrent gives it. Names that would not be
/// safe elsewhere are replaced in a torrent, and then the content cannot be served from where it
/// is.
fn check_names(metainfo: &Metainfo, root: &Path) -> Result<(), Failure> {
    for file in metainfo
        .info
        .files()
        .all()
        .iter()
        .filter(|file| !file.is_pad)
    {
        let mut path = root.to_owned();
        path.extend(&file.path);
        if !path.is_file() {
            let name = file.path.join("/");
            return Err(Failure::new(format!(
                "those who download it would call a file `{name}`, which has another name here"
            ))
            .hint("rename it: some characters and names are not safe on every system"));
        }
    }
    Ok(())
}

/// Writes the .torrent to a place of the user's. One with the same info hash that lies there, from an
/// earlier start with the same arguments, is left as it is.
fn save_torrent(path: &Path, metainfo: &Metainfo) -> Result<(), Failure> {
    let info_hash = metainfo.info.info_hash();
    if path.is_file() && read_torrent(path).is_ok_and(|there| there.info.info_hash() == info_hash) {
        return Ok(());
    }
    write_new(path, &metainfo.encode(), false).map_err(|mut failure| {
        // There is no --force here.
        if failure.hint.is_some() {
            failure.hint = Some(
                "move it away, or name another file with --torrent-out: this one is not of this torrent"
                    .to_owned(),
            );
        }
        failure
    })
}

/// Keeps the .torrent in the state directory and where the user wants it.
fn keep_torrent(
    session: &Session,
    prepared: &Prepared,
    args: &SeedArgs,
    global: &Global,
) -> Result<(), Failure> {
    let bytes = prepared.metainfo.encode();
    if let Some(path) = &args.torrent_out {
        save_torrent(path, &prepared.metainfo)?;
    }
    if let Some(state) = session.state().filter(|_| prepared.fresh.is_some()) {
        let kept = state.save_torrent(prepared.metainfo.info.info_hash(), &bytes);
        if let (Err(error), 0) = (kept, global.quiet) {
            note(&format!("the .torrent file is not kept: {error}"));
        }
    }
    Ok(())
}

/// Starts a torrent and waits until its content was looked at; `None` when the user interrupts.
async fn add(
    session: &Session,
    prepared: Prepared,
    args: &SeedArgs,
    display: &Display,
    clock: Clock,
    helpers: &mut JoinSet<()>,
    interrupted: Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<Seeding>, Failure> {
    let options = AddOptions {
        super_seed: args.super_seed,
        ..prepared.add_options(args.peers.peer.clone())
    };
    let Prepared { metainfo, root, .. } = prepared;
    let torrent = session
        .add(Source::Info(Arc::clone(&metainfo.info)), options)
        .await
        .map_err(|error| Failure::because("cannot start seeding", &error))?;
    resolve_hosts(helpers, &torrent, session.dht(), &[], &metainfo.nodes);
    let looked_at = torrent.wait_for(|status| {
        status.problem.is_some()
            || matches!(
                status.state,
                State::Downloading | State::Stalled | State::Seeding | State::Failed
            )
    });
    let status = tokio::select! {
        status = looked_at => status,
        () = interrupted => return Ok(None),
    };
    let name = metainfo.info.name().to_owned();
    if let Some(failure) = incomplete(&name, &root, status) {
        return Err(failure);
    }
    let now = clock.now();
    Ok(Some(Seeding {
        torrent,
        name,
        magnet: metainfo.magnet().to_string(),
        row: display.row(now),
        announce_told: false,
        news: News::default(),
        problem_told: None,
        end: None,
        next_json: now,
    }))
}

/// Why content that was looked at cannot be seeded; `None` when it can.
fn incomplete(name: &str, root: &Path, status: Option<TorrentStatus>) -> Option<Failure> {
    let hint = "name the folder that holds the content with --data DIR, \
                or complete it with `trackless get`";
    let Some(status) = status else {
        return Some(Failure::new(format!(
            "{name}: the torrent ended unexpectedly"
        )));
    };
    if let Some(problem) = &status.problem {
        return Some(Failure::new(format!("{name}: {}", problem_text(problem))).hint(hint));
    }
    if status.state == State::Seeding {
        return None;
    }
    let missing = status.stats.pieces.saturating_sub(status.stats.pieces_done);
    let message = format!(
        "{name}: {missing} of {} are missing or wrong in {}",
        count(status.stats.pieces.into(), "piece"),
        root.display()
    );
    Some(Failure::new(message).hint(hint))
}

impl Seeding {
    /// The first line: the magnet link, or its JSON form.
    fn tell_seeding(&self, session: &Session, global: &Global) {
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

    /// Says that it is no longer served, although nobody stopped it.
    fn report_end(&self, global: &Global) {
        let info_hash = self.torrent.info_hash().to_string();
        Failure::new(format!("{}: it is no longer seeded", self.name))
            .hint("start it again. Log lines (-v) help to find the mistake in this program")
            .report_with(global.json, json!({"info_hash": info_hash}));
    }

    /// Ends it if it was seeded as much as was asked for, and says so.
    fn end_if_enough(
        &mut self,
        bounds: Bounds,
        display: &Display,
        global: &Global,
        helpers: &mut JoinSet<()>,
    ) {
        let status = self.torrent.status();
        if self.end.is_some() || !bounds.are_reached(&status, self.torrent.earlier()) {
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
    fn update(&mut self, now: Instant, display: &Display, session: &Session, global: &Global) {
        let status = self.torrent.status();
        if self.end.is_some() {
            return;
        }
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
        if global.quiet > 0 {
            return;
        }
        let name = escape(&self.name);
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
        if status.problem != self.problem_told {
            if let Some(problem) = &status.problem {
                display.suspend(|| note(&format!("{name}: {}", problem_text(problem))));
            }
            self.problem_told = status.problem;
        }
    }
}
