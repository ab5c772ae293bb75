//! `trackless demo`: the whole way from a magnet link to verified files, inside this one process.
//!
//! A private DHT, a seeder and a downloader talk over real sockets of the loopback interface. The
//! downloader gets nothing but the magnet link and the address of one node.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::args::{DemoArgs, Global};
use super::create::{Options, hash_content};
use super::interrupted;
use super::print::{
    Exit, Failure, count, duration, note, number, print_json, print_line, rate, size,
};
use super::progress::summary_text;
use crate::disk::Resume;
use crate::disk::hash::collect;
use crate::metainfo::{Info, Magnet, Metainfo};
use crate::net::clock::{Clock, entropy};
use crate::random::Random;
use crate::session::{AddOptions, Config, Session, Source, TorrentHandle, TorrentStatus};
use crate::swarm::State;
use crate::time::Instant;

/// How long one step may take before the demo gives up.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Small files beside the big one: nested folders, an empty file, several scripts.
const SMALL_FILES: [(&str, usize); 5] = [
    ("readme.txt", 1_234),
    ("empty", 0),
    ("folder/inner/one byte", 1),
    ("folder/größe – 大きさ – размер", 40_000),
    ("folder/exactly one block", 16_384),
];

/// A folder that goes away with the value.
struct Workspace(PathBuf);

impl Workspace {
    /// A folder of its own under the system's temporary one.
    fn new() -> Result<Self, Failure> {
        let random = data_encoding::HEXLOWER.encode(&entropy()[..8]);
        let path = std::env::temp_dir().join(format!("trackless-demo-{random}"));
        fs::create_dir(&path)
            .map_err(|error| Failure::because(format!("cannot make {}", path.display()), &error))?;
        Ok(Self(path))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot clean up");
        }
    }
}

/// Prints each step with the time since the start.
#[derive(Clone, Copy)]
struct Narrator {
    clock: Clock,
    json: bool,
    quiet: bool,
}

impl Narrator {
    /// Tells one step: on standard output for people, on standard error beside JSON.
    fn say(&self, text: &str) {
        if self.quiet {
            return;
        }
        let since = self.clock.now().saturating_since(Instant::ZERO);
        let line = format!("{:>7.3}s  {text}", since.as_secs_f64());
        if self.json {
            note(&line)
        } else {
            print_line(&line)
        }
    }
}

/// Runs the command.
pub(super) async fn run(args: DemoArgs, global: Global) -> Result<Exit, Failure> {
    let mut stop = pin!(interrupted());
    let narrator = Narrator {
        clock: Clock::start(),
        json: global.json,
        quiet: global.quiet > 0,
    };
    let workspace = Workspace::new()?;
    let mut sessions = Vec::new();
    let exit = tokio::select! {
        result = play(&args, &global, narrator, &workspace.0, &mut sessions) => {
            result.map(|()| Exit::Done)
        }
        () = &mut stop => Err(Failure::interrupted("the demo cleans up after itself")),
    };
    let mut stopping = tokio::task::JoinSet::new();
    for session in sessions {
        stopping.spawn(session.stop());
    }
    while stopping.join_next().await.is_some() {}
    drop(workspace);
    exit
}

/// All acts, one after the other.
async fn play(
    args: &DemoArgs,
    global: &Global,
    narrator: Narrator,
    folder: &Path,
    sessions: &mut Vec<Session>,
) -> Result<(), Failure> {
    let clock = narrator.clock;
    let start = clock.now();
    let bootstrap = start_nodes(usize::from(args.nodes), narrator, sessions).await?;

    let (info, source, resume) = make_content(args.size, folder, global, narrator).await?;
    let seeder = start_peer(&bootstrap, sessions).await?;
    let options = AddOptions {
        output: source.clone(),
        resume: Some(resume),
        ..AddOptions::default()
    };
    let seeding = add(seeder, Source::Info(Arc::clone(&info)), options).await?;
    let announced = within(&seeding, "announce in the DHT", |s| s.dht.stored > 0).await?;
    narrator.say(&format!(
        "seeder at {} announced itself: stored by {}",
        first_address(seeder),
        count(announced.dht.stored.into(), "node")
    ));

    let magnet = Metainfo::new(Arc::clone(&info)).magnet().to_string();
    narrator.say(&format!("magnet link: {magnet}"));
    let target = folder.join("downloaded");
    fs::create_dir(&target).map_err(|error| Failure::because("cannot make a folder", &error))?;
    let downloader = start_peer(&bootstrap, sessions).await?;
    let took = download(downloader, &magnet, &info, &target, narrator).await?;
    compare(&info, &source, &target).await?;
    narrator.say("all files are equal, byte for byte");
    if global.json {
        print_json(&json!({
            "event": "done",
            "bytes": info.geometry().total_length(),
            "seconds": clock.now().saturating_since(start).as_secs_f64(),
            "peers_found_by": "dht",
            "download_seconds": took.as_secs_f64(),
        }));
    }
    Ok(())
}

