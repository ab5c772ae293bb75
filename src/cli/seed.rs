//! `trackless seed`: makes files and folders available under a magnet link.

mod known;
mod many;
mod one;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::many::Crowd;
use self::one::{End, Seeding};
use super::args::{Global, SeedArgs};
use super::create::{Options, hash_content, wrap, write_new};
use super::interrupted;
use super::node::session_config;
use super::print::{Exit, Failure, count, note, shorten};
use super::progress::{Display, problem_text};
use super::show::read_torrent;
use super::start::{resolve_hosts, start_session, stop_session};
use crate::disk::Resume;
use crate::disk::hash::collect;
use crate::metainfo::{Magnet, Metainfo};
use crate::net::clock::Clock;
use crate::session::{AddOptions, Session, Source, TorrentStatus};
use crate::swarm::State;

/// Time between two looks at everything.
const TICK: Duration = Duration::from_millis(500);

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

/// Adds each PATH, and serves until interrupted.
async fn serve(
    session: &Session,
    args: &SeedArgs,
    global: &Global,
    helpers: &mut JoinSet<()>,
    mut interrupted: Pin<&mut impl Future<Output = ()>>,
) -> Result<Exit, Failure> {
    let clock = Clock::start();
    let paths = many::expand(args)?;
    let is_alone = paths.len() == 1;
    let mut crowd = Crowd::new(paths.len(), global, clock.now());
    let each = crowd.for_each(global);
    let display = Display::new(&each);
    let (sender, mut added) = mpsc::channel(1);
    let loader = Loader {
        session,
        args,
        global: &each,
        display: &display,
        clock,
    };
    let mut loading = pin!(loader.load(paths, helpers, sender));
    let mut is_loading = true;
    let mut all: Vec<Seeding> = Vec::new();
    let mut failed = 0;
    let mut ending = JoinSet::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let exit = loop {
        tokio::select! {
            () = &mut interrupted => break Exit::Interrupted,
            () = &mut loading, if is_loading => is_loading = false,
            Some(one) = added.recv() => match one {
                Ok(one) => {
                    one.tell_seeding(session, &each);
                    all.push(one);
                }
                Err(failure) if is_alone => return Err(failure),
                // The others can be seeded all the same.
                Err(failure) => {
                    failed += 1;
                    display.suspend(|| failure.report(global.json));
                }
            },
            _ = ticks.tick() => {
                let now = clock.now();
                for one in &mut all {
                    one.update(now, &display, session, &each, &crowd);
                    one.end_if_enough(args.bounds(), &display, &each, &mut ending);
                }
                crowd.update(now, &all);
            }
        }
        if !is_loading && added.is_empty() {
            crowd.on_loaded(all.len(), failed, session);
            if all.iter().all(|one| one.end.is_some()) {
                let is_enough = failed == 0 && all.iter().all(|one| one.end == Some(End::Enough));
                break if is_enough { Exit::Done } else { Exit::Failed };
            }
        }
    };
    for one in &mut all {
        one.finish();
    }
    for one in &all {
        one.tell_sent(&each);
    }
    crowd.tell_sent(&all);
    Ok(exit)
}

/// What it takes to add torrents, one after another, while those that are there are served.
struct Loader<'a> {
    session: &'a Session,
    args: &'a SeedArgs,
    global: &'a Global,
    display: &'a Display,
    clock: Clock,
}

impl Loader<'_> {
    /// Adds all.
    async fn load(
        &self,
        paths: Vec<PathBuf>,
        helpers: &mut JoinSet<()>,
        added: mpsc::Sender<Result<Seeding, Failure>>,
    ) {
        for path in paths {
            let one = self.load_one(path, helpers).await;
            // The receiver lives as long as this.
            added.send(one).await.ok();
        }
    }

    /// Prepares and adds one PATH.
    async fn load_one(&self, path: PathBuf, helpers: &mut JoinSet<()>) -> Result<Seeding, Failure> {
        let (session, args) = (self.session, self.args);
        // Only names, sizes and times are read, so that nobody needs to interrupt it.
        let known = tokio::task::block_in_place(|| known::prepared(&path, session.state()));
        let prepared = match known {
            Some(known) => known,
            None => {
                let (data, settings) = (args.data.clone(), self.global.clone());
                let work = tokio::task::spawn_blocking(move || prepare(&path, data, &settings));
                work.await
                    .map_err(|error| Failure::because("cannot read the content", &error))??
            }
        };
        keep_torrent(session, &prepared, args, self.global)?;
        self.add(prepared, helpers).await
    }

    /// Starts a torrent and waits until its content was looked at.
    async fn add(&self, prepared: Prepared, helpers: &mut JoinSet<()>) -> Result<Seeding, Failure> {
        let session = self.session;
        let options = AddOptions {
            super_seed: self.args.super_seed,
            ..prepared.add_options(self.args.peers.peer.clone())
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
        let name = metainfo.info.name().to_owned();
        if let Some(failure) = incomplete(&name, &root, looked_at.await) {
            torrent.stop().await;
            return Err(failure);
        }
        let now = self.clock.now();
        let magnet = metainfo.magnet().to_string();
        Ok(Seeding::new(
            torrent,
            name,
            magnet,
            self.display.row(now),
            now,
        ))
    }
}

/// Whether the arguments make sense, before anything is started.
fn check_arguments(args: &SeedArgs) -> Result<(), Failure> {
    let wrong = |message: String| Failure::new(message).exit(Exit::Usage);
    if let Some(data) = args.data.as_ref().filter(|data| !data.is_dir()) {
        let what = if data.exists() {
            "is not a folder"
        } else {
            "does not exist"
        };
        return Err(wrong(format!("--data {}: it {what}", data.display()))
            .hint("name the folder that holds the content under its own name"));
    }
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
        if args.data.is_some() && !is_torrent(path) && !path.is_dir() {
            return Err(wrong(format!(
                "--data is for .torrent files and folders of them, and {} is neither",
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
