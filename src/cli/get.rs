//! `trackless get`: downloads what magnet links, info hashes and .torrent files name.

mod download;
mod metadata;
mod trouble;
mod wanted;

use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::args::{GetArgs, Global};
use super::interrupted;
use super::node::session_config;
use super::print::{Exit, Failure};
use super::progress::Display;
use super::start::{resolve_hosts, start_session, stop_session};
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
    let stop = pin!(interrupted());
    let mut wanted = Vec::new();
    for text in &args.sources {
        wanted.push(Wanted::read(text, args.files.as_ref())?);
    }
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
        if wanted.is_empty() {
            return Ok(Exit::Done);
        }
    }
    let mut config = session_config(&args.node)?;
    config.dht = !args.peers.no_dht;
    let session = start_session(config).await?;
    let mut helpers = JoinSet::new();
    let result = download(&session, wanted, &args, &global, &mut helpers, stop).await;
    helpers.shutdown().await;
    stop_session(session).await;
    result
}

/// Makes the folder to download into. That it cannot be made is better known before hours of
/// looking for peers.
fn make_folder(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|error| {
        Failure::because(format!("cannot download into {}", folder.display()), &error)
            .hint("choose another folder with -o DIR")
    })
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
    let mut downloads = Downloads {
        args,
        global,
        clock: Clock::start(),
        display: Display::new(global),
        all: Vec::new(),
        helpers,
    };
    let changed = Arc::new(Notify::new());
    for wanted in wanted {
        downloads.add(session, wanted, &changed).await?;
    }
    let mut timeout = pin!(async {
        match args.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    });
    let mut ticks = tokio::time::interval(TICK);
    loop {
        downloads.update();
        let runs = |stage: Stage| downloads.all.iter().any(|one| one.stage == stage);
        let limited = runs(Stage::Running);
        if !limited && !runs(Stage::Seeding) {
            return Ok(downloads.exit());
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