/// The downloader's part: it gets nothing but the link. Gives the time the content took.
async fn download(
    downloader: &Session,
    magnet: &str,
    info: &Info,
    target: &Path,
    narrator: Narrator,
) -> Result<Duration, Failure> {
    let clock = narrator.clock;
    let asked = clock.now();
    let since = |from: Instant| duration(clock.now().saturating_since(from));
    let magnet = Magnet::parse(magnet)
        .map_err(|error| Failure::because("our own magnet link is refused", &error))?;
    let options = AddOptions {
        output: target.to_owned(),
        ..AddOptions::default()
    };
    let getting = add(downloader, Source::Magnet(magnet), options).await?;
    let found = within(&getting, "find the seeder in the DHT", |s| {
        s.dht.peers_found > 0
    })
    .await?;
    narrator.say(&format!(
        "downloader, which knows the link and one node, found {} through the DHT in {}",
        count(number(found.dht.peers_found), "peer"),
        since(asked),
    ));
    within(&getting, "fetch the metadata", |s| {
        s.state != State::Metadata
    })
    .await?;
    narrator.say(&format!(
        "metadata of {} in {} there {} after the start of the download",
        count(number(info.files().all().len()), "file"),
        count(info.geometry().piece_count().into(), "piece"),
        since(asked)
    ));
    let begun = clock.now();
    let done = within(&getting, "download", |s| s.state == State::Seeding).await?;
    let took = clock.now().saturating_since(begun);
    let bytes = info.geometry().total_length();
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    narrator.say(&format!(
        "{} verified in {} ({}), {}",
        size(bytes),
        duration(took),
        rate(bytes.saturating_mul(1_000_000) / micros),
        count(done.stats.pieces_done.into(), "piece"),
    ));
    Ok(took)
}

/// Settings of a session on a free port of the loopback interface that keeps nothing.
fn config(bootstrap: Option<SocketAddr>) -> Config {
    Config {
        bootstrap: bootstrap.iter().map(ToString::to_string).collect(),
        ..Config::listening(vec![(Ipv4Addr::LOCALHOST, 0).into()])
    }
}

/// Starts a session that can move torrents; the list owns it.
async fn start_peer<'a>(
    bootstrap: &SocketAddr,
    sessions: &'a mut Vec<Session>,
) -> Result<&'a Session, Failure> {
    let session = Session::start(config(Some(*bootstrap)))
        .await
        .map_err(|error| Failure::because("cannot start a session", &error))?;
    sessions.push(session);
    Ok(sessions.last().expect("it was pushed a line above"))
}

