//! `get --list` and `get --metadata-only`: what is done with metadata alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::wanted::Wanted;
use crate::cli::args::{GetArgs, Global};
use crate::cli::create::write_new;
use crate::cli::print::{Failure, escape, note, print_json, print_line};
use crate::cli::show::{files_json, files_text, read_torrent};
use crate::metainfo::{Info, Metainfo};

/// Bytes in a file name at most, on every usual file system.
const NAME_LENGTH_MAX: usize = 255;

/// Does what was asked for with the metadata.
///
/// # Errors
///
/// The selection names no file, or the .torrent file cannot be written.
pub(super) fn conclude(
    wanted: &Wanted,
    info: &Arc<Info>,
    took: Duration,
    args: &GetArgs,
    global: &Global,
) -> Result<(), Failure> {
    if args.list {
        list(wanted, info, global)
    } else {
        save(&wanted.around.metainfo(info), &args.output, took, global)
    }
}

/// Prints the chosen files.
fn list(wanted: &Wanted, info: &Info, global: &Global) -> Result<(), Failure> {
    let files = wanted.files.resolve(info).map_err(|error| {
        Failure::because(format!("{}: cannot choose files", info.name()), &error)
    })?;
    if global.json {
        print_json(&json!({
            "event": "files",
            "info_hash": info.info_hash().to_string(),
            "name": info.name(),
            "total_length": info.files().wanted_length(),
            "files": files_json(info, &files),
        }));
    } else {
        if global.quiet == 0 {
            note(&format!("{}:", escape(info.name())));
        }
        files_text(info, &files);
    }
    Ok(())
}

/// Writes the .torrent file, unless it is there.
fn save(
    metainfo: &Metainfo,
    folder: &Path,
    took: Duration,
    global: &Global,
) -> Result<(), Failure> {
    let path = torrent_path(&metainfo.info, folder);
    let is_there = path.is_file()
        && read_torrent(&path)
            .is_ok_and(|there| there.info.info_hash() == metainfo.info.info_hash());
    if !is_there {
        write_new(&path, &metainfo.encode(), false).map_err(|mut failure| {
            // There is no --force here.
            if failure.hint.is_some() {
                failure.hint =
                    Some("move it away, or choose another folder with -o DIR".to_owned());
            }
            failure
        })?;
    }
    let path = path.to_string_lossy();
    if global.json {
        print_json(&json!({
            "event": "done",
            "info_hash": metainfo.info.info_hash().to_string(),
            "paths": [path],
            "bytes": metainfo.info.raw().len(),
            "seconds": took.as_secs_f64(),
            "magnet": metainfo.magnet().to_string(),
        }));
    } else {
        print_line(&path);
        if is_there && global.quiet == 0 {
            note("it was there already, with the same info hash");
        }
    }
    Ok(())
}

/// Where the .torrent file of a torrent goes. A name that is too long for that ending gives way to
/// the info hash.
fn torrent_path(info: &Info, folder: &Path) -> PathBuf {
    let mut name = format!("{}.torrent", info.name());
    if name.len() > NAME_LENGTH_MAX {
        name = format!("{}.torrent", info.info_hash());
    }
    folder.join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::build::InfoDraft;

    fn info(name: &str, byte: u8) -> Arc<Info> {
        let draft = InfoDraft {
            name: name.to_owned(),
            piece_length: 16_384,
            single: true,
            files: vec![(Vec::new(), 10)],
            ..InfoDraft::default()
        };
        Arc::new(Info::parse(draft.encode(&[byte; 20])).unwrap())
    }

    fn quiet() -> Global {
        Global {
            json: false,
            verbose: 0,
            quiet: 1,
            log_format: crate::cli::args::LogFormat::Text,
            config: None,
        }
    }

    #[test]
    fn a_torrent_file_is_saved_and_no_other_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let save = |byte| {
            let metainfo = Metainfo::new(info("film", byte));
            save(&metainfo, folder.path(), Duration::ZERO, &quiet())
        };
        save(1).unwrap();
        let path = folder.path().join("film.torrent");
        let saved = read_torrent(&path).unwrap();
        assert_eq!(saved.info.raw(), info("film", 1).raw());
        // The same again is no conflict; another torrent of that name is.
        save(1).unwrap();
        let failure = save(2).unwrap_err();
        assert!(
            failure.message.contains("film.torrent"),
            "{}",
            failure.message
        );
        assert!(failure.hint.is_some_and(|hint| hint.contains("-o DIR")));
        assert_eq!(read_torrent(&path).unwrap().info.raw(), saved.info.raw());
    }

    #[test]
    fn a_name_too_long_for_the_ending_gives_way_to_the_info_hash() {
        let info = info(&"x".repeat(250), 1);
        let path = torrent_path(&info, Path::new("out"));
        assert_eq!(
            path,
            Path::new("out").join(format!("{}.torrent", info.info_hash()))
        );
    }
}
