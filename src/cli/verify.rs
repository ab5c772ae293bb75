//! `trackless verify`: compares files with a .torrent file, without changing anything.

use std::path::Path;

use serde_json::{Value, json};

use super::args::{Global, VerifyArgs};
use super::create::{hash_threads, hashing_bar};
use super::print::{Exit, Failure, count, escape, note, number, print_json, print_line};
use super::show::{ACCEPTED, Source, read_torrent};
use crate::disk::{Verification, verify};
use crate::metainfo::{File, Info, Metainfo, PieceIndex};

/// Runs the command.
pub(super) fn run(args: &VerifyArgs, global: &Global) -> Result<Exit, Failure> {
    let metainfo = torrent(&args.torrent)?;
    let info = &metainfo.info;
    let bar = hashing_bar(info.geometry().total_length(), global);
    let progress = |bytes| bar.inc(bytes);
    let found = verify(info, &args.folder, hash_threads(), &progress);
    bar.finish_and_clear();
    let found = found.map_err(|error| {
        let what = format!(
            "cannot compare {} with {}",
            args.folder.display(),
            info.name()
        );
        Failure::because(what, &error)
    })?;
    // What lies under the name of an incomplete file has gaps that are not its own bytes.
    let is_there = |file: &File| {
        let mut path = args.folder.clone();
        path.extend(&file.path);
        std::fs::symlink_metadata(path)
            .is_ok_and(|found| found.is_file() && found.len() == file.length)
    };
    if global.json {
        print_json(&to_json(info, &found, &is_there));
    } else {
        lines(info, &found, &is_there)
            .iter()
            .for_each(|line| print_line(line));
        if global.quiet == 0 {
            note(&summary(info, &found));
            hint_on_folder(args, info, &found);
        }
    }
    Ok(if found.is_complete() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// Reads what content shall be compared with.
fn torrent(path: &Path) -> Result<Metainfo, Failure> {
    if path.exists() {
        return read_torrent(path);
    }
    match Source::read(&path.to_string_lossy()) {
        Ok(Source::Metainfo(metainfo)) => Ok(*metainfo),
        Ok(Source::Magnet(_)) => Err(Failure::new(
            "a magnet link or info hash does not say what the content must be: the hashes of the \
             pieces stand in the .torrent file",
        )
        .hint("`trackless get --metadata-only` saves that file, without the content")
        .exit(Exit::Usage)),
        Err(mut failure) => {
            if failure.hint.as_deref() == Some(ACCEPTED) {
                failure.hint = Some("give the path of a .torrent file".to_owned());
            }
            Err(failure)
        }
    }
}

/// Says where to look when nothing is there: the folder meant is the one around the content.
fn hint_on_folder(args: &VerifyArgs, info: &Info, found: &Verification) {
    let nothing = number(found.missing.len()) == u64::from(found.pieces);
    if nothing
        && args
            .folder
            .file_name()
            .is_some_and(|name| name == info.name())
    {
        note("\nhint: DIR is the folder that holds the content under its own name; try its parent");
    }
}

/// What was found about one file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    /// Pieces of this file alone that differ.
    bad: Vec<u32>,
    /// Pieces that differ, in this file or in another one that has a part of them.
    bad_shared: Vec<u32>,
    /// Pieces that are not there.
    missing: Vec<u32>,
    /// Pieces that cannot be hashed because another file is missing; this one's part is there.
    unverified: Vec<u32>,
}

impl Findings {
    /// The findings about a file; `is_there` says that it has its full length under its own name.
    fn of(info: &Info, found: &Verification, index: usize, is_there: bool) -> Self {
        let range = info.geometry().pieces_of_file(index);
        let mut findings = Self::default();
        for piece in found
            .bad
            .iter()
            .filter(|piece| range.contains(&piece.get()))
        {
            let list = if is_shared(info, *piece) {
                &mut findings.bad_shared
            } else {
                &mut findings.bad
            };
            list.push(piece.get());
        }
        let missing = found.missing.iter().map(|piece| piece.get());
        let list = if is_there {
            &mut findings.unverified
        } else {
            &mut findings.missing
        };
        list.extend(missing.filter(|piece| range.contains(piece)));
        findings
    }

    /// The same in words.
    fn text(&self) -> String {
        let part = |what: &str, more: &str, pieces: &[u32]| {
            let counted = count(number(pieces.len()), what);
            (!pieces.is_empty()).then(|| format!("{counted}{more} ({})", runs(pieces)))
        };
        let mut parts = Vec::new();
        parts.extend(part("bad piece", "", &self.bad));
        parts.extend(part(
            "bad piece",
            " shared with another file",
            &self.bad_shared,
        ));
        parts.extend(part("missing piece", "", &self.missing));
        let is_fine = parts.is_empty();
        let unverified = " shared with a missing file cannot be checked";
        parts.extend(part("piece", unverified, &self.unverified));
        match (parts.is_empty(), is_fine) {
            // An empty file has no piece, and one that is too long has only good ones.
            (true, _) => "it is missing, or its length is wrong".to_owned(),
            (false, true) => format!("nothing wrong is known, but {}", parts.join(", ")),
            (false, false) => parts.join(", "),
        }
    }
}

/// Whether more than one file has a part of a piece.
fn is_shared(info: &Info, piece: PieceIndex) -> bool {
    let length = info.geometry().length_of(piece);
    let is_pad = |file: usize| info.files().all().get(file).is_some_and(|file| file.is_pad);
    let slices = info.geometry().file_slices(piece, 0, length);
    slices.filter(|slice| !is_pad(slice.file)).nth(1).is_some()
}

fn to_json(info: &Info, found: &Verification, is_there: &dyn Fn(&File) -> bool) -> Value {
    let indexes =
        |pieces: &[PieceIndex]| pieces.iter().map(|piece| piece.get()).collect::<Vec<_>>();
    let files: Vec<Value> = info
        .files()
        .wanted()
        .map(|(index, file)| {
            let complete = found.files.get(index).copied().unwrap_or_default();
            let findings = Findings::of(info, found, index, is_there(file));
            json!({
                "path": file.joined_path(),
                "complete": complete,
                "unverified": findings.unverified,
            })
        })
        .collect();
    json!({
        "pieces": found.pieces,
        "bad": indexes(&found.bad),
        "missing": indexes(&found.missing),
        "files": files,
    })
}

/// A line for each file that is not complete, with what is wrong.
fn lines(info: &Info, found: &Verification, is_there: &dyn Fn(&File) -> bool) -> Vec<String> {
    info.files()
        .wanted()
        .filter(|(index, _)| found.files.get(*index) != Some(&true))
        .map(|(index, file)| {
            let findings = Findings::of(info, found, index, is_there(file));
            format!("{}: {}", escape(&file.joined_path()), findings.text())
        })
        .collect()
}

/// Ascending numbers, neighbours as ranges: `3, 7-8`.
fn runs(numbers: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if number - *last <= 1 => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let text = |&(first, last): &(u32, u32)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    runs.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// How it went, in one line.
fn summary(info: &Info, found: &Verification) -> String {
    let (bad, missing) = (number(found.bad.len()), number(found.missing.len()));
    let all = count(found.pieces.into(), "piece");
    let name = escape(info.name());
    if found.is_complete() {
        return format!("{name}: all {all} are right");
    }
    let right = u64::from(found.pieces).saturating_sub(bad + missing);
    format!("{name}: {right} of {all} are right, {bad} bad, {missing} missing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::build::InfoDraft;

    fn info() -> Info {
        let draft = InfoDraft {
            name: "folder".to_owned(),
            piece_length: 16_384,
            files: vec![
                (vec!["a".to_owned()], 40_000),
                (vec!["empty".to_owned()], 0),
                (vec!["b".to_owned()], 40_000),
            ],
            ..InfoDraft::default()
        };
        Info::parse(draft.encode(&[7; 100])).unwrap()
    }

    fn found(bad: &[u32], missing: &[u32], files: [bool; 3]) -> Verification {
        let info = info();
        let pieces = |all: &[u32]| {
            all.iter()
                .filter_map(|&i| info.geometry().piece(i))
                .collect()
        };
        Verification {
            pieces: 5,
            bad: pieces(bad),
            missing: pieces(missing),
            files: files.into(),
        }
    }

    #[test]
    fn bad_and_missing_pieces_are_listed_by_file() {
        let found = found(&[2, 3, 4], &[0], [false, true, false]);
        assert_eq!(
            lines(&info(), &found, &|_| false),
            [
                "folder/a: 1 bad piece shared with another file (2), 1 missing piece (0)",
                "folder/b: 2 bad pieces (3-4), 1 bad piece shared with another file (2)",
            ]
        );
        let said = summary(&info(), &found);
        assert_eq!(said, "folder: 1 of 5 pieces are right, 3 bad, 1 missing");
    }

    #[test]
    fn a_file_without_pieces_can_be_missing_too() {
        let found = found(&[], &[], [true, false, true]);
        assert!(!found.is_complete());
        assert_eq!(
            lines(&info(), &found, &|_| false),
            ["folder/empty: it is missing, or its length is wrong"]
        );
    }

    #[test]
    fn a_file_that_is_there_is_not_blamed_for_a_missing_neighbour() {
        let found = found(&[], &[2, 3, 4], [false, true, false]);
        let is_there = |file: &File| file.joined_path() == "folder/a";
        assert_eq!(
            lines(&info(), &found, &is_there),
            [
                "folder/a: nothing wrong is known, but 1 piece shared with a missing file cannot \
                 be checked (2)",
                "folder/b: 3 missing pieces (2-4)",
            ]
        );
        let value = to_json(&info(), &found, &is_there);
        assert_eq!(value["files"][0]["unverified"], json!([2]));
        assert_eq!(value["files"][2]["unverified"], json!([]));
    }

    #[test]
    fn what_is_no_torrent_file_is_refused_with_what_to_do() {
        let refused = |text: &str| torrent(Path::new(text)).unwrap_err();
        let Err(shown) = Source::read("nothere.torrent") else {
            panic!("it is not there");
        };
        let failure = refused("nothere.torrent");
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!((failure.message, failure.hint), (shown.message, shown.hint));
        let link = format!("magnet:?xt=urn:btih:{}", "0".repeat(40));
        for text in [&link, &"0".repeat(40)] {
            let failure = refused(text);
            assert_eq!(failure.exit, Exit::Usage);
            assert!(
                failure.message.contains("magnet link"),
                "{}",
                failure.message
            );
            assert!(
                failure
                    .hint
                    .is_some_and(|hint| hint.contains("--metadata-only"))
            );
        }
        assert_eq!(
            refused("content").hint.unwrap(),
            "give the path of a .torrent file"
        );
    }

    #[test]
    fn the_json_form_has_the_keys_that_programs_rely_on() {
        let value = to_json(&info(), &found(&[1], &[4], [false, true, false]), &|_| {
            false
        });
        let expected = json!({
            "pieces": 5,
            "bad": [1],
            "missing": [4],
            "files": [
                {"path": "folder/a", "complete": false, "unverified": []},
                {"path": "folder/empty", "complete": true, "unverified": []},
                {"path": "folder/b", "complete": false, "unverified": []},
            ],
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn neighbours_are_told_as_ranges() {
        assert_eq!(runs(&[0, 2, 3, 4, 9]), "0, 2-4, 9");
        assert_eq!(runs(&[]), "");
    }
}