/// Starts the private DHT; gives the address of its first node.
async fn start_nodes(
    number: usize,
    narrator: Narrator,
    sessions: &mut Vec<Session>,
) -> Result<SocketAddr, Failure> {
    let mut first = None;
    for _ in 0..number {
        let config = Config {
            tcp: false,
            disk_threads: 1,
            ..config(first)
        };
        let session = Session::start(config)
            .await
            .map_err(|error| Failure::because("cannot start a DHT node", &error))?;
        first = first.or(Some(first_address(&session)));
        sessions.push(session);
    }
    let known = async {
        for session in sessions.iter() {
            while let Some(dht) = session.dht() {
                if number == 1 || dht.status().await.contacts > 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    if tokio::time::timeout(STEP_TIMEOUT, known).await.is_err() {
        return Err(Failure::new("the DHT nodes did not find each other"));
    }
    let first = first.ok_or_else(|| Failure::new("a DHT needs at least one node"))?;
    let nodes = u64::try_from(number).unwrap_or(u64::MAX);
    narrator.say(&format!(
        "{} up, the first at {first}",
        count(nodes, "DHT node")
    ));
    Ok(first)
}

/// The address a session was given.
fn first_address(session: &Session) -> SocketAddr {
    session
        .listen_addresses()
        .first()
        .copied()
        .unwrap_or((Ipv4Addr::LOCALHOST, 0).into())
}

/// Writes random files and hashes them; gives the info dictionary, the folder they are in, and what
/// is known of them.
async fn make_content(
    bytes: u64,
    folder: &Path,
    global: &Global,
    narrator: Narrator,
) -> Result<(Arc<Info>, PathBuf, Resume), Failure> {
    let root = folder.join("seeded");
    let (target, global) = (root.clone(), global.clone());
    let made = tokio::task::spawn_blocking(move || {
        let content = target.join("demo content");
        write_content(bytes, &content)
            .map_err(|error| Failure::because("cannot write the content", &error))?;
        let content = collect(&content)
            .map_err(|error| Failure::because("cannot read the content", &error))?;
        let info = hash_content(&content, Options::default(), &global)?;
        let resume = content.resume(&info);
        Ok((info, resume))
    });
    let (info, resume) = made
        .await
        .map_err(|error| Failure::because("cannot make the content", &error))??;
    let all = info.geometry().total_length();
    narrator.say(&format!(
        "made {} of random content, one file of {} and {} small ones, and hashed it: info hash {}",
        count(all, "byte"),
        size(bytes),
        SMALL_FILES.len(),
        info.info_hash()
    ));
    Ok((Arc::new(info), root, resume))
}

/// One big file and some small ones, all random.
fn write_content(bytes: u64, folder: &Path) -> std::io::Result<()> {
    use std::io::Write;
    let mut random = Random::from_entropy(entropy());
    let mut buffer = vec![0; 1 << 20];
    fs::create_dir_all(folder)?;
    let mut big = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(folder.join("big"))?;
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        random.fill(&mut buffer[..length]);
        big.write_all(&buffer[..length])?;
        left -= u64::try_from(length).unwrap_or(left);
    }
    for (name, length) in SMALL_FILES {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        let length = length.min(buffer.len());
        random.fill(&mut buffer[..length]);
        fs::write(path, &buffer[..length])?;
    }
    Ok(())
}

/// Adds a torrent to a session.
async fn add(
    session: &Session,
    source: Source,
    options: AddOptions,
) -> Result<TorrentHandle, Failure> {
    session
        .add(source, options)
        .await
        .map_err(|error| Failure::because("cannot add the torrent", &error))
}

/// Waits for a state; a failure says which step it was and how far it came.
async fn within(
    torrent: &TorrentHandle,
    step: &str,
    mut reached: impl FnMut(&TorrentStatus) -> bool,
) -> Result<TorrentStatus, Failure> {
    let waited = tokio::time::timeout(
        STEP_TIMEOUT,
        torrent.wait_for(|status| status.problem.is_some() || reached(status)),
    );
    let status = match waited.await {
        Ok(Some(status)) => status,
        Ok(None) => return Err(Failure::new(format!("cannot {step}: the torrent ended"))),
        Err(_) => {
            let text = summary_text(&torrent.status());
            let message = format!("cannot {step} within {}: {text}", duration(STEP_TIMEOUT));
            return Err(Failure::new(message).exit(Exit::TimedOut));
        }
    };
    match &status.problem {
        Some(problem) => {
            let text = super::progress::problem_text(problem);
            Err(Failure::new(format!("cannot {step}: {text}")))
        }
        None => Ok(status),
    }
}

/// Whether every file of the torrent has the same bytes in both folders.
async fn compare(info: &Arc<Info>, left: &Path, right: &Path) -> Result<(), Failure> {
    let (info, left, right) = (Arc::clone(info), left.to_owned(), right.to_owned());
    let compared = tokio::task::spawn_blocking(move || {
        for file in info.files().all().iter().filter(|file| !file.is_pad) {
            let under = |root: &Path| {
                let mut path = root.to_owned();
                path.extend(&file.path);
                fs::read(&path).map_err(|error| {
                    Failure::because(format!("cannot read {}", path.display()), &error)
                })
            };
            if under(&left)? != under(&right)? {
                return Err(Failure::new(format!("{} differs", file.path.join("/"))));
            }
        }
        Ok(())
    });
    compared
        .await
        .map_err(|error| Failure::because("cannot compare the files", &error))?
}
