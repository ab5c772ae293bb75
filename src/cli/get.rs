//! `trackless get`: downloads what magnet links, info hashes and .torrent files name.

mod download;
mod follow;
mod metadata;
mod trouble;
mod wanted;

use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::args::{GetArgs, Global};
use super::interrupted;
use super::node::session_config;
use super::print::{Exit, Failure};
use super::progress::Display;
use super::show;
use super::start::{resolve_hosts, start_session, stop_session};
use crate::metainfo::MutableLink;
use crate::net::clock::Clock;
use crate::session::Session;
use download::{Download, Stage};
use wanted::Wanted;

/// Time between two looks at everything, even when nothing changed.
const TICK: Duration = Duration::from_millis(250);

/// All downloads of the command.
struct Downloads<'a> {
    args: &'a GetArgs,
    global: &'a Global,
    clock: Clock,
    display: Display,
    all: Vec<Download>,
    /// Owner of what runs beside the downloads: resolving, waking, stopping.
    helpers: &'a mut JoinSet<()>,
}

/// Runs the command.
pub(super) async fn run(args: GetArgs, global: Global) -> Result<Exit, Failure> {
    let mut stop = pin!(interrupted());
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    let (mut wanted, links) = tokio::select! {
        read = read_sources(&args) => read?,
        () = &mut stop => return Err(Failure::interrupted("nothing was written")),
        () = wait_until(deadline) => return Err(Failure::new(
            "gave up: the .torrent file was not fetched in time",
        )
        .hint("give it more time with --timeout")
        .exit(Exit::TimedOut)),
    };
    if !args.list {
        make_folder(&args.output)?;
    }
    if args.list || args.metadata_only {
        for local in &wanted {
            if let Some(info) = local.info() {
                metadata::conclude(local, info, Duration::ZERO, &args, &global)?;
            }
        }
        wanted.retain(|wanted| wanted.info().is_none());
        if wanted.is_empty() && links.is_empty() {
            return Ok(Exit::Done);
        }
    }
    let mut config = session_config(&args.node)?;
    config.dht = !args.peers.no_dht;
    config.pex = !args.peers.no_pex;
    config.lsd = !args.peers.no_lsd;
    config.trackers = !args.peers.no_trackers;
    let session = start_session(config).await?;
    let mut helpers = JoinSet::new();
    let mut command = Downloads {
        args: &args,
        global: &global,
        clock: Clock::start(),
        display: Display::new(&global),
        all: Vec::new(),
        helpers: &mut helpers,
    };
    let result = match command
        .follow(&session, &links, deadline, stop.as_mut())
        .await
    {
        Ok(followed) => {
            wanted.extend(followed);
            command.run(&session, wanted, deadline, stop).await
        }
        Err(failure) => Err(failure),
    };
    helpers.shutdown().await;
    stop_session(session).await;
    result
}

/// Reads each SOURCE; links that name keys come by themselves.
async fn read_sources(args: &GetArgs) -> Result<(Vec<Wanted>, Vec<MutableLink>), Failure> {
    let mut wanted = Vec::new();
    let mut links = Vec::new();
    for text in &args.sources {
        match show::mutable_link(text)? {
            Some(link) => links.push(link),
            None => wanted.push(Wanted::read(text, args.files.as_ref()).await?),
        }
    }
    Ok((wanted, links))
}

/// Waits until there is no time left; forever when there is no limit.
async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Makes the folder to download into. That it cannot be made is better known before hours of
/// looking for peers.
fn make_folder(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|error| {
        Failure::because(format!("cannot download into {}", folder.display()), &error)
            .hint("choose another folder with -o DIR")
    })
}

impl Downloads<'_> {
    /// What links that name keys mean now.
    async fn follow(
        &self,
        session: &Session,
        links: &[MutableLink],
        deadline: Option<Instant>,
        interrupted: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Vec<Wanted>, Failure> {
        let look_up = async {
            let mut found = Vec::new();
            for link in links {
                let magnet = follow::current(link, session.dht(), self.global).await?;
                found.push(Wanted::of_magnet(magnet, self.args.files.as_ref()));
            }
            Ok(found)
        };
        tokio::select! {
            found = look_up => found,
            () = interrupted => Err(Failure::interrupted("nothing was written")),
            () = wait_until(deadline) => Err(Failure::new(
                "gave up: it was not found out in time which torrent is meant",
            )
            .hint("give it more time with --timeout; `trackless dht get --key` shows each step")
            .exit(Exit::TimedOut)),
        }
    }

    /// Adds the torrents and follows them to their end, the time limit or an interruption.
    async fn run(
        &mut self,
        session: &Session,
        all: Vec<Wanted>,
        deadline: Option<Instant>,
        mut interrupted: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Exit, Failure> {
        let changed = Arc::new(Notify::new());
        for wanted in all {
            self.add(session, wanted, &changed).await?;
        }
        let mut timeout = pin!(wait_until(deadline));
        let mut ticks = tokio::time::interval(TICK);
        loop {
            self.update();
            let runs = |stage: Stage| self.all.iter().any(|one| one.stage == stage);
            let limited = runs(Stage::Running);
            if !limited && !runs(Stage::Seeding) {
                return Ok(self.exit());
            }
            // Nothing is lost when a branch is dropped: all only say that it is time to look.
            tokio::select! {
                () = &mut interrupted => return Ok(self.interrupt()),
                () = &mut timeout, if limited => return Ok(self.time_out()),
                () = changed.notified() => {}
                _ = ticks.tick() => {}
            }
        }
    }

    /// Starts one torrent. One that is named twice is fetched once.
    async fn add(
        &mut self,
        session: &Session,
        wanted: Wanted,
        changed: &Arc<Notify>,
    ) -> Result<(), Failure> {
        let info_hash = wanted.source.info_hash();
        let is_there = |other: &Download| other.torrent.info_hash() == info_hash;
        if self.all.iter().any(is_there) {
            return Ok(());
        }
        let torrent = session
            .add(wanted.source.clone(), wanted.options(self.args))
            .await
            .map_err(|error| Failure::because("cannot start the download", &error))?;
        let nodes = &wanted.around.nodes;
        resolve_hosts(
            self.helpers,
            &torrent,
            session.dht(),
            &wanted.peer_hosts,
            nodes,
        );
        let (mut status, changed) = (torrent.watch(), Arc::clone(changed));
        self.helpers.spawn(async move {
            while status.changed().await.is_ok() {
                changed.notify_one();
            }
        });
        let now = self.clock.now();
        let row = self.display.row(now);
        self.all.push(Download::new(torrent, wanted, row, now));
        Ok(())
    }

    /// Looks at every torrent, tells what is new, and ends those that were seeded enough or failed.
    fn update(&mut self) {
        let now = self.clock.now();
        for one in &mut self.all {
            let before = one.stage;
            one.update(now, self.args, self.global, &self.display);
            let is_over = match one.stage {
                Stage::Done => before == Stage::Seeding,
                Stage::Failed => before != Stage::Failed,
                Stage::Running | Stage::Seeding => false,
            };
            if is_over {
                let torrent = one.torrent.clone();
                self.helpers.spawn(async move {
                    // Nobody waits for the reason.
                    let _ = torrent.stop().await;
                });
            }
        }
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
            one.interrupt(self.args, self.global);
        }
        Exit::Interrupted
    }

    /// `--timeout` ran out: says for each torrent how far it came.
    fn time_out(&mut self) -> Exit {
        for one in &mut self.all {
            one.time_out(self.args, self.global);
        }
        Exit::TimedOut
    }
}
