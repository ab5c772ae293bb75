//! `trackless verify`: compares files with a .torrent file, without changing anything.

use std::ops::Range;

use serde_json::{Value, json};

use super::args::{Global, VerifyArgs};
use super::create::{hash_threads, hashing_bar};
use super::print::{Exit, Failure, count, escape, note, number, print_json, print_line};
use super::show::read_torrent;
use crate::disk::{Verification, verify};
use crate::metainfo::{Info, PieceIndex};

/// Runs the command.
pub(super) fn run(args: &VerifyArgs, global: &Global) -> Result<Exit, Failure> {
    let metainfo = read_torrent(&args.torrent)?;
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
    if global.json {
        print_json(&to_json(info, &found));
    } else {
        lines(info, &found).iter().for_each(|line| print_line(line));
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

fn to_json(info: &Info, found: &Verification) -> Value {
    let indexes =
        |pieces: &[PieceIndex]| pieces.iter().map(|piece| piece.get()).collect::<Vec<_>>();
    let files: Vec<Value> = info
        .files()
        .wanted()
        .map(|(index, file)| {
            let complete = found.files.get(index).copied().unwrap_or_default();
            json!({"path": file.joined_path(), "complete": complete})
        })
        .collect();
    json!({
        "pieces": found.pieces,
        "bad": indexes(&found.bad),
        "missing": indexes(&found.missing),
        "files": files,
    })
}

/// A line for each file that is not complete, with its bad and missing pieces.
fn lines(info: &Info, found: &Verification) -> Vec<String> {
    info.files()
        .wanted()
        .filter(|(index, _)| found.files.get(*index) != Some(&true))
        .map(|(index, file)| {
            let pieces = info.geometry().pieces_of_file(index);
            let mut parts = Vec::new();
            for (what, all) in [("bad", &found.bad), ("missing", &found.missing)] {
                parts.extend(part(what, all, &pieces));
            }
            if parts.is_empty() {
                // An empty file has no piece, and one that is too long has only good ones.
                parts.push("it is missing, or its length is wrong".to_owned());
            }
            format!("{}: {}", escape(&file.joined_path()), parts.join(", "))
        })
        .collect()
}

/// `2 bad pieces (3, 7-8)`; nothing when none lies in the range.
fn part(what: &str, all: &[PieceIndex], range: &Range<u32>) -> Option<String> {
    let pieces: Vec<u32> = all
        .iter()
        .map(|piece| piece.get())
        .filter(|piece| range.contains(piece))
        .collect();
    let counted = count(number(pieces.len()), &format!("{what} piece"));
    (!pieces.is_empty()).then(|| format!("{counted} ({})", runs(&pieces)))
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
            lines(&info(), &found),
            [
                "folder/a: 1 bad piece (2), 1 missing piece (0)",
                "folder/b: 3 bad pieces (2-4)",
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
            lines(&info(), &found),
            ["folder/empty: it is missing, or its length is wrong"]
        );
    }

    #[test]
    fn the_json_form_has_the_keys_that_programs_rely_on() {
        let value = to_json(&info(), &found(&[1], &[4], [false, true, false]));
        let expected = json!({
            "pieces": 5,
            "bad": [1],
            "missing": [4],
            "files": [
                {"path": "folder/a", "complete": false},
                {"path": "folder/empty", "complete": true},
                {"path": "folder/b", "complete": false},
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
