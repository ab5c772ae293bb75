//! `trackless create`: a .torrent file for a file or folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::{CreateArgs, Global};
use super::print::{Exit, Failure, escape, is_interactive, note, print_json, print_line};
use crate::disk::hash::{Collected, collect, hash_pieces};
use crate::metainfo::build::{InfoDraft, default_piece_length};
use crate::metainfo::{Info, Metainfo};

/// Threads that read and hash content; more than there are cores gains nothing.
pub(super) fn hash_threads() -> usize {
    std::thread::available_parallelism()
        .map_or(2, usize::from)
        .min(16)
}

/// What goes into the info dictionary beside the content.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    /// Bytes in a piece; chosen by size when `None`.
    pub(super) piece_length: Option<u32>,
    /// BEP 27.
    pub(super) private: bool,
    /// Text that gives the torrent an info hash of its own.
    pub(super) source: Option<String>,
}

/// Makes the info dictionary of a file or folder, with a progress bar where somebody looks.
///
/// # Errors
///
/// The content cannot be read, is empty, or changed while it was read.
fn make_info(path: &Path, options: Options, global: &Global) -> Result<Info, Failure> {
    let what = || format!("cannot make a torrent of {}", path.display());
    let content = collect(path).map_err(|error| Failure::because(what(), &error))?;
    hash_content(&content, options, global)
}

/// Makes the info dictionary of files that were found, as [`make_info`] does.
///
/// # Errors
///
/// As [`make_info`].
pub(super) fn hash_content(
    content: &Collected,
    options: Options,
    global: &Global,
) -> Result<Info, Failure> {
    let what = || {
        let path = content.root.join(&content.name);
        format!("cannot make a torrent of {}", path.display())
    };
    report_skipped(content, global);
    let draft = draft(content, options);
    let total: u64 = draft.files.iter().map(|(_, length)| length).sum();
    if total == 0 {
        return Err(Failure::new(format!("{}: there is nothing in it", what())));
    }
    let files: Vec<(PathBuf, u64)> = content
        .files
        .iter()
        .map(|file| (file.path.clone(), file.length))
        .collect();
    let bar = hashing_bar(total, global);
    let progress = |bytes| bar.inc(bytes);
    let hashes = hash_pieces(&files, draft.piece_length, hash_threads(), &progress);
    bar.finish_and_clear();
    let hashes = hashes.map_err(|error| Failure::because(what(), &error))?;
    Info::parse(draft.encode(&hashes)).map_err(|error| Failure::because(what(), &error))
}

/// Everything of an info dictionary but the hashes.
pub(super) fn draft(content: &Collected, options: Options) -> InfoDraft {
    let total: u64 = content.files.iter().map(|file| file.length).sum();
    InfoDraft {
        name: content.name.clone(),
        piece_length: options
            .piece_length
            .unwrap_or_else(|| default_piece_length(total)),
        single: content.single,
        files: content
            .files
            .iter()
            .map(|file| (file.components.clone(), file.length))
            .collect(),
        private: options.private,
        source: options.source,
    }
}

fn report_skipped(content: &Collected, global: &Global) {
    if global.quiet == 0 {
        for path in &content.skipped {
            note(&format!(
                "left out, neither file nor folder: {}",
                escape(&path.to_string_lossy())
            ));
        }
    }
}

/// A bar for content that is read, where somebody looks.
pub(super) fn hashing_bar(total: u64, global: &Global) -> ProgressBar {
    if !is_interactive() || global.quiet > 0 {
        return ProgressBar::hidden();
    }
    let style = "hashing {wide_bar} {percent}% {binary_bytes_per_sec} {eta} left";
    let bar = ProgressBar::new(total);
    bar.set_style(ProgressStyle::with_template(style).expect("the template is well-formed"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Seconds since 1970, for `creation date`.
fn unix_time() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A .torrent around an info dictionary, signed with our name and, if wanted, the time.
pub(super) fn wrap(info: Info, date: bool) -> Metainfo {
    let mut metainfo = Metainfo::new(Arc::new(info));
    metainfo.created_by = Some(concat!("trackless ", env!("CARGO_PKG_VERSION")).to_owned());
    metainfo.creation_date = date.then(unix_time);
    metainfo
}

/// Writes a file that must not exist yet, unless it may be replaced. What cannot be written whole is not
/// left behind, and a file that is replaced stays until the new one is complete.
///
/// # Errors
///
/// It exists, or cannot be written.
pub(super) fn write_new(path: &Path, bytes: &[u8], replace: bool) -> Result<(), Failure> {
    let written = match fs::metadata(path) {
        Ok(there) if replace && there.is_file() => replace_file(path, bytes),
        // A pipe or a terminal is written to as it is.
        Ok(_) if replace => fs::write(path, bytes),
        Ok(_) | Err(_) => write_whole(path, bytes),
    };
    written.map_err(|error| {
        let failure = Failure::because(format!("cannot write {}", path.display()), &error);
        if error.kind() == io::ErrorKind::AlreadyExists {
            failure.hint("choose another place with -o, or replace it with --force")
        } else {
            failure
        }
    })
}

/// Makes a file and writes it to the disk; removes it again if that fails.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // That it could not be written is what the user has to know.
        let _ = fs::remove_file(path);
    }
    written
}

fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link stays a link: the file behind it is replaced.
    let path = path.canonicalize()?;
    let mut new = path.clone().into_os_string();
    new.push(format!(".{}.new", std::process::id()));
    write_whole(new.as_ref(), bytes)?;
    fs::rename(&new, path).inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}

/// Runs the command.
pub(super) fn run(args: &CreateArgs, global: &Global) -> Result<Exit, Failure> {
    let piece_length = match args.piece_length {
        None => None,
        Some(length) => Some(checked_piece_length(length)?),
    };
    let options = Options {
        piece_length,
        private: args.private,
        source: args.source.clone(),
    };
    let info = make_info(&args.path, options, global)?;
    let path = args
        .output
        .clone()
        .unwrap_or_else(|| format!("{}.torrent", info.name()).into());
    let mut metainfo = wrap(info, !args.no_date);
    metainfo.trackers = args
        .tracker
        .iter()
        .map(|tier| tier.split(',').map(ToOwned::to_owned).collect())
        .collect();
    metainfo.web_seeds.clone_from(&args.web_seed);
    metainfo.nodes.clone_from(&args.node);
    metainfo.comment.clone_from(&args.comment);
    write_new(&path, &metainfo.encode(), args.force)?;
    let magnet = metainfo.magnet().to_string();
    if global.json {
        print_json(&json!({
            "info_hash": metainfo.info.info_hash().to_string(),
            "path": path,
            "magnet": magnet,
            "piece_length": metainfo.info.geometry().piece_length(),
            "piece_count": metainfo.info.geometry().piece_count(),
        }));
    } else {
        print_line(&magnet);
        if global.quiet == 0 {
            note(&format!("wrote {}", path.display()));
        }
    }
    Ok(Exit::Done)
}

/// Smallest and largest length of a piece that we make: what every client accepts.
const PIECE_LENGTHS: std::ops::RangeInclusive<u64> = (16 << 10)..=(64 << 20);

fn checked_piece_length(length: u64) -> Result<u32, Failure> {
    let usable = length.is_power_of_two() && PIECE_LENGTHS.contains(&length);
    u32::try_from(length)
        .ok()
        .filter(|_| usable)
        .ok_or_else(|| {
            Failure::new("--piece-length is not a power of two from 16KiB to 64MiB")
                .exit(Exit::Usage)
        })
}
